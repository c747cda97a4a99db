"""A busy processor: who else computes is named, and whether one measures all the same is the user's to say."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import scripted
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine import load
from rtmo_optuna.verbs import prepare

SPIN = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass\n"
DEFINITION = "provider: cpu\nknobs: {enable_cpu_mem_arena: all}\n"
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")


def spinning(count: int, *, orphaned: bool) -> list[int]:
    """Start `count` processes that compute, as this one's children or, orphaned, as nobody's; return their ids."""
    if not orphaned:
        return [subprocess.Popen([sys.executable, "-c", SPIN]).pid for _ in range(count)]
    start = (
        "import subprocess, sys\n"
        f"for _ in range({count}): print(subprocess.Popen([sys.executable, '-c', {SPIN!r}], "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True).pid)\n"
    )
    told = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid in told.split()]


@pytest.fixture
def others() -> Iterator[list[int]]:
    """Run twice as many foreign processes as there are cores, that compute."""
    pids = spinning(2 * len(os.sched_getaffinity(0)), orphaned=True)
    time.sleep(0.2)
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@needs_proc
def test_a_busy_processor_is_refused_with_who_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[int]
) -> None:
    """One sentence with names and ids, before anything is written; --allow-busy measures all the same."""
    monkeypatch.delenv(prepare.ALLOW_BUSY)
    wanted = scripted.tune_options(tmp_path, DEFINITION, script={})
    with pytest.raises(
        UsageError, match=r"^The processor is busy with .*\(pid \d+\).* of \d+ cores?: end that"
    ) as told:
        prepare.plan(wanted, tmp_path)
    assert "--allow-busy" in str(told.value)
    assert "\n" not in str(told.value)
    found = {one.pid for one in load.busy_with(1)[1]}
    assert set(others) & found
    allowed = scripted.tune_options(tmp_path, DEFINITION, script={}, allow_busy=True)
    assert prepare.plan(allowed, tmp_path).about.definition.provider == "cpu"


@needs_proc
def test_what_this_process_started_is_not_foreign() -> None:
    """A child that computes is ours, whatever else runs on the machine."""
    (pid,) = spinning(1, orphaned=False)
    try:
        begun, before, after = time.monotonic(), load.processes(), load.processes()
        while after[pid].ticks == before[pid].ticks and time.monotonic() - begun < 20:
            time.sleep(0.1)
            after = load.processes()
        assert after[pid].ticks > before[pid].ticks
        assert pid not in {one.pid for one in load.foreign(before, after, 0.3)}
        assert os.getpid() not in {one.pid for one in load.foreign({}, after, 0.3)}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(("ours", "taken"), [({0, 1, 2, 3}, 3.5), ({0, 1}, 1.5), ({0}, 1.0), ({1}, 0.5), ({3}, 0.5)])
def test_others_count_on_the_cores_that_are_used_here(ours: set[int], taken: float) -> None:
    """Of four cores: what is bound to the first, what may go anywhere as long as there is room, what is elsewhere."""
    places = [{0}, {0, 1, 2, 3}, {2, 3}]
    loads = [load.Load(n, "x", cores, frozenset(places[n])) for n, cores in enumerate((1.0, 1.5, 1.0))]
    assert load.crowded(loads, frozenset(ours), 4) == taken


def test_a_process_id_that_was_given_anew_does_not_inherit() -> None:
    """What a dead process of the same id had used is not subtracted; names with parentheses are read whole."""
    hertz = os.sysconf("SC_CLK_TCK")
    old, new = load.Process(0, "one", 5, 900), load.Process(0, "a (b) c", 7, hertz)
    (found,) = load.foreign({2**30: old}, {2**30: new}, 1.0)
    assert (found.name, found.cores) == ("a (b) c", 1.0)
    assert not load.foreign({2**30: new}, {2**30: new}, 1.0)
