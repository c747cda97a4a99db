"""The canary: which core calls are timed on, and which of them are disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from program import python
from rtmo_optuna.machine.canary import QuietCore, beat, queued, spin

QUICK = 350_000
HAS_CALL = hasattr(os, "sched_setaffinity")
needs_call = pytest.mark.skipif(not HAS_CALL, reason="this platform has no affinity call")
needs_cores = pytest.mark.skipif(
    not HAS_CALL or len(os.sched_getaffinity(0)) < 2, reason="there is no second core to choose"
)
COMPETITOR = """
import contextlib, os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
with contextlib.suppress(PermissionError):  # where it is allowed, the load of other processes cannot blur the test
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
print("busy", flush=True)
while True:
    end = time.perf_counter() + 0.04
    while time.perf_counter() < end:
        pass
    time.sleep(0.002)
"""


@pytest.fixture(autouse=True)
def _same_cores_afterwards() -> Iterator[None]:
    allowed = os.sched_getaffinity(0) if HAS_CALL else set()
    yield
    if HAS_CALL:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def _competitor(core: int) -> Iterator[None]:
    """Keep `core` busy with another process."""
    command = [sys.executable, "-c", COMPETITOR, str(core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"busy\n"
            yield
        finally:
            process.kill()


class Cores:
    """An operating system's cores with a time for each; stands in for its affinity calls, a spin, and the queue."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: dict[int, int], spin_s: float = 0.0) -> None:
        """Be the cores `times` (ns of a spin, by core)."""
        self.times = times
        self.current = frozenset(times)
        self.gone: set[int] = set()
        self.spins = 0
        self._spin_s = spin_s
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(self.current), raising=False)
        monkeypatch.setattr(os, "sched_setaffinity", self._pin, raising=False)

    def canary(self, best_ns: int = 0, **more: int) -> QuietCore:
        """Return a canary that lives on these cores, and never waits for one."""
        return QuietCore(best_ns, self._spin, lambda: 0, lambda: self.times[min(self.current)], **more)

    def _pin(self, _: int, cores: Iterable[int]) -> None:
        if self.gone.issuperset(cores):
            raise OSError(22, "Invalid argument")
        self.current = frozenset(cores)

    def _spin(self) -> int:
        self.spins += 1
        time.sleep(self._spin_s)
        (core,) = self.current
        return self.times[core]


def _series(*times: int) -> Callable[[], int]:
    return iter(times).__next__


