"""Where things go on an axis, in the axis' own unit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtmo_optuna.show.marks import Label

LABEL_GAP = 0.062
"""Least distance of two labels, as a share of the axis."""


def spaced(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis that holds `low` to `high` with some air, also where they are equal."""
    air = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def apart(labels: Sequence[Label], span: float) -> tuple[Label, ...]:
    """Return `labels` moved up and down just so far that no two lie closer than the gap on an axis of length `span`."""
    gap = LABEL_GAP * span
    placed: list[Label] = []
    for label in sorted(labels, key=lambda one: one.y):
        placed.append(replace(label, y=max(label.y, placed[-1].y + gap)) if placed else label)
    shift = sum(new.y - old.y for new, old in zip(placed, sorted(labels, key=lambda one: one.y), strict=True))
    return tuple(replace(label, y=label.y - shift / len(placed)) for label in placed)
