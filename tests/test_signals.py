"""Signals that end a tune: the terminal is closed, or Ctrl-C is pressed more than once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from rtmo_optuna.machine.host import interruptions
from scripted import write_script

DEFINITION = """
provider: cpu
knobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all}
sampler: exhaustive
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""
COMMAND = [
    *(sys.executable, "-m", "rtmo_optuna", "tune", "script.json", "--engine", "scripted", "--study", "small.yaml"),
    *("--study-name", "s", "--provider", "cpu", "--search-only"),
]


def states(folder: Path) -> set[TrialState]:
    """Return the states that the study's trials are in."""
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/studies/studies.db")
    return {trial.state for trial in study.trials}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [(signal.SIGHUP, 1), (signal.SIGINT, 5)])
def test_a_tune_that_is_ended_leaves_nothing_running(tmp_path: Path, number: signal.Signals, times: int) -> None:
    """SIGHUP as Ctrl-C, and Ctrl-C five times as once: exit 130, the trial put back, a report."""
    write_script(tmp_path, base_ms=5.0, build_ms=600.0)
    (tmp_path / "small.yaml").write_text(DEFINITION, encoding="utf-8")
    with subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as tune:
        assert tune.stdout
        for line in tune.stdout:
            if "1/" in line:
                break
        while TrialState.RUNNING not in states(tmp_path) and tune.poll() is None:
            time.sleep(0.02)
        for _ in range(times):
            tune.send_signal(number)
            time.sleep(0.05)
        told = tune.communicate(timeout=120)[0]
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
