"""Frames made into pictures of a session's size: geometry, values, and what is no frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rtmo_optuna
from rtmo_optuna.engine.letterbox import by_numpy
from rtmo_optuna.errors import UsageError


def frame(height: int, width: int) -> NDArray[np.uint8]:
    """Return random pixels without a 114 among them."""
    return np.random.default_rng(0).integers(115, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("size", "ratio", "bottom", "right"), [
    ((108, 192), 1 / 3, 36, 64),
    ((192, 108), 1 / 3, 64, 36),
    ((16, 20), 3.2, 51, 64),
    ((64, 64), 1, 64, 64),
    ((1, 200), 0.32, 1, 64),
])  # fmt: skip
def test_a_frame_lies_at_the_top_left(size: tuple[int, int], ratio: float, bottom: int, right: int) -> None:
    """Its proportions kept, the rest 114, whatever was in the buffer before; very wide ones keep a row."""
    buffer = np.zeros((64, 64, 3), np.uint8)
    assert rtmo_optuna.letterbox(frame(*size), buffer) == pytest.approx(ratio)
    assert (buffer[:bottom, :right] > 114).all()
    assert (buffer[bottom:] == 114).all()
    assert (buffer[:, right:] == 114).all()


def test_a_place_in_the_buffer_is_told_in_the_frame() -> None:
    """A bright square: its middle divided by the ratio."""
    dark, buffer = np.zeros((300, 200, 3), np.uint8), np.zeros((96, 128, 3), np.uint8)
    dark[200:220, 150:170] = 255
    ratio = rtmo_optuna.letterbox(dark, buffer)
    rows, columns = np.nonzero(buffer[:, : int(200 * ratio), 0])
    assert ((rows.mean() + 0.5) / ratio, (columns.mean() + 0.5) / ratio) == pytest.approx((210, 160), abs=2)


@pytest.mark.parametrize("size", [(40, 30), (7, 5), (20, 20), (13, 61)])
def test_scaling_is_linear_between_centres(size: tuple[int, int]) -> None:
    """As NumPy interpolates, an axis after the other; at the borders the last pixel goes on."""
    given, target = frame(*size), np.zeros((20, 25, 3), np.uint8)
    by_numpy(given, target)
    wanted: NDArray[Any] = given
    for axis, wide in enumerate(target.shape[:2]):
        places = (np.arange(wide) + 0.5) * given.shape[axis] / wide - 0.5
        lines = np.moveaxis(wanted, axis, -1)
        known = np.arange(given.shape[axis])
        made = [np.interp(places, known, line) for line in lines.reshape(-1, len(known))]
        wanted = np.moveaxis(np.reshape(made, (*lines.shape[:-1], wide)), -1, axis)
    np.testing.assert_allclose(target, wanted, atol=0.51)


@pytest.mark.parametrize(("given", "told"), [
    (frame(8, 8).astype(np.float32), "this is float32 8x8x3"),
    (frame(8, 8)[..., 0], "this is uint8 8x8"),
    (frame(8, 8)[..., :2].copy(), "this is uint8 8x8x2"),
    (np.zeros((0, 8, 3), np.uint8), "this is uint8 0x8x3"),
    (frame(8, 8)[:, ::-1], r"this is uint8 8x8x3, not contiguous \(numpy.ascontiguousarray"),
    ("frame.png", "this is str"),
])  # fmt: skip
def test_what_is_no_frame_is_told(given: Any, told: str) -> None:  # noqa: ANN401
    """As frame and as buffer: type, shape, layout; the sentence says what is wanted."""
    for name, arguments in (("frame", (given, frame(8, 8))), ("buffer", (frame(8, 8), given))):
        with pytest.raises(UsageError, match=f"The {name} must be a contiguous array of uint8, .*{told}"):
            rtmo_optuna.letterbox(*arguments)
