"""The preflight: how long sessions take to warm up, and what an earlier run found is not found anew."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import scripted
import simulated
from rtmo_optuna.machine.host import host
from rtmo_optuna.search.decide.budget import Deadline
from rtmo_optuna.search.preflight import Preflight, keep_states
from rtmo_optuna.search.runner import Conditions, Observed
from rtmo_optuna.study.library import load_study
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Event, Note
from rtmo_optuna.types.subject import Gpu, GpuState, StudyDefinition
from rtmo_optuna.verbs import tune
from rtmo_optuna.verbs.prepare import TuneOptions, plan, runner_of
from simulated import SimulatedRunner

SMALL = scripted.defined("enable_cpu_mem_arena", "enable_mem_pattern", more="")
SHORT = replace(scripted.SHORT, warmup_s=0.005)
DEVICE = Gpu(0, "GPU-0", "NVIDIA H200", 141 * 2**30, "580.1", "9.0")


def options(folder: Path, **script: Any) -> TuneOptions:  # noqa: ANN401 - a script is JSON
    """Return options for a search of one trial, all within `folder`."""
    return scripted.tune_options(folder, SMALL, script=script, study_name="s", trials=1, search_only=True)


def kept(wanted: TuneOptions) -> Study:
    """Return the study as it is kept."""
    return load_study(wanted.storage, "s")


def warmups(folder: Path) -> list[int]:
    """Return how many calls the trials' processes warmed up for, the earliest first."""
    files = sorted((folder / "artifacts").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    texts = [file.read_text(encoding="utf-8") for file in files]
    return [len(json.loads(text)["warmup_samples_ns"]) for text in texts if text.startswith("{")]


@pytest.mark.slow
def test_all_processes_warm_up_for_as_long_as_the_first_one_needed(tmp_path: Path) -> None:
    """15 slow calls, of which four come before the warm-up, are doubled; another run of the study does the same."""
    wanted = options(tmp_path, base_ms=2.0, warmup={"calls": 15, "factor": 4.0})
    tune.tune(wanted, lambda _event: None)
    calls = kept(wanted).get("warmup_calls")
    assert 20 <= calls <= 100  # more where this machine is busy with others
    tune.tune(replace(wanted, trials=3), lambda _event: None)
    assert kept(wanted).get("warmup_calls") == calls
    assert kept(wanted).runs >= 3
    assert set(warmups(tmp_path)) == {calls}


@pytest.mark.slow
def test_a_given_warm_up_is_not_calibrated(tmp_path: Path) -> None:
    """--warmup N means N calls, in every process."""
    wanted = options(tmp_path, base_ms=2.0, warmup={"calls": 15, "factor": 4.0})
    tune.tune(replace(wanted, warmup=4), lambda _event: None)
    assert kept(wanted).get("warmup_calls") is None
    assert set(warmups(tmp_path)) == {4}


@pytest.mark.slow
def test_a_slow_model_keeps_its_few_calls(tmp_path: Path) -> None:
    """At 60 ms a call the first process takes no 80 calls to find out that three have to do: others are no shorter."""
    wanted = options(tmp_path, base_ms=60.0)
    told: list[Event] = []
    tune.tune(wanted, told.append)
    assert kept(wanted).get("warmup_calls") == 2
    first, *others = (p.wall_s for p in kept(wanted).processes if p.purpose is Purpose.BASELINE)
    assert first < statistics.median(others) + 40 * 0.06
    assert not [event for event in told if isinstance(event, Note) and "settle" in event.text]


@pytest.mark.slow
@pytest.mark.parametrize("runs", [None, 662])
def test_a_percentile_gets_the_calls_that_it_needs(tmp_path: Path, runs: int | None) -> None:
    """Windows of ten calls, four at most: there are more of them for p99, and every process has its cost."""
    wanted = scripted.tune_options(
        tmp_path, SMALL + "objective: p99\n", script={}, study_name="s", trials=2, search_only=True, runs=runs
    )
    told: list[Event] = []
    tune.tune(wanted, told.append)
    study = kept(wanted)
    assert all(process.cost for process in study.processes)
    assert all(trial.value for trial in study.trials if trial.measurement.outcome is Outcome.MEASURED)
    assert study.default is not None
    assert study.default.measurement.calls >= 662
    assert runs in {None, study.default.measurement.calls}
    assert not [event for event in told if isinstance(event, Note) and "failed" in event.text]


@pytest.mark.parametrize(("base_ms", "notes"), [(20.0, 1), (1.0, 0)])
def test_long_processes_are_foretold_once(tmp_path: Path, base_ms: float, notes: int) -> None:
    """Who asks for p99 of a slow model is told how long each process takes, in its first window."""
    wanted = scripted.tune_options(tmp_path, SMALL + "objective: p99\n", script={"base_ms": base_ms})
    told: list[Event] = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    planned = plan(wanted, scratch)
    runner = runner_of(planned, told.append)
    for _ in range(2):
        runner.run(Settings(), planned.rules, tmp_path / "log.txt", prune_above_ns=0.0)
    texts = [event.text for event in told if isinstance(event, Note)]
    assert len(texts) == notes
    assert all(re.match("The objective 'p99' needs 662 calls of each process: about 1. s at 2", text) for text in texts)


def preflown(
    folder: Path,
    series: Sequence[int],
    told: list[Event],
    *,
    costs_ns: Sequence[float] = (5e6,),
    gpu: Gpu | None = None,
    baseline: int = 3,
    until: float = math.inf,
    seen: Observed | None = None,
) -> tuple[Study, Conditions]:
    """Return a study after its preflight, and what that found.

    Its processes come to `costs_ns` in turn, and took the calls `series` to warm up; the runner has `seen` something.
    """
    machine = replace(host(), gpu=gpu)
    study = scripted.opened(
        folder, StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None}, measuring=SHORT), machine
    )
    costs = itertools.cycle(costs_ns)

    def process(_settings: Settings, _count: int) -> Measurement:
        return Measurement(
            Outcome.MEASURED, latency_ns=next(costs), windows_ns=(5e6,) * 4, warmup_samples_ns=tuple(series)
        )

    runner = SimulatedRunner(process, seen=seen or Observed())
    processes = replace(simulated.processes(study, runner), observer=told.append)
    return study, Preflight(processes, baseline, Deadline(until, runner.clock)).run()


