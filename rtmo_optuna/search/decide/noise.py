"""How noisy processes and their windows are, and a location that a few slow ones do not move: pure functions."""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rtmo_optuna.types.request import Measuring
from rtmo_optuna.types.subject import ClockReason

NOISY = 0.02
"""The spread between processes above which a host is called noisy (docs/design.md, Measuring)."""
APART = 0.05
"""Windows that differ by less are no matter: the least margin by which a trial is pruned (docs/design.md)."""

_HALF = 20
_TOLERANCE = 0.10
_CALIBRATION = 4 * _HALF
_LONGER = 3
_FENCE = 1.5
_SLOW_CLOCK = 0.75
_TREND_Z = statistics.NormalDist().inv_cdf(0.995)
_LEAST_WINDOWS = 6
_LEAST_SHARE = 0.2

# Chosen clocks and the software power cap are left out: a power cap is the steady state of many cards, the baseline's
# too, and where it is not, the clock tells.
_THROTTLED = ClockReason.HARDWARE | ClockReason.HEAT_SOFTWARE | ClockReason.HEAT_HARDWARE | ClockReason.POWER_BRAKE


def spread(groups: Iterable[Sequence[float]]) -> float | None:
    """Return s_b of the process values of each settings, or s_w of the windows of each process, as `pooled` does."""
    return pooled(groups)[0]


def pooled(groups: Iterable[Sequence[float]]) -> tuple[float | None, int]:
    """Return the relative standard deviation within `groups`, and its degrees of freedom; None of no two values.

    The values of a group are in one unit. The figure is the standard deviation of their logarithms, pooled over groups
    with their degrees of freedom as weights (Snedecor and Cochran, Statistical Methods, section 6.7). Raises ValueError
    for values that are not positive.
    """
    squares, freedom = 0.0, 0
    for group in groups:
        if len(group) > 1:
            logs = [math.log(value) for value in group]
            mean = sum(logs) / len(logs)
            squares += sum((log - mean) ** 2 for log in logs)
            freedom += len(logs) - 1
    return math.sqrt(squares / freedom) if freedom else None, freedom


def noisy(spread: float | None) -> bool:
    """Return whether the spread between processes calls for a "noisy host" banner; an unknown one does not."""
    return spread is not None and spread > NOISY


def walsh(values: Sequence[float]) -> list[float]:
    """Return the averages of all pairs of `values`, each with itself too, in rising order.

    Their order statistics invert Wilcoxon's signed-rank test (Hollander, Wolfe and Chicken, Nonparametric Statistical
    Methods, section 3.3).
    """
    return sorted((one + other) / 2 for one, other in itertools.combinations_with_replacement(values, 2))


def location(values: Sequence[float]) -> float:
    """Return the median of the Walsh averages of `values`, in their unit.

    It is Hodges and Lehmann's estimator: 95 % as efficient as the mean on normal values, and unmoved by a quarter of
    outliers (Hodges and Lehmann, Annals of Mathematical Statistics 34, 1963). Raises StatisticsError for no values.
    """
    return statistics.median(walsh(values))


def warmed_up_after(samples_ns: Sequence[float]) -> int | None:
    """Return how many calls warm a session up, given the latencies of a fresh one's calls from the first on.

    The session is warm at the first call from where two successive halves of 20 values have means within 10 %, and
    whose own latency is not above the upper Tukey fence of the other 39; that many calls are doubled. None where the
    series never gets there: it is too short or does not settle. The test is pyperf's (pyperf/_worker.py,
    test_calibrate_warmups), whose lower tolerance of 50 % is 10 % here too.
    """
    for start in range(len(samples_ns) - 2 * _HALF + 1):
        early = samples_ns[start : start + _HALF]
        late = samples_ns[start + _HALF : start + 2 * _HALF]
        settled = statistics.fmean(late)
        lower, _, upper = statistics.quantiles([*early[1:], *late], method="inclusive")
        near = abs(statistics.fmean(early) - settled) < _TOLERANCE * settled
        if near and early[0] <= upper + _FENCE * (upper - lower):
            return 2 * start
    return None


def calibrating(rules: Measuring) -> Measuring:
    """Return the rules of a process whose warm-up is long enough to see where it should end.

    That is three times as long as by `rules`, and 80 calls at least: 2 s where a call takes 25 ms. Slower models are
    left at the few calls that `rules` allow them, which is no series to judge by.
    """
    return replace(rules, warmup_s=_LONGER * rules.warmup_s, warmup_calls=max(rules.warmup_calls, _CALIBRATION))


def calibrated(rules: Measuring, samples_ns: Sequence[float]) -> Measuring | None:
    """Return the study's rules after the warm-up `samples_ns` of a calibrating process: `rules`, or more calls.

    None where the series is long enough and does not settle.
    """
    if len(samples_ns) < _CALIBRATION:
        return rules
    calls = warmed_up_after(samples_ns)
    return None if calls is None else replace(rules, warmup_calls=max(rules.warmup_calls, calls))


def throttled(reasons: int, clock_mhz: float | None, baseline_mhz: float | None) -> bool:
    """Return whether a window was measured on a GPU that held itself back.

    `reasons` are NVML's clock event reasons (0 where they are unknown), of which heat, the hardware's own slowdown and
    the power brake count; so does a clock under 75 % of the baseline's (nvbench's default), where both are known.
    """
    slow = clock_mhz is not None and baseline_mhz is not None and clock_mhz < _SLOW_CLOCK * baseline_mhz
    return bool(reasons & _THROTTLED) or slow


def unsteady(windows: Sequence[float]) -> str | None:
    """Return "on two levels" or "drifting" for a process's window medians, in order; "" where they are of one level.

    They drift where Mann and Kendall's test finds a trend (two-sided 1 %, normal approximation with continuity
    correction; Kendall, Rank Correlation Methods, 1975) and the Theil-Sen line changes by 5 % or more over the
    process. They are on two levels where, in rising order, the widest step is at least 5 %, wider than what lies on
    either side of it, and has at least a fifth of the windows on either side. None: fewer than 6 windows tell nothing.
    """
    if len(windows) < _LEAST_WINDOWS:
        return None
    logs = [math.log(value) for value in windows]
    if _step(sorted(logs)) >= math.log1p(APART):
        return "on two levels"
    return "drifting" if abs(_trend(logs)) >= math.log1p(APART) else ""


def _step(rising: Sequence[float]) -> float:
    """Return the widest step that parts two levels, 0 where none does."""
    step, below = max((after - before, n) for n, (before, after) in enumerate(itertools.pairwise(rising), 1))
    compact = step > max(rising[below - 1] - rising[0], rising[-1] - rising[below])
    shared = min(below, len(rising) - below) >= _LEAST_SHARE * len(rising)
    return step if compact and shared else 0.0


def _trend(logs: Sequence[float]) -> float:
    """Return the Theil-Sen line's change over the series where Mann and Kendall's test finds a trend, else 0."""
    count = len(logs)
    pairs = [(j - i, logs[j] - logs[i]) for i, j in itertools.combinations(range(count), 2)]
    score = abs(sum((rise > 0) - (rise < 0) for _, rise in pairs))
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    if score - 1 < _TREND_Z * deviation:
        return 0.0
    return (count - 1) * statistics.median(rise / apart for apart, rise in pairs)
