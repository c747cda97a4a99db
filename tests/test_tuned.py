"""`benchmark_info` as people edit it: read where it is clear, else one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import models
import rtmo_optuna
from rtmo_optuna.errors import UsageError

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
