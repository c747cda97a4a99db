"""Libraries that open sessions of their own, with a tuned one in its place: the same answers on real photographs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

import build_rtmo
import models
import rtmo_optuna
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.errors import UsageError

RTMO = ("t", "--exported")
"""What is asked of scripts/build_rtmo.py."""
ROOT = Path(__file__).parents[1]
PARTS = ("text_det", "text_cls", "text_rec")
OPEN = {
    "rapidocr": ("DynamicDimension.0", "DynamicDimension.1", "DynamicDimension.2"),
    "rapidocr_onnxruntime": ("p2o.DynamicDimension.0", "p2o.DynamicDimension.1", "p2o.DynamicDimension.2"),
}
"""The dimensions of each package's detector: batch, height, width."""


@pytest.fixture(scope="module")
def rtmo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an RTMO model as PyTorch exports it, of an open batch, with random weights."""
    path = tmp_path_factory.mktemp("rtmo") / "rtmo-t.onnx"
    build_rtmo.main([*RTMO, "--output", str(path)])
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration of ONNX Runtime's default settings."""
    return write(tmp_path / "config.yaml")


def write(path: Path, **fixed: int) -> Path:
    """Write a configuration of ONNX Runtime's default settings, with these dimensions fixed."""
    dimensions = f"    free_dimensions: {{{', '.join(f'{name}: {size}' for name, size in fixed.items())}}}\n"
    path.write_text(
        "onnx:\n  graph_optimization_level: ORT_ENABLE_ALL\n  benchmark_info:\n    provider: cpu\n"
        + dimensions * bool(fixed),
        encoding="utf-8",
    )
    return path


def pictured(path: Path, size: int) -> Path:
    """Write a model that gives back the picture `input`."""
    value = (TensorProto.FLOAT, (1, 3, size, size))
    return models.save(path, [helper.make_node("Identity", ["input"], ["y"])], {"input": value}, {"y": value})


