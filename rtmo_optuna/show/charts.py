"""The table of charts, and the functions that turn a study into them; nothing here draws.

A chart is one row of CHARTS: its name, what makes it (None where the study holds too little), and a caption.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.records import Outcome, StudyRecord
from rtmo_optuna.show import words
from rtmo_optuna.show.history import history
from rtmo_optuna.show.layout import apart, spaced, ticks
from rtmo_optuna.show.marks import Axis, Chart, Label, Line, Part, Role, Row, Rows, Stack
from rtmo_optuna.show.scores import (
    default_of,
    differing,
    effects,
    objective,
    score,
    shortlist,
    titles,
    with_unit,
)
from rtmo_optuna.show.stages import STAGES, spent
from rtmo_optuna.show.words import NBSP, change, number

if TYPE_CHECKING:
    from rtmo_optuna.records import TrialRecord
    from rtmo_optuna.show.scores import Standing
    from rtmo_optuna.stats import Effect

MOST_EFFECTS = 20
LONGEST_LEAD = 48
TICKS = 8
FAR = 1.5


class Chapter(enum.Enum):
    """The part of the report that a chart belongs to."""

    RANKING = enum.auto()
    STEADINESS = enum.auto()
    KNOBS = enum.auto()
    TIME = enum.auto()


@dataclass(frozen=True, slots=True)
class Plot:
    """A row of the table of charts."""

    name: str
    draw: Callable[[StudyRecord], Chart | None]
    chapter: Chapter
    caption: str


def _standing_row(record: StudyRecord, standing: Standing, default: float | None) -> Row:
    names = titles(record, standing.settings)
    role = {"best": Role.BEST, "default": Role.DEFAULT, "config.yaml": Role.CONFIG}.get(
        names[0] if names else "", Role.PRUNED if standing.pruned else Role.MEASURED
    )
    shown = differing(record, standing.settings)
    extra = tuple(name for name in names if name != str(shown))
    lines = words.wrap(shown)
    against = "" if default is None or "default" in names else f" ({change(standing.score / default)})"
    tags = (*extra, *(("pruned",) if standing.pruned else ()))
    lines = (*lines[:-1], f"{lines[-1]}  [{', '.join(tags)}]") if tags else lines
    spread = standing.high > standing.low
    interval = f", windows {number(standing.low)} to {with_unit(record, standing.high)}" if spread else ""
    return Row(
        label=(f"{standing.rank}.{NBSP}{lines[0]}", *lines[1:]),
        value=standing.score,
        low=standing.low if spread else None,
        high=standing.high if spread else None,
        role=role,
        text=f"{with_unit(record, standing.score)}{against}",
        hover=f"{shown}\n{with_unit(record, standing.score)}{interval}",
    )


def ranking(record: StudyRecord) -> Chart | None:
    """Return the ten best settings as bars of their score, with the range of their windows."""
    listed = shortlist(record)
    if not listed:
        return None
    default = score(record, default_of(record))
    goal = objective(record)
    first = listed[0]
    is_default = "default" in titles(record, first.settings)
    gain = "" if default is None or is_default else f", {change(first.score / default)} against the default"
    lead = "The default" if is_default else str(differing(record, first.settings))
    rows = tuple(_standing_row(record, standing, default) for standing in listed)
    spans = "; the thin line spans its windows, from lowest to highest" if any(row.high for row in rows) else ""
    reach = 1.12 * max(max(row.value, min(row.high or 0, 1.3 * row.value)) for row in rows)
    return Chart(
        name="ranking",
        title=f"{lead if len(lead) <= LONGEST_LEAD else 'First place'}: {with_unit(record, first.score)}{gain}",
        subtitle=f"Median {goal.name} of each settings{spans}",
        x=Axis(f"{goal.name}, {goal.unit}", low=0.0, high=reach),
        y=Axis(""),
        marks=(Rows(rows),),
    )


def _effect_role(effect: Effect, *, lower_is_better: bool) -> Role:
    if not effect.proven or effect.ratio is None:
        return Role.MUTED
    return Role.FASTER if (effect.ratio < 1) == lower_is_better else Role.SLOWER


def _ratio_ticks(left: float, right: float) -> tuple[tuple[float, str], ...]:
    """Return ticks for ratios from exp(-left) to exp(right), as changes in per cent up to a factor of two."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        ratios = [*(round(1 + step * i, 2) for i in range(-9, 20)), 3.0, 5.0, 10.0, 20.0, 50.0]
        inside = [ratio for ratio in ratios if ratio > 0 and -left <= math.log(ratio) <= right]
        if all(math.log(high / low) > (left + right) / TICKS for low, high in pairwise(inside)):
            break
    return tuple((ratio, change(ratio).replace(".0", "")) for ratio in inside)


