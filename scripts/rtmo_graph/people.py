"""How many people a set of predictions holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .kernels import Array

MIN_SCORE = 0.1
"""A person's box scores more than this."""
MAX_OVERLAP = 0.65
"""Of two boxes with a larger intersection over union, the one that scores less is dropped."""


def score_shift(boxes: Array, logits: Array, people: int) -> float:
    """What to add to the scores' logits [priors] so that so many of the boxes [priors, 4] are people.

    A shift changes no box's rank, and a box is dropped only for one of higher rank. So the people are always the first
    few of the boxes that suppression alone would keep.
    """
    last, next_one = logits[_keep(boxes, logits, people + 1)[-2:]]
    return math.log(MIN_SCORE / (1 - MIN_SCORE)) - float(last + next_one) / 2


def _keep(boxes: Array, logits: Array, count: int) -> list[int]:
    """Indices of the `count` best boxes that are left after non-maximum suppression, best first."""
    kept: list[int] = []
    for candidate in np.argsort(-logits, kind="stable"):
        if np.all(_overlaps(boxes[candidate], boxes[kept]) <= MAX_OVERLAP):
            kept.append(candidate)
        if len(kept) == count:
            break
    return kept


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of one box with each of [n, 4] others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    overlaps: Array = shared / (areas - shared)
    return overlaps
