"""The canary: how fast the core under the calling thread is now, and which core is quiet enough to time on.

Part of the child whose start is timed: standard library only, and of it only what is loaded anyway.
"""

from __future__ import annotations

import enum
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REPEATS = 3
STEPS = 10_000
"""Never to depend on the machine: times of one study compare only while every spin does the same work."""
NEAR = 1.10
"""A core this many times slower than the best known is quiet enough. Quiet cores spread by 2 - 5 %, a busy hyperthread
twin costs 50 - 100 % (docs/design.md, What was measured), so a longer search would find nothing better."""
SLOW = 1.15
"""A window on a core more times slower than this is dropped (docs/design.md, Measuring)."""
PROBING_NS = 20_000_000
"""After this long no further core is tried: 16 quiet cores are all seen, and a window of 120 ms costs a sixth more."""


class Mode(enum.StrEnum):
    """Whether windows are timed on a core that was chosen, or are only judged afterwards, and why."""

    PINNED = "pinned"
    ONE_CORE = "flagging: one core"
    NO_CALL = "flagging: no affinity call"
    REFUSED = "flagging: refused"


def spin() -> int:
    """Return how long a fixed piece of pure CPU work takes now, in ns: about 350 000 on a fast core.

    It is the fastest of three, about 1 ms in all. A preemption lengthens one of them, seldom all; a core whose
    hyperthread twin is busy lengthens each, for seconds at a time.
    """
    return min(_work() for _ in range(REPEATS))


def queued() -> int:
    """Return how long the calling thread has been ready to run while its core ran others, in ns since it started.

    From the second field of /proc/thread-self/schedstat (Linux, Documentation/scheduler/sched-stats); 0 where there is
    no such file.
    """
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:  # noqa: PTH123 - pathlib is not needed otherwise
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0


class QuietCore:
    """Keeps the calling thread on a quiet core during windows, and tells which windows were disturbed all the same.

    `before` and `after` go around each window; both belong to one thread. Only that thread is pinned: threads that CUDA
    or ONNX Runtime started earlier keep their cores, threads that it starts later inherit its one core, so sessions are
    opened first. It uses the cores that the thread may use at the start, and thus heeds taskset and control groups.

    A core's slowness is its spin, over the best known one of the study, times the thread's share of waiting for the
    core: a spin sees a slow core, but a process with which a core is shared leaves whole spins alone between its turns.

    Attributes:
        mode: What can be done on this machine.
        best_ns: The fastest spin known, in ns: the given one, or one seen since; 0 before the first.
        kept: Windows that `after` let pass.
        dropped: Windows that it did not.
        moves: How many times a window was timed on another core than the window before.
    """

    def __init__(
        self, best_ns: int = 0, spin: Callable[[], int] = spin, queued: Callable[[], int] = queued
    ) -> None:
        """Start from the best spin that the study's earlier processes saw, in ns; 0 where there was none."""
        self.best_ns = best_ns
        self.kept = self.dropped = self.moves = 0
        self._spin = spin
        self._queued = queued
        self._core: int | None = None
        self._since = self._now()
        self.mode, self._allowed = _permission()
        # In the order in which to try them: the current one first, those found wanting last; shuffled, since neighbours
        # are often twins, and the first cores serve most interrupts.
        self._cores = sorted(self._allowed, key=lambda _: os.urandom(4))

    def before(self) -> tuple[int | None, int]:
        """Pin the thread to a quiet core; return that core (None where unpinned) and its spin in ns.

        The core of the last window is kept while it is at most 10 % slower than the best known: 1 ms. Otherwise
        others follow, those first that were not tried for longest, until one is as good or 20 ms are over; then it is the
        fastest of those tried. A process that knows no best spin tries all that it can in 20 ms.
        """
        known, last = self.best_ns, self._core
        end = time.perf_counter_ns() + PROBING_NS
        tried: list[tuple[float, int, int]] = []
        for core in tuple(self._cores):
            start = self._now()
            if not self._go(core):
                continue
            spun = self._timed()
            tried.append((self._slowness(spun, start), core, spun))
            if tried[-1][0] <= NEAR * known / self.best_ns or time.perf_counter_ns() > end:
                break
        for _, core, spun in sorted(tried):
            if self._go(core):
                self._cores = [core, *(c for c in self._cores if c not in {x for _, x, _ in tried}), ]
        return None, 0

    def _now(self) -> tuple[int, int]:
        return time.perf_counter_ns(), self._queued()


def _work() -> int:
    start = time.perf_counter_ns()
    x = 0
    for step in range(STEPS):
        x = (x * 5 + step) & 0xFFFF
    return time.perf_counter_ns() - start
