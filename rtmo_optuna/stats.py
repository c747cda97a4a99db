"""Statistics in plain NumPy; scipy is imported where it is used, because it takes most of a second."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

Level: TypeAlias = bool | int | float | str | None

MIN_FREEDOM = 3
"""Residual degrees of freedom below which no interval is given: t(2) is 4.3, so it would say nothing."""
_NULL = 1e-8


@dataclass(frozen=True, slots=True)
class Effect:
    """What one choice does, all else equal: the ratio of the value to that of the reference choice.

    `ratio` and its 95 % interval `low` to `high` are None where the design does not separate this choice from others,
    or leaves too few degrees of freedom. `trials` counts the rows with this choice.
    """

    knob: str
    choice: Level
    against: Level
    trials: int
    ratio: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def proven(self) -> bool:
        """Whether the interval excludes 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def median(values: Sequence[float]) -> float:
    """Return the median of `values`, in their unit. Raises ValueError where there are none."""
    return float(statistics.median(values))


def middle(values: Iterable[float | None]) -> float | None:
    """Return the median of those of `values` that are known; None where none is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def reach(values: Sequence[float]) -> float:
    """Return how far `values` lie apart, as a share of their median. Raises ValueError where there are none."""
    return (max(values) - min(values)) / median(values)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t with `freedom` degrees of freedom (at least 1)."""
    from scipy.special import stdtrit  # noqa: PLC0415 - scipy takes most of a second to import

    return float(stdtrit(freedom, probability))


def main_effects(
    design: Sequence[Mapping[str, Level]],
    values: Sequence[float],
    reference: Mapping[str, Level],
) -> tuple[Effect, ...]:
    """Return the effect of each choice in `design` that differs from `reference`, by knob in `reference`'s order.

    `design` holds one mapping of knob to choice for each of the positive `values`. The model is ordinary least squares
    on log(value) with an intercept and one column for each non-reference choice: main effects, no interactions, so
    that exp(coefficient) is a ratio of geometric means. The interval is b +- t(0.975, n - rank) * s * sqrt(c), with
    c the coefficient's diagonal element of (X'X)^+ (Draper and Smith, Applied Regression Analysis, section 5). A
    coefficient is estimable where its unit vector lies in the row space of X, which is to say where it is 0 in the
    null space of X (Searle, Linear Models, section 5.4). Raises ValueError for values that are not positive.
    """
    target = np.asarray(values, dtype=float)
    if (target <= 0).any():
        raise ValueError("Effects are ratios: every value must be positive.")
    tried = {knob: dict.fromkeys(row[knob] for row in design if row[knob] != reference[knob]) for knob in reference}
    columns = [(knob, choice) for knob, choices in tried.items() for choice in choices]
    if not columns:
        return ()
    chosen = np.array([[row[knob] == choice for knob, choice in columns] for row in design], dtype=float)
    counts = chosen.sum(axis=0).astype(int).tolist()

    matrix = np.column_stack([np.ones(len(target)), chosen])
    _, singular, directions = np.linalg.svd(matrix, full_matrices=True)
    rank = int((singular > singular[0] * max(matrix.shape) * np.finfo(float).eps).sum())
    estimable = np.linalg.norm(directions[rank:], axis=0) < _NULL
    freedom = len(target) - rank
    blank = [Effect(*column, reference[column[0]], count) for column, count in zip(columns, counts, strict=True)]
    if freedom < MIN_FREEDOM:
        return tuple(blank)
    inverse = np.linalg.pinv(matrix)
    logs = np.log(target) - np.log(target[0])  # moves the intercept only; equal values give effects of exactly 1
    coefficients = inverse @ logs
    residual = logs - matrix @ coefficients
    errors = np.sqrt((inverse**2).sum(axis=1) * (residual @ residual) / freedom)
    reach = t_quantile(0.975, freedom) * errors
    ratios, lows, highs = np.exp([coefficients, coefficients - reach, coefficients + reach]).tolist()
    return tuple(
        replace(effect, ratio=ratios[i], low=lows[i], high=highs[i]) if estimable[i] else effect
        for i, effect in enumerate(blank, start=1)
    )
