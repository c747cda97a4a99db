"""The trials in order: each one's score, what failed, and what ran otherwise than asked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from rtmo_optuna import stats
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Code, Column, Inline, Table, numbers
from rtmo_optuna.show.render.chart import Axis, Chart, Label, Line, Points, Role, Shape
from rtmo_optuna.show.render.layout import apart, ticks
from rtmo_optuna.show.scores import decided_by, differing, objective, score, scored, with_unit
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import StudyRecord, TrialRecord

T = TypeVar("T")
FAR = 2.0
"""A score beyond this many times the median or the default is drawn at the edge, so that it squashes nothing."""

MOST_TEXTS = 24
"""Values written at the edge stand at least this fraction of the axis apart."""

_LOOKS: Mapping[Outcome, tuple[Role, Shape]] = {
    Outcome.MEASURED: (Role.MEASURED, Shape.DISC),
    Outcome.PRUNED: (Role.PRUNED, Shape.RING),
}


@dataclass(frozen=True, slots=True)
class _Heights:
    """The y axis: values up to `cap`, then a strip for those beyond it, then one for runs without a value."""

    low: float
    cap: float
    far: float
    lost: float
    high: float


def chart(record: StudyRecord) -> Chart | None:
    """Return each run's score in order, the best so far, and the default; None where no run has a score."""
    every = scored(record)
    if not every:
        return None
    held = {trial.number for trial, _ in every}
    lost = [trial for trial in record.runs if trial.number not in held]
    default = score(record, record.default)
    heights = _heights([value for _, value in every], default, lost=bool(lost))
    beyond = any(value > heights.cap for _, value in every)
    last = max(trial.run for trial in record.runs)

    left, right = 0.4 - 0.008 * last, last + 0.6 + 0.008 * last
    lines, labels = [], []
    if default is not None:
        lines.append(Line("default", (left, right), (default, default), Role.DEFAULT, dashed=True, thin=True))
        labels.append(Label(default, f"default {with_unit(record, default)}", Role.DEFAULT))
    best = _best_so_far(record, every, right)
    if best:
        lines.append(best)
        labels.append(Label(best.y[-1], f"best {with_unit(record, best.y[-1])}", Role.BEST))
    return Chart(
        name="history",
        title=_title(record, best, default),
        subtitle=_subtitle(record),
        x=Axis("trial, in order", left, right, ticks=ticks(1, last, 9, least_step=1)),
        y=Axis(
            f"{objective(record).name}, {objective(record).unit}",
            heights.low,
            heights.high,
            ticks=(
                *ticks(heights.low, heights.cap if beyond or lost else heights.high),
                *([(heights.far, f"over {words.number(heights.cap)}")] if beyond else ()),
                *([(heights.lost, "failed")] if lost else ()),
            ),
        ),
        marks=(
            *lines,
            *_points(record, every, heights, last),
            *_lost(record, lost, heights.lost),
            *apart(labels, heights.high - heights.low),
        ),
        caption="Each trial in the order it was run, and the best so far; failed ones are marked along the top edge.",
    )


def _heights(values: Sequence[float], default: float | None, *, lost: bool) -> _Heights:
    every = [*values, *([] if default is None else [default])]
    limit = FAR * max(stats.median(values), default or 0)
    cap = max(value for value in every if value <= limit)
    low = min(every)
    span = (cap - low) or 0.1 * abs(cap) or 1.0
    far = cap + 0.12 * span
    top = far + 0.06 * span if max(values) > cap else cap
    lost_at = top + 0.11 * span
    high = (lost_at if lost else top) + 0.09 * span
    return _Heights(low - 0.09 * span, cap, far, lost_at, high)


def _best_so_far(record: StudyRecord, scored: Sequence[tuple[TrialRecord, float]], last: float) -> Line | None:
    measured = [(t.run, value) for t, value in scored if t.measurement.outcome is Outcome.MEASURED]
    if not measured:
        return None
    better = min if objective(record).lower_is_better else max
    steps = list(accumulate((value for _, value in measured), better))
    return Line("best so far", (*(run for run, _ in measured), last), (*steps, steps[-1]), Role.BEST, stepped=True)


def _hover(record: StudyRecord, trial: TrialRecord, value: float | None) -> str:
    measurement = trial.measurement
    stage = f" in {measurement.stage.value}" if measurement.stage and measurement.outcome is Outcome.FAILED else ""
    head = f"trial {trial.run}: {measurement.outcome.value}{stage}"
    lines = (head, "" if value is None else with_unit(record, value), measurement.reason)
    settings = words.wrap(words.one_by_one(differing(record, trial.settings)), 60, 8)
    return "\n".join((*(line for line in lines if line), *settings))


