"""What a terminal shows: one line that says where a run is, never wider than the terminal, never still for long."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from program import ROOT
from rtmo_optuna.cli.progress import Progress
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Phase, RunStarted, Started, Waiting, WindowDone
from rtmo_optuna.verbs import tune
from scripted import write_script
from test_finals import ARENA, Planted, options
from test_json import DEFINITION

LONG = Settings.of({f"session.knob_{number}": True for number in range(20)})
COUNTER = re.compile(r"^(baseline|search|what does nothing|race|made plain|confirmation) (\d+)/(\d+)")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the program take standard output for a terminal of 80 columns, without colours."""
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


def drawn(text: str) -> list[str]:
    """Return what stood on the terminal's lines one after the other, without what wiped them."""
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def check(text: str, columns: int, phases: set[str]) -> None:
    """Check that no line is as wide as the terminal, that there are no codes, and that all counters go up."""
    assert "\x1b" not in text
    lines = drawn(text)
    assert max(map(len, lines)) < columns
    places: dict[str, list[tuple[int, int]]] = {}
    for found in filter(None, map(COUNTER.match, lines)):
        places.setdefault(found[1], []).append((int(found[2]), int(found[3])))
    assert phases <= places.keys()
    for phase, counted in places.items():
        numbers = [place for place, _ in counted]
        assert numbers == sorted(numbers), phase
        assert all(place <= total for place, total in counted), phase


@pytest.mark.slow
@pytest.mark.usefixtures("terminal")
def test_every_phase_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a whole tune; the first line says what is to come and for how long."""
    with Progress() as progress:
        tune.tune(options(tmp_path), progress, Planted({ARENA: 0.7}).runner_of)
    told = capsys.readouterr().out
    check(told, 80, {"baseline", "search", "race", "confirmation"})
    assert re.match(r"\s*Tuning .* on the processor: baseline, search, race and", drawn(told)[0])


@pytest.mark.usefixtures("terminal")
def test_the_settings_come_last_and_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """What says where the run is has room on 80 columns; a note is folded between words."""
    with Progress() as progress:
        progress(RunStarted("Tuning.", 600.0))
        progress(Started(Phase.CONFIRMATION, 7, 40, LONG))
        progress(WindowDone(2.3481, 12))
        progress(Note("A sentence of many words. " * 12))
    lines = drawn(capsys.readouterr().out)
    assert re.match(r"confirmation 7/40  window 12  2\.35 ms  \d+:\d\d left  session\.knob_0=1, .*…$", lines[-1])
    assert max(map(len, lines)) < 80
    assert any(line.rstrip().endswith("words.") for line in lines)


@pytest.mark.parametrize("columns", ["80", ""])
def test_it_is_not_still_for_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    """Where nothing happens the clock draws: in place on a terminal, a line elsewhere; waiting says since when."""
    if columns:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Progress(silence_s=0.1) as progress:
        progress(Started(Phase.RACE, 3, 16, Settings()))
        progress(Waiting("process 7, with which it takes turns", time.time()))
        capsys.readouterr()
        time.sleep(0.5)
        lines = drawn(capsys.readouterr().out)
    assert len([line for line in lines if "race 3/16" in line]) > 1
    assert "waiting 0:00 for process 7, with which it takes turns, until " in lines[-1]


def test_what_is_waited_for_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe, however often turns are taken."""
    with Progress() as progress:
        for _ in range(3):
            progress(Waiting("process 7"))
    assert capsys.readouterr().out == "Waiting for process 7.\n"


@pytest.mark.slow
def test_a_real_tune_on_a_terminal(tmp_path: Path) -> None:
    """Real processes of the scripted engine, searched only, on 120 columns: all that is printed, nothing wraps."""
    write_script(tmp_path, base_ms=2.0, effects={"enable_cpu_mem_arena=False": 0.5})
    (tmp_path / "small.yaml").write_text(DEFINITION, encoding="utf-8")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    words = "-m rtmo_optuna tune script.json --engine scripted --study small.yaml --provider cpu --search-only"
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        [sys.executable, *words.split()], cwd=tmp_path, stdout=theirs, stderr=theirs, env=environment
    ) as program:
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 65536):
                text += chunk
        except OSError:  # its end, on Linux
            pass
        os.close(ours)
    assert program.returncode == 0, text.decode()
    check(text.decode(), 120, {"baseline", "search"})
