"""Main effects: planted ones are found, and those that nobody could know are left open."""

from __future__ import annotations

import math
import random

import pytest

from rtmo_optuna import stats
from rtmo_optuna.stats import Effect, Level

REFERENCE: dict[str, Level] = {"algorithm": "EXHAUSTIVE", "nhwc": False, "limit": None}
CHOICES: dict[str, tuple[Level, ...]] = {
    "algorithm": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "nhwc": (False, True),
    "limit": (None, 4, 8),
}
PLANTED: dict[tuple[str, Level], float] = {("algorithm", "DEFAULT"): 2.6, ("nhwc", True): 0.9}


def simulated(seed: int, runs: int = 40, spread: float = 0.03) -> dict[tuple[str, Level], Effect]:
    """Return the effects found in a random design with PLANTED effects and log-normal noise."""
    noise = random.Random(seed)  # noqa: S311 - no secret
    design = [{knob: noise.choice(choices) for knob, choices in CHOICES.items()} for _ in range(runs)]
    values = [
        4.0 * math.prod(PLANTED.get(item, 1.0) for item in row.items()) * noise.lognormvariate(0, spread)
        for row in design
    ]
    return {(effect.knob, effect.choice): effect for effect in stats.main_effects(design, values, REFERENCE)}


def test_intervals_cover_planted_effects() -> None:
    """Over 200 studies, 95 % intervals hold the true ratio about 95 times in 100, and are narrow."""
    held, widths = [], []
    for seed in range(200):
        for key, effect in simulated(seed).items():
            assert effect.low is not None
            assert effect.high is not None
            held.append(effect.low <= PLANTED.get(key, 1.0) <= effect.high)
            widths.append(effect.high / effect.low)
    assert 0.93 < sum(held) / len(held) < 0.97
    assert max(widths) < 1.2


def test_effects_are_proven_only_where_they_exist() -> None:
    """Planted effects are proven with their direction, against the reference choice; the number of rows is right."""
    found = simulated(1)
    assert {key for key, effect in found.items() if effect.proven} == set(PLANTED)
    assert found["algorithm", "DEFAULT"].ratio == pytest.approx(2.6, rel=0.05)
    assert found["nhwc", True].against is False
    assert sum(found["limit", choice].trials for choice in (4, 8)) < 40


def test_inseparable_choices_have_no_effect() -> None:
    """Two choices that always come together are left open, while a third one is still estimated."""
    design: list[dict[str, Level]] = [{"a": i % 2, "b": i % 2, "c": i // 2 % 2} for i in range(16)]
    values = [4.0 * 0.8 ** (i % 2) * 1.1 ** (i // 2 % 2) * (1 + 0.001 * (i % 3)) for i in range(16)]
    a, b, c = stats.main_effects(design, values, {"a": 0, "b": 0, "c": 0})
    assert (a.ratio, a.low, a.high, a.trials) == (None, None, None, 8)
    assert b.ratio is None
    assert not b.proven
    assert c.ratio == pytest.approx(1.1, rel=0.01)
    assert c.proven


def test_too_few_runs_give_no_effect() -> None:
    """With fewer than three runs more than unknowns nothing is claimed; with three there is an interval."""
    design: list[dict[str, Level]] = [{"a": i % 2} for i in range(5)]
    values = [4.0, 3.0, 4.1, 3.1, 4.05]
    assert [effect.ratio for effect in stats.main_effects(design[:4], values[:4], {"a": 0})] == [None]
    (effect,) = stats.main_effects(design, values, {"a": 0})
    assert effect.low is not None
    assert effect.low < 3.05 / 4.05 < (effect.high or 0)


def test_interval_is_the_textbook_one() -> None:
    """For one factor the interval is the two-sample t interval with pooled variance, on logarithms."""
    logs_a, logs_b = (1.0, 1.2, 1.1, 1.3), (1.5, 1.4, 1.6)
    mean_a, mean_b = sum(logs_a) / 4, sum(logs_b) / 3
    pooled = (sum((x - mean_a) ** 2 for x in logs_a) + sum((x - mean_b) ** 2 for x in logs_b)) / 5
    reach = 2.5705818 * math.sqrt(pooled * (1 / 4 + 1 / 3))  # t(0.975, 5), from tables
    design: list[dict[str, Level]] = [{"k": int(run >= 4)} for run in range(7)]
    (effect,) = stats.main_effects(design, [math.exp(x) for x in (*logs_a, *logs_b)], {"k": 0})
    assert effect.ratio == pytest.approx(math.exp(mean_b - mean_a))
    assert effect.low == pytest.approx(math.exp(mean_b - mean_a - reach))
    assert effect.high == pytest.approx(math.exp(mean_b - mean_a + reach))


def test_equal_values_prove_nothing() -> None:
    """Values without any noise give the ratio 1, which rounding must not turn into a proof."""
    design: list[dict[str, Level]] = [{"a": i % 2, "b": i // 2 % 3} for i in range(30)]
    effects = stats.main_effects(design, [0.1 + 0.2] * 30, {"a": 0, "b": 0})
    assert [effect.ratio for effect in effects] == [1.0, 1.0, 1.0]
    assert not any(effect.proven for effect in effects)


def test_bad_values_are_refused() -> None:
    """Ratios of values that are not positive, and the median of nothing, are errors."""
    with pytest.raises(ValueError, match="positive"):
        stats.main_effects([{"a": 0}, {"a": 1}], [1.0, 0.0], {"a": 0})
    with pytest.raises(ValueError, match="no median"):
        stats.median([])
    assert stats.main_effects([], [], {"a": 0}) == ()
    assert stats.median([3.0, 1.0, 2.0, 10.0]) == 2.5
