"""How often the screening calls inert what is, and what is not: simulated studies, decided by the program's own code.

    python scripts/bench_screening.py --studies 2000

In each study every option first runs once; what is further than 3 s_b from the default (of six and one processes) is
not tested. The others are tested together in pairs, as in search/screen.py.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from rtmo_optuna.search import inertness, noise
from rtmo_optuna.search.inertness import InertRules, Option

Effects: TypeAlias = Mapping[Option, float]

KINDS = ("normal", "tenth", "heavy")
_BASELINE = 6


@dataclass(frozen=True, slots=True)
class Share:
    """Of all studies: how often an inert option was called inert, and one that is worth something; processes spent."""

    inert: float
    wrong: float
    mean: float
    p90: float


def level(rng: random.Random, spread: float, kind: str) -> float:
    """Return the log of a latency: normal, heavy-tailed (t with 3 degrees), or 1.4 times slower now and then."""
    value = rng.gauss(0.0, spread)
    if kind == "heavy":
        value /= (rng.gammavariate(1.5, 2.0) / 3) ** 0.5
    if kind == "tenth" and rng.random() < 1 / 10:
        value += math.log(1.4)
    return value


def study(rng: random.Random, effects: Effects, spread: float, kind: str, most: int | None) -> inertness.InertTest:
    """Return one study's test, after at most `most` pairs where that is given."""
    base = [level(rng, spread, kind) for _ in range(_BASELINE + 1)]
    middle, s_b = noise.location(base), statistics.stdev(base[:_BASELINE])
    near = [o for o, effect in effects.items() if abs(effect + level(rng, spread, kind) - middle) <= 3 * s_b]
    test = inertness.start(near, InertRules())
    while not test.over and (most is None or len(test.pairs) < most):
        pair = inertness.next_pair(test)
        apart = sum(sign * effects[option] for option, sign in pair.signs.items())
        gap = apart + level(rng, spread, kind) - level(rng, spread, kind)
        test = inertness.after(test, inertness.Pair(pair.signs, gap))
    return test


def shares(count: int, effects: Effects, spread: float, kind: str = "normal", most: int | None = None) -> Share:
    """Return the figures of `count` studies with these true `effects` (logs of the latency's ratio)."""
    called: dict[bool, list[bool]] = {True: [], False: []}
    spent = []
    for seed in range(count):
        rng = random.Random(f"{seed}/{spread}/{kind}")  # noqa: S311 - no secret
        test = study(rng, effects, spread, kind, most)
        found = {option for option, told in zip(test.options, test.told, strict=True) if told.inert}
        spent.append(2 * len(test.pairs))
        for option, effect in effects.items():
            called[effect == 0].append(option in found)
    return Share(
        inert=statistics.fmean(called[True]) if called[True] else math.nan,
        wrong=statistics.fmean(called[False]) if called[False] else math.nan,
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
    given = parser.parse_args()
    heads = f"{'inert called inert':>18} {'3 % called inert':>17} {'processes':>10} p90"
    print(f"{'noise':8} {'s_b':>6} {'case':26} {heads}")
    for kind, spread, name in itertools.product(given.kinds, given.spreads, CASES):
        found = shares(given.studies, CASES[name], spread, kind, given.most)
        figures = f"{found.inert:18.1%} {found.wrong:17.2%} {found.mean:10.0f} {found.p90:.0f}"
        print(f"{kind:8} {spread:6.1%} {name:26} {figures}", flush=True)


if __name__ == "__main__":
    main()
