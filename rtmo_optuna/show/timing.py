"""The chart of where the time of a study went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna.show import words
from rtmo_optuna.show.marks import Axis, Chart, Part, Role, Stack
from rtmo_optuna.show.stages import BEFORE, STAGES, TRIALS, spent, study_stages
from rtmo_optuna.types.measurement import Outcome

if TYPE_CHECKING:
    from rtmo_optuna.types.study import StudyRecord, TrialRecord


def time(record: StudyRecord) -> Chart | None:
    """Return where the wall time went: of trials by stage and outcome, of the processes beside them as a whole."""
    whole = {
        stage.name: (
            f"{stage.name}\n{words.count(stage.processes, 'process', 'processes')}",
            {Role.WHOLE: stage.wall_s},
        )
        for stage in study_stages(record)
        if stage.name != TRIALS
    }
    trials = [
        (f"{outcome.value}\n{words.count(len(group), 'trial')}", _spent(group)) for outcome, group in _ended(record)
    ]
    before = [bar for name, bar in whole.items() if name in BEFORE]
    bars = dict([*before, *trials, *(bar for name, bar in whole.items() if name not in BEFORE)])
    if not bars:
        return None
    totals = [sum(parts.values()) for parts in bars.values()]
    named = [Part(role.value, tuple(parts.get(role, 0.0) for parts in bars.values()), role) for role in _ROLES]
    timed = sum(parts.get(Role.WINDOWS, 0.0) for parts in bars.values())
    beside = sum(parts[Role.WHOLE] for _, parts in whole.values())
    what = (
        f"{words.share(beside, sum(totals))} went into the processes beside the trials"
        if beside
        else (f"{words.share(timed, sum(totals))} went into timed windows")
    )
    return Chart(
        name="time",
        title=f"Of {words.seconds(sum(totals))}, {what}",
        subtitle="Wall time by what the process was doing: trials by how they ended"
        f"{', and the processes beside them' if beside else ''}",
        x=Axis("wall time, s", low=0.0, high=1.13 * max(totals)),
        y=Axis(""),
        marks=(
            Stack(
                labels=tuple(bars),
                parts=tuple(part for part in named if sum(part.values)),
                totals=tuple(words.seconds(total) for total in totals),
            ),
        ),
    )


_ROLES = (*STAGES, Role.WHOLE)


def _ended(record: StudyRecord) -> list[tuple[Outcome, list[TrialRecord]]]:
    groups = [
        (o, [t for t in record.runs if t.measurement.outcome is o and sum(spent(t).values()) > 0]) for o in Outcome
    ]
    return [(outcome, trials) for outcome, trials in groups if trials]


def _spent(trials: list[TrialRecord]) -> dict[Role, float]:
    return {stage: sum(spent(trial)[stage] for trial in trials) for stage in STAGES}