def run(clients: Path, example: str, *arguments: object) -> str:
    """Return what an example prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{example}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, clients)))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("example", ["rtmlib_pose", "rtmo_ort_pose"])
def test_pose_estimators_answer_the_same(clients: Path, pictures: Path, rtmo: Path, config: Path, example: str) -> None:
    """Equal keypoints of several people in a photograph, on rtmlib's or rtmo-ort's own session and on ours."""
    told = run(clients, example, rtmo, config, pictures / "astronaut.png")
    assert "same answer: True" in told
    found = next(line for line in told.splitlines() if " people, " in line)
    assert int(found.split()[0]) > 1


def with_pixels(path: Path, size: int, more: str = "") -> Path:
    """Write a configuration of ONNX Runtime's default settings, for a session that takes pixels."""
    write(path)
    shapes = f"    shapes: {{input: 1x3x{size}x{size}}}\n    pixels: {{input: input{more}}}\n"
    path.write_text(path.read_text(encoding="utf-8") + shapes, encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("example", ["rtmlib_pose", "rtmo_ort_pose"])
def test_pose_estimators_answer_the_same_from_pixels(
    clients: Path, pictures: Path, rtmo_t: Callable[[str], tuple[Path, object]], tmp_path: Path, example: str
) -> None:
    """Equal keypoints of several people in a photograph, whose frame is written into a session's buffer as it is."""
    model, _ = rtmo_t("plain")  # of one image: another one is optimised otherwise for any number of them
    told = run(clients, example, model, with_pixels(tmp_path / "config.yaml", 416), pictures / "astronaut.png")
    assert "same answer: True" in told
    found = next(line for line in told.splitlines() if " people, " in line)
    assert int(found.split()[0]) > 1


def test_a_client_keeps_its_own_way_where_pixels_are_not_its_own(
    rtmlib: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    """Another normalisation, another size, another class are refused; arrays after pixels are arrays again."""
    model = pictured(tmp_path / "m.onnx", 8)
    client = rtmlib.RTMO(str(model), model_input_size=(8, 8))
    own = client.session
    with pytest.raises(UsageError, match=r"normalises pictures by mean \(0.0, 0.0, 0.0\).* by scale 0.5,"):
        rtmo_optuna.adapt(client, with_pixels(tmp_path / "c.yaml", 8, ", scale: 0.5"))
    client.model_input_size = (16, 16)
    with pytest.raises(UsageError, match="has the shape 8x8x3, and shape= says 16x16x3"):
        rtmo_optuna.adapt(client, with_pixels(tmp_path / "c.yaml", 8))
    client.model_input_size = (8, 8)
    assert client.session is own
    assert "preprocess" not in vars(client)
    frame = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)[:, ::-1]
    wanted = client.inference(client.preprocess(frame)[0])
    for config, methods in ((with_pixels(tmp_path / "c.yaml", 8), 2), (write(tmp_path / "a.yaml"), 0)):
        rtmo_optuna.adapt(client, config)
        assert len({"preprocess", "inference"} & vars(client).keys()) == methods
        np.testing.assert_array_equal(client.inference(client.preprocess(frame)[0])[0], wanted[0])
    other = rtmlib.RTMPose(str(model), model_input_size=(8, 8))
    with pytest.raises(UsageError, match=r"A RTMPose makes arrays of its frames.*tune without --pixels"):
        rtmo_optuna.adapt(other, with_pixels(tmp_path / "c.yaml", 8))


@pytest.mark.slow
@pytest.mark.parametrize("package", OPEN)
def test_text_readers_answer_the_same(clients: Path, pictures: Path, tmp_path: Path, package: str) -> None:
    """Equal boxes, words and scores of a photographed page, on three sessions of ours, one tuned for another shape."""
    fixed = dict(zip(OPEN[package], (1, 320, 320), strict=True))
    configs = [write(tmp_path / f"{part}.yaml", **(fixed if part == "text_det" else {})) for part in PARTS]
    given = [f"{part}={path}" for part, path in zip(PARTS, configs, strict=True)]
    page = tmp_path / "page.png"
    with Image.open(pictures / "page.png") as whole:
        whole.crop((0, 0, 200, whole.height)).save(page)
    told = run(clients, f"{package}_text", page, *given)
    assert "same answer: True" in told
    assert "Let us first" in told


@pytest.fixture(scope="module")
def rtmlib(clients: Path) -> Iterator[Any]:
    """Return the module rtmlib."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(clients))
        import rtmlib  # noqa: PLC0415 - not installed

        yield rtmlib


def test_adapt_takes_the_path_that_the_client_opened(rtmlib: Any, config: Path, tmp_path: Path) -> None:  # noqa: ANN401
    """Or the one given; adapted again it is adapted again, and shapes are handed on."""
    model, other = models.dense(tmp_path / "m.onnx", ("n", 8)), models.dense(tmp_path / "other.onnx", ("n", 16))
    client = rtmlib.RTMO(str(model))
    session = rtmo_optuna.adapt(client, config)
    assert client.session is session
    assert session.get_inputs()[0].shape == ["n", 8]
    again = rtmo_optuna.adapt(client, config, shapes={"x": (2, 8)})
    assert again is client.session is not session
    assert again.get_inputs()[0].shape == [2, 8]
    assert rtmo_optuna.adapt(client, config, model=other).get_inputs()[0].shape == ["n", 16]


def test_a_model_without_a_path_is_asked_for(rtmlib: Any, config: Path, tmp_path: Path) -> None:  # noqa: ANN401
    """Opened from memory, or gone since; the client keeps its session."""
    model = models.dense(tmp_path / "m.onnx")
    client = rtmlib.RTMO(str(model))
    client.session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    with pytest.raises(UsageError, match=r"The model of this RTMO is not .* from memory\): say model='path/to/model"):
        rtmo_optuna.adapt(client, config)
    assert not isinstance(client.session, Session)
    assert rtmo_optuna.adapt(client, config, model=model) is client.session
    model.unlink()
    with pytest.raises(UsageError, match=r"it opened .*m.onnx, which is not there\): say model="):
        rtmo_optuna.adapt(client, config)
    with pytest.raises(UsageError, match=r"it opened .*none.onnx, which is not there"):
        rtmo_optuna.adapt(client, config, model=tmp_path / "none.onnx")


def test_a_client_of_another_runtime_is_refused(rtmlib: Any, config: Path, tmp_path: Path) -> None:  # noqa: ANN401
    """What rtmlib runs through OpenCV is no session of ONNX Runtime."""
    client = rtmlib.RTMO(str(models.dense(tmp_path / "m.onnx")), backend="opencv")
    with pytest.raises(UsageError, match=r"What this RTMO runs is a cv2.dnn.Net, no onnxruntime.InferenceSession"):
        rtmo_optuna.adapt(client, config)


def test_a_client_of_several_sessions_is_asked_which(rtmlib: Any, config: Path, tmp_path: Path) -> None:  # noqa: ANN401
    """A solution of two stages needs `part`, one of a single stage does not."""
    model = str(models.dense(tmp_path / "m.onnx"))
    body = rtmlib.Body(det=model, det_input_size=(8, 8), pose=model, pose_input_size=(8, 8), backend="onnxruntime")
    with pytest.raises(UsageError, match="This Body has 2 sessions: say part= one of 'det_model', 'pose_model'"):
        rtmo_optuna.adapt(body, config)
    with pytest.raises(UsageError, match="This Body has no session 'head': say part= one of"):
        rtmo_optuna.adapt(body, config, part="head")
    assert rtmo_optuna.adapt(body, config, part="pose_model") is body.pose_model.session
    assert not isinstance(body.det_model.session, Session)


@pytest.mark.parametrize("client", [object(), 5, models])
def test_an_unknown_client_is_told_what_to_do(config: Path, client: object) -> None:
    """With what is known, and the line that puts the session in place."""
    told = (
        r"is no client that adapt knows \(those of rapidocr, rapidocr_onnxruntime, rtmlib, rtmo_ort\): .*open_session\("
    )
    with pytest.raises(UsageError, match=told):
        rtmo_optuna.adapt(client, config)
