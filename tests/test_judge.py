"""The pure decisions: enough, pruned, best."""

from __future__ import annotations

from dataclasses import replace

import pytest

from program import there
from rtmo_optuna.child.measure import Decision
from rtmo_optuna.search.decide import judge
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.types.measurement import Measurement, Outcome, Window
from rtmo_optuna.types.request import Measuring, Settings
from rtmo_optuna.types.study import Origin, TrialRecord

RULES = Measuring(windows_min=4, windows_max=8, precision=0.01)
LATENCY = OBJECTIVES["latency"]


def windows(*medians_ms: float) -> list[Window]:
    """Return windows of ten calls with these medians."""
    return [Window((round(median * 1e6),) * 10) for median in medians_ms]


def decide(*medians_ms: float, above_ms: float | None = None, rules: Measuring = RULES, calls: int = 0) -> Decision:
    """Judge windows with these medians."""
    limit = None if above_ms is None else above_ms * 1e6
    return judge.after_window(windows(*medians_ms), rules, prune_above_ns=limit, least_calls=calls)


@pytest.mark.parametrize(("medians", "decision"), [
    ((5.0, 5.0, 5.0), Decision.GO_ON),
    ((5.0, 5.0, 5.0, 5.0), Decision.ENOUGH),
    ((5.0, 5.5, 4.6, 5.2), Decision.GO_ON),
    ((5.0, 5.5, 4.6, 5.2, 4.4, 5.6, 5.1, 4.9), Decision.ENOUGH),
], ids=["too few", "constant", "noisy", "all windows spent"])  # fmt: skip
def test_a_process_ends_when_its_error_is_small(medians: tuple[float, ...], decision: Decision) -> None:
    """After 4 windows at the earliest, after 8 at the latest, between them by the standard error."""
    assert decide(*medians) is decision


@pytest.mark.parametrize(("medians", "decision"), [
    ((9.0, 9.0), Decision.GO_ON),
    ((9.0, 9.0, 9.0), Decision.PRUNE),
    ((9.0, 9.0, 5.9), Decision.GO_ON),
    ((5.9, 9.0, 9.0, 9.0, 9.0), Decision.GO_ON),
], ids=["too early", "hopeless", "one fast window", "one fast window long ago"])  # fmt: skip
def test_the_fastest_window_decides_about_pruning(medians: tuple[float, ...], decision: Decision) -> None:
    """A slow window may be the host's fault; three slow ones and no fast one are the settings'."""
    assert decide(*medians, above_ms=6.0) is decision


def test_disturbed_windows_prune_nobody_and_are_not_waited_for() -> None:
    """They say nothing against the settings; where they had to be taken, no more than the fewest windows are."""
    slow = [Window((9_000_000,) * 10, "slow core")] * 3
    assert judge.after_window(slow, RULES, prune_above_ns=6e6) is Decision.GO_ON
    assert judge.after_window([*slow, *windows(9.0)], RULES, prune_above_ns=6e6) is Decision.ENOUGH
    assert judge.after_window([*slow, *windows(9.0, 9.0, 9.0)], RULES, prune_above_ns=6e6) is Decision.PRUNE


def test_fixed_runs_replace_the_precision() -> None:
    """With `runs`, only the number of calls counts."""
    rules = Measuring(runs=25, windows_min=4)
    assert decide(5.0, 5.0, rules=rules) is Decision.GO_ON
    assert decide(5.0, 9.0, 2.0, rules=rules) is Decision.ENOUGH


def test_a_percentile_needs_its_calls() -> None:
    """An objective that needs many calls takes as many windows as they fill, however few calls a window has."""
    assert decide(*[5.0] * 8, calls=200) is Decision.GO_ON
    assert decide(*[5.0] * 20, calls=200) is Decision.ENOUGH
    assert decide(*[5.0] * 66, calls=662) is Decision.GO_ON
    assert decide(*[5.0] * 67, calls=662) is Decision.ENOUGH


def test_a_percentile_needs_calls_that_are_trusted() -> None:
    """Those of disturbed windows do not count beside three better ones, nor among `runs`; but it ends."""
    slow = [Window((9_000_000,) * 10, "slow core")]

    def after(disturbed: int, quiet: int, rules: Measuring = RULES) -> Decision:
        mixed = [*slow * disturbed, *windows(*[5.0] * quiet)]
        return judge.after_window(mixed, rules, prune_above_ns=None, least_calls=100)

    assert after(9, 2) is Decision.ENOUGH
    assert after(9, 9) is Decision.GO_ON
    assert after(9, 10) is Decision.ENOUGH
    assert after(41, 9) is Decision.ENOUGH
    assert after(9, 9, replace(RULES, runs=120)) is Decision.GO_ON
    assert after(9, 10, replace(RULES, runs=120)) is Decision.ENOUGH


def test_what_has_no_score_has_failed_and_says_where() -> None:
    """Too few calls for p99 fail with both numbers, in a stage; for the latency they are enough."""
    measured = Measurement(Outcome.MEASURED, latency_ns=5e6, quantiles_ns={"p90": 6e6}, calls=480)
    assert judge.with_score(measured, LATENCY) is measured
    failed = judge.with_score(measured, OBJECTIVES["p99"])
    assert failed.outcome is Outcome.FAILED
    assert failed.why == "window: Too few undisturbed calls for the objective 'p99': 480 of 662."
    assert replace(failed, stage=None).why == failed.reason
    pruned = replace(measured, outcome=Outcome.PRUNED)
    assert judge.with_score(pruned, OBJECTIVES["p99"]) is pruned


