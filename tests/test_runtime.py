"""`open_session` and its like: what was tuned is what runs, however people wrote it, and anything else is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import models
import rtmo_optuna
from calling import at_once
from models import save
from program import Program
from rtmo_optuna.errors import UsageError

FLOAT = TensorProto.FLOAT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model with two inputs of an open batch, and two outputs."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    shape: tuple[int, list[int | str]] = (int(FLOAT), ["batch", 4])
    return save(tmp_path / "model.onnx", nodes, {"a": shape, "b": shape}, {"sum": shape, "product": shape})


def config(folder: Path, model: Path, *, knobs: str = "intra_op_num_threads: 1", **info: str) -> Path:
    """Write a configuration as `tune` does."""
    told = {
        "onnxruntime_version": onnxruntime.__version__,
        "provider": "cpu",
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        **info,
    }
    lines = "".join(f"    {name}: {value}\n" for name, value in told.items())
    path = folder / "config.yaml"
    path.write_text(f"onnx:\n  {knobs}\n  benchmark_info:\n{lines}", encoding="utf-8")
    return path


def feed(rows: int = 2) -> dict[str, np.ndarray]:
    """Return arrays for both inputs."""
    a = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    return {"a": a, "b": a + 1}


@pytest.mark.slow
def test_a_tuned_model_runs_as_it_was_tuned(model: Path, program: Program) -> None:
    """From `tune` to a session, with nothing in between: the settings of the file are the session's."""
    short = ["--provider", "cpu", "--quick", "--warmup", "1", "--runs", "3", "--trials", "2", "--timeout", "300s"]
    assert program("tune", str(model), *short) == 0
    session = rtmo_optuna.open_session(model)
    np.testing.assert_array_equal(session.run(None, feed())[0], feed()["a"] + feed()["b"])


def test_it_is_a_drop_in_for_an_inference_session(model: Path, tmp_path: Path) -> None:
    """Names, types, shapes and outputs are those of ONNX Runtime's own session."""
    ours = rtmo_optuna.open_session(model, config(tmp_path, model))
    theirs = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for nodes, known in ((ours.get_inputs(), theirs.get_inputs()), (ours.get_outputs(), theirs.get_outputs())):
        assert [(a.name, a.type, a.shape) for a in nodes] == [(b.name, b.type, b.shape) for b in known]
    assert ours.get_providers() == theirs.get_providers()
    for names in (None, [], ["product"], ["product", "sum"]):
        for one, other in zip(ours.run(names, feed()), theirs.run(names, feed()), strict=True):
            np.testing.assert_array_equal(one, other)
    options = onnxruntime.RunOptions()
    assert len(ours.run(None, feed(), options)) == 2
    assert ours.settings == {"intra_op_num_threads": 1}


@pytest.mark.parametrize(("given", "told"), [
    ({"a": feed()["a"]}, "lacks b: give exactly a, b"),
    ({**feed(), "c": feed()["a"]}, "has c, which the model does not take"),
    ({**feed(), "b": feed()["b"][:, :3]}, "'b' must have the shape batchx4, not 2x3"),
    ({**feed(), "b": feed()["b"].astype(np.float64)}, r"'b' must be float32, not float64: convert it with .astype"),
])  # fmt: skip
def test_a_wrong_feed_is_told(model: Path, tmp_path: Path, given: dict[str, np.ndarray], told: str) -> None:
    """Missing, extra, misshapen, of another type."""
    session = rtmo_optuna.open_session(model, config(tmp_path, model))
    with pytest.raises(UsageError, match=told):
        session.run(None, given)


def test_other_memory_layouts_are_converted(model: Path, tmp_path: Path) -> None:
    """Every second row, columns first, the other byte order."""
    session = rtmo_optuna.open_session(model, config(tmp_path, model))
    plain = feed(4)
    wide = {name: np.repeat(array, 2, axis=0)[::2] for name, array in plain.items()}
    swapped = {name: array.astype(">f4") for name, array in plain.items()}
    columns = {name: np.asfortranarray(array) for name, array in plain.items()}
    for given in (wide, swapped, columns):
        np.testing.assert_array_equal(session.run(["product"], given)[0], plain["a"] * plain["b"])


def test_an_unknown_output_is_told(model: Path, tmp_path: Path) -> None:
    """With the names that there are."""
    session = rtmo_optuna.open_session(model, config(tmp_path, model))
    with pytest.raises(UsageError, match="no output difference: it has sum, product"):
        session.run(["difference"], feed())


