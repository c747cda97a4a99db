"""The program as its users run it, and other programs of Python: what they print, and how they end."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from rtmo_optuna.cli import main

T = TypeVar("T")
ROOT = Path(__file__).parents[1]


@dataclass
class Program:
    """Runs the command line within this process; `out` and `err` are what it printed last."""

    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str) -> int:
        """Return the exit code."""
        with pytest.raises(SystemExit) as ended:
            main.main(list(arguments))
        self.out, self.err = self.capsys.readouterr()
        return int(ended.value.code or 0)


def python(code: str, *arguments: object, cwd: Path = ROOT) -> str:
    """Return what a new interpreter prints that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def ended(*pids: int, within_s: float = 60.0) -> bool:
    """Whether these processes have ended, or will soon; one that waits to be reaped has."""

    def runs(pid: int) -> bool:
        return read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] not in ([], ["Z"])

    until = time.monotonic() + within_s
    while any(map(runs, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(runs, pids))


def read(path: Path) -> str:
    """Return the text of a file that may have gone, of a process that has."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def there(found: T | None) -> T:
    """Return what has to be there."""
    assert found is not None
    return found


def lacking(text: str, *words: str) -> list[str]:
    """Return which of `words` are not in `text`."""
    return [word for word in words if word not in text]
