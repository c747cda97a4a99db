"""What an application's own calls take, against what tuning promised: a ring of latencies, and one warning."""

import itertools
import logging
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rtmo_optuna.errors import UsageError
from rtmo_optuna.space.benchmark_info import BenchmarkInfo, promised_ms

THRESHOLD = 0.10
_BLOCK = 128
"""Calls whose median is looked at: sorting them takes 10 microseconds, once in as many calls."""
_IN_A_ROW = 8
"""So many blocks in a row have to be slow. If a block of an unchanged session were slow by chance every second time,
and by chance only, that would be 1 in 256; mostly it is far less, and a burst of fewer calls never does it."""
_KEPT = _BLOCK * _IN_A_ROW
_LOG = logging.getLogger("rtmo_optuna.monitor")


@dataclass(frozen=True, slots=True)
class Summary:
    """What the latest calls took, in ms: `calls` in all, median and p99 of the last 1,024, None before the first.

    `ratio` is the median over what was promised (1.2: a fifth slower); `slower` says whether the warning was logged.
    """

    calls: int
    median_ms: float | None
    p99_ms: float | None
    promised_ms: float
    ratio: float | None
    slower: bool


class Monitor:
    """Keeps the latencies of a session's calls, of any thread; a call costs it under 2 microseconds.

    After every 128 calls their median is compared with what was promised. Where eight such medians in a row are slower
    by more than the threshold, a warning is logged once, on the logger `rtmo_optuna.monitor`. Tuning timed calls right
    after one another unless it was told a rate: calls with pauses between them take longer, so tune at their rate.
    """

    def __init__(self, promise_ms: float, threshold: float = THRESHOLD) -> None:
        """Compare with `promise_ms`; slower is what takes more than that by the share `threshold`."""
        self._promise_ms, self._limit_ns = promise_ms, promise_ms * (1 + threshold) * 1e6
        self._ring = [0] * _KEPT
        self._number = itertools.count()  # which hands out each number once, whichever thread asks
        self._calls = self._slow = 0
        self._warned = False

    @classmethod
    def of(cls, info: BenchmarkInfo, path: Path, threshold: bool | float) -> Self:  # noqa: FBT001 - as open_session
        """Return one for what `info`, in the file `path`, promises; UsageError where it promises nothing."""
        share = THRESHOLD if threshold is True else threshold
        if share <= 0:
            message = f"monitor={share} of open_session is no share above 0: give one, as 0.1, or True for 10 %."
            raise UsageError(message)
        return cls(promised_ms(info, path), share)

    def add(self, latency_ns: int) -> None:
        """Keep what a call took, in ns."""
        number = next(self._number)
        self._ring[number % _KEPT] = latency_ns
        self._calls = number + 1
        if number % _BLOCK == _BLOCK - 1:
            self._look(number)

    def summary(self) -> Summary:
        """Return what the latest calls took."""
        calls = self._calls
        latest = sorted(self._ring[: min(calls, _KEPT)])
        median = statistics.median(latest) / 1e6 if latest else None
        return Summary(
            calls=calls,
            median_ms=median,
            p99_ms=latest[int(0.99 * (len(latest) - 1))] / 1e6 if latest else None,
            promised_ms=self._promise_ms,
            ratio=median / self._promise_ms if median is not None else None,
            slower=self._warned,
        )

    def _look(self, number: int) -> None:
        start = number % _KEPT + 1 - _BLOCK
        slow = statistics.median(self._ring[start : start + _BLOCK]) > self._limit_ns
        self._slow = self._slow + 1 if slow else 0
        if self._slow >= _IN_A_ROW and not self._warned:
            self._warned = True
            found = self.summary()
            _LOG.warning(
                "The last %d calls took %.3g ms (median), %.2f times as long as the %.3g ms that tuning promised: "
                "rtmo-optuna monitor tells why.", _KEPT, found.median_ms, found.ratio, self._promise_ms,
            )  # fmt: skip
