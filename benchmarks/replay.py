"""Record the whole grid of a study once, then replay searches over it: how soon does each find the best settings?

    python benchmarks/replay.py record --model models/rtmo-s.onnx --study my.yaml --processes 3 --output grid.json
    python benchmarks/replay.py run grid.json --repetitions 100 --strategies gp tpe guide --picture x.png
    python benchmarks/replay.py run one.json other.json --inert gpu_mem_limit_gb arena_extend_strategy

`record` runs every settings in fresh processes, one each in blocks of random order, so that slow times of the host meet
all of them alike; then the best run again, in processes that no search sees: they tell what settings are worth. It
writes after each process and goes on where it stopped. Settings that fail are recorded with the reason, and run once
only. `run` draws searches from what was recorded, charged for all that a trial takes: start, session build, failures,
what was run before it was pruned, the baseline and the second process of a leader. `--inert` widens the grid by knobs
that a screening proved to do nothing: the space that a search faces which does not know that.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import optuna

import grids
import on_device
import record_grid
import replayed
from rtmo_optuna.errors import TunerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_POINTS = 400


@dataclass(frozen=True, slots=True)
class Row:
    """Many searches by one strategy: seconds of processes until good settings had been measured.

    `share` is `p90_s` as a share of the whole grid, `pruned` the share of searches that pruned a trial of the best
    settings, `exported_p90` the regret of what race and confirmation export after `trials` trials. None: never.
    """

    strategy: str
    searches: int
    p50_s: float | None
    p90_s: float | None
    p50_trials: float | None
    share: float | None
    pruned: float
    exported_p50: float
    exported_p90: float
    finals: float


def run(args: argparse.Namespace) -> list[Row]:
    """Print and return a row for each strategy."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    grid = grids.with_inert(grids.joined([grids.load(path) for path in args.grids]), args.inert)
    ran = [entry for entry in grid.entries if entry.processes]
    default = next((entry for entry in ran if entry.settings == grid.fixed), None)
    if default is None or default.true_ms is None:
        message = f"{args.grids[0]} has no process of the default settings: record more."
        raise UsageError(message)
    print(
        f"{len(ran)} of {len(grid.entries)} settings, {sum(len(e.processes) for e in ran)} processes, "
        f"{sum(e.failed for e in ran)} settings failed; best {grid.best_ms:.4f} ms, default {default.true_ms:.4f} ms, "
        f"{_good(grid, args.good)} settings within {args.good:.0%}; the whole grid once: {grid.whole_s:.0f} s.\n"
    )
    print(
        f"| strategy | searches | P50 s | P90 s | P50 trials | P90 of grid | best pruned | regret after {args.trials} |"
    )
    print("|---|---|---|---|---|---|---|---|")
    searches = {
        name: [
            replayed.replay(
                grid,
                replayed.STRATEGIES[name],
                seed,
                trials=args.trials,
                baseline=args.baseline,
                good=args.good,
            )
            for seed in range(args.repetitions)
        ]
        for name in args.strategies
    }
    rows = [_row(name, done, grid.whole_s) for name, done in searches.items()]
    for row in rows:
        print(_line(row))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    if args.picture:
        draw(searches, grid, args.picture, args.good)
    return rows


def _good(grid: grids.Grid, good: float) -> int:
    values = [entry.true_ms for entry in grid.entries if entry.true_ms is not None]
    return sum(value <= (1 + good) * grid.best_ms for value in values)


def _row(name: str, done: Sequence[replayed.Replay], whole_s: float) -> Row:
    p50_s, p90_s = quantiles([one.good_s for one in done])
    exported = quantiles([one.exported for one in done])
    return Row(
        strategy=name,
        searches=len(done),
        p50_s=_finite(p50_s),
        p90_s=_finite(p90_s),
        p50_trials=_finite(quantiles([one.good_trials for one in done])[0]),
        share=_finite(p90_s / whole_s),
        pruned=statistics.fmean(one.pruned for one in done),
        exported_p50=exported[0],
        exported_p90=exported[1],
        finals=statistics.fmean(one.finals for one in done),
    )


def quantiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the values that half and nine tenths of `values` do not exceed; they may be infinite."""
    ordered = sorted(values)
    return ordered[math.ceil(0.5 * len(ordered)) - 1], ordered[math.ceil(0.9 * len(ordered)) - 1]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _line(row: Row) -> str:
    def shown(value: float | None, form: str) -> str:
        return "never" if value is None else format(value, form)

    return (
        f"| {row.strategy} | {row.searches} | {shown(row.p50_s, '.0f')} | {shown(row.p90_s, '.0f')} | "
        f"{shown(row.p50_trials, '.0f')} | {shown(row.share, '.0%')} | {row.pruned:.0%} | "
        f"P50 {row.exported_p50:.2%}, P90 {row.exported_p90:.2%}, {row.finals:.0f} processes |"
    )


def draw(searches: Mapping[str, Sequence[replayed.Replay]], grid: grids.Grid, picture: Path, good: float) -> None:
    """Write a picture of the regret against the seconds of processes: the median search of each strategy, and P90."""
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend
    from matplotlib import ticker  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    begin = max(one.steps[0][0] for done in searches.values() for one in done)
    times = np.geomspace(begin, max(1.2 * grid.whole_s, 2 * begin), _POINTS)
    for name, done in searches.items():
        regrets = np.array([[regret_at(one.steps, moment) for moment in times] for one in done])
        middle, high = np.quantile(regrets, [0.5, 0.9], axis=0)
        (line,) = axes.plot(times, 100 * middle, label=name)
        axes.plot(times, 100 * high, color=line.get_color(), linestyle=":", linewidth=1)
    axes.axhline(100 * good, color="gray", linewidth=0.8)
    axes.axvline(grid.whole_s, color="gray", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", xlabel="seconds of processes (dashed: the whole grid once)", ylim=(0, None))
    axes.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axes.xaxis.set_minor_locator(ticker.LogLocator(subs=(2, 3, 5)))
    axes.xaxis.set_minor_formatter(ticker.ScalarFormatter())
    axes.set_ylabel("regret of the best settings measured, %")
    axes.set_title(f"{grid.facts.get('model', '')}: median of the searches, dotted the 90th percentile", loc="left")
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)
    plt.close(figure)


def regret_at(steps: Sequence[tuple[float, float]], moment: float) -> float:
    """Return the regret after the last of `steps` that ended by `moment`; NaN before the first."""
    return next((regret for seconds, regret in reversed(steps) if seconds <= moment), math.nan)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("record", help="run every settings of a study in fresh processes")
    one.add_argument("--model", type=Path, required=True, help="ONNX file")
    one.add_argument("--output", type=Path, required=True, help="JSON file, written anew after each process")
    one.add_argument("--processes", type=int, default=3, help="of each settings; default: %(default)s")
    one.add_argument("--best", type=int, default=12, help="so many settings have more; default: %(default)s")
    one.add_argument("--held-out", type=int, default=6, help="processes more of those; default: %(default)s")
    one.add_argument("--time-limit", type=float, metavar="SECONDS", help="stop in time to keep it; default: none")
    on_device.add_arguments(one)
    one.add_argument("--pin", action="store_true", help="each window on a quiet core (cuda)")
    one.add_argument("--seed", type=int, default=0, help="of the order; default: %(default)s")
    one.set_defaults(run=record_grid.record)

    two = commands.add_parser("run", help="replay searches over a recorded grid")
    two.add_argument("grids", type=Path, nargs="+", metavar="GRID", help="what record wrote; several are joined")
    usual = [name for name in replayed.STRATEGIES if name != "optuna-gp" or importlib.util.find_spec("torch")]
    two.add_argument("--inert", nargs="+", default=[], metavar="KNOB", help="dimensions to add that do nothing")
    two.add_argument("--strategies", nargs="+", choices=replayed.STRATEGIES, default=usual, help="default: all")
    two.add_argument("--repetitions", type=int, default=100, help="searches of each; default: %(default)s")
    two.add_argument("--trials", type=int, default=40, help="before race and confirmation; default: %(default)s")
    two.add_argument("--baseline", type=int, default=6, help="processes of the preflight; default: %(default)s")
    two.add_argument("--good", type=float, default=0.01, help="how near to the best is good; default: %(default)s")
    two.add_argument("--json", type=Path, help="file for the figures")
    two.add_argument("--picture", type=Path, help="PNG file of regret against seconds")
    two.set_defaults(run=run)
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a fault of the user's is one sentence."""
    args = parser().parse_args(arguments)
    try:
        args.run(args)
    except TunerError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
