"""Is it slower than was promised? Pure functions of fresh processes, each of which is above the limit or within it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LOOKS: tuple[tuple[int, int], ...] = ((8, 0), (12, 1), (16, 2), (20, 3), (24, 5))
"""After how many processes to look, and how many of them may lie within the limit where "slower" is said.

It is the sign test with looks, which asks nothing of the distribution of a process's value: where the median of all
processes is at the limit or below, one is above it with a probability of 1/2 at most, and "slower" is said in 0.91 of
100 checks at most (exact, by the binomial distribution). Where nothing has changed it is hardly ever said: at a spread
between processes of 5 % and a threshold of 10 %, in fewer than 1 of 1,000,000,000. Slower by 15 % at that threshold is
found in more than 99.9 of 100 checks at a spread of 2 %, 99.5 at 3 %, 74 at 5 %, slower by 20 % in 99.9 (normal log
values). It costs 6 processes where nothing has changed, 8 where much has.
"""
_MOST_WITHIN = LOOKS[-1][1]


@dataclass(frozen=True, slots=True)
class Told:
    """What processes say: the median's ratio to the promise (1.2: a fifth slower), with its interval.

    The interval is that of the median, between the values that the latest look counts from either end, so that it lies
    above the limit where `slower` is said; at 98 % over all looks. `over` tells that no more processes are to be run.
    """

    ratio: float
    interval: tuple[float, float]
    slower: bool
    over: bool


def told(latencies_ms: Sequence[float], promised_ms: float, threshold: float) -> Told:
    """Return what the latencies of fresh processes, in order, say of a promise; slower is more than `threshold` above.

    There has to be one at least. `threshold` is a share: 0.1 for 10 %.
    """
    ratios = [latency / promised_ms for latency in latencies_ms]
    cut = max((cut for count, cut in LOOKS if count <= len(ratios)), default=0)
    rising = sorted(ratios)
    within = sum(ratio <= 1 + threshold for ratio in ratios)
    slower = any(count == len(ratios) and within <= cut for count, cut in LOOKS)
    return Told(
        ratio=statistics.median(ratios),
        interval=(rising[cut], rising[-1 - cut]),
        slower=slower,
        over=slower or within > _MOST_WITHIN,
    )
