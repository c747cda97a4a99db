"""Do these choices do anything at all here? Pure functions of pairs of fresh processes that differ in many of them.

In a pair each dimension under test is at its default on one side and off it on the other, which side by lot. So every
pair says something of every dimension, and the lots of the others are only noise to it, symmetric whatever they do: as
in a two-level factorial design with fold-over (Box, Hunter and Hunter, Statistics for Experimenters, section 6.5), two
opposite effects cannot hide each other, and what dimensions do in twos falls out.
"""

import functools
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rtmo_optuna.search.decide.noise import walsh
from rtmo_optuna.types.findings import INERT_BELOW
from rtmo_optuna.types.request import Value

Option: TypeAlias = tuple[str, Value]
"""A dimension, and one of its choices off the default."""


@dataclass(frozen=True, slots=True)
class InertRules:
    """When a choice is called inert: where the interval of its effect lies within `margin` (of the latency's ratio).

    After each number of pairs in `looks` in which the choice was in play, the interval is what is left of the Walsh
    averages of the log ratios, `level` cut off on either side, which inverts Wilcoxon's signed-rank test (as in
    search/decide/confirm.py): two one-sided tests of equivalence (Schuirmann, Journal of Pharmacokinetics 15, 1987).
    An effect as large as `margin` is called inert at one look with a probability of at most `level`, at all of them
    together in about 2 of 100 studies at the most (benchmarks/bench_screening.py). A gain of `worth` or more whose
    interval excludes none is kept, however small. `failures` failed pairs end the test.
    """

    margin: float = INERT_BELOW
    worth: float = 0.01
    looks: tuple[int, ...] = (8, 12, 18, 27, 42, 66, 105)
    level: float = 0.007
    failures: int = 3

    def pairs_for(self, spread: float) -> int:
        """Return how many pairs in play decide a choice that does nothing in half of all studies at this s_b.

        The interval of the mean of n pairs is its estimate +- z s_b sqrt(2/n), with z for `level`; an estimate of 0 is
        within 0.67 standard errors in half of the studies.
        """
        normal = statistics.NormalDist()
        reach = normal.inv_cdf(1 - self.level) + normal.inv_cdf(0.75)
        return max(self.looks[0], math.ceil(2 * (spread * reach / math.log1p(self.margin)) ** 2))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two processes: which options were in play, each off its default on the side that is +1 (first) or -1 (second).

    `gap` is log(first / second) of their costs, None where one of them failed.
    """

    signs: Mapping[Option, int]
    gap: float | None = None

    def side(self, sign: int) -> dict[str, Value]:
        """Return the dimensions that are off their default on the first (+1) or the second (-1) side."""
        return {name: label for (name, label), where in self.signs.items() if where == sign}


@dataclass(frozen=True, slots=True)
class Told:
    """What the pairs say of one option: the log ratio of its cost to the default's, and its interval.

    All None before the first look. `inert` and `active` are both false while that is open; `count` pairs were used.
    """

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    count: int = 0
    inert: bool = False
    active: bool = False


@dataclass(frozen=True, slots=True)
class InertTest:
    """Where a test of `options` stands after `pairs`; `told` holds what is said of each option."""

    rules: InertRules
    options: tuple[Option, ...]
    pairs: tuple[Pair, ...] = ()
    told: tuple[Told, ...] = ()

    @property
    def open(self) -> tuple[Option, ...]:
        """The options that are still to be decided: not those of a dimension of which another one is faster."""
        said = tuple(zip(self.options, self.told, strict=True))
        live = {option[0] for option, told in said if told.active and (told.estimate or 0.0) < 0}
        last = self.rules.looks[-1]
        return tuple(
            option
            for option, told in said
            if not told.inert and not told.active and option[0] not in live and told.count < last
        )

    @property
    def pairs_due(self) -> int:
        """How many pairs have been run at the next look: each tests one option of every dimension."""
        choices = max(Counter(name for name, _ in self.options).values(), default=0)
        return choices * next((look for look in self.rules.looks if choices * look > len(self.pairs)), 0)

    @property
    def over(self) -> bool:
        """Whether all options are decided, or have had all their pairs, or too many pairs failed."""
        return not self.open or sum(pair.gap is None for pair in self.pairs) >= self.rules.failures


def start(options: Iterable[Option], rules: InertRules) -> InertTest:
    """Return a test of `options` before its first pair."""
    every = tuple(options)
    return InertTest(rules, every, (), tuple(Told() for _ in every))


def next_pair(test: InertTest) -> Pair:
    """Return the next pair to run: one open option of each dimension, the one with the fewest pairs, on a drawn side.

    The same for the same test, so that an interrupted one goes on as if it had not been.
    """
    lots = random.Random(f"inert/{len(test.pairs)}")  # noqa: S311 - no secret
    counts = {option: sum(option in p.signs and p.gap is not None for p in test.pairs) for option in test.options}
    chosen: dict[str, Option] = {}
    for option in test.open:
        held = chosen.get(option[0])
        if held is None or counts[option] < counts[held]:
            chosen[option[0]] = option
    return Pair({option: lots.choice((1, -1)) for option in chosen.values()})


def after(test: InertTest, pair: Pair) -> InertTest:
    """Return the test after one more pair that was run.

    A look that found an option active takes its effect out of the pairs in which others were in play with it.
    """
    pairs = (*test.pairs, pair)
    effects = {
        option: told.estimate
        for option, told in zip(test.options, test.told, strict=True)
        if told.active and told.estimate is not None
    }
    waiting = set(test.open)
    told = tuple(
        _look(_gaps(option, pairs, effects), test.rules) or held if option in waiting and option in pair.signs else held
        for option, held in zip(test.options, test.told, strict=True)
    )
    return InertTest(test.rules, test.options, pairs, told)


def _gaps(option: Option, pairs: Iterable[Pair], effects: Mapping[Option, float]) -> list[float]:
    """Return the log ratios of `option` to the default, one for each sound pair, without the known `effects`."""
    return [
        pair.signs[option] * (pair.gap - sum(sign * effects.get(other, 0.0) for other, sign in pair.signs.items()))
        for pair in pairs
        if option in pair.signs and pair.gap is not None
    ]


def _look(gaps: Sequence[float], rules: InertRules) -> Told | None:
    if len(gaps) not in rules.looks:
        return None
    averages = walsh(gaps)
    cut, limit = signed_rank_cut(len(gaps), rules.level), math.log1p(rules.margin)
    low, high = averages[cut], averages[-1 - cut]
    estimate = statistics.median(averages)
    gain = high < 0 and estimate <= -math.log1p(rules.worth)
    inert = -limit < low and high < limit and not gain
    active = not inert and not low <= 0 <= high
    return Told(estimate, low, high, len(gaps), inert=inert, active=active)


@functools.cache
def signed_rank_cut(count: int, level: float) -> int:
    """Return how many Walsh averages of `count` values to cut off at each end, for an error of at most `level` there.

    It is the largest k with P(W <= k) <= `level`, W the sum of the positive ranks where all signs are by chance, from
    the number of subsets of the ranks with each sum. Raises ValueError where even cutting none errs more often.
    """
    ways = [1]
    for rank in range(1, count + 1):
        longer = ways + [0] * rank
        for total, number in enumerate(ways):
            longer[total + rank] += number
        ways = longer
    allowed, spent = level * 2**count, 0
    for total, number in enumerate(ways):
        spent += number
        if spent > allowed:
            if total == 0:
                break
            return total - 1
    raise ValueError(f"{count} pairs are too few for an error of at most {level:g}.")
