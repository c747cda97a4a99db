"""RTMO as built: as large as the published networks, and finding people in the image that comes with it."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from collections.abc import Sequence

import numpy.typing as npt

import build_rtmo

Array = npt.NDArray[Any]

PARAMETERS = {"t": 6_767_845, "s": 9_771_821, "m": 22_182_813, "l": 43_839_021}
CONVOLUTIONS = {"t": 80, "s": 80, "m": 100, "l": 116}
DENSE = ["boxes", "scores", "pose", "visibility"]

build = cache(build_rtmo.build)


def run(model: onnx.ModelProto, image: Array, outputs: Sequence[str] | None = None) -> list[Array]:
    """Outputs of `model` for `image` on the CPU, by name or all; any tensor of the graph can be named."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    known = {output.name for output in graph.graph.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs or [] if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(outputs, {"input": image})
    return results


def people(detections: Array) -> Array:
    """Rows [people, 5] of one image's detections that are not filled up."""
    confident: Array = detections[detections[:, 4] >= 0.1]
    return confident


@pytest.mark.slow
@pytest.mark.parametrize("size", PARAMETERS)
def test_is_the_published_network(size: str) -> None:
    """A valid model with as many parameters and convolutions as the published network has."""
    model = build(size).model
    onnx.checker.check_model(model, full_check=True)
    assert build_rtmo.count_parameters(model) == pytest.approx(PARAMETERS[size], rel=0.005)
    assert sum(node.op_type == "Conv" for node in model.graph.node) == CONVOLUTIONS[size]


@pytest.mark.slow
@pytest.mark.parametrize("size", PARAMETERS)
def test_finds_people_in_its_image(size: str) -> None:
    """ONNX Runtime finds 30 to 45 people, one row of padding after them, and a pose near each box."""
    built = build(size)
    detections, keypoints = run(built.model, built.image)
    found = len(people(detections[0]))
    assert 30 <= found <= 45
    assert detections.shape == (1, found + 1, 5)
    assert keypoints.shape == (1, found + 1, 17, 3)
    assert np.isfinite(detections).all()
    assert np.isfinite(keypoints).all()

    corners, places = detections[0, :, None, :4], keypoints[0, :, :, :2]
    sides = corners[..., 2:] - corners[..., :2]
    assert sides.min() > 10
    assert sides.max() < 1000
    # The bins reach an eighth of a side beyond the box.
    assert ((places >= corners[..., :2] - 0.126 * sides) & (places <= corners[..., 2:] + 0.126 * sides)).all()
    assert (places.std(axis=1) > 0.05 * sides[:, 0]).all()
    assert keypoints[..., 2].min() >= 0
    assert keypoints[..., 2].max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("size", "seed"), [("t", 1), ("t", 2), ("t", 3), ("s", 4), ("s", 5)])
def test_finds_people_for_any_seed(size: str, seed: int) -> None:
    """No seed gives too few people or too many, or takes the rows of padding for people."""
    built = build(size, seed=seed)
    (detections, _) = run(built.model, built.image)
    assert 30 <= len(people(detections[0])) <= 45
    assert len(people(detections[0])) == detections.shape[1] - 1


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "rows"), [(1, 2), (20, 21), (50, 50)])
def test_finds_as_many_people_as_wanted(wanted: int, rows: int) -> None:
    """The number of people is the caller's, and the row of padding is left out where there is no room."""
    built = build("t", people=wanted)
    (detections, _) = run(built.model, built.image)
    assert detections.shape == (1, rows, 5)
    assert len(people(detections[0])) == wanted


@pytest.mark.slow
def test_suppression_has_something_to_do() -> None:
    """Far more priors score than people are found, so the cost of suppression is that of a real image."""
    built = build("s")
    detections, scores = run(built.model, built.image, ["dets", "scores"])
    assert (scores > 0.1).sum() > 1.4 * len(people(detections[0]))


