"""RTMO as PyTorch exports it: the operators of real exports, counted, and the answers of the plain model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import build_rtmo

Array = npt.NDArray[Any]

EXPORTED: Mapping[str, tuple[int, int]] = {
    "Add": (50, 21), "Cast": (6, 2), "Clip": (3, 3), "Concat": (60, 27), "Constant": (240, 103),
    "ConstantOfShape": (4, 4), "Conv": (80, 0), "Cos": (2, 2), "Div": (12, 6), "Equal": (1, 1), "Erf": (1, 0),
    "Exp": (3, 2), "Expand": (2, 2), "Flatten": (9, 7), "Gather": (45, 28), "Gemm": (1, 0), "Less": (1, 1),
    "MatMul": (16, 9), "MaxPool": (3, 0), "Mul": (101, 23), "Neg": (1, 1), "NonMaxSuppression": (1, 1), "Pow": (2, 0),
    "Range": (3, 2), "ReduceL2": (1, 1), "ReduceMax": (3, 2), "ReduceMean": (4, 0), "ReduceSum": (4, 4), "Relu": (1, 1),
    "Reshape": (37, 17), "Resize": (2, 0), "Shape": (40, 20), "Sigmoid": (70, 1), "Sin": (2, 2), "Slice": (35, 10),
    "Softmax": (1, 0), "Split": (4, 2), "Sqrt": (2, 0), "Sub": (8, 4), "Tile": (2, 2), "TopK": (2, 1),
    "Transpose": (22, 4), "Unsqueeze": (38, 20), "Where": (3, 3),
}  # fmt: skip
"""Operators of RTMO-t and RTMO-s as PyTorch 2.11 exports them at opset 11: in all, and in the file's order from
NonMaxSuppression on."""

build = cache(build_rtmo.build)


def run(model: onnx.ModelProto, image: Array, level: str = "ORT_ENABLE_ALL") -> list[Array]:
    """Outputs of `model` for `image` on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(["dets", "keypoints"], {"input": image})
    return results


def operators(model: onnx.ModelProto) -> list[str]:
    """Operators of the nodes, in order."""
    return [node.op_type for node in model.graph.node]


def behind(model: onnx.ModelProto) -> list[str]:
    """Operators from NonMaxSuppression on."""
    names = operators(model)
    return names[names.index("NonMaxSuppression") :]


def weights(model: onnx.ModelProto) -> dict[str, Array]:
    """What was trained, whether it stands as an initializer or as a node."""
    tensors = [*model.graph.initializer, *(n.attribute[0].t for n in model.graph.node if n.op_type == "Constant")]
    names = [tensor.name for tensor in model.graph.initializer]
    names += [n.output[0] for n in model.graph.node if n.op_type == "Constant"]
    return {
        name: numpy_helper.to_array(tensor)
        for name, tensor in zip(names, tensors, strict=True)
        if not name.startswith("constant/")
    }


def batch_of(count: int) -> Array:
    """The image of RTMO-t, then its mirror image, then nothing."""
    image = build("t").image
    return np.concatenate([image, image[..., ::-1], np.full_like(image, 114)][:count])


def assert_same_people(found: Sequence[Array], wanted: Sequence[Array], rounding: float) -> None:
    """Check that both are the same rows, but for the row of padding of images that are not alone."""
    for image, scores in enumerate(wanted[0][..., 4]):
        people = int((scores >= 0.1).sum())
        rows = [*range(people), *range(people + 1, len(scores))] if len(wanted[0]) > 1 else [*range(len(scores))]
        np.testing.assert_allclose(found[0][image, rows], wanted[0][image, rows], rtol=1e-4, atol=0.05)
        apart = np.abs(found[1][image, rows] - wanted[1][image, rows])
        assert apart.size == 0 or (np.median(apart) < 1e-3 and apart.max() <= rounding)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["t", "s"])
def test_has_the_operators_of_real_exports(size: str) -> None:
    """As many of each as PyTorch writes, in all and from NonMaxSuppression on; 187 initializers, and no other opset."""
    model = build(size, style="exported").model
    onnx.checker.check_model(model, full_check=True)
    assert Counter(operators(model)) == {name: whole for name, (whole, _) in EXPORTED.items()}
    assert Counter(behind(model)) == {name: late for name, (_, late) in EXPORTED.items() if late}
    assert (len(model.graph.initializer), [opset.version for opset in model.opset_import]) == (187, [11])


def test_declares_what_real_exports_declare() -> None:
    """Any number of images and of rows, and a length of the detections that PyTorch does not know."""
    graph = build("t", style="exported").model.graph
    declared = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert declared == {
        "input": ["batch", 3, 416, 416],
        "dets": ["batch", "kept", "Reshapedets_dim_2"],
        "keypoints": ["batch", "kept", 17, 3],
    }


