"""How a tune's time is shared out: pure functions of how long its processes take."""

from __future__ import annotations

import math

PREFLIGHT_SHARE = 0.2
"""The share of the time after which the preflight runs no more processes than it must."""
WAIT_SHARE = 0.5
"""The share of the time after which another driver's preflight is waited for no longer."""
SEARCH_UNTIL = 0.6
"""The share of the time after which the search ends; `LEAST_SEARCH` is what it has in any case."""
LEAST_SEARCH = 0.35
LEAST_FINALS = 36
"""Processes that a race of two and ten confirming pairs take, and some to spare."""
REPORT_S, REPORT_SHARE = 8.0, 0.05
"""What is left of the time at the end, in seconds, for the report; no more than that share of it."""
_SPARE = 2
"""Processes by whose time the pairs may begin too late, by what processes took before."""
_LEAST_TRIALS = 3
"""Trials without which there is nobody to confirm."""


def deadline(begun: float, timeout_s: float) -> float:
    """Return when the last process ends: the rest is the report's."""
    return begun + timeout_s - min(REPORT_S, REPORT_SHARE * timeout_s)


def pairs_from(end: float, each_s: float, pairs: int) -> float:
    """Return when the first of `pairs` processes of `each_s` has to begin, so that all have run at `end`."""
    return end - (pairs + _SPARE) * each_s


def in_time(now: float, end: float, each_s: float, pairs: int, *, trials: int = 0) -> bool:
    """Whether there is time for the `pairs` processes that a claim takes, after some trials; `trials` have been run."""
    return now + max(0, _LEAST_TRIALS - trials) * each_s <= pairs_from(end, each_s, pairs)


def search_until(begun: float, timeout_s: float, each_s: float, pairs: int) -> float:
    """Return when a search ends after which there is to be time for a short race, where it can be, and for the pairs.

    `each_s` is 0 before the first process.
    """
    share_s = min(SEARCH_UNTIL * timeout_s, max(LEAST_SEARCH * timeout_s, timeout_s - LEAST_FINALS * each_s))
    return min(begun + share_s, pairs_from(deadline(begun, timeout_s), each_s, pairs))


def enough_minutes(each_s: float) -> int:
    """Return the `--timeout`, in minutes, that leaves time for a claim where a process takes `each_s` seconds."""
    return math.ceil(LEAST_FINALS / (1 - LEAST_SEARCH) * each_s / 60)
