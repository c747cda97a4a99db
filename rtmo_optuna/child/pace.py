"""Calls at a fixed rate, as a camera's frames come: their schedule, and the time that it makes a process take."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from rtmo_optuna.types.request import Limits, Measuring

LEAD_IN = 1
"""Calls before each window that do not count: what precedes them is no pause (docs/design.md, Measuring)."""
SETTLING_S = 1.0
"""The least time of a warm-up's last part, which is at the pace."""
_MOST_SLOTS = 2


class Schedule:
    """Slots at a fixed distance from the first call on; a call that overruns its slot costs those that it reaches into.

    Attributes:
        missed: How many slots were passed over since the schedule began or was taken up again.
    """

    def __init__(
        self,
        rate_hz: float,
        now: Callable[[], int] = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin with the first `wait`, in slots of 1 / `rate_hz` seconds; `now` is in ns."""
        self._period_ns = 1e9 / rate_hz
        self._now, self._sleep = now, sleep
        self._origin_ns: int | None = None
        self._slot = -1
        self.missed = 0

    def wait(self) -> None:
        """Sleep until the next slot that is not over yet; the first call ever is not kept waiting."""
        now = self._now()
        if self._origin_ns is None:
            self._origin_ns = now
        slot = max(self._slot + 1, math.ceil((now - self._origin_ns) / self._period_ns))
        self.missed += slot - self._slot - 1
        self._slot = slot
        left_ns = self._origin_ns + slot * self._period_ns - now
        if left_ns > 0:
            self._sleep(left_ns / 1e9)

    def take_up(self) -> None:
        """Wait as ever, but do not count what was missed until now: nobody meant to call then."""
        self.wait()
        self.missed = 0


def least_s(rules: Measuring, samples: int, calls: int = 0) -> float:
    """Return the seconds that a process takes for warm-up and windows at the pace of `rules`, at least; 0 without one.

    Windows hold whole cycles of the input's `samples`; `calls` are those that the objective needs, in whole windows.
    """
    if rules.rate_hz is None:
        return 0.0
    each = _window_calls(rules, samples, rules.rate_hz)
    timed = max(rules.windows_min * each, calls) if rules.runs is None else rules.runs
    windows = math.ceil(timed / each)
    timed = windows * each if rules.runs is None else timed
    return _warmup_s(rules, samples, rules.rate_hz) + (timed + windows * LEAD_IN) / rules.rate_hz


def limits_at(limits: Limits, rules: Measuring, samples: int) -> Limits:
    """Return `limits` with time for a window at the pace of `rules`, disturbed as it may be; without one, as they are.

    Each call may overrun its slot: whatever takes longer than two is the limit's own business.
    """
    if rules.rate_hz is None:
        return limits
    window_s = (_window_calls(rules, samples, rules.rate_hz) + LEAD_IN) / rules.rate_hz
    longest_s = _MOST_SLOTS * max(window_s, _warmup_s(rules, samples, rules.rate_hz))
    return replace(limits, window_s=limits.window_s + longest_s)


def _window_calls(rules: Measuring, samples: int, rate_hz: float) -> int:
    return _whole(max(rules.window_calls, math.ceil(rules.window_s * rate_hz)), samples)


def _warmup_s(rules: Measuring, samples: int, rate_hz: float) -> float:
    """Return how long the part of a warm-up takes that is at the pace."""
    settling = max(rules.window_calls, math.ceil(SETTLING_S * rate_hz))
    return _whole(rules.warmup_calls if rules.warmup_exact else settling, samples) / rate_hz


def _whole(calls: int, samples: int) -> int:
    """Return `calls`, or as many more as fill a cycle."""
    return samples * math.ceil(calls / samples)