def _burn(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_spin_is_about_a_third_of_a_millisecond() -> None:
    """The count of steps suits today's processors: long against the clock's steps, short against a window."""
    assert 50_000 < min(spin() for _ in range(20)) < 3_000_000


def test_a_preempted_spin_is_no_slow_core() -> None:
    """An interruption of 20 ms in the middle of a spin lengthens the spin, not what it returns."""
    interruptions = []

    def interrupt(*_: object) -> None:
        time.sleep(0.02)
        interruptions.append(1)

    previous = signal.signal(signal.SIGALRM, interrupt)
    spins = []
    try:
        for _ in range(10):
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            spins.append(spin())
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert interruptions
    assert sorted(spins)[5] < 10_000_000


@needs_cores
def test_one_core_during_windows_and_all_of_them_afterwards() -> None:
    """The core that `before` names is the thread's only one until `close`; a second `close` does no harm."""
    allowed = os.sched_getaffinity(0)
    canary = QuietCore()
    core, spun = canary.before()
    assert core in allowed
    assert os.sched_getaffinity(0) == {core}
    assert spun >= canary.best_ns > 0
    canary.close()
    canary.close()
    assert os.sched_getaffinity(0) == allowed


@needs_cores
def test_earlier_threads_keep_their_cores_and_later_ones_inherit() -> None:
    """Only the calling thread is pinned; what it starts while pinned has the same core."""
    allowed = os.sched_getaffinity(0)
    pinned, seen = threading.Event(), {}

    def look(name: str) -> None:
        pinned.wait(5)
        seen[name] = os.sched_getaffinity(0)

    earlier = threading.Thread(target=look, args=("earlier",))
    earlier.start()
    core, _ = QuietCore().before()
    later = threading.Thread(target=look, args=("later",))
    later.start()
    pinned.set()
    earlier.join()
    later.join()
    assert seen == {"earlier": allowed, "later": {core}}


@needs_call
def test_a_process_limited_to_one_core_stays_on_it() -> None:
    """What taskset allows is all that is used: windows are only flagged, and the mask stays as it was."""
    core = max(os.sched_getaffinity(0))
    code = (
        "import os\n"
        f"os.sched_setaffinity(0, {{{core}}})\n"
        "from rtmo_optuna.machine.canary import QuietCore\n"
        "canary = QuietCore()\n"
        "core, spun = canary.before()\n"
        "inside = os.sched_getaffinity(0)\n"
        "told = canary.quiet()\n"
        "canary.close()\n"
        "print(core, spun > 0, told in {True, False}, inside, os.sched_getaffinity(0))"
    )
    assert python(code).strip() == f"None True True {{{core}}} {{{core}}}"


def test_cores_outside_the_mask_are_never_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 cores four are allowed: the fastest of these is taken, whatever the order."""
    cores = Cores(monkeypatch, dict.fromkeys(range(64), QUICK))
    cores.times |= {5: 4 * QUICK, 6: 3 * QUICK, 7: 2 * QUICK, 8: 3 * QUICK}
    cores.current = frozenset({5, 6, 7, 8})
    assert cores.canary().before() == (7, 2 * QUICK)
    assert cores.spins == 4


def test_no_affinity_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the platform has none, as on macOS, disturbed calls are told all the same."""
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    canary = QuietCore(0, lambda: QUICK, lambda: 0, _series(QUICK, 2 * QUICK))
    assert canary.before() == (None, QUICK)
    assert [canary.quiet(), canary.quiet()] == [True, False]
    canary.close()


def test_affinity_refused_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that forbids the call leaves the canary to flag; nothing is raised, not even at the end."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    canary = QuietCore(QUICK, lambda: 2 * QUICK, lambda: 0, lambda: QUICK)
    assert canary.before() == (None, 2 * QUICK)
    assert not any(canary.quiet() for _ in range(5))
    canary.close()


def test_cores_that_are_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that can no longer be had is given up; when none is left, windows are only flagged."""
    cores = Cores(monkeypatch, {0: QUICK, 1: 2 * QUICK})
    canary = cores.canary()
    assert canary.before() == (0, QUICK)
    cores.gone = {0}
    assert canary.before() == (1, 2 * QUICK)
    cores.gone = {0, 1}
    assert canary.before() == (None, 2 * QUICK)


@pytest.mark.slow
@needs_cores
def test_a_busy_core_is_left_for_another() -> None:
    """With a competitor on each core in turn, at least seven of eight canaries are elsewhere after a few calls.

    A chooser that is blind to it would need luck of 4 % for that, and has three chances a core.
    """

    def last_choice() -> set[int]:
        canary = QuietCore()
        canary.before()
        for _ in range(6):
            _burn(0.01)
            canary.quiet()
        core = os.sched_getaffinity(0)
        canary.close()
        return core

    for busy in sorted(os.sched_getaffinity(0))[:2]:
        with _competitor(busy):
            assert any(sum(last_choice() != {busy} for _ in range(8)) >= 7 for _ in range(3))


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="the kernel does not count waiting")
def test_calls_on_a_shared_core_are_disturbed() -> None:
    """A competitor leaves single spins alone, but has the thread wait for its turns: that counts too."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    canary = QuietCore()
    before = queued()
    told = []
    with _competitor(core):
        for _ in range(3):
            canary.before()
            _burn(0.15)
            told.append(canary.quiet())
    assert told == [False] * 3
    assert queued() - before > 0.05 * 1e9


def test_a_beat_is_short_beside_a_call() -> None:
    """The work suits today's processors: long against the clock's steps, short against calls of some milliseconds."""
    assert 10_000 < min(beat() for _ in range(20)) < 1_000_000


@pytest.fixture
def _unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)


@pytest.mark.usefixtures("_unpinned")
def test_a_call_is_quiet_between_two_quiet_beats() -> None:
    """A beat over 40 % slower than the shortest one spoils the call before it and the one after."""
    beats = (1000, 1390, 1410, 1390, 1390, 900, 1270)
    canary = QuietCore(QUICK, lambda: QUICK, lambda: 0, _series(*beats))
    canary.before()
    assert [canary.quiet() for _ in beats] == [True, True, False, False, True, False, False]


