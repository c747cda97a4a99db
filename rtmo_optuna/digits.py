"""How many digits of an estimate and its interval mean something."""

from __future__ import annotations

import math

MOST = 3
"""Decimals of a ratio at the most: nobody claims less than 1 %."""


def decimals(low: float, high: float) -> int:
    """Return with how many decimals a ratio with the interval `low` to `high` is to be written.

    That is two significant digits of its uncertainty, half the interval's width; more where an end would else be
    written as 1 and is not: whether the interval holds 1 is what it is read for.
    """
    half = (high - low) / 2
    wanted = MOST if half <= 0 else min(MOST, max(0, 1 - math.floor(math.log10(half))))
    return next((n for n in range(wanted, MOST) if all(end == 1 or round(end, n) != 1 for end in (low, high))), MOST)


def written(ratio: float, low: float, high: float) -> tuple[str, str, str]:
    """Return a ratio and the ends of its interval as text, with the digits that mean something."""
    places = decimals(low, high)
    return f"{ratio:.{places}f}", f"{low:.{places}f}", f"{high:.{places}f}"
