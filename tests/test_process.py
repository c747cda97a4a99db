"""One process by a study's rules: whose outputs are judged by which, and a GPU that holds itself back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pytest

import simulated
from program import there
from rtmo_optuna.codec import encode
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.preflight import Preflight
from rtmo_optuna.search.runner import Rules, recorded
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import GateMode, GateRequest, GateResult, GateRules, Measurement, Outcome, Window
from rtmo_optuna.types.request import BenchmarkRequest, SessionSpec, Stage
from rtmo_optuna.types.study import Event, Note, Origin
from rtmo_optuna.types.subject import Gpu, GpuState
from scripted import MEASURED
from test_finals import ARENA, DEFAULT, PATTERN, Planted, opened

GPU = Gpu(0, "GPU-0", "made up", 2**34, "580.1", "8.0")
NEAR = GateResult(passed=True, mode=GateMode.ELEMENTWISE)


@dataclass
class Child:
    """Stands in for processes: they come to what `outcome` says, by the number of those before, and keep requests."""

    outcome: Callable[[int], Outcome] = lambda _count: Outcome.MEASURED
    requests: list[BenchmarkRequest] = field(default_factory=list)

    def __call__(
        self,
        request: BenchmarkRequest,
        *,
        throttled: Callable[[], bool],
        on_window: Callable[[Window], None],
        **_more: object,
    ) -> Measurement:
        """Return what a process would have measured; one on a throttled GPU is interrupted."""
        self.requests.append(request)
        for _ in range(3):
            on_window(Window((5_000_000,) * 10))
        found = Outcome.INTERRUPTED if throttled() else self.outcome(len(self.requests) - 1)
        if found is Outcome.MEASURED:
            return replace(MEASURED, gate=NEAR)
        return replace(MEASURED, outcome=found, stage=Stage.WINDOW, reason="planted.")


@pytest.fixture
def child() -> Child:
    """Return what every process of this test comes to."""
    return Child()


GATED = GateRequest(GateRules(), __file__, baseline=True)
"""Compares with a file that is there, and that nobody reads."""


def rules_of(study: Study) -> Rules:
    """Return the rules of a study whose outputs are compared with a reference."""
    return Rules.of(study.about.definition, GATED)


def runner_of(child: Child, told: list[Event] | None = None, hot: Callable[[], bool] | None = None) -> ChildRunner:
    """Return what runs `child`, on a GPU where `hot` says whether that holds itself back; notes go to `told`."""
    return ChildRunner(
        SessionSpec("", "cpu"),
        "",
        (lambda _event: None) if told is None else told.append,
        gpu=GPU if hot else None,
        cooling_s=(0.0, 0.0),
        gpu_state=lambda _gpu: GpuState(1000, 0x40 if hot and hot() else 0, 90),
        measure=child,
    )


def search(study: Study, runner: ChildRunner, **more: Any) -> None:  # noqa: ANN401 - of Tune
    """Tune `study` as far as the race, the default settings first."""
    study.enqueue(DEFAULT, Origin.DEFAULT)
    simulated.tune(study, runner, rules=rules_of(study), search_only=True, **more).run()


def test_only_the_default_is_judged_by_its_own_outputs(tmp_path: Path, child: Child) -> None:
    """Whatever else ran before the default told how far its outputs are is judged by the rules alone."""
    runner, rules = runner_of(child), rules_of(opened(tmp_path))
    for settings in (DEFAULT, ARENA):
        runner.run(settings, rules, tmp_path / "log.txt")
    assert [request.gate["baseline"] for request in child.requests] == [True, False]


@pytest.mark.slow
def test_a_default_that_dies_twice_still_tells_how_far_its_outputs_are(tmp_path: Path, child: Child) -> None:
    """Its first process fails twice, and its trial tells: what comes after is judged by that, in the next run too."""
    child.outcome = lambda count: Outcome.MEASURED if count > 1 else Outcome.FAILED
    study = opened(tmp_path)
    search(study, runner_of(child))
    assert [p.cost for p in study.processes if p.purpose is Purpose.BASELINE] == [None]
    assert all(request.gate["own"] == encode(NEAR) for request in child.requests[3:])
    study.put("own", None)  # as a study of an earlier version may have it
    resumed = simulated.processes(study, runner_of(child))
    rules = rules_of(study).under(Preflight(resumed, 6).run())
    assert (rules.gate.own, rules.gate.baseline) == (NEAR, False)


@pytest.mark.slow
@pytest.mark.parametrize("hot", [0, 1, 2])
def test_what_a_throttled_gpu_measured_is_measured_again(tmp_path: Path, child: Child, hot: int) -> None:
    """A process during which the GPU held itself back says nothing of its settings."""
    told: list[Event] = []
    runner = runner_of(child, told, lambda: len(child.requests) <= hot)
    record, measurement = recorded(runner, rules_of(opened(tmp_path)), Purpose.RACE, 0, DEFAULT)
    assert (measurement.outcome, record.cost, len(child.requests)) == (Outcome.MEASURED, 5.0, hot + 1)
    assert not [event for event in told if isinstance(event, Note)]


@pytest.mark.slow
def test_a_gpu_that_is_always_throttled_is_measured_as_it_is(tmp_path: Path, child: Child) -> None:
    """A card that holds itself back for good is told of once, and the tune ends."""
    told: list[Event] = []
    study = opened(tmp_path)
    search(study, runner_of(child, told, lambda: True), baseline=2)
    notes = [event.text for event in told if isinstance(event, Note) and "as it is" in event.text]
    assert len(notes) == 1
    assert study.runs == 8
    assert all(trial.measurement.outcome is Outcome.MEASURED for trial in study.trials if trial.run)
    assert len(child.requests) < 30


def test_a_gpu_that_recovers_is_watched_again(tmp_path: Path, child: Child) -> None:
    """Hot for five processes, cool for one, hot once more: only the first of these times ends in measuring it hot."""
    hot = [True] * 5 + [False, True, False]
    told: list[Event] = []
    runner, rules = runner_of(child, told, lambda: hot[len(child.requests) - 1]), rules_of(opened(tmp_path))
    found = [runner.run(DEFAULT, rules, tmp_path / "log.txt").outcome for _ in range(4)]
    assert found == [Outcome.MEASURED] * 4
    assert len(child.requests) == len(hot)
    assert len([event for event in told if isinstance(event, Note)]) == 1
    assert len(runner.seen.walls_s) == 4
    assert (runner.seen.hot, runner.seen.last_state) == (False, GpuState(1000, 0, 90))


def test_windows_of_a_process_that_runs_again_are_reported_after_the_first_ones(tmp_path: Path, child: Child) -> None:
    """Optuna ignores a second report of a step, and what counts has to be the last."""
    search(opened(tmp_path), runner_of(child, hot=lambda: len(child.requests) == 3), baseline=2)
    kept = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert list(kept.trials[0].intermediate_values) == [1, 2, 3, 4, 5, 6]


def test_where_nothing_can_be_measured_the_queue_is_not_run_to_its_end(tmp_path: Path, child: Child) -> None:
    """The search's time is over after the default's trial failed: what was queued behind it waits for another run."""
    child.outcome = lambda _count: Outcome.FAILED
    study = opened(tmp_path)
    for settings, origin in ((DEFAULT, Origin.DEFAULT), (ARENA, Origin.ADVICE), (PATTERN, Origin.WON)):
        study.enqueue(settings, origin)
    late_s = 0.6 * study.about.definition.timeout_s
    simulated.tune(study, runner_of(child), rules=rules_of(study), late_s=late_s).run()
    assert study.runs == 1


@pytest.mark.slow
def test_time_that_is_too_short_for_a_claim_is_told_beforehand(tmp_path: Path) -> None:
    """A minute a process, ten minutes: said before the search; a second a process: nothing is said."""
    for each_s, notes in ((60.0, 1), (1.0, 0)):
        folder = tmp_path / str(each_s)
        folder.mkdir()
        told: list[Event] = []
        study = opened(folder)
        study.enqueue(DEFAULT, Origin.DEFAULT)
        simulated.tune(study, Planted().runner(takes_s=each_s), baseline=2, observer=told.append).run()
        found = [event.text for event in told if isinstance(event, Note) and "--timeout" in event.text]
        assert len(found) == notes
        assert not notes or found[0].endswith("give --timeout 56m or more.")


def test_a_trial_broken_off_after_its_measurement_was_kept_did_not_run(tmp_path: Path) -> None:
    """Optuna's state decides: it is FAIL for what was broken off, and the settings are tried again."""
    study = opened(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    proposal = there(study.ask())
    proposal.trial.set_user_attr("outcome", "measured")
    proposal.trial.set_user_attr("measurement", encode(Measurement(Outcome.MEASURED, latency_ns=5e6)))
    study.interrupt(proposal)
    again = opened(tmp_path)
    assert (again.runs, again.counted, again.default) == (0, 0, None)
