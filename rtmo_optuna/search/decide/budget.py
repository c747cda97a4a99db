"""How a tune's time is shared out, and what still ends in time, by a clock and by how long processes take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from rtmo_optuna.search.decide.confirm import LOOKS
from rtmo_optuna.types.findings import LEAST_PAIRS

Clock: TypeAlias = Callable[[], float]

_PREFLIGHT_SHARE = 0.2
"""The share of the time after which the preflight runs no more processes than it must."""
_WAIT_SHARE = 0.5
"""The share of the time after which another driver's preflight is waited for no longer."""
_SEARCH_UNTIL = 0.6
"""The share of the time after which the search ends; `_LEAST_SEARCH` is what it has in any case."""
_LEAST_SEARCH = 0.35
_SCREENING_SHARE = 0.25
"""The share of the time that the screening may take; half of what the search has left is the most."""
_LEAST_FINALS = 36
"""Processes that a race of two and ten confirming pairs take, and some to spare."""
_REPORT_S, _REPORT_SHARE = 8.0, 0.05
"""What is left of the time at the end, in seconds, for the report; no more than that share of it."""
_SPARE = 2
"""Processes by whose time the pairs may begin too late, by what processes took before."""
_LEAST_TRIALS = 3
"""Trials without which there is nobody to confirm."""
_PAIRS_SHARE = 0.5
"""The share of the processes after the search that is left to the pairs, for two comparisons at the most."""
_CAUTION = 1.2
"""Pairs are given so many times the median of the latest processes: some take twice as long, few are shorter."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment `at`, in seconds of `clock`, before which processes are to end."""

    at: float = math.inf
    clock: Clock = time.monotonic

    @property
    def left_s(self) -> float:
        """How many seconds are left; 0 once it has passed."""
        return max(0.0, self.at - self.clock())

    def late(self, each_s: float, processes: int = 1) -> bool:
        """Whether so many `processes` of `each_s` seconds would end after it."""
        return self.clock() + processes * each_s > self.at

    def fits(self, each_s: float) -> int:
        """Return how many processes of `each_s` seconds end before it."""
        return int(self.left_s / each_s)

    def before(self, seconds: float) -> Deadline:
        """Return the moment so many `seconds` before it."""
        return Deadline(self.at - seconds, self.clock)

    def within(self, seconds: float) -> Deadline:
        """Return the moment in so many `seconds`, or this one where it comes first."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)


@dataclass(frozen=True, slots=True)
class Budget:
    """The `timeout_s` seconds of a tune from `begun` on, by `clock`."""

    begun: float
    timeout_s: float
    clock: Clock = time.monotonic

    @property
    def end(self) -> Deadline:
        """When the last process ends: the rest is the report's."""
        return self._at(self.timeout_s - min(_REPORT_S, _REPORT_SHARE * self.timeout_s))

    @property
    def preflight(self) -> Deadline:
        """When the preflight ends that has run as many processes as it must."""
        return self._at(_PREFLIGHT_SHARE * self.timeout_s)

    @property
    def waiting(self) -> Deadline:
        """Until when another driver's preflight is waited for."""
        return self._at(_WAIT_SHARE * self.timeout_s)

    def pairs_from(self, each_s: float, pairs: int) -> Deadline:
        """Return when the first of `pairs` processes has to begin, so that all have run at the end."""
        return self.end.before((pairs + _SPARE) * each_s)

    def in_time(self, each_s: float, pairs: int, *, trials: int = 0) -> bool:
        """Whether there is time for the `pairs` processes of a claim, after some trials; `trials` have been run."""
        return not self.pairs_from(each_s, pairs).late(each_s, max(0, _LEAST_TRIALS - trials))

    def search(self, each_s: float, pairs: int) -> Deadline:
        """Return when a search ends after which there is to be time for a short race, where it can be, and the pairs.

        `each_s` is 0 before the first process.
        """
        most_s = max(_LEAST_SEARCH * self.timeout_s, self.timeout_s - _LEAST_FINALS * each_s)
        share = self._at(min(_SEARCH_UNTIL * self.timeout_s, most_s))
        return min(share, self.pairs_from(each_s, pairs), key=lambda one: one.at)

    def screening(self, search: Deadline) -> Deadline:
        """Return when a screening ends that begins now, in a search until `search`."""
        return search.within(min((search.at - self.clock()) / 2, _SCREENING_SHARE * self.timeout_s))

    def _at(self, seconds: float) -> Deadline:
        return Deadline(self.begun + seconds, self.clock)


def enough_minutes(each_s: float) -> int:
    """Return the `--timeout`, in minutes, that leaves time for a claim where a process takes `each_s` seconds."""
    return math.ceil(_LEAST_FINALS / (1 - _LEAST_SEARCH) * each_s / 60)


def least_processes(rivals: int, ran: int = 0) -> int:
    """Return for how many processes there has to be time where a winner is to be compared with so many `rivals`.

    Those of the fewest pairs, of which `ran` were run, taken with caution.
    """
    return math.ceil(_CAUTION * max(0, (rivals + 1) * LEAST_PAIRS - ran))


def pairs_share(left: int, least: int) -> int:
    """Return how many of the `left` processes that there is time for are the pairs', `least` in any case."""
    return max(least, min(2 * max(LOOKS), int(left * _PAIRS_SHARE)))