@pytest.mark.usefixtures("_unpinned")
def test_every_call_on_a_busy_core_is_disturbed() -> None:
    """A spin 30 % slower than the best known counts until `before` finds better, however alike the beats are."""
    canary = QuietCore(1000, _series(1310, 900), lambda: 0, lambda: QUICK)
    canary.before()
    assert [canary.quiet(), canary.quiet()] == [False, False]
    canary.before()
    assert canary.best_ns == 900
    assert canary.quiet()


def test_calls_do_not_count_until_the_caches_know_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that begin within 15 ms of a move are left out, and are no reason to move again."""
    cores = Cores(monkeypatch, dict.fromkeys(range(4), QUICK))
    canary = cores.canary()
    canary.before()
    (first,) = cores.current
    assert [canary.quiet() for _ in range(5)] == [False] * 5
    time.sleep(0.016)
    assert [canary.quiet(), canary.quiet()] == [False, True]  # the first one began before the pause
    canary.before()
    assert [cores.current, canary.quiet()] == [{first}, True]


@pytest.mark.usefixtures("_unpinned")
def test_waiting_for_the_core_counts_as_slowness() -> None:
    """A thread that stood in the queue for more than a tenth of a call was disturbed, whatever its beats say."""
    waited = [0]
    canary = QuietCore(QUICK, lambda: QUICK, lambda: waited[0], lambda: QUICK)
    canary.before()
    told = []
    for share in (0.6, 0.0, 0.01):
        time.sleep(0.05)
        waited[0] += int(share * 50_000_000)
        told.append(canary.quiet())
    assert told == [False, True, True]


def test_a_quiet_core_is_kept_at_the_cost_of_one_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 10 % over the best known nothing is searched, however many cores there are; above, one is looked for."""
    cores = Cores(monkeypatch, dict.fromkeys(range(128), QUICK))
    canary = cores.canary(best_ns=QUICK)
    core, _ = canary.before()
    assert cores.spins == 1
    assert core is not None
    cores.times[core] = int(1.09 * QUICK)
    assert canary.before() == (core, cores.times[core])
    assert cores.spins == 2
    cores.times[core] = int(1.11 * QUICK)
    assert canary.before()[0] != core
    assert cores.spins == 4


def test_after_three_disturbed_calls_another_core_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was slow may look quiet again a moment later; where another one is quiet too, that one is taken."""
    cores = Cores(monkeypatch, dict.fromkeys(range(4), QUICK))
    canary = cores.canary(settling_ns=0)
    first, _ = canary.before()
    assert first is not None
    assert canary.quiet()
    for slow in (1, 1, 0, 1, 1, 1):
        assert first in cores.current
        cores.times[first] = (1 + slow) * QUICK
        canary.quiet()
    cores.times[first] = QUICK
    assert first not in cores.current
    assert canary.quiet()


def test_a_search_ends_after_20_milliseconds_and_goes_on_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 64 slow cores no window waits for all of them; the one quiet core is found all the same, and kept."""
    cores = Cores(monkeypatch, dict.fromkeys(range(64), 2 * QUICK), spin_s=0.001)
    canary = cores.canary(best_ns=QUICK)
    canary.before()
    assert 2 <= cores.spins <= 21
    quiet = canary._cores[-1]  # noqa: SLF001 - the one that has just been tried, so the last to come
    cores.times[quiet] = QUICK
    for _ in range(64):
        if canary.before()[0] == quiet:
            break
    assert canary.before() == (quiet, QUICK)
    assert cores.current == {quiet}


def test_a_child_loads_nothing_heavy_for_it() -> None:
    """A child's start is timed: besides the package, only light modules of the standard library come in."""
    code = (
        "import __future__, sys, typing, contextlib, enum, json, os, time\n"
        "known = set(sys.modules)\n"
        "import rtmo_optuna.machine.canary\n"
        "print(*sorted(set(sys.modules) - known))"
    )
    assert python(code).split() == ["rtmo_optuna", "rtmo_optuna.machine", "rtmo_optuna.machine.canary"]
