"""Children made ahead: imports and libraries are paid for by several at once, and never while a window is timed."""

import contextlib
import math
import time
from pathlib import Path

from rtmo_optuna.child.launcher import Child
from rtmo_optuna.scratch import scratch

_MOST = 16
_NAP_S = 0.005


def size_for(cores: int) -> int:
    """Return how many children to make at once: they import side by side, one on every second core."""
    return max(1, min(_MOST, cores // 2))


class ChildPool(contextlib.AbstractContextManager["ChildPool"]):
    """Children that have imported ONNX Runtime and loaded a provider's libraries, but hold no CUDA context.

    They are made several at a time, when one is asked for and none is left: between trials, never during one. Each
    serves one request, as any child does. Use it as a context manager: the unused ones end with the block, and with
    this process, however that ends.
    """

    def __init__(self, provider: str, size: int, limit_s: float) -> None:
        """Make `size` children for `provider` at a time, and wait at most `limit_s` seconds for them."""
        self._provider, self._size, self._limit_s = provider, size, limit_s
        self._ready: list[Child] = []
        self._holding = contextlib.ExitStack()
        self._logs = self._holding.enter_context(scratch())
        self._made = 0

    def take(self, log: Path, until: float = math.inf) -> Child:
        """Return a child that is ready, or dead, which its first answer tells; its prints go to the file `log`.

        Its own time begins now: what was loaded ahead is no part of it. Where it has to be made, it is waited for
        `until` then (monotonic seconds) at most.
        """
        begun = time.perf_counter_ns()
        if not self._ready:
            self._fill(until)
        child = self._ready.pop()
        child.started_ns = begun
        try:
            child.log.replace(log)
        except OSError:  # another file system: the child goes on writing where it began
            log.unlink(missing_ok=True)
            log.symlink_to(child.log)
        return child

    def _fill(self, until: float) -> None:
        for _ in range(self._size):
            self._made += 1
            self._ready.append(Child(self._logs / f"{self._made}.txt", self._provider))
        end = min(time.monotonic() + self._limit_s, until)
        while not all(child.greeted for child in self._ready) and time.monotonic() < end:
            time.sleep(_NAP_S)

    def close(self) -> None:
        """End the children that were not used."""
        for child in self._ready:
            with child:
                pass
        self._ready.clear()
        self._holding.close()

    def __exit__(self, *_error: object) -> None:
        """Close the pool, whatever happened."""
        self.close()
