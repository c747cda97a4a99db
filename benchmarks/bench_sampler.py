"""How many measurements samplers take until settings within 1 % of the best have been measured, on made-up landscapes.

    OMP_NUM_THREADS=1 python benchmarks/bench_sampler.py
    OMP_NUM_THREADS=1 python benchmarks/bench_sampler.py --samplers gp tpe --landscapes 50 --noise 0.05 --json x.json

A landscape is a space of 288 settings with main effects of falling size, five interactions of two knobs and noise. The
default is measured first. A second table has one choice of each landscape always fail, a third has 4 workers at once.
Optuna's GPSampler takes part where torch is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import optuna

from rtmo_optuna.samplers.table import SAMPLERS, distributions
from rtmo_optuna.space.knobs import dimension_table
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.subject import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Index: TypeAlias = tuple[int, ...]
Sampler: TypeAlias = Callable[[int], optuna.samplers.BaseSampler]

GOOD = 1.01
FAILING_SEED = 9000
# Real knobs with 3, 4, 2, 2, 2 and 3 choices: only their numbers matter.
SIZES = {
    "graph_optimization_level": 3,
    "gpu_mem_limit_gb": 4,
    "use_tf32": 2,
    "prefer_nhwc": 2,
    "fuse_conv_bias": 2,
    "tunable_op": 3,
}


def space() -> SearchSpace:
    """Return the space of all landscapes."""
    table = dimension_table("cuda")
    dimensions = (type(table[name])(name, table[name].choices[:size]) for name, size in SIZES.items())
    return SearchSpace("cuda", tuple(dimensions))


class Landscape:
    """The true latency in ms of every settings, by the places of its choices; noise is relative and normal.

    Main effects are uniform in +-20, 12, 8, 5, 3 and 1.5 % for the knobs in random order, five random pairs interact by
    up to 5 %. With `failing`, one choice that is not the default's fails always; the optimum is one that runs.
    """

    def __init__(self, seed: int, noise: float = 0.01, *, failing: bool = False) -> None:
        """Make the landscape of `seed`."""
        rng = np.random.default_rng(1000 + seed)
        sizes = list(SIZES.values())
        scales = rng.permutation([0.20, 0.12, 0.08, 0.05, 0.03, 0.015])
        main = [rng.uniform(-1, 1, n) * scale for n, scale in zip(sizes, scales, strict=True)]
        pairs = list(itertools.combinations(range(len(sizes)), 2))
        chosen = rng.choice(len(pairs), 5, replace=False)
        both = [(pairs[k], rng.uniform(-1, 1, [sizes[d] for d in pairs[k]]) * 0.05) for k in chosen]
        self.table: dict[Index, float] = {}
        for index in itertools.product(*map(range, sizes)):
            alone = sum(effect[place] for effect, place in zip(main, index, strict=True))
            value = 1 + alone + sum(effect[index[p], index[q]] for (p, q), effect in both)
            self.table[index] = 10 * max(float(value), 0.3)
        choices = [(d, place) for d, size in enumerate(sizes) for place in range(1, size)]
        unlucky = choices[np.random.default_rng(FAILING_SEED + seed).integers(len(choices))]
        self.failing = {index for index in self.table if failing and index[unlucky[0]] == unlucky[1]}
        self.best = min(value for index, value in self.table.items() if index not in self.failing)
        self._noise, self._rng = noise, np.random.default_rng(5000 + seed)

    def measure(self, index: Index) -> float | None:
        """Return a measurement in ms, None for a failure."""
        noisy = self.table[index] * (1 + self._noise * float(self._rng.standard_normal()))
        return None if index in self.failing else noisy

    def good(self, index: Index) -> bool:
        """Whether these settings are truly within 1 % of the best."""
        return index not in self.failing and self.table[index] <= GOOD * self.best


@dataclass(frozen=True, slots=True)
class Row:
    """What one sampler needed on the landscapes of one kind: measurements, failed ones among them, ms an ask."""

    sampler: str
    kind: str
    landscapes: int
    mean: float
    error: float
    median: float
    p90: float
    failed: float
    ask_ms: float


def samplers() -> dict[str, Sampler]:
    """Return the samplers by name, each made from a seed."""
    ours = {name: (lambda seed, make=make: make(space(), seed)) for name, make in SAMPLERS.items()}
    plain: dict[str, Sampler] = {"optuna-tpe": lambda seed: optuna.samplers.TPESampler(seed=seed)}
    if importlib.util.find_spec("torch"):
        plain["optuna-gp"] = lambda seed: optuna.samplers.GPSampler(seed=seed)
    return {name: ours[name] for name in ("gp", "tpe", "random")} | plain


def needed(landscape: Landscape, sampler: optuna.samplers.BaseSampler, workers: int = 1) -> tuple[int, int, float]:
    """Return measurements until a good one, failed ones among them, and seconds an ask.

    Each of `workers` has one trial under way, and they end in the order in which they began.
    """
    study = optuna.create_study(sampler=sampler)
    whole = distributions(space())
    study.enqueue_trial({name: d.choices[0] for name, d in whole.items()})
    under_way: deque[tuple[optuna.Trial, Index]] = deque()
    told, failed, asked_s = 0, 0, []
    while told < len(landscape.table):
        while len(under_way) < workers:
            begun = time.perf_counter()
            trial = study.ask(dict(whole))
            asked_s.append(time.perf_counter() - begun)
            under_way.append((trial, tuple(d.choices.index(trial.params[name]) for name, d in whole.items())))
        trial, index = under_way.popleft()
        told += 1
        value = landscape.measure(index)
        if value is None:
            failed += 1
            trial.set_user_attr("outcome", Outcome.FAILED.value)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
        if landscape.good(index):
            break
    return told, failed, statistics.fmean(asked_s)


def table(name: str, sampler: Sampler, args: argparse.Namespace) -> list[Row]:
    """Return a row for each kind of landscape."""
    kinds: Mapping[str, tuple[bool, int]] = {
        "plain": (False, 1),
        "failing": (True, 1),
        "workers": (False, args.workers),
    }
    rows = []
    for kind in args.kinds:
        failing, workers = kinds[kind]
        seeds = range(args.first, args.first + args.landscapes)
        ran = [needed(Landscape(seed, args.noise, failing=failing), sampler(seed), workers) for seed in seeds]
        counts = [count for count, _, _ in ran]
        rows.append(
            Row(
                sampler=name,
                kind=kind,
                landscapes=len(counts),
                mean=statistics.fmean(counts),
                error=statistics.stdev(counts) / len(counts) ** 0.5,
                median=statistics.median(counts),
                p90=statistics.quantiles(counts, n=10)[-1],
                failed=statistics.fmean(failed for _, failed, _ in ran),
                ask_ms=1e3 * statistics.fmean(ask_s for _, _, ask_s in ran),
            )
        )
        print(_line(rows[-1]), flush=True)
    return rows


def ask_ms(sampler: Sampler, trials: int) -> float:
    """Return the median time of an ask in ms with `trials` and a few more in the study."""
    landscape, whole = Landscape(0), distributions(space())
    study = optuna.create_study(sampler=sampler(0))
    spent = []
    for _ in range(trials + 10):
        begun = time.perf_counter()
        trial = study.ask(dict(whole))
        spent.append(time.perf_counter() - begun)
        value = landscape.measure(tuple(d.choices.index(trial.params[name]) for name, d in whole.items()))
        study.tell(trial, value)
    return 1e3 * statistics.median(spent[trials:])


def _line(row: Row) -> str:
    return (
        f"| {row.sampler} | {row.kind} | {row.landscapes} | {row.mean:.1f} +- {row.error:.1f} | {row.median:.0f} | "
        f"{row.p90:.0f} | {row.failed:.1f} | {row.ask_ms:.1f} |"
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--samplers", nargs="+", choices=samplers(), default=list(samplers()), help="default: all")
    kinds = ["plain", "failing", "workers"]
    top.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="default: all")
    top.add_argument("--landscapes", type=int, default=200, help="how many; default: %(default)s")
    top.add_argument("--first", type=int, default=0, help="seed of the first; default: %(default)s")
    top.add_argument("--noise", type=float, default=0.01, help="relative, of a measurement; default: %(default)s")
    top.add_argument("--workers", type=int, default=4, help="at once, in the third table; default: %(default)s")
    top.add_argument("--ask-at", type=int, default=100, help="trials when an ask is timed; default: %(default)s")
    top.add_argument("--json", type=Path, help="file for the figures")
    return top


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print and return the rows."""
    args = parser().parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print("| sampler | landscapes | how many | mean | median | p90 | failed | ms an ask |")
    print("|---|---|---|---|---|---|---|---|")
    rows = [row for name in args.samplers for row in table(name, samplers()[name], args)]
    asks = {name: ask_ms(samplers()[name], args.ask_at) for name in args.samplers}
    print(f"ms an ask after {args.ask_at} trials: {', '.join(f'{name} {ms:.1f}' for name, ms in asks.items())}")
    if args.json:
        figures = {"rows": [asdict(row) for row in rows], "ask_ms": asks}
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return rows


if __name__ == "__main__":
    sys.exit(None if main() else 1)
