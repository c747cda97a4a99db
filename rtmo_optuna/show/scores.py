"""The trials of a study by the study's objective: who stands where, in which unit, against what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.records import Origin, Outcome, Settings, TrialRecord
from rtmo_optuna.show.words import NBSP, number
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.space.resolve import params_of

if TYPE_CHECKING:
    from rtmo_optuna.records import StudyRecord, Value
    from rtmo_optuna.space.objectives import Objective
    from rtmo_optuna.stats import Effect

COUNTED = (Outcome.MEASURED, Outcome.PRUNED)
"""Outcomes whose latency tells what the settings do; a pruned run's value rests on fewer windows."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Settings in their place: the median score of their runs, and the range of all their windows."""

    rank: int
    settings: Settings
    trials: tuple[TrialRecord, ...]
    score: float
    low: float
    high: float

    @property
    def pruned(self) -> bool:
        """Whether no run of these settings was measured to its end."""
        return all(trial.measurement.outcome is Outcome.PRUNED for trial in self.trials)


def objective(record: StudyRecord) -> Objective:
    """Return what the study optimises."""
    return OBJECTIVES[record.definition.objective]


def score(record: StudyRecord, trial: TrialRecord | None) -> float | None:
    """Return a trial's score in the objective's unit; None where there is none."""
    return None if trial is None else objective(record).score(trial.measurement)


def with_unit(record: StudyRecord, value: float) -> str:
    """Return a score with its unit."""
    return f"{number(value)}{NBSP}{objective(record).unit}"


def default_of(record: StudyRecord) -> TrialRecord | None:
    """Return the default's trial: the verdict's, or else the first one that was run."""
    return record.verdict.default or record.default


def differing(record: StudyRecord, settings: Settings) -> Settings:
    """Return `settings` without what the study fixes in every run."""
    fixed = dict(record.space.fixed)
    return Settings(tuple(item for item in settings if item[0] not in fixed or fixed[item[0]] != item[1]))


def standings(record: StudyRecord) -> tuple[Standing, ...]:
    """Return all settings that have a score, the best first, runs of the same settings together."""
    scored = objective(record)
    groups: dict[Settings, list[tuple[TrialRecord, float]]] = {}
    for trial in record.runs:
        value = scored.score(trial.measurement) if trial.measurement.outcome in COUNTED else None
        if value is not None:
            groups.setdefault(trial.settings, []).append((trial, value))
    # Where a run was measured to its end, those that were cut short say nothing more.
    for settings, group in groups.items():
        whole = [pair for pair in group if pair[0].measurement.outcome is Outcome.MEASURED]
        groups[settings] = whole or group
    sign = 1 if scored.direction == "minimize" else -1
    middle = {settings: stats.median([value for _, value in group]) for settings, group in groups.items()}
    ordered = sorted(groups, key=lambda settings: (sign * middle[settings], len(settings)))
    return tuple(_standing(record, rank, groups[settings]) for rank, settings in enumerate(ordered, start=1))


def _standing(record: StudyRecord, rank: int, group: list[tuple[TrialRecord, float]]) -> Standing:
    score_of = objective(record).score
    values = [value for _, value in group]
    windows = (score_of(replace(t.measurement, latency_ns=w)) for t, _ in group for w in t.measurement.windows_ns)
    spread = [*values, *(value for value in windows if value is not None)]
    trials = tuple(trial for trial, _ in group)
    return Standing(rank, trials[0].settings, trials, stats.median(values), min(spread), max(spread))


def shortlist(record: StudyRecord, most: int = 10) -> tuple[Standing, ...]:
    """Return the `most` best standings, and the default's below them where it is not among them."""
    every = standings(record)
    default = default_of(record)
    late = (s for s in every[most:] if default is not None and s.settings == default.settings)
    return (*every[:most], *late)


def titles(record: StudyRecord, settings: Settings) -> tuple[str, ...]:
    """Return what else these settings are: `best`, `default`, `config.yaml`."""
    best, default = record.verdict.best, default_of(record)
    names = (
        ("best", best is not None and best.settings == settings),
        ("default", default is not None and default.settings == settings),
        ("config.yaml", any(t.origin is Origin.CONFIG and t.settings == settings for t in record.trials)),
    )
    return tuple(name for name, holds in names if holds)


def effects(record: StudyRecord) -> tuple[Effect, ...]:
    """Return what each choice of the space does to the score, from all runs inside the space that have one."""
    default = default_of(record)
    reference = {dimension.name: dimension.choices[0].label for dimension in record.space.dimensions}
    reference |= (default and params_of(record.space, default.settings)) or {}
    design: list[dict[str, Value]] = []
    values: list[float] = []
    for trial in record.runs:
        value = score(record, trial) if trial.measurement.outcome in COUNTED else None
        params = params_of(record.space, trial.settings)
        if value and params:
            design.append(params)
            values.append(value)
    order = [(dimension.name, choice.label) for dimension in record.space.dimensions for choice in dimension.choices]
    found = stats.main_effects(design, values, reference)
    return tuple(sorted(found, key=lambda effect: order.index((effect.knob, effect.choice))))
