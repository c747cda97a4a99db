"""Pictures fed as pixels: the same answers as from arrays, however a model is called, and what cannot be fed so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import models
import rtmo_optuna
from calling import CALLED, assembled
from rtmo_optuna.cli.spelling import DEVIATION, MEAN
from rtmo_optuna.engine import ort
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.engine.front import fronted
from rtmo_optuna.engine.inputs.inputs import load, prepare
from rtmo_optuna.engine.inputs.pixels import as_arrays, picture_of
from rtmo_optuna.engine.precision import half
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import benchmark_info, configfile
from rtmo_optuna.space.benchmark_info import BenchmarkInfo
from rtmo_optuna.types.request import Pixels, SessionSpec, Settings, TensorSpec
from rtmo_optuna.types.subject import StudyDefinition
from rtmo_optuna.verbs.checks import check_normalised
from rtmo_optuna.verbs.circumstances import as_tuned
from rtmo_optuna.verbs.prepare import TuneOptions, plan

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
SIZE = (12, 10)
PLAIN = Pixels("x")
IMAGENET = Pixels("x", 1, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WAYS = {
    "plain": PLAIN,
    "scaled": Pixels("x", scale=1 / 255),
    "around a mean": Pixels("x", mean=(123.675, 116.28, 103.53)),
    "as ImageNet's": IMAGENET,
}


def conv(path: Path, shape: Sequence[int | str] = ("batch", 3, *SIZE), opset: int = models.OPSET) -> Path:
    """Write a model of a convolution and what follows it, input `x`, output `y`."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1] * 4),
        helper.make_node("Sigmoid", ["h"], ["y"]),
    ]
    random = np.random.default_rng(0)
    weights = {"w": random.normal(0, 0.01, (4, 3, 3, 3)).astype(np.float32)}
    models.save(path, nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, (shape[0], 4, *shape[2:]))}, weights)
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)
    return path


def selective(path: Path) -> Path:
    """Write a model that keeps those numbers of the picture `x` where a product of theirs is positive."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["early"]),
        helper.make_node("NonZero", ["early"], ["places"]),
        helper.make_node("Transpose", ["places"], ["rows"], perm=[1, 0]),
        helper.make_node("GatherND", ["x", "rows"], ["kept"]),
    ]
    weights = {"w": np.random.default_rng(0).standard_normal((3, 3, 1, 1)).astype(np.float32)}
    shape = (1, 3, *SIZE)
    return models.save(path, nodes, {"x": (FLOAT, shape)}, {"early": (FLOAT, shape), "kept": (FLOAT, ("n",))}, weights)


def picture(batch: int = 1) -> NDArray[np.uint8]:
    """Return random pixels, as a session takes them."""
    pixels = np.random.default_rng(1).integers(0, 256, (batch, *SIZE, 3), np.uint8)
    return pixels if batch > 1 else pixels[0]


def array(pixels: NDArray[np.uint8], how: Pixels = PLAIN) -> NDArray[np.float32]:
    """Return what an application makes of pixels: in float32, in the order of `Pixels`, idle steps left out."""
    made = pixels.astype(np.float32)
    if how.scale != 1:
        made *= np.float32(how.scale)
    if any(how.mean):
        made -= np.array(how.mean, np.float32)
    if set(how.std) != {1}:
        made /= np.array(how.std, np.float32)
    return np.ascontiguousarray(np.moveaxis(made, -1, -3).reshape(-1, 3, *made.shape[-3:-1]))


@pytest.mark.parametrize("level", ["ORT_ENABLE_ALL", "ORT_DISABLE_ALL"])
@pytest.mark.parametrize(("batch", "opset"), [(1, 11), (1, 13), (2, 13)])
@pytest.mark.parametrize("way", WAYS)
def test_pixels_answer_as_their_array_does(tmp_path: Path, way: str, batch: int, opset: int, level: str) -> None:
    """To the last bit: what is done to them is NumPy's arithmetic, whatever is optimised, whatever the batch."""
    path, how = conv(tmp_path / "m.onnx", opset=opset), replace(WAYS[way], batch=batch)
    spec = SessionSpec(
        str(path), "cpu", Settings.of({"graph_optimization_level": level}), free_dimensions={"batch": batch}
    )
    pixels, engine = picture(batch), OnnxRuntimeEngine(replace(spec, pixels=how))
    (found,), (wanted,) = engine.run({"x": pixels}), OnnxRuntimeEngine(spec).run({"x": array(pixels, how)})
    np.testing.assert_array_equal(found, wanted)
    assert engine.inputs == (TensorSpec("x", "tensor(uint8)", pixels.shape),)
    assert engine.outputs[0].shape == (batch, 4, *SIZE)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_what_the_model_gets_of_pixels_is_known_without_a_session(way: str, batch: int) -> None:
    """What float16 does to a model is found on it, and not on the nodes in front."""
    made = as_arrays({"x": picture(batch)}, replace(WAYS[way], batch=batch))
    np.testing.assert_array_equal(made["x"], array(picture(batch), WAYS[way]), strict=True)


