"""The table of charts, and the functions that turn a study into them; nothing here draws.

A chart is one row of CHARTS: its name, what makes it (None where the study holds too little), and a caption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.records import Outcome
from rtmo_optuna.show import words
from rtmo_optuna.show.history import history
from rtmo_optuna.show.layout import apart, spaced
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
from rtmo_optuna.show.words import NBSP, TIMES, change, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtmo_optuna.records import StudyRecord, TrialRecord
    from rtmo_optuna.show.scores import Standing
    from rtmo_optuna.stats import Effect

MOST_EFFECTS = 20


@dataclass(frozen=True, slots=True)
class Plot:
    """A row of the table of charts."""

    name: str
    draw: Callable[[StudyRecord], Chart | None]
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
    interval = f"{number(standing.low)} to {with_unit(record, standing.high)}"
    return Row(
        label=(f"{standing.rank}.{NBSP}{lines[0]}", *lines[1:]),
        value=standing.score,
        low=standing.low,
        high=standing.high,
        role=role,
        text=f"{with_unit(record, standing.score)}{against}",
        hover=f"{shown}\n{with_unit(record, standing.score)}, windows {interval}",
    )


def ranking(record: StudyRecord) -> Chart | None:
    """Return the ten best settings as bars of their score, with the range of their windows."""
    listed = shortlist(record)
    if not listed:
        return None
    default = score(record, default_of(record))
    goal = objective(record)
    first = listed[0]
    gain = "" if default is None else f", {change(first.score / default)} against the default"
    is_default = "default" in titles(record, first.settings)
    lead = "The default comes first" if is_default else "First place"
    rows = tuple(_standing_row(record, standing, default) for standing in listed)
    reach = 1.12 * max(max(row.value for row in rows), *(min(row.high or 0, 1.3 * row.value) for row in rows))
    return Chart(
        name="ranking",
        title=f"{lead}: {with_unit(record, first.score)}{'' if is_default else gain}",
        subtitle=f"Median {goal.name} of each settings; the thin line spans its windows, from lowest to highest",
        x=Axis(f"{goal.name}, {goal.unit}", low=0.0, high=reach),
        y=Axis(""),
        marks=(Rows(rows),),
    )


def _effect_role(effect: Effect, *, lower_is_better: bool) -> Role:
    if not effect.proven or effect.ratio is None:
        return Role.MUTED
    return Role.FASTER if (effect.ratio < 1) == lower_is_better else Role.SLOWER


def _ratio_ticks(cap: float) -> tuple[tuple[float, str], ...]:
    """Return ticks for ratios from exp(-cap) to exp(cap), as changes in per cent up to a factor of two."""
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.25) if cap / s <= 5), 0.5)  # noqa: PLR2004 - ticks a side
    amounts = [round(step * i, 2) for i in range(-20, 21)]
    ticks = [(1 + a, f"{a:+.0%}".replace("-", words.MINUS).replace("%", f"{NBSP}%") if a else "0") for a in amounts]
    ticks += [(factor, f"{factor}{TIMES}") for factor in (3, 5, 10, 20)]
    inside = [(at, text) for at, text in ticks if at > 0 and abs(math.log(at)) <= cap]
    kept: list[tuple[float, str]] = []
    for at, text in inside:
        if not kept or math.log(at / kept[-1][0]) > cap / 6:
            kept.append((at, text))
    return tuple(kept) if any(at == 1 for at, _ in kept) else ((1.0, "0"),)


def knobs(record: StudyRecord) -> Chart | None:
    """Return each choice's effect on the score as a ratio to its knob's default, with 95 % intervals."""
    every = effects(record)
    known = [e for e in every if e.ratio is not None and e.low is not None and e.high is not None]
    if not known:
        return None
    sized = sorted(known, key=lambda e: abs(math.log(e.ratio or 1)), reverse=True)
    kept = sorted(sized[:MOST_EFFECTS], key=lambda e: e.ratio or 1)
    goal = objective(record)
    lower = goal.direction == "minimize"
    sizes = sorted(abs(math.log(e.ratio or 1)) for e in kept)
    ends = [abs(math.log(end)) for e in kept for end in (e.low, e.high) if end]
    cap = min(max(ends), max(math.log(1.6), 3 * stats.median(sizes)))
    cap = max(cap, 0.02) * 1.08
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
        x=Axis(f"change of {goal.name}", math.exp(-cap), math.exp(cap), log=True, ticks=_ratio_ticks(cap)),
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
    low, high = spaced(min(every), max(every))
    for name, role, trials in groups:
        inside = []
        for trial in trials:
            values = tuple(w / 1e6 for w in trial.measurement.windows_ns)
            middle = stats.median(values)
            inside.append((max(values) - min(values)) / middle)
            lines.append(Line(name, tuple(range(1, len(values) + 1)), values, role, thin=len(trials) > 2, dotted=True))
        middle = stats.median([w / 1e6 for t in trials for w in t.measurement.windows_ns])
        several = f" ({len(trials)} runs)" if len(trials) > 1 else ""
        labels.append(Label(last, middle, f"{name} {number(middle)}{NBSP}ms{several}", role))
        spreads.append(f"{100 * stats.median(inside):.1f}{NBSP}% in {name}")
    return Chart(
        name="windows",
        title=f"Windows of one run lie within {words.listed(spreads)}",
        subtitle="Median latency of each window, in order; a run is one fresh process",
        x=Axis("window", 0.6, last + 0.4, whole=True),
        y=Axis("latency, ms", low, high),
        marks=(*lines, *apart(labels, high - low)),
    )


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
        "Each run in the order it was made, and the best so far; failed runs are marked along the top edge.",
    ),
    Plot("ranking", ranking, "The ten best settings, and the default where it is not one of them."),
    Plot(
        "knobs",
        knobs,
        "What each choice does, all else equal; one in twenty such intervals misses, and interactions are averaged.",
    ),
    Plot("windows", windows, "How steady the measurement was: the windows of the default and of the best settings."),
    Plot("time", time, "Where the time of the study went."),
)


def charts(record: StudyRecord) -> tuple[Chart, ...]:
    """Return every chart that the study holds enough for, in the table's order."""
    return tuple(chart for plot in CHARTS if (chart := plot.draw(record)))
