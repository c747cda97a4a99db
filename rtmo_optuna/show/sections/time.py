"""Where the time went: of the study by its stages, of a trial by what its process was doing."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rtmo_optuna import stats
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Block, Column, Paragraph, Table, filled, numbers
from rtmo_optuna.show.render.chart import Axis, Chart, Part, Role, Stack
from rtmo_optuna.show.scores import objective
from rtmo_optuna.show.sections.noise import findable
from rtmo_optuna.space.resolve import params_of
from rtmo_optuna.types.findings import LEAST_GAIN, Purpose
from rtmo_optuna.types.measurement import Outcome, StageTimes
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

_MORE_S, _SEARCH_SHARE = 600.0, 0.6
"""Ten minutes, and the share of them that a search has."""
STAGES = (*_TIMES, Role.REST)

TRIALS = "trials"

AFTER = (Purpose.PRECISION, Purpose.RACE, Purpose.PLAIN, Purpose.CONFIRMATION)

BEFORE = tuple(purpose for purpose in Purpose if purpose not in AFTER)
"""What processes beside the trials are for, that run before or among them and after them."""
_ROLES = (*STAGES, Role.WHOLE)


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield the chart, the tables, what pruning saved, and what more time could bring."""
    yield from filled(chart(record), study_times(record), times(record))
    if saved := saved_by_pruning(record):
        count = sum(trial.measurement.outcome is Outcome.PRUNED for trial in record.runs)
        yield Paragraph(
            f"Pruning saved about {words.seconds(saved)}: {words.count(count, 'trial')} ended after a few windows, and "
            "would have taken as many as the others."
        )
    if more := ten_minutes(record):
        yield Paragraph(more)


def ten_minutes(record: StudyRecord) -> str:
    """Return what ten minutes more could bring, by what is known, which promises nothing; empty before any trial."""
    walls_s = [trial.wall_s for trial in record.runs if trial.wall_s]
    if not walls_s:
        return ""
    room, left = int(_MORE_S * _SEARCH_SHARE / stats.median(walls_s)), untried(record)
    gain = findable(record)
    proof = f" On this host a gain under {words.percent(gain)} would mostly stay unproven." if gain else ""
    if not left:
        return f"Ten minutes more would find nothing new to try: they would buy pairs for the confirmation only.{proof}"
    since = since_gain(record)
    best = f"the best is {words.count(since, 'trial')} old" if since else "the latest trial was the best"
    trials = f"{words.count(min(room, left), 'trial')} of the {left:,} settings that are left"
    return f"Ten minutes more would hold about {trials}, and {best}.{proof} What they would find nobody knows."


def untried(record: StudyRecord) -> int:
    """Return how many settings of the space are left to try, what was found to do nothing at its default."""
    space = record.space
    default = params_of(space, space.fixed) or {}
    inert = {one.name for one in record.screening.inert} if record.screening else set()
    live = math.prod(len(one.choices) for one in space.dimensions if one.name not in inert)
    every = (params_of(space, settings) for settings in {trial.settings for trial in record.runs})
    tried = [params for params in every if params and all(params[name] == default.get(name) for name in inert)]
    return max(0, live - len(tried))


def since_gain(record: StudyRecord) -> int:
    """Return how many trials ran since the last one that was better by LEAST_GAIN than all before it."""
    goal, best, last = objective(record), math.inf, 0
    for trial in record.runs:
        cost = goal.cost(trial.measurement) if trial.measurement.outcome is Outcome.MEASURED else None
        if cost is not None and cost < best * (1 - LEAST_GAIN):
            best, last = cost, trial.run
    return max((trial.run for trial in record.runs), default=0) - last


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


def chart(record: StudyRecord) -> Chart | None:
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
        (
            f"{outcome.value}\n{words.count(len(group), 'trial')}",
            {stage: sum(one[stage] for one in group) for stage in STAGES},
        )
        for outcome, group in _ended(record)
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
        caption="Where the time of the study went.",
    )


def _ended(record: StudyRecord) -> list[tuple[Outcome, list[dict[Role, float]]]]:
    """Return what trials spent by how they ended, those that took any time."""
    told = [(trial.measurement.outcome, spent(trial)) for trial in record.runs]
    groups = [(o, [each for outcome, each in told if outcome is o and sum(each.values()) > 0]) for o in Outcome]
    return [group for group in groups if group[1]]


def study_times(record: StudyRecord) -> Table | None:
    """Return the wall time of the study's stages; None where nothing ran beside the trials."""
    stages = study_stages(record)
    total = sum(stage.wall_s for stage in stages)
    if all(stage.name == TRIALS for stage in stages):
        return None
    rows = tuple(
        (
            stage.name,
            str(stage.processes),
            words.seconds(stage.wall_s),
            words.share(stage.wall_s, total),
            words.seconds(stage.wall_s / stage.processes),
        )
        for stage in stages
    )
    columns = (Column("Stage of the study"), *numbers("Runs", "In all", "Share", "Mean of a run"))
    return Table(columns, rows)


def times(record: StudyRecord) -> Table | None:
    """Return the wall time of all trials by stage; None where none took any."""
    each = [spent(trial) for trial in record.runs]
    total = sum(sum(one.values()) for one in each)
    if not total:
        return None
    rows = tuple(
        (stage.value, words.seconds(whole), words.share(whole, total), words.seconds(stats.median(some)))
        for stage in STAGES
        if (some := [one[stage] for one in each if one[stage]]) and (whole := sum(some))
    )
    columns = (Column("Stage of a trial"), *numbers("In all", "Share", "Median of a trial"))
    return Table(columns, rows)