@pytest.mark.parametrize(("info", "told"), [
    ({"onnxruntime_version": "1.18.0"}, "onnxruntime_version was 1.18.0, is"),
    ({"model_sha256": "0" * 64}, "model_sha256 was 0000"),
    ({"cpu_name": "Another CPU"}, "cpu_name was Another CPU, is"),
    ({"gpu_name": "NVIDIA Nothing"}, "gpu_name was NVIDIA Nothing, is"),
])  # fmt: skip
def test_what_was_tuned_for_something_else_is_refused(
    model: Path, tmp_path: Path, info: dict[str, str], told: str
) -> None:
    """Another version, model or machine; not strict, it is a warning and the session opens."""
    path = config(tmp_path, model, **info)
    with pytest.raises(UsageError, match=told):
        rtmo_optuna.open_session(model, path)
    with pytest.warns(UserWarning, match=told):
        session = rtmo_optuna.open_session(model, path, strict=False)
    assert len(session.run(None, feed())) == 2


def test_the_warning_does_not_advise_what_was_done(model: Path, tmp_path: Path) -> None:
    """`strict=False` is the way out of the error, not of the warning."""
    path = config(tmp_path, model, cpu_name="Another CPU")
    with pytest.raises(UsageError, match="strict=False"):
        rtmo_optuna.open_session(model, path)
    with pytest.warns(UserWarning, match=r"tune again here\.$"):
        rtmo_optuna.open_session(model, path, strict=False)


@pytest.mark.parametrize("provider", ["tpu", "CPU", "5", "null"])
def test_an_unknown_provider_is_refused(model: Path, tmp_path: Path, provider: str) -> None:
    """Whether the file names it or the call."""
    with pytest.raises(UsageError, match=f"There is no provider '{provider}', which benchmark_info of .* says"):
        rtmo_optuna.open_session(model, config(tmp_path, model, provider=provider))
    with pytest.raises(UsageError, match="which this call says: it must be cuda or cpu"):
        rtmo_optuna.open_session(model, config(tmp_path, model), provider=provider)


def test_a_call_that_is_none(model: Path, tmp_path: Path) -> None:
    """An array in place of the feed, or a name in place of the names, is told; so is what holds no numbers."""
    session = rtmo_optuna.open_session(model, config(tmp_path, model))
    arrays: Any = feed()
    wrong: list[Any] = [(None, arrays["a"]), (None, None), ("sum", arrays)]
    for names, given in wrong:
        with pytest.raises(UsageError, match="Call run with a list of output names, or None"):
            session.run(names, given)
    with pytest.raises(UsageError, match="'b' must be an array, a list or an OrtValue, not NoneType"):
        session.run(None, {**arrays, "b": None})


def test_a_model_that_changed_after_it_was_tuned_is_refused(model: Path, tmp_path: Path) -> None:
    """Its content counts, not its name."""
    path = config(tmp_path, model)
    rtmo_optuna.open_session(model, path)
    changed = onnx.load(model)
    changed.doc_string = "another"
    onnx.save(changed, model)
    with pytest.raises(UsageError, match="model_sha256"):
        rtmo_optuna.open_session(model, path)


def test_a_misspelt_setting_is_told_with_its_place(model: Path, tmp_path: Path) -> None:
    """A session that ignored it would not be what was meant."""
    path = config(tmp_path, model, knobs="intra_op_num_thread: 1")
    path.write_text(path.read_text(encoding="utf-8").replace("onnx:\n", "onnx:\n  execution_mode: sequential\n"))
    told = r"config.yaml, line 3, column 3: there is no setting 'intra_op_num_thread': did you mean intra_op_num"
    with pytest.raises(UsageError, match=told):
        rtmo_optuna.open_session(model, path)


def test_missing_files_are_told(model: Path, tmp_path: Path) -> None:
    """Of configuration and model."""
    with pytest.raises(UsageError, match="does not exist: tune first"):
        rtmo_optuna.open_session(model, tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"The model .*none.onnx does not exist"):
        rtmo_optuna.open_session(tmp_path / "none.onnx", config(tmp_path, model))


@pytest.mark.parametrize(("text", "place", "told"), [
    ("", "", r"holds no settings: name another file, or tune first \(rtmo-optuna tune MODEL --config .*config.yaml\)"),
    ("# nothing yet\n", "", "holds no settings: "),
    ("app: {threads: 4}\n", "", "holds no settings: "),
    ("onnx:\n", "", "holds no settings: "),
    ("onnx:\n  benchmark_info: {provider: cpu}\n", "", "holds no settings: "),
    ("one: {intra_op_num_threads: 1}\n", "two", r"under two: name another place, or .*--config-path two\)"),
])  # fmt: skip
def test_a_file_without_settings_is_refused(model: Path, tmp_path: Path, text: str, place: str, told: str) -> None:
    """Else ONNX Runtime's default would run as if it had been tuned, whichever way the file is read."""
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (rtmo_optuna.provider_options, rtmo_optuna.session_options):
        with pytest.raises(UsageError, match=told):
            read(path, config_path=place)
    for strict in (True, False):
        with pytest.raises(UsageError, match=told):
            rtmo_optuna.open_session(model, path, config_path=place, strict=strict)