def test_a_latency_that_does_not_settle_is_told_of(tmp_path: Path) -> None:
    """The rule stays as it is, and the user knows that it may be too short."""
    told: list[Event] = []
    study, found = preflown(tmp_path, [round(1e9 * 1.01**-place) for place in range(100)], told)
    (note,) = [event for event in told if isinstance(event, Note) and event.warning]
    assert note.text.startswith("The default settings' latency did not settle within 100 calls")
    assert note.text.endswith("the rule of 0.005 s and 2 calls stays.")
    assert study.get("warmup_calls") == found.warmup_calls == 2


def test_a_resumed_study_calibrates_nothing(tmp_path: Path) -> None:
    """What the first run found holds, whatever a process would tell now."""
    slow = [9, 8, 9, 8, 9] + [1] * 95
    study, found = preflown(tmp_path, slow, [])
    assert study.get("warmup_calls") == found.warmup_calls == 10
    study, found = preflown(tmp_path, [1] * 100, [])
    measuring = simulated.rules_of(study).under(found).measuring
    assert (measuring.warmup_calls, measuring.warmup_s) == (10, 0.005)
    assert len(study.processes) == 3


@pytest.mark.parametrize(("costs_ns", "device", "plain", "pinned"), [
    ((5e6, 5.1e6, 5.05e6, 4.98e6, 5e6, 5e6), DEVICE, 6, 0),
    ((5e6, 6e6, 5.5e6, 5e6, 5.01e6, 5.02e6, 5e6, 5.01e6, 5e6), DEVICE, 3, 6),
    ((5e6, 6e6, 5.5e6, 5e6, 6e6, 5.5e6), None, 6, 0),
])  # fmt: skip
def test_three_processes_tell_a_very_noisy_host(
    tmp_path: Path, costs_ns: Sequence[float], device: Gpu | None, plain: int, pinned: int
) -> None:
    """No more plain ones are spent on it before quiet cores are tried, which only a GPU's study can; nor later on."""
    for _ in range(2):
        study, found = preflown(tmp_path, (), [], costs_ns=costs_ns, gpu=device, baseline=6)
        ran = [process.purpose for process in study.processes]
        assert (ran.count(Purpose.BASELINE), ran.count(Purpose.PINNED)) == (plain, pinned)
        assert found.pin is bool(pinned)


def test_a_preflight_keeps_to_its_time(tmp_path: Path) -> None:
    """Too late, two processes tell what two can, and quiet cores are not tried, then or later: a study is one."""
    costs_ns = (5e6, 6e6, 5e6, 6e6, 5e6)
    for until in (0.0, math.inf):
        study, found = preflown(tmp_path, (), [], costs_ns=costs_ns, gpu=DEVICE, baseline=6, until=until)
        assert [process.purpose for process in study.processes] == [Purpose.BASELINE] * 2
        assert found.spread is not None
        assert not found.pin


def test_the_gpu_is_remembered_as_it_ran_at_first(tmp_path: Path) -> None:
    """A later run compares clocks with the study's first window, not with its own; no GPU leaves nothing."""
    study, found = preflown(tmp_path, (), [])
    assert (study.get("gpu_states"), found.first_state) == (None, None)
    keep_states(study, Observed(first_state=GpuState(1980, 0, 40), last_state=GpuState(1500, 0x40, 88)))
    study, found = preflown(tmp_path, (), [])
    assert found.first_state == GpuState(1980, 0, 40)
    assert len(study.get("gpu_states")) == 2
