"""The canary: how fast the core under the calling thread is now, and which core is quiet enough to time on.

Part of the child, whose start is timed: standard library only, and of it only what is loaded anyway.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable

REPEATS = 3
STEPS = 10_000
"""Never fitted to the machine: the spins of one study compare only while every one of them does the same work."""
NEAR = 1.10
"""A core at most this many times slower than the best known is quiet: a busy hyperthread twin makes a spin 1.5 to 2
times slower, the clock leaves some 10 % between quiet cores (docs/lab/canary.md)."""
PROBING_NS = 20_000_000
"""No third core is tried after this time: enough for 16 quiet ones, and a sixth of a window of 0.12 s."""
BUSY = 1.3
"""A core at least this many times slower than the best known is busy, and so is every call on it."""
BEAT = {str(n): [n, {"a": n * 1.5, "b": f"x{n}"}] for n in range(40)}
"""Written as JSON and read again between two calls: a tenth of a millisecond, 3 % of the time of calls of 3.5 ms. Of
three kinds of work it follows a GPU's calls best (docs/design.md, Measuring): like them it is much code, run once, out
of caches that a call has just filled, which neighbours disturb that a spin does not feel."""
SLOW = 1.4
"""A beat that takes more times the process's shortest one was disturbed: quiet ones differ by 30 %, a busy twin costs
50 % and more. Those of other processes say nothing here, since each kind of call leaves other caches behind."""
WAITED = 0.1
"""A call was disturbed where the thread stood in its core's queue for more than this share of the time."""
PATIENCE = 3
"""After so many disturbed calls in a row another core is looked for."""


def spin() -> int:
    """Return how long a fixed piece of work for the processor alone takes now, in ns: about 350 000 on a fast core.

    It is the least of three, 1 ms together: a preemption lengthens one of them, a slow core all.
    """
    return min(_work() for _ in range(REPEATS))


def beat() -> int:
    """Return how long writing `BEAT` as JSON and reading it again takes now, in ns."""
    start = time.perf_counter_ns()
    json.loads(json.dumps(BEAT))
    return time.perf_counter_ns() - start


def queued() -> int:
    """Return how long the calling thread has stood ready while its core ran others, in ns since the thread's start.

    This is the second field of Linux's /proc/thread-self/schedstat (its Documentation/scheduler/sched-stats.rst); 0
    where there is none.
    """
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:  # noqa: PTH123 - pathlib is not needed otherwise
            return int(file.read().split()[1])
    except OSError:
        return 0


