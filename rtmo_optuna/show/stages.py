"""Where the time of a run went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna.show.marks import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rtmo_optuna.records import StageTimes, TrialRecord

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


def spent(trial: TrialRecord) -> dict[Role, float]:
    """Return the seconds that `trial` spent in each of STAGES; they add up to its wall time.

    The rest is what no stage claims: the process' end, the parent's own work, and whatever a killed child was at.
    """
    stages = trial.measurement.stages
    known = {role: (read(stages) or 0) / 1e9 for role, read in _TIMES.items()}
    total = trial.wall_s or (stages.total_ns or 0) / 1e9
    return known | {Role.REST: max(0.0, total - sum(known.values()))}
