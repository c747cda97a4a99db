"""Whole studies, simulated: by a runner with a clock of its own, or a search that measures each settings once.

The decisions are the program's own; only the processes are drawn.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from rtmo_optuna.search.decide import confirm, race
from rtmo_optuna.search.decide.budget import Deadline
from rtmo_optuna.search.finals import Finals
from rtmo_optuna.search.runner import Observed, Processes, Rules
from rtmo_optuna.search.tune import Tune
from rtmo_optuna.space.resolve import resolve
from rtmo_optuna.study.library import open_study
from rtmo_optuna.types.findings import Claim, Decided
from rtmo_optuna.types.measurement import GateMode, GateRequest, GateRules, Measurement
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import StudyRecord
from rtmo_optuna.types.subject import InputFacts

if TYPE_CHECKING:
    from pathlib import Path

    from rtmo_optuna.search.runner import Runner
    from rtmo_optuna.study.study import Study
    from rtmo_optuna.types.request import ModelFacts
    from rtmo_optuna.types.study import Event
    from rtmo_optuna.types.subject import Machine, StudyDefinition

Draw: TypeAlias = Callable[[Settings], float | None]

DEFAULT = Settings()
BASELINE = 6
UNGATED = GateRequest(GateRules(mode=GateMode.OFF), "")


def opened(
    folder: Path | str,
    definition: StudyDefinition,
    machine: Machine,
    model: ModelFacts,
    **more: Any,  # noqa: ANN401 - of the record
) -> Study:
    """Create or resume, in `folder`, a study by `definition` of a `model` that nobody runs; `more` is of its record."""
    about = StudyRecord(
        name=definition.name,
        definition=definition,
        space=resolve(definition, machine, model, fixed_shapes=True),
        machine=machine,
        model=model,
        model_path="",
        model_sha256="",
        inputs=InputFacts("", "", {"input": (1,)}, 1, "", real=True),
        trials=(),
        storage=f"sqlite:///{folder}/studies.db",
    )
    return open_study(about.storage, replace(about, **more), {}, new=False)


@dataclass
class Clock:
    """A clock that stands still but for what is added to `now_s`."""

    now_s: float = field(default_factory=time.monotonic)

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s


@dataclass
class SimulatedRunner:
    """Runs no process: the n-th of settings, from 0, comes to `process` of both, and takes `takes_s` of the clock.

    Where `stop` says so, the run ends as by Ctrl-C before the next process.
    """

    process: Callable[[Settings, int], Measurement]
    takes_s: float = 0.01
    stop: Callable[[], bool] = lambda: False
    ran: Counter[Settings] = field(default_factory=Counter)
    clock: Clock = field(default_factory=Clock)
    seen: Observed = field(default_factory=Observed)
    paced_s: float = 0.0

    def run(
        self,
        settings: Settings,
        rules: Rules,  # noqa: ARG002 - as any Runner's
        log: object,  # noqa: ARG002
        **more: object,  # noqa: ARG002
    ) -> Measurement:
        """Return what a process of `settings` comes to."""
        if self.stop():
            raise KeyboardInterrupt
        self.ran[settings] += 1
        self.clock.now_s += self.takes_s
        self.seen.walls_s.append(self.takes_s)
        return self.process(settings, self.ran[settings] - 1)

    def check(self) -> None:
        """Let the run go on: it is broken off before a process only."""

    def close(self) -> None:
        """Do nothing: there is nothing to end."""


def silent(_event: Event) -> None:
    """Tell nobody."""


def rules_of(study: Study) -> Rules:
    """Return the rules of a study whose outputs are not compared."""
    return Rules.of(study.about.definition, UNGATED)


def tune(study: Study, runner: Runner, held: Settings = DEFAULT, *, late_s: float = 0.0, **more: Any) -> Tune:  # noqa: ANN401 - of Tune
    """Return a tune of `study` that began `late_s` ago, where config.yaml holds `held`, with `more` of it."""
    wanted = {"rules": rules_of(study), "baseline": BASELINE, "observer": silent, **more}
    return Tune(study, runner, incumbent=held, begun=runner.clock() - late_s, **wanted)


def processes(study: Study, runner: Runner) -> Processes:
    """Return the processes of `study`, of which nobody hears."""
    return Processes(study, runner, rules_of(study), silent)


def finals(study: Study, runner: Runner, seconds: float = 600.0) -> Finals:
    """Return race and confirmation of `study`, which have `seconds` left."""
    return Finals(processes(study, runner), DEFAULT, Deadline(runner.clock() + seconds, runner.clock))


@dataclass(frozen=True, slots=True)
class Simulated:
    """One study: who won the race, what the confirmation said (None: the default won), what each stage cost."""

    winner: Settings | None
    confirmation: Claim | None
    race_processes: int
    pair_processes: int

    @property
    def claimed(self) -> bool:
        """Whether the study claims a gain."""
        return self.confirmation is not None and self.confirmation.decided is Decided.FASTER

    @property
    def processes(self) -> int:
        """What race and confirmation cost."""
        return self.race_processes + self.pair_processes


def study(
    searched: list[Settings],
    draw: Draw,
    race_rules: race.RaceRules,
    confirm_rules: confirm.ConfirmRules,
    seed: int = 0,
    *,
    processes: int | None = None,
) -> Simulated:
    """Return a study of `searched` settings, each process's latency in ms drawn by `draw` (None: it failed).

    With `processes`, race and confirmation have time for so many: the race for half of them at the least.
    """
    measured = [(settings, value) for settings in searched if (value := draw(settings)) is not None]
    baseline = tuple(value for value in (draw(DEFAULT) for _ in range(BASELINE)) if value is not None)
    contenders = [race.Contender(DEFAULT, baseline)]
    contenders += [race.Contender(settings, (value,)) for settings, value in measured]
    if processes is not None:
        reserved = min(2 * confirm_rules.most_pairs, processes // 2)
        race_rules = race_rules.fitted(len(contenders), processes - reserved)
    state = race.start(contenders, race_rules)
    raced = 0
    while not state.over:
        ran = race.order(state.blocks, state.running, seed)
        raced += len(ran)
        state = race.after(state, {settings: draw(settings) for settings in ran})
    if state.winner is None or state.winner == DEFAULT:
        return Simulated(state.winner, None, raced, 0)
    if processes is not None:
        confirm_rules = replace(confirm_rules, looks=confirm.looks_for((processes - raced) // 2))
    pairs: list[confirm.Pair] = []
    told = confirm.confirm(pairs, confirm_rules)
    while not told.over:
        values = {side: draw(side) for side in confirm.who_first(len(pairs), (state.winner, DEFAULT))}
        pairs.append((values[state.winner], values[DEFAULT]))
        told = confirm.confirm(pairs, confirm_rules)
    return Simulated(state.winner, told, raced, 2 * len(pairs))


def forty(faster: int, gain: float, count: int = 40) -> dict[Settings, float]:
    """Return the true latency in ms of `count` settings, of which `faster` are 1 + `gain` times as fast as the rest.

    The faster ones are evenly spread over settings with one to five knobs off the default.
    """
    every = max(1, count // max(1, faster))
    fast = {place * every + every // 2 for place in range(faster)}
    return {
        Settings.of({f"knob{place}": place} | {f"extra{n}": place for n in range(place % 5)}): 1 / (1 + gain)
        if place in fast
        else 1.0
        for place in range(count)
    }


def drawn(truth: dict[Settings, float], spread: float, rng: random.Random, kind: str = "normal") -> Draw:
    """Return a draw of processes around `truth` (1 ms for other settings), with log values of one `kind`.

    normal; "tenth": one process in ten 1.4 times slower; "third": one in three 1.3 to 1.5 times slower; "heavy":
    Student's t with 3 degrees of freedom times `spread`.
    """

    def draw(settings: Settings) -> float:
        value = truth.get(settings, 1.0)
        noise = rng.gauss(0.0, spread)
        if kind == "heavy":
            noise /= (rng.gammavariate(1.5, 2.0) / 3) ** 0.5
        if kind == "tenth" and rng.random() < 1 / 10:
            value *= 1.4
        if kind == "third" and rng.random() < 1 / 3:
            value *= rng.uniform(1.3, 1.5)
        return value * math.exp(noise)

    return draw


@dataclass(frozen=True, slots=True)
class Figures:
    """What many studies came to: shares of all studies, and processes of race and confirmation."""

    claimed: float
    claimed_true: float
    raced: float
    mean: float
    p90: float


def studies(
    count: int,
    truth: dict[Settings, float],
    spread: float,
    *,
    kind: str = "normal",
    seed: int = 0,
    race_rules: race.RaceRules | None = None,
    confirm_rules: confirm.ConfirmRules | None = None,
    processes: int | None = None,
) -> Figures:
    """Return the figures of `count` studies, each with time for `processes` in race and confirmation."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    draw = drawn(truth, spread, rng, kind)
    race_rules, confirm_rules = race_rules or race.RaceRules(), confirm_rules or confirm.ConfirmRules()
    best = min(truth.values())
    ran = [study(list(truth), draw, race_rules, confirm_rules, number, processes=processes) for number in range(count)]
    right = [one.claimed and one.winner is not None and truth[one.winner] == best < 1 for one in ran]
    return Figures(
        claimed=statistics.fmean(one.claimed for one in ran),
        claimed_true=statistics.fmean(right),
        raced=statistics.fmean(one.race_processes for one in ran),
        mean=statistics.fmean(one.processes for one in ran),
        p90=statistics.quantiles([one.processes for one in ran], n=10)[-1],
    )