@pytest.mark.slow
def test_rtmo_finds_the_same_people(rtmo_t: Callable[[str], tuple[Path, NDArray[np.float32]]]) -> None:
    """All of them, to the last bit, in the graph that PyTorch exports."""
    path, image = rtmo_t("exported")
    pixels = np.ascontiguousarray(image[0].transpose(1, 2, 0)).astype(np.uint8)
    spec = SessionSpec(str(path), "cpu", free_dimensions={"batch": 1})
    found = OnnxRuntimeEngine(replace(spec, pixels=Pixels("input"))).run({"input": pixels})
    for one, other in zip(found, OnnxRuntimeEngine(spec).run({"input": array(pixels)}), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0].shape[1] > 10


@pytest.mark.parametrize("how", CALLED)
def test_every_way_of_calling_takes_pixels(tmp_path: Path, how: str) -> None:
    """Bound or cut, and where what follows the cut reads the picture as well."""
    path, pixels = selective(tmp_path / "m.onnx"), picture()
    shapes = {"x": (1, 3, *SIZE)}
    wanted = assembled(path, "plain").call.run(["early", "kept"], {"x": array(pixels, IMAGENET)})
    call = assembled(path, how, shapes, pixels=IMAGENET).call
    for one, other in zip(call.run(["early", "kept"], {"x": pixels}), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("how", CALLED)
def test_pixels_are_captured_on_a_gpu(rtmo_t: Callable[[str], tuple[Path, NDArray[np.float32]]], how: str) -> None:
    """From page-locked memory, one call after the other and two at once: people as from the array, to the last bit."""
    path, image = rtmo_t("plain")
    settings = Settings.of({**CALLED[how], "cudnn_conv_algo_search": "HEURISTIC"})
    spec = SessionSpec(str(path), "cuda", settings, shapes={"input": image.shape})
    wanted = Session(spec).run(None, {"input": image})
    session = Session(replace(spec, pixels=Pixels("input")))
    buffers = [session.input_buffer("input") for _ in range(2)]
    for buffer in buffers:
        buffer[...] = image[0].transpose(1, 2, 0)
    answers = [session.run(None, {"input": buffers[0]}), *(session.submit(buffer).result() for buffer in buffers)]
    answers += [future.result() for future in [session.submit(buffers[n % 2]) for n in range(20)]]
    for found in answers:
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("way", WAYS)
def test_half_precision_begins_behind_the_pixels(tmp_path: Path, way: str) -> None:
    """What is done to them is done in float32; where nothing is, they are cast to float16 at once."""
    path = half(str(conv(tmp_path / "m.onnx", (1, 3, *SIZE))), str(tmp_path))
    made, pixels = fronted(path, WAYS[way], str(tmp_path)), picture()
    runtime = ort.load("cpu")
    (found,) = runtime.open(made, Settings()).run(None, {"x": pixels})
    (wanted,) = runtime.open(path, Settings()).run(None, {"x": array(pixels, WAYS[way])})
    np.testing.assert_array_equal(found, wanted)
    casts = [node for node in onnx.load(made).graph.node if node.op_type == "Cast" and node.input[0] == "x/planes"]
    assert [node.attribute[0].i for node in casts] == [TensorProto.FLOAT16 if way == "plain" else FLOAT]


def test_what_reads_the_input_inside_of_an_if_reads_what_is_made_of_pixels(tmp_path: Path) -> None:
    """Its body sees the outer names, and no input of its own."""
    body = [
        helper.make_graph(
            [helper.make_node(kind, ["x"], ["out"])], kind, [], [helper.make_empty_tensor_value_info("out")]
        )
        for kind in ("Neg", "Abs")
    ]
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [1])),
        helper.make_node("If", ["yes"], ["y"], then_branch=body[0], else_branch=body[1]),
    ]
    shape = (1, 3, *SIZE)
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, shape)})
    (found,) = OnnxRuntimeEngine(SessionSpec(str(path), "cpu", pixels=PLAIN)).run({"x": picture()})
    np.testing.assert_array_equal(found, -array(picture()))


