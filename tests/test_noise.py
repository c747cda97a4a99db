"""How noisy is this host: spread, warm-up, throttling, stability, on recorded and synthetic series."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import pytest

from rtmo_optuna.search.decide import noise
from rtmo_optuna.types.request import Measuring, Settings

A, B, C = (Settings.of({"knob": place}) for place in range(3))

# The first 80 calls of a fresh ONNX Runtime session (a matrix product on a CPU), and later window medians, in us.
# fmt: off
RECORDED_CALLS = (
    1026, 590, 571, 588, 316, 294, 285, 299, 290, 288, 286, 290, 297, 299, 298, 292, 317, 295, 293, 277, 281, 280, 279,
    275, 271, 285, 270, 271, 269, 270, 282, 291, 277, 385, 276, 272, 270, 268, 265, 270, 272, 274, 287, 270, 266, 299,
    267, 267, 267, 266, 269, 267, 266, 268, 266, 266, 266, 266, 267, 266, 290, 270, 270, 269, 265, 266, 265, 266, 266,
    265, 266, 266, 266, 266, 266, 287, 267, 276, 270, 288,
)
RECORDED_WINDOWS = (268, 269, 270, 271, 272, 272, 274, 271, 271, 270, 271, 269)
# fmt: on


def lognormal(spread: float, count: int, seed: int = 0) -> list[float]:
    """Return values around 1 whose logarithms have this standard deviation."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    return [math.exp(rng.gauss(0.0, spread)) for _ in range(count)]


def test_spread_is_pooled_by_degrees_of_freedom() -> None:
    """Squares of 0.0002 with one degree of freedom and 0.0008 with two are 0.001 with three; the level is no matter."""
    values = {
        A: [5.0, 5.0 * math.exp(0.02)],
        B: [9.0, 9.0 * math.exp(0.02), 9.0 * math.exp(0.04)],
        C: [100.0],
    }
    assert noise.spread(values.values()) == pytest.approx(math.sqrt(0.001 / 3))
    assert noise.pooled(values.values())[1] == 3


def test_spread_is_found_in_many_small_groups() -> None:
    """Forty settings of three processes each, far apart, give the planted 2 %."""
    values = {
        Settings.of({"knob": place}): [value * (1 + place) for value in lognormal(0.02, 3, seed=place)]
        for place in range(40)
    }
    assert noise.spread(values.values()) == pytest.approx(0.02, rel=0.2)


def test_spread_of_single_values_is_unknown_and_of_equal_ones_zero() -> None:
    """One process of each settings says nothing of the spread, which is then no reason for a banner."""
    assert noise.spread([[5.0], [6.0]]) is None
    assert noise.spread([]) is None
    assert noise.spread([[], [3.0]]) is None
    assert noise.spread([[5.0, 5.0]]) == 0.0
    with pytest.raises(ValueError, match=r"math domain|positive"):
        noise.spread([[5.0, 0.0]])


@pytest.mark.parametrize(("spread", "banner"), [(None, False), (0.0, False), (0.02, False), (0.021, True)])
def test_a_host_is_noisy_above_two_percent(spread: float | None, banner: bool) -> None:  # noqa: FBT001
    """The banner's limit is 2 %."""
    assert noise.noisy(spread) is banner


def test_walsh_averages_hold_each_value_and_each_pair() -> None:
    """Three values have six averages, in rising order."""
    assert noise.walsh([3.0, 1.0, 8.0]) == [1.0, 2.0, 3.0, 4.5, 5.5, 8.0]


def test_location_does_not_follow_a_quarter_of_outliers() -> None:
    """Two of ten values 40 % higher move the mean by 8 %, the location by less than 2 %."""
    values = [*lognormal(0.01, 8), 1.4, 1.4]
    assert statistics.fmean(values) > 1.07
    assert noise.location(values) == pytest.approx(1.0, abs=0.02)
    assert noise.location([7.0]) == 7.0


def as_ns(values: list[float] | tuple[int, ...], unit_ns: float) -> list[float]:
    """Return `values` in ns."""
    return [value * unit_ns for value in values]


def test_warm_up_ends_where_the_recorded_session_settles() -> None:
    """The first four calls are slow: twice four warm it up, in whatever unit they are given."""
    assert noise.warmed_up_after(RECORDED_CALLS) == 8
    assert noise.warmed_up_after(as_ns(RECORDED_CALLS, 1e3)) == 8


