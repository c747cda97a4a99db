"""The confirmation: is the race's winner really faster than what it is to replace? Pure functions of fresh pairs.

A pair is one fresh process of either settings, run one after the other. Only what this module says of the pairs may be
published: they were run after the winner was chosen, so that its luck is not in them.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from rtmo_optuna.search.decide.noise import walsh
from rtmo_optuna.types.findings import LEAST_GAIN, LEAST_PAIRS, Claim, Decided
from rtmo_optuna.types.request import Settings

Pair: TypeAlias = tuple[float | None, float | None]

T = TypeVar("T")
DEFAULT = Settings()
Looks: TypeAlias = tuple[tuple[int, int], ...]

LOOKS: Mapping[int, Looks] = {
    LEAST_PAIRS: ((LEAST_PAIRS, 4),),
    15: ((LEAST_PAIRS, 0), (15, 17)),
    20: ((LEAST_PAIRS, 0), (15, 11), (20, 38)),
    25: ((LEAST_PAIRS, 0), (15, 8), (20, 33), (25, 67)),
    30: ((LEAST_PAIRS, 0), (15, 6), (20, 28), (25, 63), (30, 106)),
    40: ((LEAST_PAIRS, 0), (15, 2), (20, 21), (25, 53), (30, 98), (40, 218)),
}
"""For the most pairs that may be run: after how many pairs to look, and how many Walsh averages to cut off at each end.

At a look the interval is what is left of the averages, which inverts Wilcoxon's signed-rank test. Over all looks the
cuts spend at most 0.7 % on either side, little of it early (Wang and Tsiatis, Biometrics 43, 1987, with delta 0.1 or
less, taken over to the signed-rank test as nominal levels: Jennison and Turnbull, Group Sequential Methods, 2000,
section 3.3), the last as large as 1,000,000 simulated series of pairs let it be. So the interval holds in 98 of 100
studies at least, and fewer than 1 in 100 claim a gain over what they compare with where there is none (0.7 in 100 of
10,000 simulated; 1.3 where either of two comparisons counts, with the default and with the configuration file's).

Where settings are equal, the differences of pairs in alternating order are symmetric, whatever the distribution of a
process's value: that share is the same for all of them, two levels and heavy tails included. On normal values a gain of
one standard deviation between processes is found as often as by the t-test, within 2 points; where one process in ten
is 1.4 times slower, six times as often.
"""

_POWER, _FOUND = 0.8, 0.97
"""With which probability a gain is found that is so many times the spread between processes."""


@dataclass(frozen=True, slots=True)
class ConfirmRules:
    """When a gain may be claimed, and when to stop.

    Claimed is a ratio whose interval excludes 1 at one of `looks`, and whose estimate is at least 1 + `least_gain`; as
    "slower" likewise the other way. Unless `two_sided`, the pairs end at a look whose estimate is no gain at all: that
    halves them where there is no gain, and costs 1 in 100 gains of one standard deviation. `failures` failed pairs end
    the confirmation too.
    """

    looks: Looks = LOOKS[40]
    least_gain: float = LEAST_GAIN
    two_sided: bool = False
    failures: int = 3

    @property
    def most_pairs(self) -> int:
        """How many pairs are run where the answer stays open."""
        return self.looks[-1][0]


def looks_for(pairs: int) -> Looks:
    """Return the looks for at most `pairs` pairs; 10 are the least. To be chosen before the first pair is run."""
    return LOOKS[max((most for most in LOOKS if most <= pairs), default=min(LOOKS))]


def who_first(pair: int, sides: Sequence[T]) -> tuple[T, ...]:
    """Return the order in which the `sides` of a pair, counted from 0, are run: as given, then reversed, and so on.

    A drift of the machine so hits all alike. More than two sides may share a process of the winner: each two of the
    winner, the default and what the configuration file holds are a pair then.
    """
    return tuple(sides) if pair % 2 == 0 else tuple(reversed(sides))


def confirm(
    pairs: Sequence[Pair], rules: ConfirmRules, subject: Settings = DEFAULT, rival: Settings = DEFAULT
) -> Claim:
    """Return what `pairs` of latencies in ms, (the `subject`, its `rival`), say at the last look that was due.

    None is a process that failed; its pair does not count. Pairs beyond the look that decided are ignored, so that a
    resumed confirmation says what an uninterrupted one would have said.
    """
    gains = [math.log(other / first) for first, other in pairs if first is not None and other is not None]
    failed = len(pairs) - len(gains)
    told = Claim(subject, rival, sound=len(gains), failed=failed)
    for count, cut in rules.looks:
        if count > len(gains):
            break
        told = _look(told, gains[:count], cut, rules)
        if told.over:
            return told
    return replace(told, over=failed >= rules.failures)


def _look(told: Claim, gains: Sequence[float], cut: int, rules: ConfirmRules) -> Claim:
    averages = walsh(gains)
    ratio, low, high = (math.exp(log) for log in (statistics.median(averages), averages[cut], averages[-1 - cut]))
    decided = Decided.UNPROVEN
    if low > 1 and ratio >= 1 + rules.least_gain:
        decided = Decided.FASTER
    elif high < 1 and ratio <= 1 / (1 + rules.least_gain):
        decided = Decided.SLOWER
    hopeless = ratio <= 1 and not rules.two_sided
    over = decided is not Decided.UNPROVEN or hopeless or len(gains) == rules.most_pairs
    return replace(
        told, decided=decided, ratio=ratio, interval=(low, high), pairs=len(gains), sound=len(gains), over=over
    )


def detectable(spread: float, pairs: int = max(LOOKS)) -> float:
    """Return the gain (0.02: 1.02 times as fast) that four studies of five find at this s_b.

    For one faster setting among 40, each measured once, and the default rules of race and confirmation: in 1,500
    simulated studies (benchmarks/simulated.py, normal log values) the log gain is 0.97 times s_b. It is never less than
    what lets the estimate reach 1 %. Where there is time for fewer `pairs` only, it grows as the error of their mean
    does.
    """
    wider = max(1.0, math.sqrt(max(LOOKS) / max(pairs, min(LOOKS))))
    error = wider * spread * math.sqrt(2 / max(LOOKS))
    least = math.log1p(LEAST_GAIN) + statistics.NormalDist().inv_cdf(_POWER) * error
    return math.expm1(max(wider * _FOUND * spread, least))
