"""How often the screening calls inert what is, and what is not: simulated studies, decided by the program's own code.

    python benchmarks/bench_screening.py --studies 2000
    python benchmarks/bench_screening.py --studies 2000 --drift 0.01

In each study the default runs six times and once; then every option runs once, with the default again before every six
and after the last. What is further than three standard errors from the default is not tested. The others are tested
together in pairs, as in search/screen.py. With `--drift` the host grows faster or slower by so much from process to
process (a random walk).
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rtmo_optuna.search.decide import equivalence, screening
from rtmo_optuna.search.decide.equivalence import InertRules, Option
from rtmo_optuna.search.decide.screening import AGAIN, Flip, Level
from rtmo_optuna.types.findings import Reading
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings

Effects: TypeAlias = Mapping[Option, float]

KINDS = ("normal", "tenth", "heavy")
_BASELINE = 6


@dataclass(frozen=True, slots=True)
class Share:
    """Of all studies: how often an inert option was called inert, and one that is worth something; processes spent.

    `misread` is how often the single trial of an inert option was called faster or slower.
    """

    inert: float
    wrong: float
    misread: float
    mean: float
    p90: float


@dataclass
class Host:
    """Where processes run: `spread` between them, of one of KINDS, and `drift` from each to the next."""

    rng: random.Random
    spread: float
    kind: str = "normal"
    drift: float = 0.0
    now: float = 0.0

    def level(self) -> float:
        """Return the log of a latency: normal, heavy-tailed (t with 3 degrees), or 1.4 times slower now and then."""
        self.now += self.rng.gauss(0.0, self.drift)
        value = self.rng.gauss(0.0, self.spread)
        if self.kind == "heavy":
            value /= (self.rng.gammavariate(1.5, 2.0) / 3) ** 0.5
        if self.kind == "tenth" and self.rng.random() < 1 / 10:
            value += math.log(1.4)
        return self.now + value


def flipped(host: Host, effects: Effects) -> dict[Option, Reading]:
    """Return how the single trial of each option reads."""
    base, again, costs = [math.exp(host.level()) for _ in range(_BASELINE + 1)], {}, {}
    for place, (option, effect) in enumerate(effects.items()):
        if place % AGAIN == 0:
            again[place // AGAIN] = math.exp(host.level())
        costs[option] = math.exp(effect + host.level())
    again[len(again)] = math.exp(host.level())
    default, ran = Level(tuple(base), frozenset(), again), Measurement(Outcome.MEASURED)
    flips = [Flip((option,), Settings()) for option in costs]
    return {
        flip.options[0]: screening.effect(flip, ran, [cost], default, place // AGAIN).reading
        for place, (flip, cost) in enumerate(zip(flips, costs.values(), strict=True))
    }


def tested(host: Host, options: Sequence[Option], effects: Effects, most: int | None) -> equivalence.InertTest:
    """Return one study's test of `options`, after at most `most` pairs where that is given."""
    test = equivalence.start(options, InertRules())
    while not test.over and (most is None or len(test.pairs) < most):
        pair = equivalence.next_pair(test)
        apart = sum(sign * effects[option] for option, sign in pair.signs.items())
        gap = apart + host.level() - host.level()
        test = equivalence.after(test, equivalence.Pair(pair.signs, gap))
    return test


def shares(
    count: int, effects: Effects, spread: float, kind: str = "normal", *, most: int | None = None, drift: float = 0.0
) -> Share:
    """Return the figures of `count` studies with these true `effects` (logs of the latency's ratio)."""
    called: dict[bool, list[bool]] = {True: [], False: []}
    spent, misread = [], []
    for seed in range(count):
        host = Host(random.Random(f"{seed}/{spread}/{kind}"), spread, kind, drift)  # noqa: S311 - no secret
        readings = flipped(host, effects)
        misread += [readings[option] is not Reading.UNDECIDED for option, effect in effects.items() if effect == 0]
        near = [option for option, reading in readings.items() if reading is Reading.UNDECIDED]
        test = tested(host, near, effects, most)
        found = {option for option, told in zip(test.options, test.told, strict=True) if told.inert}
        spent.append(2 * len(test.pairs))
        for option, effect in effects.items():
            called[effect == 0].append(option in found)
    return Share(
        inert=statistics.fmean(called[True]) if called[True] else math.nan,
        wrong=statistics.fmean(called[False]) if called[False] else math.nan,
        misread=statistics.fmean(misread) if misread else math.nan,
        mean=statistics.fmean(spent),
        p90=statistics.quantiles(spent, n=10)[-1],
    )


def planted(gains: tuple[float, ...], binary: int = 7, wide: int = 0) -> dict[Option, float]:
    """Return options of `binary` dimensions with one choice and one with `wide` choices, the first worth `gains`."""
    options: list[Option] = [(f"knob{place}", 1) for place in range(binary)]
    options += [("wide", place + 1) for place in range(wide)]
    return {option: math.log1p(gain) for option, gain in itertools.zip_longest(options, gains, fillvalue=0.0)}  # type: ignore[misc]


CASES: Mapping[str, dict[Option, float]] = {
    "all inert": planted(()),
    "one 3 % faster": planted((-0.03,)),
    "one 3 % slower": planted((0.03,)),
    "3 % faster, 3 % slower": planted((-0.03, 0.03)),
    "one of two, 3 % faster": planted((-0.03,), binary=2),
    "one alone, 3 % faster": planted((-0.03,), binary=1),
    "with four choices": planted((-0.03,), binary=5, wide=4),
}


def main() -> None:
    """Print a table of the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.005, 0.01, 0.02, 0.05])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["normal"])
    parser.add_argument("--most", type=int, help="most pairs of a study")
    parser.add_argument("--drift", type=float, default=0.0, help="of the host, from process to process: 0.01")
    given = parser.parse_args()
    heads = f"{'inert called inert':>18} {'3 % called inert':>17} {'inert misread':>14} {'processes':>10} p90"
    print(f"{'noise':8} {'s_b':>6} {'case':26} {heads}")
    for kind, spread, name in itertools.product(given.kinds, given.spreads, CASES):
        found = shares(given.studies, CASES[name], spread, kind, most=given.most, drift=given.drift)
        figures = f"{found.inert:18.1%} {found.wrong:17.2%} {found.misread:14.1%} {found.mean:10.0f} {found.p90:.0f}"
        print(f"{kind:8} {spread:6.1%} {name:26} {figures}", flush=True)


if __name__ == "__main__":
    main()
