"""One search over a recorded grid: each process is one of those recorded for its settings, drawn at random.

What a trial costs, when it is pruned and when a leader runs twice is as in a tune; only the processes are drawn.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import optuna
from optuna.trial import TrialState

import simulated
from grids import Entry, Grid, Process
from rtmo_optuna.child.measure import Decision
from rtmo_optuna.codec import encode
from rtmo_optuna.samplers.table import SAMPLERS, distributions
from rtmo_optuna.search.decide import confirm, judge, noise, race, screening
from rtmo_optuna.search.decide.ladder import next_rung
from rtmo_optuna.space.resolve import params_of, settings_of
from rtmo_optuna.types.measurement import Measurement, Outcome, Window
from rtmo_optuna.types.request import Measuring, Settings
from rtmo_optuna.types.subject import SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST_TIMES = 1.5
GUIDE = (
    "cudnn_conv_algo_search",
    "gpu_mem_limit_gb",
    "do_copy_in_default_stream",
    "cudnn_conv_use_max_workspace",
)
_ENDLESS = Measuring(windows_min=10**6, windows_max=10**6)

Make: TypeAlias = Callable[[SearchSpace, int], optuna.samplers.BaseSampler]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to search: a sampler, whether it may run the same settings again, and whether a trial may be pruned.

    With `won`, what won elsewhere comes right after the default, rung by rung; with `flips`, each choice is flipped
    alone before the sampler has its turn, and the default runs again before every few of them and after the last. A
    tune does both.
    """

    make: Make
    repeats: bool = False
    prunes: bool = True
    won: bool = False
    flips: bool = False

    def first(self, space: SearchSpace, cost_of: Callable[[Settings], float | None]) -> Iterator[tuple[Settings, bool]]:
        """Yield the settings that come before the sampler's, each when the one before was tried, and if it is a flip.

        `cost_of` says what settings cost, as `search.ladder` takes it.
        """
        yield space.fixed, False
        while self.won and (rung := next_rung(space, cost_of)):
            yield rung, False
        if self.flips:
            yield from ((flip.settings, True) for flip in screening.flips(space) if cost_of(flip.settings) is None)


def _guide(space: SearchSpace, seed: int) -> optuna.samplers.BaseSampler:
    """Return what runs the guide's grid: its four knobs, as far as the space has them, all others at their default."""
    sampler = SAMPLERS["random"](space, seed)
    sampler.freeze({k: label for k, label in (params_of(space, space.fixed) or {}).items() if k not in GUIDE})
    return sampler


STRATEGIES: Mapping[str, Strategy] = {
    "won, flips, gp": Strategy(SAMPLERS["gp"], won=True, flips=True),
    "flips, gp": Strategy(SAMPLERS["gp"], flips=True),
    "gp": Strategy(SAMPLERS["gp"]),
    "tpe": Strategy(SAMPLERS["tpe"]),
    "random": Strategy(SAMPLERS["random"]),
    "tpe-repeats": Strategy(lambda _space, seed: optuna.samplers.TPESampler(seed=seed), repeats=True),
    "optuna-gp": Strategy(lambda _space, seed: optuna.samplers.GPSampler(seed=seed), repeats=True),
    "guide": Strategy(_guide, prunes=False),
}


@dataclass(frozen=True, slots=True)
class Replay:
    """What one search came to; seconds are those of processes, the baseline's included.

    `steps` are (seconds, regret of the fastest settings measured by then: 0.02 is 2 % slower than the best). `good_s`
    is when good settings had been measured, after `good_trials` trials; infinite where none were.
    `pruned` says whether a trial of the best settings was pruned, `exported` the regret of what race and confirmation
    chose, after `finals` processes more.
    """

    steps: tuple[tuple[float, float], ...]
    good_s: float
    good_trials: float
    pruned: bool
    exported: float
    finals: int


@dataclass
class _Search:
    """The state of one search."""

    grid: Grid
    rng: random.Random
    entries: Mapping[Settings, Entry]
    spent_s: float = 0.0
    spread: float | None = None
    known_ms: list[float] = field(default_factory=list)
    values: dict[Settings, float] = field(default_factory=dict)

    def draw(self, settings: Settings) -> Process:
        return self.rng.choice(self.entries[settings].processes)

    def cost(self, settings: Settings) -> float | None:
        """Return what `settings` cost: None where they were not tried, infinite where there is nothing to be had."""
        return self.values.get(settings) if settings in self.entries else math.inf

    def baseline(self, count: int) -> None:
        """Run the default as the preflight does."""
        drawn = [self.draw(self.grid.fixed) for _ in range(count)]
        self.spent_s += sum(process.wall_s for process in drawn)
        values = [process.latency_ms for process in drawn if process.latency_ms]
        self.spread = noise.spread([values])
        self.known_ms += [statistics.median(values)] if len(values) > 1 else []

    def again(self) -> None:
        """Run the default once more, beside the trials."""
        self.spent_s += self.draw(self.grid.fixed).wall_s

    def limit_ns(self, settings: Settings, *, prunes: bool) -> float | None:
        """Return the window median above which a trial is given up."""
        if not prunes or settings == self.grid.fixed:
            return None
        return judge.prune_limit(self.known_ms, self.spread, MOST_TIMES)

    def trial(self, settings: Settings, *, prunes: bool, rung: bool) -> tuple[Process, float | None, float | None]:
        """Run a trial; return its process, its value (None: pruned or failed), and the value of a second process."""
        first, limit_ns = self.draw(settings), self.limit_ns(settings, prunes=prunes)
        early = [Window((round(ms * 1e6),)) for ms in first.windows_ms[: judge.PRUNE_AFTER]]
        if early and judge.after_window(early, _ENDLESS, prune_above_ns=limit_ns) is Decision.PRUNE:
            self.spent_s += first.until_window(len(early))
            return first, None, None
        self.spent_s += first.wall_s
        if first.latency_ms is None or first.latency_ms >= min(self.values.values(), default=math.inf):
            return first, first.latency_ms, None
        if rung:
            self.known_ms.append(first.latency_ms)
            return first, first.latency_ms, None
        second = self.draw(settings)
        self.spent_s += second.wall_s
        if second.latency_ms is None:
            return first, first.latency_ms, None
        both = statistics.fmean((first.latency_ms, second.latency_ms))
        self.known_ms.append(both)
        return first, both, second.latency_ms