@pytest.mark.slow
def test_image_is_a_letterboxed_picture() -> None:
    """Pixel values over the whole range, with correlated neighbours, above a padding of 114."""
    image = build("s").image
    assert image.shape == (1, 3, 640, 640)
    assert image.dtype == np.float32
    assert (image[:, :, 480:] == 114).all()
    picture = image[0, :, :480]
    assert (picture == picture.round()).all()
    assert picture.min() == 0
    assert picture.max() == 255
    assert np.corrcoef(picture[:, :, 1:].ravel(), picture[:, :, :-1].ravel())[0, 1] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_raw_is_the_whole_model_up_to_suppression(*, dynamic: bool) -> None:
    """The raw model's nodes and weights are the first of the whole model's, and so are the tensors it gives."""
    raw, whole = build("t", raw=True, dynamic=dynamic), build("t", dynamic=dynamic)
    nodes, weights = len(raw.model.graph.node), len(raw.model.graph.initializer)
    assert list(raw.model.graph.node) == list(whole.model.graph.node)[:nodes]
    assert list(raw.model.graph.initializer) == list(whole.model.graph.initializer)[:weights]
    assert "NonMaxSuppression" not in {node.op_type for node in raw.model.graph.node}

    assert [output.name for output in raw.model.graph.output] == DENSE
    for ours, theirs in zip(run(raw.model, raw.image), run(whole.model, whole.image, DENSE), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_raw_shapes_are_fixed() -> None:
    """Every dimension that the raw model declares is a number, and the one that it gives."""
    raw = build("t", raw=True)
    onnx.checker.check_model(raw.model, full_check=True)
    declared = [
        tuple(dimension.dim_value for dimension in output.type.tensor_type.shape.dim)
        for output in raw.model.graph.output
    ]
    assert declared == [(1, 845, 4), (1, 845, 1), (1, 845, 192), (1, 845, 17)]
    assert declared == [output.shape for output in run(raw.model, raw.image)]


@pytest.mark.slow
def test_dynamic_batch_of_one_is_the_fixed_model() -> None:
    """A batch of one gives what the model for one image gives."""
    fixed, dynamic = build("t"), build("t", dynamic=True)
    onnx.checker.check_model(dynamic.model, full_check=True)
    for ours, theirs in zip(run(dynamic.model, fixed.image), run(fixed.model, fixed.image), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=0.05)


@pytest.mark.slow
def test_dynamic_batch_keeps_images_apart() -> None:
    """Each image of a batch has the people that it has alone, in the same order, whatever the others hold."""
    model, image = build("t", dynamic=True).model, build("t").image
    mirrored = image[..., ::-1]
    alone = [run(model, x) for x in (image, mirrored)]
    expected = [people(detections[0]) for detections, _ in alone]
    assert len(expected[0]) != len(expected[1])

    batch = np.concatenate([image, mirrored, image])
    detections, keypoints = run(model, batch)
    assert detections.shape[0] == keypoints.shape[0] == 3
    for row, source in enumerate((0, 1, 0)):
        found = people(detections[row])
        np.testing.assert_allclose(found, expected[source], rtol=1e-4, atol=0.05)
        np.testing.assert_allclose(
            keypoints[row, : len(found)], alone[source][1][0, : len(found)], rtol=1e-4, atol=0.05
        )


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_nobody_in_the_image(*, dynamic: bool) -> None:
    """Without anybody the whole model still answers, with the row of padding alone."""
    built = build("t", dynamic=dynamic)
    model = onnx.ModelProto()
    model.CopyFrom(built.model)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("/score/bias"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) - 100, tensor.name))
    detections, keypoints = run(model, built.image)
    assert detections.shape == (1, 1, 5)
    assert keypoints.shape == (1, 1, 17, 3)
    assert len(people(detections[0])) == 0
    assert np.isfinite(keypoints).all()


@pytest.mark.slow
def test_same_seed_same_model() -> None:
    """Equal arguments give equal models and images, to the last bit."""
    first, second = build_rtmo.build("t", seed=3), build_rtmo.build("t", seed=3)
    assert first.model == second.model
    np.testing.assert_array_equal(first.image, second.image)


@pytest.mark.slow
def test_other_seed_other_model() -> None:
    """Another seed gives another picture and other weights in the same graph."""
    first, second = build("t", seed=1), build("t", seed=2)
    assert first.model.graph.node == second.model.graph.node
    assert (first.image != second.image).mean() > 0.5
    name = "backbone/stem/weight"
    weights = [
        numpy_helper.to_array(tensor)
        for built in (first, second)
        for tensor in built.model.graph.initializer
        if tensor.name == name
    ]
    assert np.abs(weights[0] - weights[1]).max() > 0


@pytest.mark.slow
def test_command_writes_model_and_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes a model, and an image beside it that fits its input, and says so."""
    monkeypatch.chdir(tmp_path)
    build_rtmo.main(["t", "--raw", "--seed", "1"])
    model = onnx.load(tmp_path / "rtmo-t.onnx")
    with np.load(tmp_path / "rtmo-t.npz") as arrays:
        assert list(arrays) == ["input"]
        np.testing.assert_array_equal(arrays["input"], build("t", seed=1).image)
    assert model == build("t", seed=1, raw=True).model
    assert "rtmo-t.onnx" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "style"),
    [(["--exported"], "exported"), (["--opset", "11"], "exported"), (["--exported", "--opset", "17"], "opset17"),
     (["--opset", "17"], "opset17"), (["--exported", "--dynamic"], "exported")],
)  # fmt: skip
def test_command_writes_the_style_that_is_asked_for(tmp_path: Path, options: list[str], style: str) -> None:
    """An opset alone asks for an export too, and an export is dynamic whether or not that is said."""
    build_rtmo.main(["t", *options, "--output", str(tmp_path / "m.onnx")])
    assert onnx.load(tmp_path / "m.onnx") == build("t", style=style).model


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["x"], "invalid choice: 'x'"),
    (["t", "--seed", "-1"], "--seed has to be 0 or more, not -1"),
    (["t", "--people", "51"], "--people has to be from 1 to 50, not 51"),
    (["t", "--opset", "13"], "argument --opset: invalid choice: 13 (choose from 11, 17)"),
    (["t", "--exported", "--raw"], "--raw ends before what --exported and --opset are about"),
    (["t", "--opset", "17", "--dynamic"], "--dynamic does not go with --opset 17, which is for one image"),
    (["t", "--output", "model.npz"], "model.npz has to end in .onnx"),
    (["t", "--output", "nowhere/model.onnx"], "there is no folder nowhere"),
])  # fmt: skip
def test_command_refuses_in_one_sentence(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad arguments end the command with status 2 and one line that says what is wrong."""
    with pytest.raises(SystemExit) as refused:
        build_rtmo.main(arguments)
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
