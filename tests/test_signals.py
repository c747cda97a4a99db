"""What ends a tune: the terminal is closed, Ctrl-C is pressed more than once, it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from rtmo_optuna.machine.host import interruptions
from rtmo_optuna.study.library import list_studies, load_study
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome
from scripted import defined, write_script

KNOBS = ("enable_cpu_mem_arena", "enable_mem_pattern")
COMMAND = (
    *(sys.executable, "-m", "rtmo_optuna", "tune", "script.json", "--engine", "scripted", "--study", "small.yaml"),
    *("--study-name", "s", "--provider", "cpu", "--search-only"),
)
_LIMIT_S = 120.0


def described(folder: Path, **script: Any) -> None:  # noqa: ANN401 - a script is JSON
    """Write a script, and a definition of four settings."""
    write_script(folder, **script)
    (folder / "small.yaml").write_text(defined(*KNOBS), encoding="utf-8")


def states(folder: Path) -> set[TrialState]:
    """Return the states that the study's trials are in."""
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/studies/studies.db")
    return {trial.state for trial in study.trials}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [(signal.SIGHUP, 1), (signal.SIGINT, 5)])
def test_a_tune_that_is_ended_leaves_nothing_running(tmp_path: Path, number: signal.Signals, times: int) -> None:
    """SIGHUP as Ctrl-C, and Ctrl-C five times as once: exit 130, the trial put back, a report."""
    hangs = [{"when": {knob: False}, "fault": "hang in build"} for knob in KNOBS]  # all but the default
    described(tmp_path, faults=hangs)
    with subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as tune:
        assert tune.stdout
        assert any("1/" in line for line in tune.stdout)
        while TrialState.RUNNING not in states(tmp_path) and tune.poll() is None:
            time.sleep(0.02)
        for _ in range(times):
            tune.send_signal(number)
            time.sleep(0.05)
        told = tune.communicate(timeout=_LIMIT_S)[0]
    assert tune.returncode == 130, told
    assert "Traceback" not in told
    assert (tmp_path / "results/s/report.md").exists()
    assert TrialState.RUNNING not in states(tmp_path)
    assert TrialState.WAITING in states(tmp_path)


def test_what_is_ignored_stays_ignored() -> None:
    """Under nohup a closed terminal ends nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptions() as check:
            os.kill(os.getpid(), signal.SIGHUP)
            check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_the_first_signal_breaks_off() -> None:
    """What it set going is done to the end, and whoever has something long to begin still hears of it."""
    done = False
    with interruptions() as check:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            done = True
        assert done
        with pytest.raises(KeyboardInterrupt):
            check()


@pytest.mark.slow
def test_a_parent_that_is_killed_loses_nothing(tmp_path: Path, postgresql: str) -> None:
    """Killed after its second trial: the same command goes on, and every settings has run once."""
    described(tmp_path, effects={"enable_cpu_mem_arena=False": 0.5})
    command = [*COMMAND, "--quick", "--timeout", "120s", "--storage", postgresql]
    log = tmp_path / "log.txt"
    with log.open("wb") as output, subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output) as first:
        end = time.monotonic() + _LIMIT_S
        while log.read_text(encoding="utf-8").count("measured") < 2 and time.monotonic() < end:
            assert first.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    before = load_study(postgresql, "s")
    assert first.returncode == -signal.SIGKILL
    assert len(before.record().runs) >= 2
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "Resuming study s after" in done.stdout
    study = load_study(postgresql, "s")
    runs = study.record().runs
    assert runs[: len(before.record().runs)] == before.record().runs
    assert len(runs) == len({trial.settings for trial in runs}) == 4
    assert all(trial.measurement.outcome is Outcome.MEASURED for trial in runs)
    assert len(study.results(Purpose.BASELINE)) == 3
    assert {trial.state.name for trial in study._study.get_trials()} <= {"COMPLETE", "FAIL"}  # noqa: SLF001
    assert [line.name for line in list_studies(postgresql)] == ["s"]
    assert (tmp_path / "results/s/report.md").exists()
