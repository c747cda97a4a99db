"""The four published sizes of RTMO, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass

KEYPOINTS = 17
NECK_CHANNELS = 256
STRIDES = (16, 32)
"""Pixels between the priors of each level that makes predictions."""


@dataclass(frozen=True, slots=True)
class Size:
    """What one size of RTMO differs in; lengths in channels unless said otherwise."""

    side: int
    """Height and width of the square input, in pixels."""
    widen: float
    """Width of the backbone and of the score branch, 1 for RTMO-l."""
    blocks: tuple[int, int, int, int]
    """Residual blocks in each backbone stage."""
    rep_blocks: int
    """3x3 convolutions in each fusion block of the neck."""
    hidden: int
    """Channels inside each fusion block of the neck."""
    pose: int
    """Channels of a feature map that enters the head, and of a pose feature."""
    group: int
    """Channels in each of the eight groups of the pose branch."""


SIZES = {
    "t": Size(side=416, widen=0.375, blocks=(1, 3, 3, 1), rep_blocks=1, hidden=96, pose=192, group=13),
    "s": Size(side=640, widen=0.5, blocks=(1, 3, 3, 1), rep_blocks=1, hidden=128, pose=256, group=18),
    "m": Size(side=640, widen=0.75, blocks=(2, 6, 6, 2), rep_blocks=2, hidden=192, pose=384, group=27),
    "l": Size(side=640, widen=1.0, blocks=(3, 9, 9, 3), rep_blocks=3, hidden=256, pose=512, group=36),
}