@pytest.mark.parametrize("specs", [
    (TensorSpec("x", "tensor(float)", (1, *SIZE, 3)),),
    (TensorSpec("x", "tensor(float)", (1, 1, *SIZE)),),
    (TensorSpec("x", "tensor(uint8)", (1, 3, *SIZE)),),
    (TensorSpec("x", "tensor(float)", (1, 8)),),
    tuple(TensorSpec(name, "tensor(float)", (1, 3, *SIZE)) for name in "ab"),
])  # fmt: skip
def test_models_that_cannot_be_fed_pixels_are_refused(specs: Sequence[TensorSpec]) -> None:
    """Channels last, one channel, bytes already, no picture, two pictures: the sentence tells what the model takes."""
    with pytest.raises(UsageError, match="one input of pictures, batch x 3 x height x width of floats") as caught:
        picture_of(specs)
    assert all(repr(spec.name) in str(caught.value) for spec in specs)
    assert "leave --pixels out" in str(caught.value)


def test_a_picture_is_found_beside_other_inputs() -> None:
    """As in a detector that is told the picture's size as well."""
    specs = [TensorSpec("size", "tensor(float)", (1, 2)), TensorSpec("x", "tensor(float16)", ("n", 3, None, None))]
    assert picture_of(specs).name == "x"


@pytest.mark.parametrize("batch", [1, 3])
def test_input_arrays_are_pixels(tmp_path: Path, batch: int) -> None:
    """One picture where the batch is open; the shapes are the model's, so that they fix it."""
    specs = [TensorSpec("x", "tensor(float)", ("batch", 3, *SIZE))]
    asked = {"x": (batch, 3, *SIZE)} if batch > 1 else {}
    facts = prepare(specs, source=None, shapes=asked, scale=0.5, target=tmp_path / "i.npz", pixels=IMAGENET)
    (sample,) = load(facts.path)
    assert sample["x"].shape == picture(batch).shape
    assert sample["x"].dtype == np.uint8
    assert facts.shapes == {"x": (batch, 3, *SIZE)}
    assert facts.free_dimensions == {"batch": batch}
    assert facts.fixed
    assert facts.pixels == replace(IMAGENET, batch=batch)


def test_arrays_that_are_no_pixels_are_refused(tmp_path: Path) -> None:
    """Floats in a file; a picture of its own, or a batch of one, is taken."""
    specs, source, target = [TensorSpec("x", "tensor(float)", (1, 3, *SIZE))], tmp_path / "a.npy", tmp_path / "i.npz"
    made = partial(prepare, specs, source=source, shapes={}, scale=1.0, target=target, pixels=PLAIN)
    for given in (picture(), picture()[np.newaxis]):
        np.save(source, given)
        np.testing.assert_array_equal(load(made().path)[0]["x"], picture())
    np.save(source, array(picture()))
    with pytest.raises(
        UsageError, match=r"float32 \[1, 3, 12, 10\], but a session that takes pixels .* wants uint8 \[1, "
    ):
        made()


@pytest.mark.slow
def test_a_tune_measures_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are fed them, and its study is another one than that of arrays; a definition may say so as well."""
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "s.yaml"
    study.write_text("provider: cpu\ninput: pixels\nknobs: {intra_op_num_threads: all}\n", encoding="utf-8")
    model = conv(tmp_path / "m.onnx")
    planned = plan(TuneOptions(model=model, study=str(study), input_scale=0.5, std=(2.0,) * 3), tmp_path)
    assert planned.session.pixels == Pixels("x", 1, 0.5, std=(2.0,) * 3)
    assert "pixels" in planned.identity


def test_a_mean_or_a_deviation_needs_pixels() -> None:
    """Arrays are used as they are."""
    chosen = StudyDefinition("s", "cpu", {})
    for option in ("mean", "std"):
        given = {"mean": (), "std": (), option: (1.0,) * 3}
        check_normalised(replace(chosen, pixels=True), **given)
        with pytest.raises(UsageError, match=f"--{option} is a part of what a session does with pixels"):
            check_normalised(chosen, **given)


@pytest.mark.parametrize("given", ["0", "1,2", "1,2,3,4", "1,2,0", "-1", "a", "inf", ""])
def test_what_is_no_deviation_is_told(given: str) -> None:
    """One number above 0 for all channels, or one for each of three."""
    with pytest.raises(UsageError, match="--std must be a number above 0 for each of 3 channels, or one for all, not"):
        DEVIATION.read("--std", given)
    assert DEVIATION.read("--std", "2") == (2, 2, 2)
    assert MEAN.read("--mean", "0,-1,2.5") == (0, -1, 2.5)


def write(folder: Path, pixels: str = "{input: x, scale: 0.5}") -> Path:
    """Write a configuration of a session that takes pixels."""
    path = folder / "config.yaml"
    path.write_text(
        "onnx:\n  intra_op_num_threads: 1\n  benchmark_info:\n    provider: cpu\n"
        f"    shapes: {{x: 1x3x{SIZE[0]}x{SIZE[1]}}}\n    free_dimensions: {{batch: 1}}\n    pixels: {pixels}\n",
        encoding="utf-8",
    )
    return path


def test_a_session_takes_pixels_as_it_was_tuned(tmp_path: Path) -> None:
    """Its buffer is one picture of bytes, or a batch of them; what it answers is what the array's session does."""
    model = conv(tmp_path / "m.onnx")
    session = rtmo_optuna.open_session(model, write(tmp_path))
    buffer = session.input_buffer("x")
    assert buffer.shape == (*SIZE, 3)
    assert buffer.dtype == np.uint8
    buffer[...] = picture()
    wanted = OnnxRuntimeEngine(SessionSpec(str(model), "cpu")).run({"x": array(picture(), Pixels("x", scale=0.5))})
    np.testing.assert_array_equal(session.run(None, {"x": buffer})[0], wanted[0])
    many = rtmo_optuna.open_session(model, write(tmp_path), shapes={"x": (2, 3, *SIZE)})
    assert many.input_buffer("x").shape == (2, *SIZE, 3)
    with pytest.raises(UsageError, match="has the shape 12x10x3, and shape= says 8x8x3"):
        session.input_buffer("x", (8, 8, 3))


