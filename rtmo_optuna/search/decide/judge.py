"""Pure decisions: is a process measured well enough, is it to be pruned, which trial is best."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rtmo_optuna.child.measure import Decision, trusted
from rtmo_optuna.search.decide import noise
from rtmo_optuna.search.decide.noise import APART
from rtmo_optuna.space.objectives import Objective
from rtmo_optuna.types.findings import LEAST_GAIN
from rtmo_optuna.types.measurement import Measurement, Outcome, Window
from rtmo_optuna.types.request import Measuring, Stage
from rtmo_optuna.types.study import Origin, TrialRecord

PRUNE_AFTER = 3
PRUNE_SPREADS = 5
LEAST_SPREADS = 3
HOPELESS_AFTER = 5
PATIENCE = 15
_LEAST_PATIENCE = 4
_PATIENCE_SHARE = 3 / 8
_MOST_TIMES = 5
_MEDIAN_ERROR = math.sqrt(math.pi / 2)


def after_window(
    windows: Sequence[Window], rules: Measuring, *, prune_above_ns: float | None, least_calls: int = 0
) -> Decision:
    """Return what to do after the last of `windows`.

    Pruned is who, after three undisturbed windows, had not one whose median is under `prune_above_ns`: the fastest
    window counts, since a slow one may be the host's fault. Measured enough is who has `rules.runs` calls, or whose
    median of medians has a relative standard error (sqrt(pi/2) s / sqrt(n), asymptotic for normal values) under
    `rules.precision`, or who has `rules.windows_max` windows; but nobody before `least_calls` calls in trusted windows,
    however many windows that takes, unless there are five times as many in all. Where disturbed windows had to be
    taken, `rules.windows_min` are enough: more time would not make them better.
    """
    medians = [statistics.median(window.samples_ns) for window in windows]
    quiet = [median for window, median in zip(windows, medians, strict=True) if not window.disturbed]
    calls = sum(len(window.samples_ns) for window in windows)
    if prune_above_ns is not None and len(quiet) >= PRUNE_AFTER and min(quiet) > prune_above_ns:
        return Decision.PRUNE
    trusted_calls = sum(len(window.samples_ns) for window in trusted(windows))
    if trusted_calls < least_calls and calls < _MOST_TIMES * least_calls:
        return Decision.GO_ON
    if rules.runs is not None:
        return Decision.ENOUGH if calls >= rules.runs else Decision.GO_ON
    if len(medians) >= rules.windows_max:
        return Decision.ENOUGH
    if len(medians) < max(2, rules.windows_min):
        return Decision.GO_ON
    enough = len(quiet) < len(medians) or standard_error(medians) <= rules.precision
    return Decision.ENOUGH if enough else Decision.GO_ON


def standard_error(medians: Sequence[float]) -> float:
    """Return the relative standard error of the median of at least two values."""
    return _MEDIAN_ERROR * statistics.stdev(medians) / math.sqrt(len(medians)) / statistics.median(medians)


def steadier(plain: Sequence[float], pinned: Sequence[float]) -> bool:
    """Whether processes on quiet cores are nearer together than plain ones, and no more than a spread slower."""
    spreads = [noise.spread([values]) for values in (plain, pinned)]
    if spreads[0] is None or spreads[1] is None or spreads[1] >= spreads[0]:
        return False
    return statistics.median(pinned) <= statistics.median(plain) * (1 + spreads[0])


def prune_limit(known_ms: Sequence[float], spread: float | None, most: float) -> float | None:
    """Return the window median in ns above which a trial is given up, or None where nothing is known to compare with.

    That is the best of `known_ms` and a margin of 5 %, or of five times the spread between processes where that is more
    (docs/design.md, Searching), but at most `most` times the best; where noise alone may reach that, three spreads.
    """
    spread = spread or 0.0
    margin = max(APART, PRUNE_SPREADS * spread)
    return min(known_ms) * 1e6 * min(1 + margin, max(most, 1 + LEAST_SPREADS * spread)) if known_ms else None


def died(measurement: Measurement) -> bool:
    """Whether the process failed on its way: not by its outputs, nor by what it took."""
    return measurement.outcome is Outcome.FAILED and measurement.stage is not Stage.GATE


def within_memory(measurement: Measurement, most_gb: float | None) -> Measurement:
    """Return `measurement`, failed where it took more than `most_gb` GiB of the GPU's memory."""
    taken_gb = (measurement.gpu_memory_bytes or 0) / 2**30
    if most_gb is None or taken_gb <= most_gb or measurement.outcome is Outcome.FAILED:
        return measurement
    reason = f"The settings took {taken_gb:.2f} GiB of GPU memory, more than max_memory_gb, {most_gb:g}."
    return replace(measurement, outcome=Outcome.FAILED, stage=Stage.WINDOW, reason=reason)


