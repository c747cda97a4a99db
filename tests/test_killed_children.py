"""Children that somebody else ends, or the kernel: no fault of the settings, so they are tried once more."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import scripted
from program import read
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Event, Note, Observer, WindowDone

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")
OTHER = Settings.of({"enable_mem_pattern": False})


def children() -> list[int]:
    """Return the process ids of this process's benchmarks."""
    ours = [
        folder
        for folder in Path("/proc").glob("[0-9]*")
        if read(folder / "stat").rpartition(")")[2].split()[1:2] == [str(os.getpid())]
    ]
    return [int(folder.name) for folder in ours if "rtmo_optuna.child.worker" in read(folder / "cmdline")]


def run(folder: Path, observer: Observer, settings: Settings, **script: Any) -> Measurement:  # noqa: ANN401 - JSON
    """Return what a process of a script comes to."""
    runner, rules = scripted.runner(folder, observer, **script)
    return runner.run(settings, rules, folder / "log.txt")


class Killer:
    """Ends the child in the first windows that are told; `told` are the notes."""

    def __init__(self, number: signal.Signals, times: int) -> None:
        """Kill `times` children with the signal `number`."""
        self.number, self.times, self.told = number, times, list[str]()

    def __call__(self, event: Event) -> None:
        """Kill the child that has just timed a window."""
        if isinstance(event, Note):
            self.told.append(event.text)
        if isinstance(event, WindowDone) and self.times:
            self.times -= 1
            for pid in children():
                os.kill(pid, self.number)


@needs_proc
@pytest.mark.parametrize("settings", [Settings(), OTHER])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_killed_once_is_measured_then(tmp_path: Path, number: signal.Signals, settings: Settings) -> None:
    """The default's and any other's: a second process measures them, and it is said."""
    killer = Killer(number, 1)
    found = run(tmp_path, killer, settings)
    assert found.outcome is Outcome.MEASURED
    assert len(killer.told) == 1
    assert "one more try" in killer.told[0]


@needs_proc
def test_a_child_killed_twice_has_failed(tmp_path: Path) -> None:
    """What takes the machine's memory is killed each time: there is no third try."""
    killer = Killer(signal.SIGKILL, 9)
    found = run(tmp_path, killer, OTHER)
    assert (found.outcome, found.accident) == (Outcome.FAILED, True)
    assert killer.times == 7


def test_what_crashes_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    """A crash of settings other than the default's costs one process."""
    killer = Killer(signal.SIGKILL, 0)
    crash = {"when": {"enable_mem_pattern": False}, "fault": "crash"}
    found = run(tmp_path, killer, OTHER, faults=[crash])
    assert (found.outcome, found.accident, killer.told) == (Outcome.FAILED, False, [])


def test_a_disk_that_is_full_for_a_while_fails_no_settings(tmp_path: Path) -> None:
    """There is room again at the second try."""
    killer = Killer(signal.SIGKILL, 0)

    def observer(event: Event) -> None:
        killer(event)
        scripted.write_script(tmp_path)

    found = run(tmp_path, observer, OTHER, faults=[{"when": {}, "fault": "full disk"}])
    assert found.outcome is Outcome.MEASURED
    assert "No space left on device" in killer.told[0]
    assert "one more try" in killer.told[0]


def test_a_child_lost_at_its_start_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not know its settings yet."""
    killer = Killer(signal.SIGKILL, 0)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import os; os._exit(3)\n", encoding="utf-8")
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{broken}:{path}")

    def observer(event: Event) -> None:
        killer(event)
        monkeypatch.setenv("PYTHONPATH", path)

    found = run(tmp_path, observer, OTHER)
    assert found.outcome is Outcome.MEASURED
    assert "exit code 3" in killer.told[0]
