"""The trials of a study by the study's objective: who stands where, in which unit, against what."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rtmo_optuna import stats
from rtmo_optuna.show import words
from rtmo_optuna.show.render.chart import Role
from rtmo_optuna.show.words import NBSP, number
from rtmo_optuna.space.objectives import OBJECTIVES, Objective
from rtmo_optuna.types.findings import ProcessRecord, Purpose, Status
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin, StudyRecord, TrialRecord

_COUNTED = (Outcome.MEASURED, Outcome.PRUNED)
"""Outcomes whose latency tells what the settings do; a pruned run's value rests on fewer windows."""

_SOURCES = (
    ("", (Purpose.CONFIRMATION,)),
    (" (race)", (Purpose.RACE, Purpose.BASELINE, Purpose.PINNED)),
)
_ALONE = " (baseline)"
"""What is said beside the race's source where none of its processes was in the race itself."""
_ROLES = {"exported": Role.BEST, "best measured": Role.BEST, "default": Role.DEFAULT, "config.yaml": Role.CONFIG}


def objective(record: StudyRecord) -> Objective:
    """Return what the study optimises."""
    return OBJECTIVES[record.definition.objective]


def axis_name(record: StudyRecord) -> str:
    """Return what a process's cost is, with its unit."""
    goal = objective(record)
    return f"{goal.name}, {goal.unit}" if goal.lower_is_better else "time for an item, ms"


def score(record: StudyRecord, trial: TrialRecord | None) -> float | None:
    """Return a trial's score in the objective's unit; None where there is none."""
    return None if trial is None else objective(record).score(trial.measurement)


def scored(record: StudyRecord) -> list[tuple[TrialRecord, float]]:
    """Return the runs that tell what their settings do, in order, each with its score."""
    told = ((trial, score(record, trial)) for trial in record.runs if trial.measurement.outcome in _COUNTED)
    return [(trial, value) for trial, value in told if value is not None]


def with_unit(record: StudyRecord, value: float) -> str:
    """Return a score with its unit."""
    return f"{number(value)}{NBSP}{objective(record).unit}"


def differing(record: StudyRecord, settings: Settings) -> Settings:
    """Return `settings` without what the study fixes in every run."""
    fixed = dict(record.space.fixed)
    return Settings(tuple(item for item in settings if item[0] not in fixed or fixed[item[0]] != item[1]))


def best_title(record: StudyRecord) -> str:
    """Return what the verdict's best is: what is exported or, before race and confirmation, only the best measured."""
    return "best measured" if record.verdict.status is Status.MEASURED else "exported"


def titles(record: StudyRecord, settings: Settings) -> tuple[str, ...]:
    """Return what else these settings are: `exported` or `best measured`, `race winner`, `default`, `config.yaml`."""
    best, default = record.verdict.best, record.default
    names = (
        (best_title(record), best is not None and best.settings == settings),
        ("race winner", record.finals.winner == settings),
        ("default", default is not None and default.settings == settings),
        ("config.yaml", any(t.origin is Origin.CONFIG and t.settings == settings for t in record.trials)),
    )
    return tuple(name for name, holds in names if holds)


def label(record: StudyRecord, settings: Settings, first: Settings, tags: Iterable[str]) -> tuple[str, ...]:
    """Return the lines of a chart's row: `settings` beside those of the `first` row, and what else they are."""
    *lines, last = words.wrap(words.beside(differing(record, settings), differing(record, first)))
    told = ", ".join(tags)
    return (*lines, f"{last}  [{told}]" if told else last)


def role_of(record: StudyRecord, settings: Settings) -> Role:
    """Return the role in which a chart shows `settings`."""
    return next((_ROLES[name] for name in titles(record, settings) if name in _ROLES), Role.MEASURED)


def decided_by(record: StudyRecord) -> str:
    """Return what is to be said beside figures of single trials."""
    raced = record.finals.racers
    return "single measurements; the race decided" if raced else "single measurements, which prove nothing"


@dataclass(frozen=True, slots=True)
class Typical:
    """The typical score and latency of settings, and the range of its processes' latencies.

    `source` is what is to be said beside them: what they are from, unless it is the confirmation.
    """

    score: float
    latency_ms: float | None
    source: str
    range_ms: tuple[float, float] | None = None


def typical(record: StudyRecord, trials: Sequence[TrialRecord]) -> tuple[Typical | None, ...]:
    """Return what is typical of the settings of `trials`, all from the best source that knows each of them.

    That is the confirmation's processes, else the race's with the baseline's, else the trials; where it is their turn,
    a trial without a score has None.
    """
    for source, purposes in _SOURCES:
        ran = [process for process in record.comparable if process.purpose in purposes and process.cost]
        groups = [[process for process in ran if process.settings == trial.settings] for trial in trials]
        if all(groups):
            met = any(process.purpose is purposes[0] for group in groups for process in group)
            return tuple(_typical(record, group, source if met else _ALONE) for group in groups)
    values = [(score(record, trial), trial.measurement.latency_ms) for trial in trials]
    return tuple(None if value is None else Typical(value, ms, " (one trial)") for value, ms in values)


def _typical(record: StudyRecord, processes: Sequence[ProcessRecord], source: str) -> Typical:
    score = objective(record).turned(stats.median([p.cost for p in processes if p.cost]))
    known = [p.latency_ms for p in processes if p.latency_ms]
    return Typical(score, stats.middle(known), source, (min(known), max(known)) if known else None)


def exported(record: StudyRecord) -> Typical | None:
    """Return what is typical of the verdict's best, by the processes that its figures are from in every place.

    They are of the best source that knows the default too; None where there is no best.
    """
    best, default = record.verdict.best, record.default
    if best is None:
        return None
    beside = [default] if default is not None and default.settings != best.settings else []
    return typical(record, [best, *beside])[0]