@pytest.mark.parametrize(("calls", "expected"), [
    ([1.0] * 40, 0),
    ([1.0] * 39, None),
    ([9.0] * 10 + [1.0] * 60, 20),
    ([1.5, 1.5] + [1.0, 1.1] * 30, 4),
    ([1.01**-place for place in range(80)], None),
    ([5.0, 1.0, 1.0, 1.0, 1.0] * 12, 2),
    ([1.3, 1.0] * 30, 0),
], ids=[
    "constant", "too short", "slow start", "first calls are outliers", "drifting", "heavy-tailed", "bimodal"
])  # fmt: skip
def test_warm_up_of_synthetic_series(calls: list[float], expected: int | None) -> None:
    """What was slow at first is doubled."""
    assert noise.warmed_up_after(calls) == expected


def test_a_calibrating_process_warms_up_for_longer() -> None:
    """Three times as long, and for 80 calls at least, where the rule has no more."""
    longer = noise.calibrating(Measuring())
    assert longer.warmup_s == pytest.approx(0.9)
    assert longer.warmup_calls == 80
    assert noise.calibrating(Measuring(warmup_calls=100)).warmup_calls == 100


@pytest.mark.parametrize(("calls", "expected"), [
    (RECORDED_CALLS, 10),
    ([9.0] * 10 + [1.0] * 70, 20),
    ([1.01**-place for place in range(80)], None),
    ([30.0] * 33, 10),
    ([], 10),
], ids=["shorter than the rule", "longer", "does not settle", "slow model", "failed before"])  # fmt: skip
def test_the_rule_grows_with_what_the_first_process_needed(calls: Sequence[float], expected: int | None) -> None:
    """It is never less than the definition's, and stays where there were too few calls to tell."""
    found = noise.calibrated(Measuring(), calls)
    assert found == (None if expected is None else Measuring(warmup_calls=expected))


@pytest.mark.parametrize(("reasons", "clock", "baseline", "expected"), [
    (0x0, 1980.0, 1980.0, False),
    (0x0, 1486.0, 1980.0, False),
    (0x0, 1484.0, 1980.0, True),
    (0x0, None, 1980.0, False),
    (0x0, 300.0, None, False),
    (0x1, 1980.0, 1980.0, False),
    (0x2 | 0x4 | 0x100, 1980.0, 1980.0, False),
    (0x8, 1980.0, 1980.0, True),
    (0x4 | 0x20, 1980.0, 1980.0, True),
    (0x40, None, None, True),
    (0x80, 1980.0, 1980.0, True),
])  # fmt: skip
def test_throttling(reasons: int, clock: float | None, baseline: float | None, expected: bool) -> None:  # noqa: FBT001
    """Heat, hardware slowdown and the power brake count, and a clock under 75 %; idle and a steady power cap do not."""
    assert noise.throttled(reasons, clock, baseline) is expected


@pytest.mark.parametrize(("windows", "reason"), [
    ([5.0] * 12, ""),
    (list(RECORDED_WINDOWS), ""),
    ([5.0, 9.0, 5.0, 9.0, 5.0], None),
    ([5.0, 5.1, 6.9, 5.0, 7.0, 5.1, 7.1, 5.0], "on two levels"),
    ([7.0] * 4 + [5.0] * 4, "on two levels"),
    ([5.0 + 0.1 * place for place in range(8)], "drifting"),
    ([6.0 - 0.1 * place for place in range(8)], "drifting"),
    ([5.0 + 0.01 * place for place in range(8)], ""),
    ([5.0, 5.1, 5.0, 5.2, 9.0, 5.1, 5.0, 5.1, 5.0, 5.1], ""),
    ([5.4, 6.2, 5.0, 5.8, 5.2, 6.0], ""),
], ids=[
    "constant", "recorded", "too few", "bimodal", "step", "rising", "falling", "slight drift", "one slow window",
    "wide, one level"
])  # fmt: skip
def test_unsteady_processes(windows: list[float], reason: str | None) -> None:
    """Two levels and drift are told apart from constant, noisy and heavy-tailed windows."""
    assert noise.unsteady(windows) == reason


@pytest.mark.parametrize("heavy", [False, True])
def test_quiet_processes_are_hardly_ever_flagged(heavy: bool) -> None:  # noqa: FBT001
    """Of 400 processes with windows of one level, 2 % apart, at most four are called unsteady; tails are no levels."""
    rng = random.Random(4)  # noqa: S311 - no secret
    flagged = 0
    for _ in range(400):
        scales = [1 / math.sqrt(rng.gammavariate(1.5, 2 / 3)) if heavy else 1.0 for _ in range(12)]
        flagged += noise.unsteady([math.exp(rng.gauss(0.0, 0.02) * scale) for scale in scales]) != ""
    assert flagged <= 4
