"""Calls that are under way while their caller makes ready the next one, for the throughput of one stream of frames.

Two are enough: a session that copies inputs to a device copies those of the second while the first one computes and
selects (`fixed.Inputs`), and its buffers hold no third.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
MOST = 2


class Ahead(Generic[T]):
    """At most two calls at once, each in a thread."""

    def __init__(self) -> None:
        """Start no thread before it is needed."""
        self._threads = ThreadPoolExecutor(MOST, "rtmo_optuna")
        self._room = threading.BoundedSemaphore(MOST)

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Return what `call` will return or raise; wait while two are under way."""
        self._room.acquire()
        future = self._threads.submit(call)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        self._threads.shutdown()