def knobs(record: StudyRecord) -> Chart | None:
    """Return each choice's effect on the score as a ratio to its knob's default, with 95 % intervals."""
    every = effects(record)
    known = [e for e in every if e.ratio is not None and e.low is not None and e.high is not None]
    if not known:
        return None
    sized = sorted(known, key=lambda e: abs(math.log(e.ratio or 1)), reverse=True)
    goal = objective(record)
    lower = goal.direction == "minimize"
    kept = sorted(sized[:MOST_EFFECTS], key=lambda e: e.ratio or 1, reverse=not lower)
    sizes = sorted(abs(math.log(e.ratio or 1)) for e in kept)
    ends = [abs(math.log(end)) for e in kept for end in (e.low, e.high) if end]
    cap = max(0.02, min(max(ends), max(math.log(1.6), 3 * stats.median(sizes)))) * 1.08
    left, right = (
        min(cap, max(1.08 * need, 0.3 * cap))
        for need in (max(-math.log(e.low or 1) for e in kept), max(math.log(e.high or 1) for e in kept))
    )
    rows = tuple(
        Row(
            label=(f"{words.shown(e.knob, e.choice)}",),
            value=e.ratio or 1,
            low=e.low,
            high=e.high,
            role=_effect_role(e, lower_is_better=lower),
            text=f"{change(e.ratio or 1)} ({_between(e)})",
            hover=f"{words.shown(e.knob, e.choice)} against {words.shown(e.knob, e.against)}\n"
            f"{change(e.ratio or 1)}, 95{NBSP}% interval {_between(e)}, {words.count(e.trials, 'run')}",
        )
        for e in kept
    )
    good = [e for e in kept if e.proven and ((e.ratio or 1) < 1) == lower]
    best = max(good, key=lambda e: abs(math.log(e.ratio or 1)), default=None)
    headline = f"{words.shown(best.knob, best.choice)} helps most: {change(best.ratio or 1)}" if best else ""
    hidden = (
        (len(every) - len(known), "not shown because the runs cannot tell their effects apart"),
        (len(known) - len(kept), "smaller effects not shown"),
    )
    notes = "".join(f"; {amount} {what}" for amount, what in hidden if amount)
    return Chart(
        name="knobs",
        title=headline or "No choice is proven better than its default",
        subtitle=f"Change of {goal.name} against the knob's default; grey where the 95{NBSP}% interval holds 0{notes}",
        x=Axis(f"change of {goal.name}", math.exp(-left), math.exp(right), log=True, ticks=_ratio_ticks(left, right)),
        y=Axis(""),
        marks=(Rows(rows, origin=1.0),),
    )


def _between(effect: Effect) -> str:
    return f"{change(effect.low or 1)} to {change(effect.high or 1)}"


def _runs_of(record: StudyRecord, trial: TrialRecord | None) -> list[TrialRecord]:
    if trial is None:
        return []
    same = [t for t in record.runs if t.settings == trial.settings and t.measurement.outcome is Outcome.MEASURED]
    return [t for t in same or [trial] if t.measurement.windows_ns]