def test_a_comparison_feeds_what_was_tuned_for(tmp_path: Path) -> None:
    """Pixels where config.yaml says so, done with as it says unless the options do."""
    options = TuneOptions(
        model=conv(tmp_path / "m.onnx"), config=write(tmp_path, "{input: x, scale: 0.5, std: [1, 2, 3]}")
    )
    found = as_tuned(options, "")
    assert (found.pixels, found.input_scale, found.mean, found.std) == (True, 0.5, (0, 0, 0), (1, 2, 3))
    assert as_tuned(replace(options, input_scale=0.25), "").input_scale == 0.25
    assert as_tuned(replace(options, input=tmp_path / "a.npy"), "").pixels


@pytest.mark.parametrize(("given", "told"), [
    (array(picture()), "not float32 of the shape 1x3x12x10"),
    (picture()[:-1], "not uint8 of the shape 11x10x3"),
    (picture()[np.newaxis], "not uint8 of the shape 1x12x10x3"),
])  # fmt: skip
def test_what_are_no_pixels_of_this_size_is_told(tmp_path: Path, given: NDArray[Any], told: str) -> None:
    """What came, what is wanted, and what makes it of a frame."""
    session = rtmo_optuna.open_session(conv(tmp_path / "m.onnx"), write(tmp_path))
    with pytest.raises(UsageError, match=f"takes pixels, uint8 of the shape 12x10x3, {told}: rtmo_optuna.letterbox"):
        session.run(None, {"x": given})


def test_what_is_written_of_pixels_is_read(tmp_path: Path) -> None:
    """Input, scale, mean and deviation stand in the file, the batch in the shape; a study of arrays leaves nothing."""
    path = tmp_path / "config.yaml"
    for pixels in (replace(IMAGENET, batch=2), replace(PLAIN, batch=2), None):
        file = configfile.read(path, "cpu")
        told = BenchmarkInfo(pixels=pixels, shapes={"x": (2, 3, *SIZE)} if pixels else {}, provider="cpu")
        held = configfile.read_info(path) if file.exists else {}
        configfile.write(file, {"intra_op_num_threads": 1}, told.written(held))
        assert benchmark_info.read(configfile.read_info(path), path).pixels == pixels
    assert "pixels" not in BenchmarkInfo().written(())


@pytest.mark.parametrize(
    "pixels",
    ["{input: y}", "{scale: 1}", "{input: x, scale: 0}", "{input: x, std: [1, 0, 1]}", "{input: x, mean: [1, 2]}",
     "{input: x, mean: [a, b, c]}", "{input: x, men: [1, 2, 3]}", "x"],
)  # fmt: skip
def test_what_nobody_can_feed_is_told(tmp_path: Path, pixels: str) -> None:
    """Another input, no input, factors of 0, wrong counts, words, slips: a person may have edited the file."""
    with pytest.raises(UsageError, match=r"benchmark_info of .* says pixels: "):
        rtmo_optuna.open_session(conv(tmp_path / "m.onnx"), write(tmp_path, pixels))