@pytest.mark.slow
@pytest.mark.parametrize("style", ["exported", "opset17"])
def test_has_the_weights_of_the_plain_model(style: str) -> None:
    """The same seed gives the same weights up to rounding; one matrix stands transposed, as Gemm takes it."""
    plain, other = build("t"), build("t", style=style)
    np.testing.assert_array_equal(plain.image, other.image)
    wanted, found = weights(plain.model), weights(other.model)
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        same = array.T if name.endswith("output/weight") else array
        np.testing.assert_allclose(found[name].reshape(same.shape), same, rtol=1e-4, atol=1e-5 * np.abs(array).max())
    assert build_rtmo.count_parameters(plain.model) == build_rtmo.count_parameters(other.model)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
def test_finds_in_each_image_what_the_plain_model_finds(count: int) -> None:
    """Batches of people, of other people and of nobody: the plain model's rows, up to what rounding makes of it."""
    batch, plain = batch_of(count), build("t", dynamic=True).model
    wanted, found = run(plain, batch), run(build("t", style="exported").model, batch)
    assert found[0].shape == wanted[0].shape
    assert [(scores >= 0.1).sum() for scores in found[0][..., 4]][:1] == [38]
    plainer = run(plain, batch, "ORT_DISABLE_ALL")
    assert_same_people(found, wanted, 2 * float(np.abs(plainer[1] - wanted[1]).max()))


@pytest.mark.slow
@pytest.mark.parametrize("people", [1, 20, 50])
@pytest.mark.parametrize("style", ["exported", "opset17"])
def test_finds_as_many_people_as_wanted(style: str, people: int) -> None:
    """The number of people is the caller's, and the row of padding is left out where there is no room."""
    built = build("t", people=people, style=style)
    detections, keypoints = run(built.model, built.image)
    assert detections.shape == (1, min(people + 1, 50), 5)
    assert keypoints.shape == (1, min(people + 1, 50), 17, 3)
    assert (detections[..., 4] >= 0.1).sum() == people


@pytest.mark.slow
@pytest.mark.parametrize("size", ["s", "m"])
@pytest.mark.parametrize("style", ["exported", "opset17"])
def test_other_sizes_run(style: str, size: str) -> None:
    """Larger networks find their people too, in as many rows as the plain ones."""
    built = build(size, style=style)
    detections, _ = run(built.model, built.image)
    assert detections.shape == (1, 39, 5)
    assert (detections[..., 4] >= 0.1).sum() == 38


@pytest.mark.slow
def test_opset_17_answers_as_the_plain_model() -> None:
    """One image, people and nobody: the plain model's rows, the row of padding too."""
    plain, other = build("t").model, build("t", style="opset17").model
    onnx.checker.check_model(other, full_check=True)
    for image in (build("t").image, np.ascontiguousarray(build("t").image[..., ::-1]), batch_of(3)[2:]):
        wanted, found = run(plain, image), run(other, image)
        assert found[0].shape == wanted[0].shape
        plainer = run(plain, image, "ORT_DISABLE_ALL")
        assert_same_people(found, wanted, 2 * float(np.abs(plainer[1] - wanted[1]).max()))


@pytest.mark.slow
def test_opset_17_writes_its_own_operators() -> None:
    """Layers are normalised by one node, sections and axes are inputs, and only the number of rows is computed with."""
    model = build("t", style="opset17").model
    assert [opset.version for opset in model.opset_import] == [17]
    counts = Counter(operators(model))
    assert (counts["LayerNormalization"], counts["ReduceMean"], counts["Tile"]) == (2, 0, 0)
    moved = [node for node in model.graph.node if node.op_type in {"Split", "Squeeze", "Unsqueeze", "ReduceSum"}]
    assert {len(node.input) for node in moved} == {2}
    assert {name: counts[name] for name in ("Shape", "Range", "ConstantOfShape", "Cast")} == {
        "Shape": behind(model).count("Shape"), "Range": 0, "ConstantOfShape": 0, "Cast": 0,
    }  # fmt: skip
    assert counts["Shape"] == 7
    read = {name for node in model.graph.node for name in node.input}
    assert all(node.output[0] in read for node in model.graph.node if node.op_type == "Constant")


@pytest.mark.parametrize(
    ("style", "more"),
    [("exported", {"raw": True}), ("opset17", {"raw": True}), ("exported", {"dynamic": False}),
     ("opset17", {"dynamic": True})],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(style: str, more: dict[str, bool]) -> None:
    """A style that fixes the batch, or that is about what follows suppression, takes no other wish."""
    with pytest.raises(ValueError, match=f"no model of style {style}"):
        build_rtmo.build("t", style=style, **more)
