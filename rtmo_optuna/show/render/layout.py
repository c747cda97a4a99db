"""Where things go on an axis, in the axis' own unit."""

import math
from collections.abc import Sequence
from dataclasses import replace

from rtmo_optuna.show.render.chart import Label

FAR = 1.5
"""A value this many times as large as what is typical is drawn at the edge, so that it squashes nothing."""
LABEL_GAP = 0.062
"""Least distance of two labels, as a share of the axis."""


def spaced(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis that holds `low` to `high` with some air, also where they are equal."""
    air = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def ticks(low: float, high: float, most: int = 7, least_step: float = 0.0) -> tuple[tuple[float, str], ...]:
    """Return at most `most` round values from `low` to `high`, at least `least_step` apart, each with its text."""
    rough = (high - low) / (most - 1) or abs(high) or 1.0
    scale = 10.0 ** math.floor(math.log10(rough))
    step = max(least_step, next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= rough * (1 - 1e-9)))
    decimals = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple((round(i * step, 12), f"{i * step:.{decimals}f}") for i in range(first, last + 1))


def apart(labels: Sequence[Label], span: float) -> tuple[Label, ...]:
    """Return `labels` moved up and down just so far that no two lie closer than the gap on an axis of length `span`.

    Labels that touch are stacked around their mean height, with whatever the stack then touches.
    """
    gap = LABEL_GAP * span
    stacks: list[list[Label]] = []
    for label in sorted(labels, key=lambda one: one.y):
        stacks.append([label])
        while len(stacks) > 1 and _heights(stacks[-1], gap)[0] - _heights(stacks[-2], gap)[-1] < gap:
            upper = stacks.pop()
            stacks[-1] += upper
    return tuple(replace(label, y=y) for stack in stacks for label, y in zip(stack, _heights(stack, gap), strict=True))


def _heights(stack: Sequence[Label], gap: float) -> list[float]:
    middle = sum(label.y for label in stack) / len(stack)
    return [middle + gap * (place - (len(stack) - 1) / 2) for place in range(len(stack))]
