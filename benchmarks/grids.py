"""Recorded grids: every settings of a space, each in several fresh processes, as `replay.py record` writes them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rtmo_optuna.codec import decode, encode
from rtmo_optuna.errors import UsageError
from rtmo_optuna.search.decide import noise
from rtmo_optuna.space.knobs import dimension_table
from rtmo_optuna.space.resolve import every_params, settings_of
from rtmo_optuna.types.measurement import Measurement, Outcome, StageTimes
from rtmo_optuna.types.request import Dimension, Settings
from rtmo_optuna.types.subject import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIMITED = ("start", "build", "first_run", "window")
"""The stages of a child's life that have a limit."""
_STAGES = ("start", "import", "preload", "build", "first_run", "warmup", "windows")


@dataclass(frozen=True, slots=True)
class Process:
    """One fresh process: latency and its windows' medians in ms; `stage_s` and `wall_s` in seconds.

    `wall_s` is all that it took, from before its start to after its end; a failure has a `reason` and what it took.
    """

    outcome: Outcome
    wall_s: float
    latency_ms: float | None = None
    windows_ms: tuple[float, ...] = ()
    stage_s: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: int | None = None
    reason: str = ""

    def until_window(self, count: int) -> float:
        """Return the seconds that the process would have taken if it had been ended after `count` windows."""
        share = count / len(self.windows_ms)
        return self.wall_s - (1 - share) * self.stage_s.get("windows", 0.0)


@dataclass(frozen=True)
class Entry:
    """The processes of some settings, in the order in which they ran; searches never see those that are `held_out`."""

    settings: Settings
    processes: tuple[Process, ...] = ()
    held_out: tuple[Process, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a process of these settings failed."""
        return any(process.outcome is not Outcome.MEASURED for process in (*self.processes, *self.held_out))

    @cached_property
    def true_ms(self) -> float | None:
        """Their latency: Hodges and Lehmann's location of the processes held out, where there are any, else of all.

        It is taken of logarithms. None where one failed, or none ran.
        """
        logs = [math.log(one.latency_ms) for one in self.held_out or self.processes if one.latency_ms is not None]
        return None if self.failed or not logs else math.exp(noise.location(logs))

    def with_process(self, process: Process, *, held_out: bool) -> Entry:
        """Return the entry with one process more."""
        if held_out:
            return replace(self, held_out=(*self.held_out, process))
        return replace(self, processes=(*self.processes, process))


@dataclass(frozen=True)
class Grid:
    """A whole recording: what it ran on, its space, and an entry for each settings."""

    facts: Mapping[str, Any]
    provider: str
    fixed: Settings
    dimensions: tuple[Dimension, ...]
    entries: tuple[Entry, ...]

    @property
    def space(self) -> SearchSpace:
        """The space whose settings were recorded."""
        return SearchSpace(self.provider, self.dimensions, self.fixed)

    @cached_property
    def best_ms(self) -> float:
        """The latency of the best settings. Raises ValueError where none was measured."""
        return min(entry.true_ms for entry in self.entries if entry.true_ms is not None)

    @property
    def whole_s(self) -> float:
        """What one process of every settings takes, in seconds."""
        return sum(statistics.fmean(process.wall_s for process in entry.processes) for entry in self.entries)


def joined(recorded: Sequence[Grid]) -> Grid:
    """Return one grid with the processes of all of `recorded`: of several GPUs of one host, of several days.

    Raises UsageError where they are not recordings of the same thing.
    """
    first, *others = recorded
    for other in others:
        if replace(other, entries=()) != replace(first, entries=()):
            message = "The grids are of different models, machines, versions or spaces: give those of one only."
            raise UsageError(message)
        more = {entry.settings: entry for entry in other.entries}
        entries = (
            replace(
                entry,
                processes=entry.processes + more[entry.settings].processes,
                held_out=entry.held_out + more[entry.settings].held_out,
            )
            for entry in first.entries
        )
        first = replace(first, entries=tuple(entries))
    return first


def with_inert(grid: Grid, names: Sequence[str]) -> Grid:
    """Return `grid` with more dimensions that do nothing: their settings have the processes of those without.

    That they do nothing is for a screening to prove (docs/lab/search.md). Raises UsageError for a name that is no
    dimension of the provider's, or one of the grid's.
    """
    table = dimension_table(grid.provider)
    here = {dimension.name for dimension in grid.dimensions}
    for name in names:
        if name not in table or name in here:
            message = (
                f"{name} is {'in the grid' if name in here else f'no dimension of {grid.provider}'}: leave it out."
            )
            raise UsageError(message)
    known = {entry.settings: entry for entry in grid.entries}
    wider = replace(grid, dimensions=(*grid.dimensions, *(table[name] for name in names)))
    entries: dict[Settings, Entry] = {}
    for params in every_params(wider.space):
        settings = settings_of(wider.space, params)
        entries.setdefault(settings, replace(known[settings_of(grid.space, params)], settings=settings))
    return replace(wider, entries=tuple(entries.values()))


def process_of(measurement: Measurement, wall_s: float) -> Process:
    """Return what a grid keeps of a Measurement that took `wall_s`."""
    failed = measurement.outcome is not Outcome.MEASURED
    return Process(
        outcome=measurement.outcome,
        wall_s=round(wall_s, 3),
        latency_ms=None if failed or measurement.latency_ms is None else round(measurement.latency_ms, 5),
        windows_ms=tuple(round(value / 1e6, 5) for value in measurement.windows_ns),
        stage_s=_stages(measurement.stages),
        memory_bytes=measurement.gpu_memory_bytes,
        reason=f"{measurement.stage}: {measurement.reason}" if failed else "",
    )


def _stages(times: StageTimes) -> dict[str, float]:
    spent = {stage: getattr(times, f"{stage}_ns") for stage in _STAGES}
    return {stage: round(spent_ns / 1e9, 4) for stage, spent_ns in spent.items() if spent_ns is not None}


def load(path: Path) -> Grid:
    """Read a grid."""
    return decode(Grid, json.loads(path.read_text(encoding="utf-8")))


def save(grid: Grid, path: Path) -> None:
    """Write a grid, one settings a line; a reader never sees half of it."""
    plain = encode(grid)
    entries = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in plain.pop("entries"))
    head = json.dumps(plain, separators=(",", ":"))[:-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(f'{head},"entries":[\n{entries}\n]}}\n', encoding="utf-8")
    aside.replace(path)
