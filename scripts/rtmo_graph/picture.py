"""A picture to run the network on, so that it works on something like what it is made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_PADDING = 114
_SHAPES = 40


def letterboxed_picture(side: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A drawn 4:3 picture at the top of a padded square, [1, 3, side, side], whole numbers from 0 to 255."""
    height, width = side * 3 // 4, side
    y, x = np.mgrid[:height, :width] / side
    picture = _colour(rng) + _waves(x, y, rng)
    for _ in range(_SHAPES):
        inside = _shape(x, y, rng)
        picture = np.where(inside, _colour(rng) + 0.5 * _waves(x, y, rng), picture)
    picture += rng.normal(0, 4, picture.shape)
    square = np.full((1, 3, side, side), _PADDING, np.float32)
    square[0, :, :height] = picture.clip(0, 255).round()
    return square


def _colour(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return rng.uniform(20, 235, (3, 1, 1))


def _waves(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Soft shading [3, height, width] within about 60 levels of zero."""
    across, down, phase = rng.uniform(-9, 9, (3, 3, 1, 1))
    waves: npt.NDArray[np.float64] = 60 * np.sin(across * x + down * y + phase)
    return waves


def _shape(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Where [height, width] an upright ellipse or rectangle of a person's proportions lies."""
    centre_x, centre_y, size = rng.uniform((0, 0, 0.03), (1, 0.75, 0.15))
    distances = np.abs(x - centre_x) / size, np.abs(y - centre_y) / (2 * size)
    norm = (np.hypot, np.maximum)[rng.integers(2)]
    inside: npt.NDArray[np.bool_] = norm(*distances) < 1
    return inside
