"""What runs a process of given settings, by which rules; what trials, baseline, race and pairs are made of."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeAlias

from rtmo_optuna.codec import decode
from rtmo_optuna.scratch import scratch
from rtmo_optuna.search.decide.budget import Clock
from rtmo_optuna.space.objectives import OBJECTIVES, Objective
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import ProcessRecord, Purpose
from rtmo_optuna.types.measurement import GateRequest, GateResult, Measurement, Outcome
from rtmo_optuna.types.request import Limits, Measuring, Settings
from rtmo_optuna.types.study import Observer, Phase, Started
from rtmo_optuna.types.subject import GpuState, StudyDefinition

OnWindow: TypeAlias = Callable[[float, int], None]
"""What gets the running median in ms, and the number of windows so far."""
Costs: TypeAlias = dict[Settings, float | None]
"""What processes cost by their settings, None where they failed."""
_LEAST_PRECISION = 0.003
_RECENT = 20
_FIRST_GUESS_S, _START_S = 5.0, 3.0
_PHASES = {
    Purpose.BASELINE: Phase.BASELINE,
    Purpose.PINNED: Phase.BASELINE,
    Purpose.LEVEL: Phase.SEARCH,
    Purpose.SCREENING: Phase.INERT,
    Purpose.PRECISION: Phase.SEARCH,
    Purpose.RACE: Phase.RACE,
    Purpose.PLAIN: Phase.PLAIN,
    Purpose.CONFIRMATION: Phase.CONFIRMATION,
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """How all processes of a study run, as its preflight found.

    `pin` has each window run on a quiet core. `spread` is s_b: a process is measured to a third of it, not finer.
    `warmup_calls` replace the definition's; `own` is how far the default settings' outputs are from the reference,
    which widens every limit of the gate. `first_state` is the GPU's after the first window of the study: at rest its
    clock would say nothing. None is what is not known, or not to be known.
    """

    pin: bool = False
    spread: float | None = None
    warmup_calls: int | None = None
    own: GateResult | None = None
    first_state: GpuState | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """How processes are measured and judged, whatever their settings; `max_memory_gb` is in GiB of the GPU."""

    measuring: Measuring
    limits: Limits
    gate: GateRequest
    objective: Objective
    max_memory_gb: float | None = None
    pin: bool = False
    first_state: GpuState | None = None

    @classmethod
    def of(cls, definition: StudyDefinition, gate: GateRequest) -> Rules:
        """Return the rules of a study before its preflight."""
        measuring = replace(definition.measuring, precision=max(_LEAST_PRECISION, definition.measuring.precision))
        return cls(measuring, definition.limits, gate, OBJECTIVES[definition.objective], definition.max_memory_gb)

    def under(self, found: Conditions) -> Rules:
        """Return these rules under the conditions that the preflight found."""
        calls = self.measuring.warmup_calls if found.warmup_calls is None else found.warmup_calls
        precision = max(self.measuring.precision, (found.spread or 0.0) / 3)
        return replace(
            self,
            measuring=replace(self.measuring, warmup_calls=calls, precision=precision),
            gate=replace(self.gate, own=found.own, baseline=False) if found.own else self.gate,
            pin=found.pin,
            first_state=found.first_state,
        )


@dataclass
class Observed:
    """What a runner has seen of its processes so far.

    `walls_s` is how long each took, `spins_ns` the canary's shortest spin in each. `first_state` and `last_state` are
    the GPU's after the first and the latest window. `hot` says that the GPU held itself back however long one waited,
    and still does. `waited_s` is how long others had the device, which is no process's time.
    """

    walls_s: list[float] = field(default_factory=list)
    spins_ns: list[int] = field(default_factory=list)
    waited_s: float = 0.0
    hot: bool = False
    first_state: GpuState | None = None
    last_state: GpuState | None = None


class Runner(Protocol):
    """Runs processes on one device, one after the other."""

    @property
    def seen(self) -> Observed:
        """What it has observed."""

    @property
    def clock(self) -> Clock:
        """What tells its time, in seconds."""

    @property
    def paced_s(self) -> float:
        """How long a process takes at the least, in seconds, where calls come at a rate."""

    def run(
        self,
        settings: Settings,
        rules: Rules,
        log: Path,
        *,
        prune_above_ns: float | None = None,
        on_window: OnWindow = lambda _latency_ms, _windows: None,
    ) -> Measurement:
        """Return the Measurement of one fresh process of `settings` by `rules`; it prints to the file `log`.

        One whose windows' medians are above `prune_above_ns` is given up.
        """

    def check(self) -> None:
        """Raise KeyboardInterrupt where the user has interrupted the run."""

    def close(self) -> None:
        """End what the runner has waiting."""


def conditions_of(study: Study) -> Conditions:
    """Return the conditions of `study` that are kept with it so far; s_b is none of them."""
    own, states = study.get("own"), study.get("gpu_states")
    return Conditions(
        pin=bool(study.get("pin")),
        warmup_calls=study.get("warmup_calls"),
        own=decode(GateResult, own) if own else None,
        first_state=decode(GpuState, states[0]) if states else None,
    )


def recorded(
    runner: Runner,
    rules: Rules,
    purpose: Purpose,
    index: int,
    settings: Settings,
    *,
    prune_above_ns: float | None = None,
    on_window: OnWindow = lambda _latency_ms, _windows: None,
) -> tuple[ProcessRecord, Measurement]:
    """Run one process beside the trials and return it as a study keeps it, and its whole Measurement."""
    begun, waited_s = runner.clock(), runner.seen.waited_s
    with scratch() as folder:
        log = folder / "log.txt"
        measurement = runner.run(settings, rules, log, prune_above_ns=prune_above_ns, on_window=on_window)
    measured = measurement.outcome is Outcome.MEASURED
    kept = ProcessRecord(
        purpose=purpose,
        index=index,
        settings=settings,
        cost=rules.objective.cost(measurement) if measured else None,
        latency_ms=measurement.latency_ms,
        windows_ms=tuple(round(value / 1e6, 5) for value in measurement.windows_ns),
        memory_bytes=measurement.gpu_memory_bytes,
        reason="" if measured else measurement.reason,
        dropped=sum(measurement.dropped.values()),
        left_out=measurement.left_out,
        wall_s=round(runner.clock() - begun - (runner.seen.waited_s - waited_s), 2),
        outputs_sha256=measurement.outputs_sha256,
    )
    return kept, measurement


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a study by its rules; those beside its trials are kept with it.

    `earlier_s` is how long those of earlier runs took, `observer` hears what is to be told of them.
    """

    study: Study
    runner: Runner
    rules: Rules
    observer: Observer
    earlier_s: tuple[float, ...] = ()

    @property
    def walls_s(self) -> list[float]:
        """How long processes took, in seconds, in order."""
        return [*self.earlier_s, *self.runner.seen.walls_s]

    @property
    def each_s(self) -> float:
        """How long a process takes, in seconds: the median of the latest ones, a guess before the first."""
        return statistics.median(self.walls_s[-_RECENT:] or [max(_FIRST_GUESS_S, _START_S + self.runner.paced_s)])

    def run(
        self, settings: Settings, log: Path, on_window: OnWindow, *, prune_above_ns: float | None = None
    ) -> Measurement:
        """Return the Measurement of one process; it is a sign of life of this driver."""
        self.study.crew.renew()
        return self.runner.run(settings, self.rules, log, prune_above_ns=prune_above_ns, on_window=on_window)

    def keep(
        self, purpose: Purpose, index: int, settings: Settings, place: int = 0, total: int = 0
    ) -> tuple[ProcessRecord, Measurement]:
        """Run one process beside the trials, keep it, and return it with its whole Measurement.

        Who watches is told that it is the `place`-th of `total`; each of its windows is a sign of life of this driver.
        """
        crew = self.study.crew
        self.observer(Started(_PHASES[purpose], place, total, settings))
        crew.renew()
        kept = recorded(self.runner, self.rules, purpose, index, settings, on_window=lambda *_: crew.renew())
        self.study.keep(kept[0])
        return kept

    def costs(self, purpose: Purpose, index: int, sides: Iterable[Settings], total: int, known: Costs) -> Costs:
        """Return the costs of block or pair `index` of `total`, in the order of `sides`: None where a process failed.

        What is `known` was kept before; the others run now, and are kept.
        """
        run = ((one, None if one in known else self.keep(purpose, index, one, index + 1, total)[0]) for one in sides)
        return {one: ran.cost if ran else known[one] for one, ran in run}
