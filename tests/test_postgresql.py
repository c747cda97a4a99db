"""A study on a real PostgreSQL server: tuned, killed, and tuned on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtmo_optuna.study.library import list_studies, load_study
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome
from scripted import write_script

DEFINITION = """
provider: cpu
knobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all}
sampler: exhaustive
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""
COMMAND = (
    *("tune", "script.json", "--engine", "scripted", "--study", "small.yaml", "--study-name", "s"),
    *("--provider", "cpu", "--quick", "--search-only", "--timeout", "120s"),
)
_LIMIT_S = 120.0


@pytest.mark.slow
def test_a_parent_that_is_killed_loses_nothing(tmp_path: Path, postgresql: str) -> None:
    """Killed after its second trial: the same command goes on, and every settings has run once."""
    write_script(tmp_path, effects={"enable_cpu_mem_arena=False": 0.5})
    (tmp_path / "small.yaml").write_text(DEFINITION, encoding="utf-8")
    command = [sys.executable, "-m", "rtmo_optuna", *COMMAND, "--storage", postgresql]
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