def replay(
    grid: Grid, strategy: Strategy, seed: int, *, trials: int = 40, baseline: int = 6, good: float = 0.01
) -> Replay:
    """Return one search of `trials` trials, or of as many as settings within `good` of the best take, if that is more.

    The preflight's `baseline` processes come first.
    """
    search = _Search(grid, random.Random(seed), {e.settings: e for e in grid.entries if e.processes})  # noqa: S311
    search.baseline(baseline)
    space, best_ms = grid.space, grid.best_ms
    study = optuna.create_study(sampler=strategy.make(space, seed))
    whole: dict[str, BaseDistribution] = {**distributions(space)}
    first, ran = strategy.first(space, search.cost), 0
    steps: list[tuple[float, float]] = []
    searched: dict[Settings, float] = {}
    good_s, pruned, best_true = math.inf, False, math.inf
    for _ in range(2 * len(grid.entries)):
        queued, flips = next(first, (None, False))
        if ran % screening.AGAIN == 0 if flips else ran:
            search.again()
        ran = ran + 1 if flips else 0
        if queued:
            study.enqueue_trial(params_of(space, queued) or {})
        trial = study.ask(whole)
        settings = settings_of(space, trial.params)
        if settings not in search.entries:
            study.tell(trial, state=TrialState.FAIL)
            continue
        if settings in search.values and not strategy.repeats:
            break
        true_ms = search.entries[settings].true_ms
        rung = queued is not None and not flips and settings != space.fixed
        process, value, second = search.trial(settings, prunes=strategy.prunes, rung=rung)
        _tell(study, trial, process, value, second)
        search.values[settings] = math.inf if value is None else value
        pruned |= true_ms == best_ms and value is None
        best_true = min(best_true, math.inf if value is None or true_ms is None else true_ms)
        steps.append((search.spent_s, best_true / best_ms - 1))
        if len(steps) <= trials:
            searched = {known: ms for known, ms in search.values.items() if ms < math.inf}
        if good_s == math.inf and best_true <= (1 + good) * best_ms:
            good_s = search.spent_s
        if len(steps) >= trials and good_s < math.inf:
            break
    good_trials = sum(seconds < good_s for seconds, _ in steps) + 1 if good_s < math.inf else math.inf
    exported, finals = _finals(search, searched, seed)
    return Replay(tuple(steps), good_s, good_trials, pruned, exported, finals)


def _tell(
    study: optuna.Study, trial: optuna.Trial, process: Process, value: float | None, second: float | None
) -> None:
    """Tell the study a trial as a tune does."""
    shown = process.windows_ms[: judge.PRUNE_AFTER] if value is None else process.windows_ms
    for step in range(1, len(shown) + 1):
        trial.report(statistics.median(shown[:step]), step)
    outcome = process.outcome if process.outcome is Outcome.FAILED or value is not None else Outcome.PRUNED
    trial.set_user_attr("outcome", outcome.value)
    if value is None:
        study.tell(trial, state=TrialState.PRUNED)
        return
    costs = (2 * value - second, second) if second else ()
    told = Measurement(outcome, latency_ns=value * 1e6, second_ns=second and second * 1e6, costs=costs)
    trial.set_user_attr("measurement", encode(told))
    study.tell(trial, value)


def _finals(search: _Search, searched: Mapping[Settings, float], seed: int) -> tuple[float, int]:
    """Return the regret of what the program's race and confirmation export, and how many processes they ran."""
    fixed = search.grid.fixed
    first = {settings: value for settings, value in searched.items() if settings != fixed}

    def draw(settings: Settings) -> float | None:
        return first.pop(settings, None) or search.draw(settings or fixed).latency_ms

    found = simulated.study(list(first), draw, race.RaceRules(), confirm.ConfirmRules(), seed)
    chosen = found.winner if found.claimed and found.winner else fixed
    true_ms = search.entries[chosen].true_ms
    regret = math.inf if true_ms is None else true_ms / search.grid.best_ms - 1
    return regret, found.processes
