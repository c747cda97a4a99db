"""The trials by their score: single measurements, which claim nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from rtmo_optuna import stats
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Block, Code, Column, Paragraph, Table, filled, numbers
from rtmo_optuna.show.render.chart import Axis, Chart, Role, Row, Rows
from rtmo_optuna.show.scores import decided_by, differing, label, objective, role_of, score, scored, titles, with_unit
from rtmo_optuna.show.sections import noise, trials
from rtmo_optuna.show.words import NBSP, change, number
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import StudyRecord, TrialRecord

LONGEST_LEAD = 48


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield the trials in order, then the best of them, and how steady they were."""
    found = table(record)
    if found is None:
        yield Paragraph("No run was measured to its end.")
        return
    told = decided_by(record)
    yield Paragraph(f"{told[0].upper()}{told[1:]}. The order of close neighbours is chance.")
    yield from filled(trials.chart(record), chart(record), found, noise.windows(record))


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


def standings(record: StudyRecord) -> tuple[Standing, ...]:
    """Return all settings that have a score, the best first, runs of the same settings together."""
    groups: dict[Settings, list[tuple[TrialRecord, float]]] = {}
    for trial, value in scored(record):
        groups.setdefault(trial.settings, []).append((trial, value))
    # Where a run was measured to its end, those that were cut short say nothing more.
    for settings, group in groups.items():
        whole = [pair for pair in group if pair[0].measurement.outcome is Outcome.MEASURED]
        groups[settings] = whole or group
    sign = 1 if objective(record).lower_is_better else -1
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
    default = record.default
    late = (s for s in every[most:] if default is not None and s.settings == default.settings)
    return (*every[:most], *late)


def chart(record: StudyRecord) -> Chart | None:
    """Return the ten best settings as bars of their score, with the range of their windows."""
    listed = shortlist(record)
    if not listed:
        return None
    default = score(record, record.default)
    goal = objective(record)
    first = listed[0]
    lead = str(differing(record, first.settings))
    named = f" ({lead})" if len(lead) <= LONGEST_LEAD else ""
    rows = tuple(_standing_row(record, standing, first, default) for standing in listed)
    spans = "; the thin line spans its windows, from lowest to highest" if any(row.high for row in rows) else ""
    reach = 1.12 * max(max(row.value, min(row.high or 0, 1.3 * row.value)) for row in rows)
    return Chart(
        name="ranking",
        title=f"First of the trials: {with_unit(record, first.score)}{named}",
        subtitle=f"Median {goal.name} of each settings, {decided_by(record)}{spans}",
        x=Axis(f"{goal.name}, {goal.unit}", low=0.0, high=reach),
        y=Axis(""),
        marks=(Rows(rows),),
        caption="The ten best single measurements, and the default where it is not one of them.",
    )


def _standing_row(record: StudyRecord, standing: Standing, first: Standing, default: float | None) -> Row:
    names = titles(record, standing.settings)
    role = role_of(record, standing.settings)
    role = Role.PRUNED if standing.pruned and role is Role.MEASURED else role
    shown = differing(record, standing.settings)
    extra = tuple(name for name in names if name != str(shown))
    against = "" if default is None or "default" in names else f" ({change(standing.score / default)})"
    tags = (*extra, *(("pruned",) if standing.pruned else ()))
    lead, *lines = label(record, standing.settings, first.settings, tags)
    spread = standing.high > standing.low
    interval = f", windows {number(standing.low)} to {with_unit(record, standing.high)}" if spread else ""
    return Row(
        label=(f"{standing.rank}.{NBSP}{lead}", *lines),
        value=standing.score,
        low=standing.low if spread else None,
        high=standing.high if spread else None,
        role=role,
        text=f"{with_unit(record, standing.score)}{against}",
        hover=f"{shown}\n{with_unit(record, standing.score)}{interval}",
    )


def table(record: StudyRecord) -> Table | None:
    """Return the ten best settings, and the default; None where nothing was measured. Empty columns are left out."""
    listed = shortlist(record)
    if not listed:
        return None
    goal, default = objective(record), score(record, record.default)
    latency = goal.name == "latency"
    columns = (
        Column("Rank", number=True),
        Column("Settings", wide=True),
        *numbers(f"{goal.name}, {goal.unit}", "FPS", "ms", "p90", "p99", "GPU memory", f"{goal.name} vs default"),
        Column("Note"),
    )
    rows = [
        (
            str(standing.rank),
            Code(str(differing(record, standing.settings))),
            "" if latency else number(standing.score),
            _middle(standing, OBJECTIVES["throughput"].score, number),
            _middle(standing, lambda m: m.latency_ms, number),
            _middle(standing, lambda m: m.quantile_ms("p90"), number),
            _middle(standing, lambda m: m.quantile_ms("p99"), number),
            _middle(standing, lambda m: m.gpu_memory_bytes, words.gib),
            "" if default is None else change(standing.score / default),
            ", ".join(_notes(record, standing)),
        )
        for standing in listed
    ]
    best = record.verdict.best
    marked = frozenset(i for i, standing in enumerate(listed) if best and standing.settings == best.settings)
    return Table(columns, tuple(rows), marked).without_empty()


def _middle(standing: Standing, read: Callable[[Measurement], float | None], write: Callable[[float], str]) -> str:
    value = stats.middle(read(trial.measurement) for trial in standing.trials)
    return "" if value is None else write(value)


def _notes(record: StudyRecord, standing: Standing) -> Iterator[str]:
    yield from titles(record, standing.settings)
    if standing.pruned:
        yield f"pruned after {words.count(len(standing.trials[0].measurement.windows_ns), 'window')}"
    if any(trial.measurement.second_ns for trial in standing.trials):
        yield "2 processes"
    if len(standing.trials) > 1:
        yield f"{len(standing.trials)} runs"