def trial(run: int, value: float | None, settings: Settings, outcome: Outcome = Outcome.MEASURED) -> TrialRecord:
    """Return a trial of `value` ms."""
    latency = None if value is None else value * 1e6
    origin = Origin.SAMPLER if len(settings) else Origin.DEFAULT
    return TrialRecord(run, run, settings, origin, Measurement(outcome, latency_ns=latency), value)


def of_p99(median_ms: float, p99_ms: float) -> Measurement:
    """Return what a process measured."""
    quantiles = {"p50": median_ms * 1e6, "p99": p99_ms * 1e6}
    return Measurement(Outcome.MEASURED, latency_ns=median_ms * 1e6, quantiles_ns=quantiles)


def test_a_leader_is_told_by_the_objective() -> None:
    """A slower median with a better p99 leads where p99 is asked for; nobody leads where nothing is known."""
    known = TrialRecord(1, 1, Settings(), Origin.DEFAULT, of_p99(5.0, 10.0), 10.0)
    fast = replace(known, measurement=of_p99(5.0, 10.0), value=5.0)
    better = of_p99(6.0, 8.0)
    assert judge.leads(better, [known], OBJECTIVES["p99"])
    assert not judge.leads(better, [fast], LATENCY)
    assert not judge.leads(of_p99(4.0, 11.0), [known], OBJECTIVES["p99"])
    assert judge.leads(of_p99(4.0, 11.0), [fast], OBJECTIVES["throughput"])
    assert not judge.leads(replace(better, outcome=Outcome.PRUNED), [known], OBJECTIVES["p99"])
    assert not judge.leads(better, [], OBJECTIVES["p99"])


@pytest.mark.parametrize(
    ("name", "score", "costs"), [("latency", 7.0, (6, 8)), ("p99", 14.0, (8, 20)), ("throughput", 1e3 / 7, (6, 8))]
)
def test_two_processes_make_one_measurement(name: str, score: float, costs: tuple[float, float]) -> None:
    """Its score is that of their mean, and what each of them cost is kept."""
    objective = OBJECTIVES[name]
    both = judge.joined(of_p99(6.0, 8.0), of_p99(8.0, 20.0), objective)
    assert objective.score(both) == pytest.approx(score)
    assert both.costs == pytest.approx(costs)
    assert objective.cost(both) == pytest.approx(sum(costs) / 2)
    assert both.second_ns == 8e6
    failed = Measurement(Outcome.FAILED, reason="planted")
    assert judge.joined(of_p99(6.0, 8.0), failed, objective) == of_p99(6.0, 8.0)


ONE, TWO = Settings.of({"a": 1}), Settings.of({"a": 1, "b": 1})


def test_the_best_is_measured_and_simple() -> None:
    """Equal values: the settings with fewer knobs off their default; pruned and failed ones never win."""
    trials = [
        trial(1, 5.0, Settings()),
        trial(2, 4.0, TWO),
        trial(3, 4.0, ONE),
        trial(4, None, Settings.of({"c": 1}), Outcome.PRUNED),
    ]
    best = there(judge.best(trials, LATENCY))
    assert best.settings == ONE
    assert judge.best(trials[3:], LATENCY) is None
    most = there(judge.best(trials, OBJECTIVES["throughput"]))
    assert most.settings == Settings()


@pytest.mark.parametrize(("known", "spread", "limit_ms"), [
    ([], 0.02, None), ([5.0, 4.0], None, 4.2), ([4.0], 0.02, 4.4), ([4.0], 0.15, 6.0), ([4.0], 0.4, 8.8),
], ids=["nothing known", "at least 5 %", "five spreads", "at most the ratio", "at least three spreads"])  # fmt: skip
def test_the_prune_limit_follows_the_noise(known: list[float], spread: float | None, limit_ms: float | None) -> None:
    """The margin over the best known is 5 %, or five times the spread between processes, up to the study's ratio."""
    limit = judge.prune_limit(known, spread, most=1.5)
    assert limit == (None if limit_ms is None else pytest.approx(limit_ms * 1e6))


def test_a_search_is_hopeless_after_five_failures_in_a_row_from_the_start() -> None:
    """Five failed trials and nothing else: the fault is not in the settings."""
    failed = [trial(n, None, Settings.of({"a": n}), Outcome.FAILED) for n in range(1, 6)]
    assert judge.hopeless(failed)
    assert not judge.hopeless(failed[:4])
    assert not judge.hopeless([trial(1, 5.0, Settings()), *failed])


@pytest.mark.parametrize(("plain", "pinned", "better"), [
    ([5.0, 6.0, 5.2, 6.1], [5.0, 5.05, 5.1, 5.0], True),
    ([3.4, 3.42, 3.38, 3.41], [3.5, 3.6, 3.8, 4.0], False),
    ([5.0, 5.2, 5.1, 5.3], [6.0, 6.0, 6.01, 6.0], False),
    ([5.0, 6.0], [5.0], False),
], ids=["steadier", "less steady", "steadier but slower", "too few"])  # fmt: skip
def test_pinning_has_to_prove_itself(plain: list[float], pinned: list[float], *, better: bool) -> None:
    """Quiet cores are used only where processes come nearer together and are not slower."""
    assert judge.steadier(plain, pinned) is better


def test_what_takes_too_much_memory_has_failed() -> None:
    """A measurement over the limit fails with both figures; under it, or without one, it stays as it is."""
    measured = Measurement(Outcome.MEASURED, latency_ns=1e6, gpu_memory_bytes=3 * 2**30)
    assert judge.within_memory(measured, None) is measured
    assert judge.within_memory(measured, 3.0) is measured
    failed = judge.within_memory(measured, 2.5)
    assert failed.outcome is Outcome.FAILED
    assert failed.reason == "The settings took 3.00 GiB of GPU memory, more than max_memory_gb, 2.5."
