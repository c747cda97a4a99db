"""A session in place of `onnxruntime.InferenceSession`: what it is fed, what it tells, which shapes it takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
import rtmo_optuna
from calling import at_once
from models import node
from rtmo_optuna.engine import ort
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.engine.feed import Signature
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.engine.whole import read_signature
from rtmo_optuna.errors import TunerError, UsageError
from rtmo_optuna.types.request import SessionSpec, Settings, TensorSpec

FLOAT, INT64, UINT8, BOOL, STRING = (
    TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL, TensorProto.STRING,
)  # fmt: skip
BOUND = {"io_binding": True}
CAPTURED = {**BOUND, "enable_cuda_graph": True}
CUT = {**CAPTURED, "split_capture": True}
BEHIND = {"io_binding": BOUND, "enable_cuda_graph": CAPTURED, "split_capture": CUT}


def ours(model: Path, settings: Mapping[str, Any] | None = None, **more: Any) -> Session:  # noqa: ANN401
    """Return a session of `model` with those settings, on an engine of the CPU, which binds and captures nothing."""
    spec = SessionSpec(str(model), "cpu", Settings.of(settings or {}), **more)
    return Session(spec, lambda asked: OnnxRuntimeEngine(replace(asked, settings=Settings())))


def theirs(model: Path) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
    """Return ONNX Runtime's own session."""
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def identity(path: Path, kind: int, shape: tuple[int | str, ...] | None) -> Path:
    """Write a model that gives back `x`; a shape of None is an unknown rank."""
    value = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph([node("Identity", "x", "y")], "identity", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", models.OPSET)], ir_version=8), path)
    return path


def weighted(path: Path, ir_version: int = 8) -> Path:
    """Write a model of `x + w` with the weight `w`, which is an input too; it may be fed from IR version 4 on."""
    values = [helper.make_tensor_value_info("x", FLOAT, ["n", 2]), helper.make_tensor_value_info("w", FLOAT, [2])]
    made = helper.make_tensor_value_info("y", FLOAT, ["n", 2])
    weight = numpy_helper.from_array(np.array([10, 20], np.float32), "w")
    graph = helper.make_graph([node("Add", "x w", "y")], "weighted", values, [made], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", models.OPSET)], ir_version=ir_version)
    onnx.save(model, path)
    return path


def optional(path: Path) -> Path:
    """Write a model that says whether its optional input `x` is there."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [2]))
    ends = [helper.make_value_info("x", kind)], [helper.make_tensor_value_info("y", BOOL, [])]
    graph = helper.make_graph([node("OptionalHasElement", "x", "y")], "optional", *ends)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def suppressed(path: Path) -> Path:
    """Write a detector of an open batch whose boxes are made by a layer that a graph can hold."""
    nodes = [
        *(node("Relu", "boxes", "positive"), node("Sigmoid", "scores", "certain")),
        node("NonMaxSuppression", "positive certain most overlap", "kept"),
    ]
    weights: dict[str, np.ndarray] = {"most": np.array(3, np.int64), "overlap": np.array(0.5, np.float32)}
    shapes: dict[str, list[int | str]] = {"boxes": ["n", 6, 4], "scores": ["n", 1, 6]}
    inputs = {name: (int(FLOAT), shape) for name, shape in shapes.items()}
    return models.save(path, nodes, inputs, {"kept": (int(INT64), ["k", 3])}, weights)


def outcome(run: Callable[[], list[Any]]) -> list[tuple[Any, tuple[int, ...], Any]] | None:
    """Return types, shapes and values of what `run` gives; None where it refuses."""
    try:
        return [(array.dtype, array.shape, array.tolist()) for array in run()]
    except (TunerError, RuntimeError, ValueError, TypeError):
        return None
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime"):
            return None
        raise


FEEDS: list[tuple[int, Any]] = [
    *((kind, given) for kind in (FLOAT, INT64, UINT8, BOOL, STRING) for given in (
        [1, 2], [1.5, 2.5], [True, False], ["a", "b"], [[1], [2]], [[1, 2], [3]], [], [300], [-1], (1, 2), 1, 1.5,
        np.float32(1), None, "a", range(2), np.array([1, 2]), np.array([1.0, 2.0]), np.array([1, 2], np.float32),
        np.array(["a", "b"], object), np.zeros(0, np.float32), np.arange(4, dtype=np.float32)[::2],
        np.zeros((1, 1), np.float32),
    )),
    (FLOAT, [np.float32(1)]),
    (FLOAT, np.ma.masked_array([1.0, 2.0], dtype=np.float32)),
]  # fmt: skip


@pytest.mark.parametrize("kind", [FLOAT, INT64, UINT8, BOOL, STRING])
def test_values_are_taken_as_by_an_inference_session(tmp_path: Path, kind: int) -> None:
    """Arrays, lists, and what is neither: equal outputs, or both refuse."""
    model = identity(tmp_path / "m.onnx", kind, ("n",))
    one, other = ours(model), theirs(model)
    answers = []
    for given in (given for of, given in FEEDS if of == kind):
        answers.append(outcome(lambda given=given: other.run(None, {"x": given})))  # type: ignore[misc]
        assert outcome(lambda given=given: one.run(None, {"x": given})) == answers[-1], repr(given)  # type: ignore[misc]
    assert None in answers
    assert len([answer for answer in answers if answer]) >= 4


@pytest.mark.parametrize("shape", [None, (), ("n", 2), (0, 2), (2, 2)])
def test_shapes_are_taken_as_by_an_inference_session(tmp_path: Path, shape: tuple[int | str, ...] | None) -> None:
    """Of unknown rank, scalars, open, empty and fixed ones; ONNX Runtime takes any shape for a scalar, so do we."""
    model = identity(tmp_path / "m.onnx", FLOAT, shape)
    one, other = ours(model), theirs(model)
    answers = []
    for size in ((), (1,), (2, 2), (0, 2), (3, 2), (2, 3), (2, 0), (1, 2, 2)):
        for given in (np.ones(size, np.float32), np.ones(size, np.float32).tolist()):
            answers.append(outcome(lambda given=given: other.run(None, {"x": given})))  # type: ignore[misc]
            assert outcome(lambda given=given: one.run(None, {"x": given})) == answers[-1], (size, given)  # type: ignore[misc]
    assert any(answers)


X = np.ones((1, 2), np.float32)


@pytest.mark.parametrize("feed", [
    {},
    {"x": X},
    {"z": X},
    {"x": X, "z": X},
    {"x": X, "z": None},
    {"x": X, "w": np.zeros(2, np.float32)},
    {"w": np.zeros(2, np.float32), "x": X},
    {"w": np.zeros(2, np.float32)},
    {"x": X, "w": None},
    {"x": X, "w": np.zeros(3, np.float32)},
    {"x": X, "w": np.zeros(2)},
    {"x": X, "w": np.zeros((1, 2), np.float32)},
    {1: X},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("ir_version", [3, 8])
def test_names_and_weights_are_taken_as_by_an_inference_session(
    tmp_path: Path, feed: dict[str, Any], ir_version: int
) -> None:
    """Weights that are inputs may be fed or left out; None is left out; what is missing or unknown is refused."""
    model = weighted(tmp_path / "m.onnx", ir_version)
    one, other = ours(model), theirs(model)
    assert outcome(lambda: one.run(None, feed)) == outcome(lambda: other.run(None, feed))
    told = [(one.name, one.type, one.shape) for one in other.get_overridable_initializers()]
    assert [(end.name, end.type, end.shape) for end in one.get_overridable_initializers()] == told
    assert len(told) == (ir_version > 3)


def test_a_list_is_taken_for_a_weight_too(tmp_path: Path) -> None:
    """Which InferenceSession refuses."""
    model = weighted(tmp_path / "m.onnx")
    assert ours(model).run(None, {"x": X, "w": [1, 2]})[0].tolist() == [[2, 3]]


@pytest.mark.parametrize("feed", [
    {}, {"x": None}, {"x": np.zeros(2, np.float32)}, {"x": [1.0, 2.0]}, {"x": np.zeros(3, np.float32)}, {"z": X},
])  # fmt: skip
def test_optional_inputs_may_be_left_out(tmp_path: Path, feed: dict[str, Any]) -> None:
    """As for InferenceSession."""
    model = optional(tmp_path / "m.onnx")
    assert outcome(lambda: ours(model).run(None, feed)) == outcome(lambda: theirs(model).run(None, feed))


@pytest.mark.parametrize("names", [None, [], (), ["y"], ("y",), ["y", "y"], ["z"], [None], [1], "y", {"z": 1}])
def test_output_names_are_taken_as_by_an_inference_session(tmp_path: Path, names: Any) -> None:  # noqa: ANN401
    """None and nothing are all of them; unknown ones, and a name in place of names, are refused."""
    model = identity(tmp_path / "m.onnx", FLOAT, ("n", 2))
    one, other = ours(model), theirs(model)
    assert outcome(lambda: one.run(names, {"x": X})) == outcome(lambda: other.run(names, {"x": X}))


@pytest.mark.parametrize("options", [None, onnxruntime.RunOptions(), {}, 1, "a"])
def test_run_options_are_positional(tmp_path: Path, options: Any) -> None:  # noqa: ANN401
    """They reach ONNX Runtime, and what is none is refused."""
    model = identity(tmp_path / "m.onnx", FLOAT, ("n", 2))
    one, other = ours(model), theirs(model)
    assert outcome(lambda: one.run(["y"], {"x": X}, options)) == outcome(lambda: other.run(["y"], {"x": X}, options))
    ended = onnxruntime.RunOptions()
    ended.terminate = True
    with pytest.raises(RuntimeError, match="terminate"):
        one.run(None, {"x": X}, ended)


def test_ort_values_are_fed(tmp_path: Path) -> None:
    """Where they lie to a plain session, as their arrays to bound buffers; of a wrong type they are refused."""
    session = ours(identity(tmp_path / "m.onnx", FLOAT, (1, 2)))
    value, wrong = (onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in (X + 1, X.astype(np.float64)))
    assert session.run(None, {"x": value})[0].tolist() == [[2, 2]]
    specs = [TensorSpec("x", "tensor(float)", (1, 2))]
    assert Signature(specs, plain=True).checked({"x": value})["x"] is value
    bound = Signature(specs)
    np.testing.assert_array_equal(bound.checked({"x": value})["x"], X + 1)
    for refusing in (lambda: session.run(None, {"x": wrong}), lambda: bound.checked({"x": wrong})):
        with pytest.raises(UsageError, match="float"):
            refusing()


def test_nothing_of_an_inference_session_is_missing(tmp_path: Path) -> None:
    """Each public name of the installed ONNX Runtime is there, under every setting, works or says why it does not."""
    public = {name for name in dir(onnxruntime.InferenceSession) if not name.startswith("_")}
    assert len(public) > 20
    for settings in ({}, *BEHIND.values()):
        session = ours(models.dense(tmp_path / "m.onnx"), settings)
        assert public <= set(dir(session))
        for name in public - vars(Session).keys():
            method = getattr(session, name)
            if settings or name in {"set_providers", "enable_fallback"}:
                with pytest.raises(UsageError, match=name):
                    method()
            else:
                assert isinstance(method.__self__, onnxruntime.InferenceSession), name
    with pytest.raises(AttributeError, match="'Session' object has no attribute 'nothing'"):
        session.nothing  # noqa: B018


def test_what_it_tells_is_what_an_inference_session_tells(tmp_path: Path) -> None:
    """Everything that takes no argument, of a plain session."""
    model = models.dense(tmp_path / "m.onnx", ("n", 8))
    one, other = ours(model), theirs(model)
    assert one.get_provider_options() == other.get_provider_options()
    assert one.get_session_options().intra_op_num_threads == other.get_session_options().intra_op_num_threads
    assert one.get_modelmeta().graph_name == other.get_modelmeta().graph_name
    assert one.end_profiling() == other.end_profiling() == ""
    assert one.get_tuning_results() == other.get_tuning_results()
    assert len(one.get_input_memory_infos()) == 1
    one.disable_fallback()


def test_a_plain_session_binds_and_runs_in_every_way(tmp_path: Path) -> None:
    """io_binding, OrtValues, asynchronously: the methods of the one session behind, with its answers."""
    model = models.dense(tmp_path / "m.onnx")
    session, x = ours(model), np.ones((1, 8), np.float32)
    (wanted,) = theirs(model).run(None, {"x": x})
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], wanted)
    (value,) = session.run_with_ort_values(None, {"x": onnxruntime.OrtValue.ortvalue_from_numpy(x)})
    np.testing.assert_array_equal(value.numpy(), wanted)
    done, found = threading.Event(), []

    def keep(outputs: Any, _data: object, error: str) -> None:  # noqa: ANN401
        found.append((outputs, error))
        done.set()

    session.run_async(None, {"x": x}, keep, None)
    assert done.wait(30)
    np.testing.assert_array_equal(found[0][0][0], wanted)


@pytest.mark.parametrize("setting", BEHIND)
@pytest.mark.parametrize("method", ["io_binding", "run_with_iobinding", "run_async", "run_with_ort_values"])
def test_what_needs_a_plain_session_is_refused_elsewhere(tmp_path: Path, setting: str, method: str) -> None:
    """One sentence names the setting and the way out."""
    session = ours(models.dense(tmp_path / "m.onnx"), BEHIND[setting])
    with pytest.raises(UsageError, match=f"^{method} needs a plain session, but {setting} in .* set io_binding: false"):
        getattr(session, method)(None, {})


@pytest.mark.parametrize("method", ["set_providers", "enable_fallback"])
def test_what_would_undo_tuning_is_refused(tmp_path: Path, method: str) -> None:
    """Another provider, or falling back to one."""
    with pytest.raises(UsageError, match=f"A tuned session has no {method}, since"):
        getattr(ours(models.dense(tmp_path / "m.onnx")), method)()


def test_a_cut_model_tells_the_whole_models_metadata(tmp_path: Path) -> None:
    """The pieces have lost it: it is the file's, all seven fields, and read once."""
    path = suppressed(tmp_path / "m.onnx")
    session = ours(path, CUT, shapes={"boxes": (1, 6, 4), "scores": (1, 1, 6)})
    plain = theirs(path).get_modelmeta()
    fields = [name for name in dir(plain) if not name.startswith("_")]
    assert len(fields) == 7
    for name in fields:
        assert getattr(session.get_modelmeta(), name) == getattr(plain, name), name
    model = onnx.load(path)
    model.doc_string, model.producer_name, model.domain, model.model_version = "doc", "producer", "domain", 7
    model.graph.doc_string = "graph"
    model.metadata_props.add(key="character", value="a\nb")
    onnx.save(model, path)
    told = session.get_modelmeta()
    session = ours(path, CUT, shapes={"boxes": (1, 6, 4), "scores": (1, 1, 6)})
    plain = theirs(path).get_modelmeta()
    assert session.get_modelmeta().custom_metadata_map == {"character": "a\nb"}
    for name in fields:
        assert getattr(session.get_modelmeta(), name) == getattr(plain, name), name
    assert session.get_modelmeta() is session.get_modelmeta() is not told


def test_a_signature_is_read_as_onnx_runtime_tells_it(tmp_path: Path) -> None:
    """Names of dimensions, unnamed and negative ones, types, weights left out."""
    kinds = {"a": FLOAT, "b": INT64, "c": TensorProto.FLOAT16, "d": STRING, "e": BOOL, "f": TensorProto.DOUBLE}
    inputs = [helper.make_tensor_value_info(name, kind, ["n", None, 3, -1, 0]) for name, kind in kinds.items()]
    inputs.append(helper.make_tensor_value_info("w", FLOAT, [2]))
    nodes = [helper.make_node("Identity", [value.name], [f"{value.name}_"]) for value in inputs]
    made = [helper.make_tensor_value_info(made_by.output[0], value.type.tensor_type.elem_type, None)
            for made_by, value in zip(nodes, inputs, strict=True)]  # fmt: skip
    graph = helper.make_graph(nodes, "g", inputs, made, [numpy_helper.from_array(np.zeros(2, np.float32), "w")])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    assert read_signature(path) == ort.specs(theirs(path).get_inputs())


def config(folder: Path, knobs: str = "intra_op_num_threads: 1", **info: str) -> Path:
    """Write a configuration for the CPU."""
    lines = "".join(f"    {name}: {value}\n" for name, value in {"provider": "cpu", **info}.items())
    path = folder / "config.yaml"
    path.write_text(f"onnx:\n  {knobs}\n  benchmark_info:\n{lines}", encoding="utf-8")
    return path


@pytest.mark.parametrize("settings", [{}, BOUND], ids=str)
def test_other_shapes_than_the_tuned_one_are_taken(tmp_path: Path, settings: dict[str, Any]) -> None:
    """As the model takes them, in any order, from several threads; what was fixed is what it tells."""
    model = models.dense(tmp_path / "m.onnx", ("n", 8))
    session, other = ours(model, settings, free_dimensions={"n": 2}), theirs(model)
    assert session.get_inputs()[0].shape == [2, 8]
    wrong: list[int] = []

    def work() -> None:
        for rows in (2, 1, 2, 5, 1):
            x = np.full((rows, 8), rows, np.float32)
            if not np.allclose(session.run(None, {"x": x})[0], other.run(None, {"x": x})[0], rtol=1e-5):
                wrong.append(rows)

    at_once(lambda _: work(), range(4))
    assert not wrong
    for size in ((2, 7), (2,), (1, 2, 8)):
        with pytest.raises(UsageError, match="'x' must have the shape nx8, not"):
            session.run(None, {"x": np.zeros(size, np.float32)})


def test_a_wrong_shape_opens_no_second_session(tmp_path: Path) -> None:
    """The model refuses it before."""
    model = models.dense(tmp_path / "m.onnx", ("n", 8))
    session = ours(model, free_dimensions={"n": 2})
    with pytest.raises(UsageError, match="must have the shape nx8"):
        session.run(None, {"x": np.zeros((3, 7), np.float32)})
    session.run(None, {"x": np.zeros((2, 8), np.float32)})
    model.unlink()
    with pytest.raises(UsageError, match="There is no model"):
        session.run(None, {"x": np.zeros((3, 8), np.float32)})


@pytest.mark.parametrize("settings", [CAPTURED, CUT], ids=str)
def test_a_captured_session_says_how_to_open_one_for_another_shape(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A CUDA graph is of one shape; a shape that the model itself refuses is told as such."""
    model = suppressed(tmp_path / "m.onnx") if settings == CUT else models.dense(tmp_path / "m.onnx", ("n", 8))
    shapes = {"boxes": (1, 6, 4), "scores": (1, 1, 6)} if settings == CUT else {"x": (1, 8)}
    session = ours(model, settings, shapes=shapes, free_dimensions={"n": 1})
    name, shape = next(iter(shapes.items()))
    feed = {name: np.zeros(size, np.float32) for name, size in shapes.items()}
    session.run(None, feed)
    told = rf"'{name}' must have the shape 1x.*, which the configuration fixed, not 2x.*shapes={{'{name}': \(...\)}}"
    with pytest.raises(UsageError, match=told):
        session.run(None, {**feed, name: np.zeros((2, *shape[1:]), np.float32)})
    with pytest.raises(UsageError, match=f"'{name}' must have the shape nx"):
        session.run(None, {**feed, name: np.zeros((1, 5), np.float32)})


def test_shapes_of_the_call_come_before_those_of_the_file(tmp_path: Path) -> None:
    """Fixed as the call says, or not at all."""
    model = models.dense(tmp_path / "m.onnx", ("n", 8))
    path = config(tmp_path, free_dimensions="{n: 2}", shapes="{x: 2x8}")
    assert rtmo_optuna.open_session(model, path).get_inputs()[0].shape == [2, 8]
    session = rtmo_optuna.open_session(model, path, shapes={"x": (3, 8)})
    assert session.get_inputs()[0].shape == [3, 8]
    assert session.run(None, {"x": np.zeros((3, 8), np.float32)})[0].shape == (3, 4)
    assert rtmo_optuna.open_session(model, path, shapes={}).get_inputs()[0].shape == ["n", 8]
    assert rtmo_optuna.open_session(model, path, shapes={"x": list(np.array([4, 8]))}).get_inputs()[0].shape == [4, 8]


@pytest.mark.parametrize(("shapes", "told"), [
    ({"y": (1, 8)}, "shapes= is given for 'y', but the model takes 'x'"),
    ({"x": (1, 8, 1)}, r"shapes= asks for 'x' \(tensor\(float\) \[1, 8, 1\]\), but the model takes .*rank"),
    ({"x": (1, 7)}, "shapes= asks for .*keep its rank and fixed sizes"),
    ({"x": (-1, 8)}, "shapes= asks for"),
    ({"x": ("n", 8)}, "shapes= gives .* for 'x', which is no shape"),
    ({"x": 8}, "shapes= gives 8 for 'x', which is no shape"),
])  # fmt: skip
def test_wrong_shapes_of_the_call_are_told(tmp_path: Path, shapes: Any, told: str) -> None:  # noqa: ANN401
    """Unknown input, wrong rank or size, no numbers: one sentence each."""
    model = models.dense(tmp_path / "m.onnx", ("n", 8))
    with pytest.raises(UsageError, match=told):
        rtmo_optuna.open_session(model, config(tmp_path), shapes=shapes)


def test_a_graph_needs_all_shapes(tmp_path: Path) -> None:
    """What `{}` or one of two inputs leave open is told before anything is opened."""
    model = suppressed(tmp_path / "m.onnx")
    path = config(tmp_path, "io_binding: true\n  enable_cuda_graph: true", provider="cuda")
    with pytest.raises(UsageError, match=r"a CUDA graph, which needs fixed shapes, and the input 'boxes' has nx6x4"):
        rtmo_optuna.open_session(model, path, shapes={})


@pytest.mark.parametrize("settings", [{}, BOUND, CAPTURED, CUT], ids=str)
def test_a_session_is_warmed_up(tmp_path: Path, settings: dict[str, Any]) -> None:
    """On zeros of the fixed shapes, or on what is fed; a wrong shape is told as by `run`."""
    model = suppressed(tmp_path / "m.onnx") if settings == CUT else models.dense(tmp_path / "m.onnx", ("n", 8))
    shapes = {"boxes": (1, 6, 4), "scores": (1, 1, 6)} if settings == CUT else {"x": (1, 8)}
    session = ours(model, settings, shapes=shapes, free_dimensions={"n": 1})
    session.warm_up()
    session.warm_up({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    with pytest.raises(UsageError, match="must have the shape"):
        session.warm_up({name: np.zeros((1, 3), np.float32) for name in shapes})


def test_open_shapes_are_warmed_up_on_what_is_fed(tmp_path: Path) -> None:
    """Without, one sentence says so."""
    session = ours(models.dense(tmp_path / "m.onnx", ("n", 8)))
    with pytest.raises(UsageError, match=r"'x' \(tensor\(float\), nx8\) does not say .*: call warm_up\({'x': ...}\)"):
        session.warm_up()
    session.warm_up({"x": np.zeros((2, 8), np.float32)})


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, BOUND, CAPTURED], ids=str)
def test_weights_and_ort_values_on_a_gpu(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Values on the GPU are fed whatever the settings; a weight is taken by a plain session alone."""
    spec = SessionSpec(str(weighted(tmp_path / "m.onnx")), "cuda", Settings.of(settings), free_dimensions={"n": 1})
    session = Session(spec)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(X, "cuda", 0)
    assert session.run(None, {"x": value})[0].tolist() == [[11, 21]]
    assert len(session.get_overridable_initializers()) == (not settings)
    feed = {"x": X, "w": np.zeros(2, np.float32)}
    if settings:
        with pytest.raises(UsageError, match="has w, which the model does not take"):
            session.run(None, feed)
    else:
        assert session.run(None, feed)[0].tolist() == [[1, 1]]


@pytest.mark.gpu
def test_a_model_is_cut_at_the_shapes_of_the_call(tmp_path: Path) -> None:
    """In place of those of the file; warmed up it answers as ONNX Runtime does, and another shape is refused."""
    model = suppressed(tmp_path / "m.onnx")
    knobs = "\n  ".join(f"{name}: true" for name in CUT)
    path = config(tmp_path, knobs, provider="cuda", shapes="{boxes: 1x6x4, scores: 1x1x6}", free_dimensions="{n: 1}")
    session = rtmo_optuna.open_session(model, path, shapes={"boxes": (2, 6, 4), "scores": (2, 1, 6)})
    random = np.random.default_rng(0)
    feed = {"boxes": random.random((2, 6, 4), np.float32), "scores": random.random((2, 1, 6), np.float32)}
    session.warm_up(feed)
    for one, other in zip(session.run(None, feed), theirs(model).run(None, feed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert session.get_modelmeta().graph_name == theirs(model).get_modelmeta().graph_name
    with pytest.raises(UsageError, match="which the configuration fixed"):
        session.warm_up({name: array[:1] for name, array in feed.items()})
