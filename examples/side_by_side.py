"""A client on its own session and then on a tuned one: whether what it answers is the same, and how long it takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 3


def compare(call: Callable[[], Any], adapt: Callable[[], object]) -> Any:  # noqa: ANN401 - whatever a client answers
    """Print whether `call` answers the same after `adapt`, and what it takes before and after; return the answer."""
    own, own_ms = timed(call)
    adapt()
    tuned, tuned_ms = timed(call)
    print(f"same answer: {same(own, tuned)}; {own_ms:.1f} ms on its own session, {tuned_ms:.1f} ms on the tuned one")
    return tuned


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the answer, and the median time of a few calls after the first one, in milliseconds."""
    answer, times = call(), []
    for _ in range(CALLS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return answer, 1e3 * float(np.median(times))


def same(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Whether two answers are equal to the last bit."""
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.array_equal(one, other))
