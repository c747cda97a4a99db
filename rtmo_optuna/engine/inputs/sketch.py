"""A picture of an input with what was found in it drawn over it, twice."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rtmo_optuna.engine.inputs.images import Layout

    Outlines = Sequence[Sequence[float]]

_EDGES = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10),
    (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
"""Which of COCO's 17 keypoints are joined: face, arms, trunk, legs."""
_CORNERS = ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1))
_POINTS = 34
_COLOURS, _WIDTHS = ("#4da3ff", "#ff8c1a"), (5, 2)
_SIDE, _DIMMED, _QUALITY, _FAR = 960, 0.55, 80, 1e4


def sketch(array: NDArray[Any], layout: Layout, sides: tuple[Outlines, Outlines]) -> bytes:
    """Return a JPEG file's bytes: one picture, dimmed, with the outlines of both sides, the first in blue below.

    `array` is [channels, height, width] or [height, width, channels] by `layout`, blue first, of any range. An outline
    is x and y of 17 keypoints in turn, or left, top, right and bottom, in pixels of the picture.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - the report's only, once

    pixels = np.nan_to_num(np.moveaxis(array, layout.channel_axis - 1, 2)[..., ::-1].astype(np.float64))
    low, high = pixels.min(), pixels.max()
    grey = _DIMMED * 255 * (pixels - low) / max(high - low, 1e-9)
    height, width = grey.shape[:2]
    scale = _SIDE / max(height, width)
    picture = Image.fromarray(np.broadcast_to(grey, (height, width, 3)).round().astype(np.uint8))
    picture = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))))
    pen = ImageDraw.Draw(picture)
    for outlines, colour, thick in zip(sides, _COLOURS, _WIDTHS, strict=True):
        for outline in outlines:
            for line in _lines(np.clip(np.nan_to_num(np.asarray(outline)), -_FAR, _FAR) * scale):
                pen.line(line, fill=colour, width=thick, joint="curve")
    file = BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _lines(outline: NDArray[Any]) -> list[list[tuple[float, float]]]:
    """Return the lines of a skeleton, or those of a box."""
    if outline.size == _POINTS:
        points = outline.reshape(-1, 2)
        return [[(float(x), float(y)) for x, y in points[list(edge)]] for edge in _EDGES]
    return [[(float(outline[x]), float(outline[y])) for x, y in _CORNERS]]
