"""Where the time of a trial went, and that of the study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.show.marks import Role
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rtmo_optuna.types.measurement import StageTimes
    from rtmo_optuna.types.study import StudyRecord, TrialRecord

_TIMES: Mapping[Role, Callable[[StageTimes], int | None]] = {
    Role.START: lambda times: times.start_ns,
    Role.IMPORTS: lambda times: times.import_ns,
    Role.PRELOAD: lambda times: times.preload_ns,
    Role.BUILD: lambda times: times.build_ns,
    Role.FIRST_RUN: lambda times: times.first_run_ns,
    Role.WARMUP: lambda times: times.warmup_ns,
    Role.WINDOWS: lambda times: times.windows_ns,
}

STAGES = (*_TIMES, Role.REST)
TRIALS = "trials"
AFTER = (Purpose.RACE, Purpose.PLAIN, Purpose.CONFIRMATION)
BEFORE = tuple(purpose for purpose in Purpose if purpose not in AFTER)
"""What processes beside the trials are for, that run before or among them and after them."""


@dataclass(frozen=True, slots=True)
class StudyStage:
    """A stage of the study: how many processes ran in it, and their wall time."""

    name: str
    processes: int
    wall_s: float


def spent(trial: TrialRecord) -> dict[Role, float]:
    """Return the seconds that `trial` spent in each of STAGES; they add up to its wall time.

    The rest is what no stage claims: the process' end, the parent's own work, and whatever a killed child was at.
    """
    stages = trial.measurement.stages
    known = {role: (read(stages) or 0) / 1e9 for role, read in _TIMES.items()}
    total = trial.wall_s or (stages.total_ns or 0) / 1e9
    return known | {Role.REST: max(0.0, total - sum(known.values()))}


def study_stages(record: StudyRecord) -> tuple[StudyStage, ...]:
    """Return the stages of the study that took time, in order: baseline, screening, trials, race, confirmation."""
    walls_s = {
        purpose.value: [process.wall_s for process in record.processes if process.purpose is purpose]
        for purpose in Purpose
    }
    walls_s[TRIALS] = [sum(spent(trial).values()) for trial in record.runs]
    order = (*(purpose.value for purpose in BEFORE), TRIALS, *(purpose.value for purpose in AFTER))
    return tuple(StudyStage(name, len(walls_s[name]), sum(walls_s[name])) for name in order if sum(walls_s[name]))


def saved_by_pruning(record: StudyRecord) -> float | None:
    """Return the seconds that pruning saved, None where nothing was pruned or nothing ran to its end.

    An estimate: a pruned trial would have spent as long on its windows as the median trial that ran to its end.
    """
    windows_s: dict[Outcome, list[float]] = {Outcome.PRUNED: [], Outcome.MEASURED: []}
    for trial in record.runs:
        if trial.measurement.outcome in windows_s and trial.measurement.stages.windows_ns:
            windows_s[trial.measurement.outcome].append(trial.measurement.stages.windows_ns / 1e9)
    if not all(windows_s.values()):
        return None
    whole = stats.median(windows_s[Outcome.MEASURED])
    return sum(max(0.0, whole - spent_s) for spent_s in windows_s[Outcome.PRUNED])