def windows(record: StudyRecord) -> Chart | None:
    """Return each window's median latency, window by window, for every run of the default and of the best."""
    default, best = default_of(record), record.verdict.best
    groups = [("default", Role.DEFAULT, _runs_of(record, default))]
    if best is not None and (default is None or best.settings != default.settings):
        groups.append(("best", Role.BEST, _runs_of(record, best)))
    groups = [group for group in groups if group[2]]
    if not groups:
        return None
    lines: list[Line] = []
    labels: list[Label] = []
    spreads: list[str] = []
    last = max(len(t.measurement.windows_ns) for _, _, trials in groups for t in trials)
    every = [w / 1e6 for _, _, trials in groups for t in trials for w in t.measurement.windows_ns]
    far = FAR * max(
        stats.median([w / 1e6 for w in t.measurement.windows_ns]) for _, _, trials in groups for t in trials
    )
    beyond = sum(value > far for value in every)
    low, high = spaced(min(every), max(value for value in every if value <= far))
    for name, role, trials in groups:
        inside = []
        for trial in trials:
            values = tuple(w / 1e6 for w in trial.measurement.windows_ns)
            middle = stats.median(values)
            inside.append((max(values) - min(values)) / middle)
            lines.append(Line(name, tuple(range(1, len(values) + 1)), values, role, thin=len(trials) > 1, dotted=True))
        middle = stats.median([w / 1e6 for t in trials for w in t.measurement.windows_ns])
        several = f" ({len(trials)} runs)" if len(trials) > 1 else ""
        labels.append(Label(last, middle, f"{name} {number(middle)}{NBSP}ms{several}", role))
        spreads.append(f"{100 * stats.median(inside):.1f}{NBSP}% ({name})")
    return Chart(
        name="windows",
        title=f"Windows of one run lie within {words.listed(spreads)}",
        subtitle=f"Median latency of each window, in order; a run is one fresh process{_beyond(beyond)}",
        x=Axis("window", 0.6, last + 0.4, ticks=ticks(1, last, 9, least_step=1)),
        y=Axis("latency, ms", low, high, ticks=ticks(low, high)),
        marks=(*lines, *apart(labels, high - low)),
    )


def _beyond(windows: int) -> str:
    return f"; {words.count(windows, 'slow window')} beyond the top" if windows else ""


def time(record: StudyRecord) -> Chart | None:
    """Return where the wall time of the runs went, by stage, for runs of each outcome."""
    groups = {
        outcome: [t for t in record.runs if t.measurement.outcome is outcome and sum(spent(t).values()) > 0]
        for outcome in Outcome
    }
    filled = {outcome: trials for outcome, trials in groups.items() if trials}
    if not filled:
        return None
    totals = [sum(sum(spent(t).values()) for t in trials) for trials in filled.values()]
    parts = tuple(
        Part(stage.value, tuple(sum(spent(t)[stage] for t in trials) for trials in filled.values()), stage)
        for stage in STAGES
    )
    timed = next(sum(part.values) for part in parts if part.role is Role.WINDOWS)
    return Chart(
        name="time",
        title=f"Of {words.seconds(sum(totals))}, {words.share(timed, sum(totals))} went into timed windows",
        subtitle="Wall time of all runs by what the child process was doing, and by how the runs ended",
        x=Axis("wall time, s", low=0.0, high=1.13 * max(totals)),
        y=Axis(""),
        marks=(
            Stack(
                labels=tuple(f"{outcome.value}\n{words.count(len(t), 'run')}" for outcome, t in filled.items()),
                parts=tuple(part for part in parts if sum(part.values)),
                totals=tuple(words.seconds(total) for total in totals),
            ),
        ),
    )


CHARTS = (
    Plot(
        "history",
        history,
        Chapter.RANKING,
        "Each run in the order it was made, and the best so far; failed runs are marked along the top edge.",
    ),
    Plot("ranking", ranking, Chapter.RANKING, "The ten best settings, and the default where it is not one of them."),
    Plot(
        "windows",
        windows,
        Chapter.STEADINESS,
        "How steady the measurement was: the windows of the default and of the best settings.",
    ),
    Plot(
        "knobs",
        knobs,
        Chapter.KNOBS,
        "What each choice does, all else equal; one in twenty such intervals misses, and interactions are averaged.",
    ),
    Plot("time", time, Chapter.TIME, "Where the time of the study went."),
)


def charts(record: StudyRecord) -> tuple[Chart, ...]:
    """Return every chart that the study holds enough for, in the table's order."""
    return tuple(chart for plot in CHARTS if (chart := plot.draw(record)))