def _points(
    record: StudyRecord, scored: Sequence[tuple[TrialRecord, float]], heights: _Heights, last: int
) -> Iterator[Points]:
    """Yield the runs that have a score, then those of them that lie beyond the cap, as arrows with their values."""
    explained: set[Outcome] = set()
    for beyond in (False, True):
        for outcome, (role, shape) in _LOOKS.items():
            group = [(t, v) for t, v in scored if t.measurement.outcome is outcome and (v > heights.cap) is beyond]
            if not group:
                continue
            ys = tuple(heights.far if beyond else value for _, value in group)
            yield Points(
                outcome.value,
                tuple(trial.run for trial, _ in group),
                ys,
                role,
                Shape.ARROW if beyond else shape,
                tuple(_hover(record, trial, value) for trial, value in group),
                _texts(group, last) if beyond else (),
                legend=outcome not in explained,
            )
            explained.add(outcome)


def _texts(group: Sequence[tuple[TrialRecord, float]], last: int) -> tuple[str, ...]:
    """Return the value of each run, nothing where it would stand too near to the one before it."""
    texts: list[str] = []
    written = -last
    for trial, value in group:
        free = trial.run - written >= last / MOST_TEXTS
        written = trial.run if free else written
        texts.append(words.number(value) if free else "")
    return tuple(texts)


def _lost(record: StudyRecord, lost: Sequence[TrialRecord], height: float) -> list[Points]:
    if not lost:
        return []
    xs, ys = tuple(t.run for t in lost), (height,) * len(lost)
    hover = tuple(_hover(record, t, None) for t in lost)
    return [Points("failed", xs, ys, Role.FAILED, Shape.CROSS, hover, legend=False)]


def _title(record: StudyRecord, best: Line | None, default: float | None) -> str:
    if best is None:
        return "No trial gave a result that counts"
    beaten = default is not None and best.y[-1] != default
    beside = f", the default's is {with_unit(record, default)}" if beaten and default is not None else ""
    return f"Best trial {with_unit(record, best.y[-1])}{beside}"


def _subtitle(record: StudyRecord) -> str:
    outcomes = [trial.measurement.outcome for trial in record.runs]
    tally = [f"{outcomes.count(o)} {o.value}" for o in Outcome if o in outcomes]
    return f"{words.count(len(outcomes), 'trial')}: {words.listed(tally)}; {decided_by(record)}"


MOST_SETTINGS = 3


def notes(record: StudyRecord) -> Table | None:
    """Return what did not run as the settings asked, the most frequent first; None where all did."""
    found = _grouped((note, trial) for trial in record.runs for note in trial.measurement.notes)
    rows = tuple((str(len(trials)), words.sentence(note), _settings(record, trials)) for note, trials in found)
    columns = (*numbers("Runs"), Column("What", wide=True), Column("Settings", wide=True))
    return Table(columns, rows) if rows else None


def failures(record: StudyRecord) -> Table | None:
    """Return the failed runs by stage and reason, the most frequent first; None where none failed."""
    failed = ((trial.measurement, trial) for trial in record.runs if trial.measurement.outcome is Outcome.FAILED)
    found = _grouped(((told.stage.value if told.stage else "", told.reason), trial) for told, trial in failed)
    rows = tuple(
        (
            str(len(trials)),
            stage,
            words.sentence(reason) or "no reason known",
            _common(record, trials),
            _settings(record, trials),
        )
        for (stage, reason), trials in found
    )
    why, where = Column("Reason", wide=True), Column("Settings", wide=True)
    columns = (*numbers("Runs"), Column("Stage"), why, Column("In common"), where)
    return Table(columns, rows).without_empty() if rows else None


def _grouped(told: Iterable[tuple[T, TrialRecord]]) -> list[tuple[T, list[TrialRecord]]]:
    """Return the trials by what is told of them, the most frequent first."""
    groups: dict[T, list[TrialRecord]] = {}
    for what, trial in told:
        groups.setdefault(what, []).append(trial)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _common(record: StudyRecord, trials: list[TrialRecord]) -> Inline:
    """Return what all of several failed settings share."""
    first, *others = (differing(record, trial.settings) for trial in trials)
    shared = Settings(tuple(item for item in first if all(item in set(other) for other in others)))
    return Code(str(shared)) if others and len(shared) else ""


def _settings(record: StudyRecord, trials: list[TrialRecord]) -> tuple[str | Code, ...]:
    shown = [Code(str(differing(record, trial.settings))) for trial in trials[:MOST_SETTINGS]]
    parts = [part for code in shown for part in (code, "; ")][:-1]
    return (*parts, f" and {len(trials) - len(shown)} more") if len(trials) > len(shown) else tuple(parts)
