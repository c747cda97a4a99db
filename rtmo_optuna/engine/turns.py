"""Whose turn it is in this process: calls run side by side, a capture of a CUDA graph alone.

While one thread captures, CUDA refuses some of what other threads ask for (to wait for the whole device, for one), and
what it refuses breaks the capture too. Sessions of ours therefore wait for a capture, which takes milliseconds, and a
capture waits for them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Calls:
    """How many calls are under way; entered by each, in any number of threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.running = 0
        self.capturing = False

    def __enter__(self) -> None:
        with self.changed:
            while self.capturing:
                self.changed.wait()
            self.running += 1

    def __exit__(self, *_error: object) -> None:
        with self.changed:
            self.running -= 1
            if self.capturing and not self.running:
                self.changed.notify_all()


calls = _Calls()
"""Entered around each call of a session, never inside `capture`."""


@contextmanager
def capture() -> Iterator[None]:
    """Wait for all calls and captures to end, and keep new ones waiting."""
    with calls.changed:
        while calls.capturing:
            calls.changed.wait()
        calls.capturing = True
        while calls.running:
            calls.changed.wait()
    try:
        yield
    finally:
        with calls.changed:
            calls.capturing = False
            calls.changed.notify_all()
