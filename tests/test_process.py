"""One process by a study's rules: whose outputs are judged by which, and a GPU that holds itself back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import optuna
import pytest

from rtmo_optuna.codec import encode
from rtmo_optuna.search import runner as module
from rtmo_optuna.search.preflight import Preflight
from rtmo_optuna.search.runner import Runner
from rtmo_optuna.search.tune import Tune
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import GateMode, GateRequest, GateResult, GateRules, Measurement, Outcome, Window
from rtmo_optuna.types.request import BenchmarkRequest, Stage
from rtmo_optuna.types.study import Event, Note, Origin
from rtmo_optuna.types.subject import Gpu, GpuState
from test_finals import ARENA, DEFAULT, PATTERN, opened, runner_of

if TYPE_CHECKING:
    from pathlib import Path

    from rtmo_optuna.study.study import Study

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
        measured = found is Outcome.MEASURED
        return Measurement(
            found,
            stage=None if measured else Stage.WINDOW,
            reason="" if measured else "planted.",
            latency_ns=5e6,
            windows_ns=(5e6,) * 4,
            calls=40,
            gate=NEAR if measured else None,
        )


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    """Return what every process of this test comes to."""
    made = Child()
    monkeypatch.setattr(module, "measure", made)
    monkeypatch.setattr(module, "_COOLING_S", (0.0, 0.0))
    return made


def judging(study: Study, told: list[Event] | None = None) -> Runner:
    """Return a runner that compares outputs with a reference: a file that is there, and that nobody reads."""
    runner = runner_of(study)
    runner.gate = GateRequest(GateRules(), __file__, baseline=True)
    runner.observer = (lambda _event: None) if told is None else told.append
    return runner


def test_only_the_default_is_judged_by_its_own_outputs(tmp_path: Path, child: Child) -> None:
    """Whatever else ran before the default told how far its outputs are is judged by the rules alone."""
    runner = judging(opened(tmp_path))
    for settings in (DEFAULT, ARENA):
        runner.run(settings, tmp_path / "log.txt")
    assert [request.gate["baseline"] for request in child.requests] == [True, False]


@pytest.mark.slow
def test_a_default_that_dies_twice_still_tells_how_far_its_outputs_are(tmp_path: Path, child: Child) -> None:
    """Its first process fails twice, and its trial tells: what comes after is judged by that, in the next run too."""
    child.outcome = lambda count: Outcome.MEASURED if count > 1 else Outcome.FAILED
    study = opened(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    runner = judging(study)
    Tune(study, runner, DEFAULT, 6, runner.observer, time.monotonic(), search_only=True).run()
    assert [p.cost for p in study.processes if p.purpose is Purpose.BASELINE] == [None]
    assert all(request.gate["own"] == encode(NEAR) for request in child.requests[3:])
    study.put("own", None)  # as a study of an earlier version may have it
    resumed = judging(study)
    Preflight(study, resumed, DEFAULT, 6, resumed.observer).run()
    assert (resumed.gate.own, resumed.gate.baseline) == (NEAR, False)


@pytest.mark.slow
@pytest.mark.parametrize("hot", [0, 1, 2])
def test_what_a_throttled_gpu_measured_is_measured_again(
    tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch, hot: int
) -> None:
    """A process during which the GPU held itself back says nothing of its settings."""
    told: list[Event] = []
    runner = judging(opened(tmp_path), told)
    runner.gpu = GPU
    monkeypatch.setattr(module, "state", lambda _gpu: GpuState(1000, 0x40 if len(child.requests) <= hot else 0, 90))
    record, measurement = runner.record(Purpose.RACE, 0, DEFAULT)
    assert (measurement.outcome, record.cost, len(child.requests)) == (Outcome.MEASURED, 5.0, hot + 1)
    assert not [event for event in told if isinstance(event, Note)]


@pytest.mark.slow
def test_a_gpu_that_is_always_throttled_is_measured_as_it_is(
    tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that holds itself back for good is told of once, and the tune ends."""
    monkeypatch.setattr(module, "state", lambda _gpu: GpuState(1000, 0x40, 90))
    told: list[Event] = []
    study = opened(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    runner = replace(judging(study, told), gpu=GPU)
    Tune(study, runner, DEFAULT, 2, told.append, time.monotonic(), search_only=True).run()
    notes = [event.text for event in told if isinstance(event, Note) and "as it is" in event.text]
    assert len(notes) == 1
    assert study.runs == 8
    assert all(trial.measurement.outcome is Outcome.MEASURED for trial in study.trials if trial.run)
    assert len(child.requests) < 30


def test_a_gpu_that_recovers_is_watched_again(tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hot for five processes, cool for one, hot once more: only the first of these times ends in measuring it hot."""
    hot = [True] * 5 + [False, True, False]
    monkeypatch.setattr(module, "state", lambda _gpu: GpuState(1000, 0x40 if hot[len(child.requests) - 1] else 0, 90))
    told: list[Event] = []
    runner = judging(opened(tmp_path), told)
    runner.gpu = GPU
    found = [runner.run(DEFAULT, tmp_path / "log.txt").outcome for _ in range(4)]
    assert found == [Outcome.MEASURED] * 4
    assert len(child.requests) == len(hot)
    assert len([event for event in told if isinstance(event, Note)]) == 1
    assert len(runner.walls_s) == 4
    assert (runner.hot, runner.last_state) == (False, GpuState(1000, 0, 90))


def test_windows_of_a_process_that_runs_again_are_reported_after_the_first_ones(
    tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna ignores a second report of a step, and what counts has to be the last."""
    monkeypatch.setattr(module, "state", lambda _gpu: GpuState(1000, 0x40 if len(child.requests) == 3 else 0, 90))
    study = opened(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    runner = replace(judging(study), gpu=GPU)
    Tune(study, runner, DEFAULT, 2, runner.observer, time.monotonic(), search_only=True).run()
    kept = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert list(kept.trials[0].intermediate_values) == [1, 2, 3, 4, 5, 6]


def test_where_nothing_can_be_measured_the_queue_is_not_run_to_its_end(
    tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search's time is over after the default's trial failed: what was queued behind it waits for another run."""
    monkeypatch.setattr(Tune, "_until", lambda tune: tune.begun)
    child.outcome = lambda _count: Outcome.FAILED
    study = opened(tmp_path)
    for settings, origin in ((DEFAULT, Origin.DEFAULT), (ARENA, Origin.ADVICE), (PATTERN, Origin.WON)):
        study.enqueue(settings, origin)
    Tune(study, judging(study), DEFAULT, 6, lambda _event: None, time.monotonic()).run()
    assert study.runs == 1


@pytest.mark.slow
def test_time_that_is_too_short_for_a_claim_is_told_beforehand(
    tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute a process, ten minutes: said before the search; a second a process: nothing is said."""
    del child
    for each_s, notes in ((60.0, 1), (1.0, 0)):
        folder = tmp_path / str(each_s)
        folder.mkdir()
        monkeypatch.setattr(Runner, "each_s", each_s)
        told: list[Event] = []
        study = opened(folder)
        study.enqueue(DEFAULT, Origin.DEFAULT)
        Tune(study, judging(study, told), DEFAULT, 2, told.append, time.monotonic()).run()
        found = [event.text for event in told if isinstance(event, Note) and "--timeout" in event.text]
        assert len(found) == notes
        assert not notes or found[0].endswith("give --timeout 56m or more.")


def test_a_trial_broken_off_after_its_measurement_was_kept_did_not_run(tmp_path: Path, child: Child) -> None:
    """Optuna's state decides: it is FAIL for what was broken off, and the settings are tried again."""
    del child
    study = opened(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    proposal = study.ask()
    assert proposal is not None
    proposal.trial.set_user_attr("outcome", "measured")
    proposal.trial.set_user_attr("measurement", encode(Measurement(Outcome.MEASURED, latency_ns=5e6)))
    study.interrupt(proposal)
    again = opened(tmp_path)
    assert (again.runs, again.counted, again.default) == (0, 0, None)
