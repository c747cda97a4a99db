"""Models in half precision: what is converted, what stays, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

import models
from detectors import end_to_end, pictures
from models import node
from rtmo_optuna.engine import ort
from rtmo_optuna.engine.graph import read_graph
from rtmo_optuna.engine.precision import half
from rtmo_optuna.errors import SettingsRefusedError
from rtmo_optuna.space import resolve
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.subject import Frozen, StudyDefinition
from test_space import MACHINE

F32, F16 = TensorProto.FLOAT, TensorProto.FLOAT16
STUDY = StudyDefinition("half", "cuda", {"precision": None, "prefer_nhwc": None})


def run(path: Path | str, **feed: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the outputs of a model on the CPU."""
    return list(ort.load("cpu").open(str(path), Settings()).run(None, feed))


def converted(path: Path, tmp_path: Path) -> onnx.ModelProto:
    """Return the model at `path` in float16, which the checker has seen, and ONNX Runtime opens."""
    made = half(str(path), str(tmp_path / "cache"))
    ort.load("cpu").open(made, Settings())
    return onnx.load(made)


def test_a_model_computes_in_float16_between_the_inputs_and_outputs_that_it_had(tmp_path: Path) -> None:
    """Its answer differs by rounding, and it does differ; its weights take half of the bytes."""
    path = models.dense(tmp_path / "dense.onnx")
    model = converted(path, tmp_path)
    assert {tensor.data_type for tensor in model.graph.initializer} == {F16}
    ends = [*model.graph.input, *model.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {F32}
    x = np.random.default_rng(1).standard_normal((1, 8)).astype(np.float32)
    (whole,), (rounded,) = run(path, x=x), run(half(str(path), str(tmp_path / "cache")), x=x)
    assert 0 < np.abs(whole - rounded).max() < 0.01 * np.abs(whole).max()


def test_a_second_time_nothing_is_converted(tmp_path: Path) -> None:
    """The file is the same one; a model of other content has a file of its own."""
    path = models.dense(tmp_path / "dense.onnx")
    first = Path(half(str(path), str(tmp_path / "cache")))
    before = first.stat().st_mtime_ns
    assert half(str(path), str(tmp_path / "cache")) == str(first)
    assert first.stat().st_mtime_ns == before
    models.dense(path, (1, 16))
    assert half(str(path), str(tmp_path / "cache")) != str(first)


@pytest.mark.parametrize("as_constant", [False, True])
def test_what_float16_cannot_hold_stays_float32(tmp_path: Path, as_constant: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A scale of 1e5, as a weight or as a constant: clipped to 65,504 it would be wrong by a third."""
    scale = np.array([1e5], np.float32)
    nodes = [node("Mul", "x s", "large"), node("Mul", "large small", "y")]
    weights = {"small": np.array([1e-5], np.float32)}
    if as_constant:
        nodes.insert(0, node("Constant", "", "s", value=onnx.numpy_helper.from_array(scale)))
    else:
        weights["s"] = scale
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (F32, (1, 4))}, {"y": (F32, (1, 4))}, weights)
    (found,) = run(half(str(path), str(tmp_path / "cache")), x=np.full((1, 4), 0.5, np.float32))
    np.testing.assert_allclose(found, 0.5, rtol=2e-3)


def test_a_range_counts_on_beyond_what_float16_counts(tmp_path: Path) -> None:
    """From 2,049 on float16 lacks every second number."""
    nodes = [node("Range", "a b c", "r"), node("Mul", "r one", "y")]
    weights = {name: np.array(value, np.float32) for name, value in (("a", 0), ("b", 2000), ("c", 1), ("one", 1))}
    path = models.save(
        tmp_path / "m.onnx", [*nodes, node("Add", "x y", "z")], {"x": (F32, (1,))}, {"z": (F32, (2000,))}, weights
    )
    (found,) = run(half(str(path), str(tmp_path / "cache")), x=np.zeros(1, np.float32))
    assert found.tolist() == list(range(2000))


def test_nodes_have_names_of_their_own_and_no_tensor_is_cast_twice(tmp_path: Path) -> None:
    """Two nodes that stay float32 read one tensor, and one of them the other's answer: one cast there, one back."""
    nodes = [node("Relu", "x", "r"), node("Max", "r low", "a"), node("Max", "r a", "b"), node("Relu", "b", "y")]
    low = {"low": np.zeros((1, 4), np.float32)}
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (F32, (1, 4))}, {"y": (F32, (1, 4))}, low)
    model = converted(path, tmp_path)
    names = [one.name for one in model.graph.node]
    assert all(names)
    assert len(names) == len(set(names))
    assert Counter(one.op_type for one in model.graph.node)["Cast"] == 4  # in, to float32, back, out


def test_what_a_suppression_decides_about_stays_float32(tmp_path: Path) -> None:
    """A detector with its suppression inside finds what it found, box by box."""
    path = end_to_end(tmp_path / "detector.onnx")
    for name, picture in pictures().items():
        whole, rounded = run(path, images=picture), run(half(str(path), str(tmp_path / "cache")), images=picture)
        assert [array.shape for array in whole] == [array.shape for array in rounded], name
    late = {one.op_type for one in converted(path, tmp_path).graph.node if "NonMaxSuppression" in one.op_type}
    assert late == {"NonMaxSuppression"}


def test_a_model_that_cannot_be_converted_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trial is refused with the reason; the study goes on in float32."""

    def broken(*_: object, **__: object) -> None:
        message = "no way"
        raise ValueError(message)

    monkeypatch.setattr("onnxruntime.transformers.float16.convert_float_to_float16", broken)
    told = r"dense.onnx cannot be converted to float16: no way. Leave precision"
    with pytest.raises(SettingsRefusedError, match=told):
        half(str(models.dense(tmp_path / "dense.onnx")), str(tmp_path / "cache"))


@pytest.mark.parametrize(("facts", "real", "why"), [
    ({"weights": ("float16",)}, True, "the model's weights are float16, not float32"),
    ({"operators": {"DequantizeLinear": 3, "Conv": 2}}, True, "the model is quantized (DequantizeLinear)"),
    ({"operators": {"MatMulNBits": 1}, "weights": ("float32",)}, True, "the model is quantized (MatMulNBits)"),
    ({"weights": ("float32",)}, False, "never taken on an input that was made up: give --input"),
])  # fmt: skip
def test_what_is_not_converted_leaves_the_space(facts: dict[str, Any], why: str, *, real: bool) -> None:
    """With the reason, which the report shows; the other dimensions stay."""
    space = resolve.resolve(STUDY, MACHINE, models.facts(**facts), fixed_shapes=True, real=real)
    assert [dimension.name for dimension in space.dimensions] == ["prefer_nhwc"]
    assert space.left_out == (Frozen("precision=float16", why), Frozen("precision=mixed", why))


def test_the_types_of_weights_are_told(tmp_path: Path) -> None:
    """Integers are none: shapes and indices lie in every model."""
    nodes = [node("Cast", "h", "f", to=F32), node("Add", "x f", "a"), node("Reshape", "a s", "y")]
    weights: dict[str, NDArray[Any]] = {"h": np.ones(4, np.float16), "s": np.array([4, 1], np.int64)}
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (F32, (1, 4))}, {"y": (F32, (4, 1))}, weights)
    assert read_graph(path).weights == ("float16",)
    assert read_graph(models.dense(tmp_path / "d.onnx")).weights == ("float32",)