def with_score(measurement: Measurement, objective: Objective) -> Measurement:
    """Return `measurement`, failed where it was measured and `objective` has no score for it."""
    if measurement.outcome is not Outcome.MEASURED or objective.score(measurement) is not None:
        return measurement
    had = f"{measurement.calls} of {objective.least_calls}"
    reason = f"Too few undisturbed calls for the objective {objective.name!r}: {had}."
    return replace(measurement, outcome=Outcome.FAILED, stage=Stage.WINDOW, reason=reason)


def best(trials: Iterable[TrialRecord], objective: Objective) -> TrialRecord | None:
    """Return the measured trial with the best value, of equals the one with the fewest settings off the default."""
    sign = 1 if objective.lower_is_better else -1
    valued = [(sign * t.value, len(t.settings), t.number, t) for t in trials if t.value is not None and t.run]
    measured = [entry for entry in valued if entry[3].measurement.outcome is Outcome.MEASURED]
    return min(measured)[3] if measured else None


def leads(measurement: Measurement, trials: Iterable[TrialRecord], objective: Objective) -> bool:
    """Whether `measurement` costs less than the best of `trials`, so that its settings run twice; never without any."""
    known = best(trials, objective)
    if known is None or measurement.outcome is not Outcome.MEASURED:
        return False
    cost, least = objective.cost(measurement), objective.cost(known.measurement)
    return cost is not None and least is not None and cost < least


def joined(first: Measurement, second: Measurement, objective: Objective) -> Measurement:
    """Return `first` with the mean latency and quantiles of two processes and the costs of both.

    It is `first` itself where the second has no cost.
    """
    costs = (objective.cost(first), objective.cost(second))
    measured = first.outcome is second.outcome is Outcome.MEASURED
    if not (measured and costs[0] and costs[1] and first.latency_ns and second.latency_ns):
        return first
    other = second.quantiles_ns
    return replace(
        first,
        latency_ns=statistics.fmean((first.latency_ns, second.latency_ns)),
        quantiles_ns={n: statistics.fmean((value, other[n])) for n, value in first.quantiles_ns.items() if n in other},
        second_ns=second.latency_ns,
        costs=(costs[0], costs[1]),
    )


def hopeless(trials: Sequence[TrialRecord]) -> bool:
    """Whether the first trials all failed, so that the fault is not in the settings."""
    runs = [trial for trial in trials if trial.run]
    return len(runs) >= HOPELESS_AFTER and all(trial.measurement.outcome is Outcome.FAILED for trial in runs)


def patience(trials: int) -> int:
    """Return after how many settings without a gain a search of so many `trials` ends: `PATIENCE` of 40, 4 of 12.

    A small search has its time for seeing which of what it found matters, and for the pairs.
    """
    return min(PATIENCE, max(_LEAST_PATIENCE, int(_PATIENCE_SHARE * trials)))


def stalled(trials: Iterable[TrialRecord], objective: Objective, most: int = PATIENCE) -> bool:
    """Whether the last `most` trials of the sampler were not `LEAST_GAIN` better than the best before them."""
    best, since = math.inf, 0
    for trial in trials:
        if not trial.run:
            continue
        measured = trial.measurement.outcome is Outcome.MEASURED
        cost = objective.cost(trial.measurement) if measured else None
        gained = cost is not None and cost < best * (1 - LEAST_GAIN)
        if gained or (trial.origin is not Origin.SAMPLER and cost is not None):
            best = min(best, cost or math.inf)
        since = 0 if gained or trial.origin is not Origin.SAMPLER else since + 1
    return since >= most