def test_settings_that_others_merge_are_settings(tmp_path: Path) -> None:
    """Named or not, merged or merging."""
    path = tmp_path / "config.yaml"
    path.write_text("base: &base {intra_op_num_threads: 3}\nonnx: {<<: *base}\n", encoding="utf-8")
    for place in ("", "base", "onnx"):
        assert rtmo_optuna.session_options(path, config_path=place, provider="cpu").intra_op_num_threads == 3


def test_fixed_dimensions_are_fixed(model: Path, tmp_path: Path) -> None:
    """What `--shape` fixed for the study is fixed in the session, which takes other shapes all the same."""
    path = config(tmp_path, model, free_dimensions="{batch: 2}")
    session = rtmo_optuna.open_session(model, path)
    assert session.get_inputs()[0].shape == [2, 4]
    assert session.input_buffer("a").shape == (2, 4)
    for rows in (2, 3):
        np.testing.assert_array_equal(session.run(["sum"], feed(rows))[0], feed(rows)["a"] + feed(rows)["b"])


def test_buffers_are_filled_in_place(model: Path, tmp_path: Path) -> None:
    """On the CPU they are ordinary arrays; an open shape must be given."""
    session = rtmo_optuna.open_session(model, config(tmp_path, model))
    buffers = {name: session.input_buffer(name, (2, 4)) for name in ("a", "b")}
    assert all(buffer.dtype == np.float32 and not buffer.any() for buffer in buffers.values())
    buffers["a"][...] = 3
    buffers["b"][...] = 4
    assert session.run(["sum"], buffers)[0].tolist() == [[7.0] * 4] * 2
    with pytest.raises(UsageError, match="open shape batchx4: say which one"):
        session.input_buffer("a")
    with pytest.raises(UsageError, match="no input 'c'"):
        session.input_buffer("c")


def test_options_for_a_session_of_ones_own(model: Path, tmp_path: Path) -> None:
    """Session and provider options open an ordinary InferenceSession with the same settings."""
    path = config(tmp_path, model, knobs="graph_optimization_level: basic")
    options = rtmo_optuna.session_options(path)
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    providers = rtmo_optuna.provider_options(path)
    assert providers == [("CPUExecutionProvider", {})]
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    assert len(session.run(None, feed())) == 2


def test_threads_share_a_session(model: Path, tmp_path: Path) -> None:
    """Eight of them, each with answers of its own."""
    session = rtmo_optuna.open_session(model, config(tmp_path, model))
    wrong: list[int] = []

    def work(number: int) -> None:
        given = {name: array + number for name, array in feed().items()}
        wanted = given["a"] + given["b"]
        wrong.extend(number for _ in range(200) if not np.array_equal(session.run(["sum"], given)[0], wanted))

    at_once(work, range(8))
    assert not wrong


_CONFIG = "onnx:\n  enable_mem_pattern: false\n  benchmark_info:\n    provider: cpu\n    "


def _opened(folder: Path, info: str) -> rtmo_optuna.Session:
    (folder / "c.yaml").write_text(_CONFIG + info + "\n", encoding="utf-8")
    models.dense(folder / "m.onnx", ("n", 64))
    return rtmo_optuna.open_session(folder / "m.onnx", folder / "c.yaml")


@pytest.mark.parametrize("info", [
    "shapes: {x: [1, 64]}", "shapes: {x: '1,64'}", "shapes: {x: 1x64}", "shapes: {x: }", "free_dimensions: {n: 1}",
])  # fmt: skip
def test_shapes_may_be_written_in_several_ways(tmp_path: Path, info: str) -> None:
    """A list, commas and crosses all say the same shape."""
    session = _opened(tmp_path, info)
    assert session.run(None, {"x": np.ones((1, 64), np.float32)})[0].shape == (1, 4)


@pytest.mark.parametrize(("info", "words"), [
    ("shapes: {x: four}", "shapes: x: four"),
    ("shapes: {x: [1, four]}", "shapes: x: 1xfour"),
    ("shapes: {x: [[1], 64]}", "shapes: x:"),
    ("shapes: 1x64", "no mapping of names"),
    ("shapes: {x: -1x64}", "shapes: x: -1x64"),
    ("free_dimensions: {n: four}", "free_dimensions: n: four"),
    ("free_dimensions: [n]", "free_dimensions: 0: n"),
    ("free_dimensions: {n: }", "free_dimensions: n"),
])  # fmt: skip
def test_what_is_no_shape_is_told_in_one_sentence(tmp_path: Path, info: str, words: str) -> None:
    """The file and the place are named."""
    with pytest.raises(UsageError) as caught:
        _opened(tmp_path, info)
    assert words in str(caught.value)
    assert str(tmp_path / "c.yaml") in str(caught.value)
