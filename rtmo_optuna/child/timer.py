"""Times a child's calls: its warm-up and its windows, back to back or at a pace, on a quiet core if asked for."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtmo_optuna.child import protocol
from rtmo_optuna.child.pace import LEAD_IN, SETTLING_S, Schedule
from rtmo_optuna.machine.canary import QuietCore, spin
from rtmo_optuna.types.request import Measuring

if TYPE_CHECKING:
    from rtmo_optuna.engine.session import Engine

Feed = Mapping[str, Any]

_DISTURBED = 0.25
_LONGEST = 3


def _at_once() -> None:
    pass


class Timer:
    """Times complete calls, cycling through the samples; whole cycles, so that every window holds the same work."""

    def __init__(self, engine: Engine, samples: Sequence[Feed], measuring: Measuring, core: QuietCore | None) -> None:
        """Call `engine` with `samples` by the rules `measuring`; without a `core`: on whatever core it is."""
        self._run = engine.run
        self._samples = samples
        self._measuring = measuring
        self._least = measuring.window_calls
        self._core = core
        self._kept: list[int] = []

    def _cycle(self, core: QuietCore | None, wait: Callable[[], None] = _at_once) -> tuple[list[int], bool]:
        """Return the latencies of one call a sample, and whether they are to be believed: most ran on a quiet core.

        Each call is after a `wait`, which does not count.
        """
        now, run, spent, disturbed = time.perf_counter_ns, self._run, [], 0
        for feed in self._samples:
            wait()
            start = now()
            run(feed)
            spent.append(now() - start)
            if core and not core.quiet():
                disturbed += 1
        return spent, disturbed <= _DISTURBED * len(spent)

    def warm_up(self) -> list[int]:
        """Return the latencies of the warm-up's calls, on a quiet core already: it learns what the beats there take."""
        rules = self._measuring
        if self._core:
            self._core.before()
        end = time.perf_counter() + (0.0 if rules.warmup_exact else rules.warmup_s)
        spent: list[int] = []
        least = rules.warmup_calls
        while len(spent) < least or time.perf_counter() < end:
            spent += self._cycle(self._core)[0]
            if not rules.warmup_exact and sum(spent) > len(spent) * rules.slow_call_ms * 1e6:
                least = self._least = rules.slow_calls
        gc.freeze()  # each window collects what its own calls leave, and not all that was loaded
        return spent

    def window(self, most_calls: float = math.inf) -> protocol.Timed:
        """Time calls until there are enough quiet ones, or three times as long where a quiet core is not to be had.

        Then the few quiet ones are the beginning of the next window. `most_calls` (1 or more) quiet ones are enough in
        any case; which windows count, and so how many calls are still wanted, the parent alone knows.
        """
        core, window_s, least = self._core, self._measuring.window_s, min(self._least, most_calls)
        spent, known = self._kept, len(self._kept)
        disturbed: list[int] = []
        gc.collect()
        gc.disable()
        if core:
            core.before()
        begun, passed, lost = time.perf_counter(), 0.0, False
        while len(spent) < most_calls and not lost and (len(spent) < least or passed < window_s):
            cycle, quiet = self._cycle(core)
            (spent if quiet else disturbed).extend(cycle)
            passed = time.perf_counter() - begun
            lost = len(disturbed) >= _LONGEST * least and passed >= _LONGEST * window_s
        gc.enable()
        slow = len(spent) < least
        self._kept = spent if slow else []
        told, left_out = (spent[known:] + disturbed, 0) if slow else (spent, len(disturbed))
        return protocol.Timed(tuple(told), slow, core.best_ns if core else 0, left_out)

    def close(self) -> None:
        """Give back all cores."""
        if self._core:
            self._core.close()


class PacedTimer(Timer):
    """Times calls that begin at a fixed rate. In the pauses nothing is done, so that they are a camera's.

    So a window is judged as a whole, by a spin on either side and by the core's queue meanwhile: a beat would tell how
    cold a pause left the caches, and not who else is there. The call that leads in to it does not count: core and GPU
    were awake before it, for the canary's sake and the parent's questions.
    """

    def __init__(
        self, engine: Engine, samples: Sequence[Feed], measuring: Measuring, core: QuietCore | None, rate_hz: float
    ) -> None:
        """Call `engine` `rate_hz` times a second; the rest is as in `Timer`."""
        super().__init__(engine, samples, measuring, core)
        self._schedule = Schedule(rate_hz)

    def warm_up(self) -> list[int]:
        """Return the latencies of its calls back to back; some at the pace follow, and are not told.

        A fixed number of calls is at the pace, all of it.
        """
        rules, paced = self._measuring, list[int]()
        spent = paced if rules.warmup_exact else super().warm_up()
        if self._core:
            self._core.before()
        least = rules.warmup_calls if rules.warmup_exact else rules.window_calls
        end = time.perf_counter() + (0.0 if rules.warmup_exact else SETTLING_S)
        while len(paced) < least or time.perf_counter() < end:
            paced += self._paced()
        gc.freeze()
        return spent

    def window(self, most_calls: float = math.inf) -> protocol.Timed:
        """Time calls until there are enough of them, at most `most_calls`; all or none of them are to be believed."""
        core, window_s, least = self._core, self._measuring.window_s, min(self._least, most_calls)
        gc.collect()
        gc.disable()
        if core:
            core.before()
        for _ in range(LEAD_IN):
            self._schedule.take_up()
            self._run(self._samples[-1])
        if core:
            core.quiet()
        spent: list[int] = []
        begun, passed = time.perf_counter(), 0.0
        while len(spent) < most_calls and (len(spent) < least or passed < window_s):
            spent += self._paced()
            passed = time.perf_counter() - begun
        slow = core is not None and not core.quiet(sum(spent))
        gc.enable()
        if core and slow:
            core.leave()
        return protocol.Timed(tuple(spent), slow, core.best_ns if core else 0, missed=self._schedule.missed)

    def _paced(self) -> list[int]:
        """Return the latencies of a cycle, each call of which waits for its time."""
        return self._cycle(None, self._schedule.wait)[0]


def timer_for(engine: Engine, samples: Sequence[Feed], measuring: Measuring, best_spin_ns: int | None) -> Timer:
    """Return what times the calls of `engine` by the rules `measuring`, as `Timer` and `PacedTimer` say.

    `best_spin_ns` is the shortest spin known, None where the core does not matter.
    """
    rate_hz, known = measuring.rate_hz, best_spin_ns
    if rate_hz is None:
        return Timer(engine, samples, measuring, None if known is None else QuietCore(known))
    core = None if known is None else QuietCore(known, beat=spin, least_ns=known)
    return PacedTimer(engine, samples, measuring, core, rate_hz)