class QuietCore:
    """Keeps the calling thread on a quiet core while calls are timed, and says which were disturbed all the same.

    `before` stands before a window, `quiet` after each of its calls, `close` after the last window; all belong to one
    thread. Only that thread is pinned: those that CUDA or ONNX Runtime started earlier keep their cores, those that it
    starts later inherit its one core, so open the session first. The cores are those that the thread may use at the
    start: taskset and control groups are heeded.

    On a busy host quiet times are short, and may be shorter than a window: so calls are judged one by one, each by a
    beat on either side of it, and by the time that the thread stood in its core's queue meanwhile. A beat alone tells a
    slow core, but not one shared with another process, which takes turns of several beats' length.

    Attributes:
        best_ns: The shortest spin known, in ns: the one given, or one seen since; 0 before any.
        least_ns: The shortest beat known beside such calls, in ns, likewise.
    """

    def __init__(
        self,
        best_ns: int = 0,
        spin: Callable[[], int] = spin,
        queued: Callable[[], int] = queued,
        beat: Callable[[], int] = beat,
        *,
        least_ns: int = 0,
        settling_ns: int = 15_000_000,
    ) -> None:
        """Start from the shortest spin that the study's processes have seen so far, in ns; 0 where there was none.

        Calls are slower for `settling_ns` on a core that was just moved to, whose caches know nothing of them.
        """
        self._settling_ns = settling_ns
        self.best_ns = best_ns
        self.least_ns = least_ns
        self._spin, self._queued, self._beat = spin, queued, beat
        self._since = self._now()
        self._moved_ns = 0
        self._last_ns = 0
        self._busy = False
        self._disturbed = 0
        self._core: int | None = None
        self._allowed = _settable()
        # In the order to try them; shuffled, since neighbours may be twins and the first ones serve most interrupts.
        cores = self._allowed if len(self._allowed) > 1 else ()
        self._cores = sorted(cores, key=lambda _: os.urandom(4))

    def before(self) -> tuple[int | None, int]:
        """Pin the thread to a quiet core; return that core, None where nothing is pinned, and its spin in ns.

        The last core stays, at the cost of one spin, while it is within 10 % of the best known. Otherwise others are
        tried, those first that were not for longest, until one is within 10 %, or for 20 ms, but at least two; then the
        fastest is taken. Without a best known, as many as 20 ms allow are compared.
        """
        known, last = self.best_ns, self._core
        end = time.perf_counter_ns() + PROBING_NS
        tried: dict[int, tuple[float, int]] = {}
        for core in tuple(self._cores):
            self._since = self._now()
            if self._pin(core):
                spun = self._spun()
                tried[core] = self._stretched(spun), spun
                if tried[core][0] <= NEAR * known or (len(tried) > 1 and time.perf_counter_ns() > end):
                    break
        if tried:
            self._core = min(tried, key=lambda core: tried[core])
            self._pin(self._core)
            self._cores.sort(key=lambda core: (core != self._core, core in tried))
            spun = tried[self._core][1]
        else:
            self._core, spun = None, self._spun()
        self._disturbed, self._last_ns, self._busy = 0, 0, spun > BUSY * self.best_ns
        self._since = self._now()
        if self._core != last:
            self._moved_ns = self._since[0]
        return self._core, spun

    def quiet(self, worked_ns: int = 0) -> bool:
        """Return whether the call since `before`, or since the last `quiet`, ran undisturbed on a quiet core.

        Where the thread slept meanwhile, it worked for `worked_ns` only. Where several calls in a row were disturbed,
        another core is looked for at once.
        """
        before, self._last_ns = self._last_ns, self._beat()
        self.least_ns = min(self.least_ns or self._last_ns, self._last_ns)
        since, self._since = self._since, self._now()
        passed, waited = (now - then for now, then in zip(self._since, since, strict=True))
        most = SLOW * self.least_ns
        if since[0] < self._moved_ns + self._settling_ns:
            return False
        disturbed = self._busy or self._last_ns > most or waited > WAITED * (worked_ns or passed)
        self._disturbed = self._disturbed + 1 if disturbed else 0
        if self._disturbed >= PATIENCE:
            self.leave()
            self.before()
        return not (disturbed or before > most)

    def leave(self) -> None:
        """Have the next `before` try the other cores first."""
        self._cores = self._cores[1:] + self._cores[:1]

    def close(self) -> None:
        """Let the thread run on all the cores again that it had at the start."""
        if self._allowed:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._allowed)

    def _now(self) -> tuple[int, int]:
        return time.perf_counter_ns(), self._queued()

    def _spun(self) -> int:
        """Return a spin's time, which may be the best."""
        spun = self._spin()
        self.best_ns = min(self.best_ns or spun, spun)
        return spun

    def _stretched(self, spun: int) -> float:
        """Return the spin's time, longer by what waiting since `_since` has cost."""
        now, queued = self._now()
        passed, waited = now - self._since[0], queued - self._since[1]
        return spun * passed / max(passed - waited, 1)

    def _pin(self, core: int) -> bool:
        """Pin the thread to `core`, which is given up where that fails: taken offline, or away from this process."""
        try:
            os.sched_setaffinity(0, {core})
        except OSError:
            self._cores.remove(core)
            return False
        return True


def _settable() -> frozenset[int]:
    """Return the calling thread's cores; none where they are not known, or may not be set."""
    try:
        cores = frozenset(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError):  # there is no such call on macOS, and a sandbox may forbid it
        return frozenset()
    return cores


def _work() -> int:
    start = time.perf_counter_ns()
    x = 0
    for step in range(STEPS):
        x = (x * 5 + step) & 0xFFFF
    return time.perf_counter_ns() - start
