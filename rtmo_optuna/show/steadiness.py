"""Charts of how steady the measurement was: windows of a run, and fresh processes of the default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.show import evidence, words
from rtmo_optuna.show.layout import apart, spaced, ticks
from rtmo_optuna.show.marks import Axis, Chart, Label, Line, Points, Role, Spans
from rtmo_optuna.show.scores import best_title, default_of
from rtmo_optuna.show.words import NBSP, number
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome

if TYPE_CHECKING:
    from rtmo_optuna.types.study import StudyRecord, TrialRecord

FAR = 1.5


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
        groups.append((best_title(record), Role.BEST, _runs_of(record, best)))
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
        title=f"Windows of one process lie within {words.listed(spreads)}",
        subtitle=f"Median latency of each window of a trial, in order; a trial is one fresh process{_beyond(beyond)}",
        x=Axis("window", 0.6, last + 0.4, ticks=ticks(1, last, 9, least_step=1)),
        y=Axis("latency, ms", low, high, ticks=ticks(low, high)),
        marks=(*lines, *apart(labels, high - low)),
    )


def _beyond(windows: int) -> str:
    return f"; {words.count(windows, 'slow window')} beyond the top" if windows else ""


def baseline(record: StudyRecord) -> Chart | None:
    """Return the default's processes of the baseline in order, each with the range of its windows."""
    known = [(p, p.latency_ms) for p in evidence.ran(record, Purpose.BASELINE) if p.latency_ms is not None]
    if len(known) < 2:  # noqa: PLR2004 - one process says nothing of others
        return None
    processes = [p for p, _ in known]
    values = tuple(value for _, value in known)
    middle = stats.median(values)
    ends = [(min((*p.windows_ms, value)), max((*p.windows_ms, value))) for p, value in known]
    reach = 100 * (max(values) - min(values)) / middle
    far = FAR * max(values)
    beyond = sum(window > far for p in processes for window in p.windows_ms)
    low, high = spaced(min(at for at, _ in ends), min(far, max(at for _, at in ends)))
    places = tuple(float(i) for i in range(1, len(values) + 1))
    lows, highs = (tuple(min(end[side], high) for end in ends) for side in (0, 1))
    hover = tuple(
        f"process {i:.0f}: {number(v, 4)}{NBSP}ms, {words.count(len(p.windows_ms), 'window')}"
        for i, v, p in zip(places, values, processes, strict=True)
    )
    return Chart(
        name="baseline",
        title=f"{len(values)} processes of the default lie within {reach:.1f}{NBSP}%",
        subtitle=f"Median latency of each fresh process; the thin line spans its windows{_beyond(beyond)}",
        x=Axis("process, in order", 0.5, len(values) + 0.5, ticks=ticks(1, len(values), 9, least_step=1)),
        y=Axis("latency, ms", low, high, ticks=ticks(low, high)),
        marks=(
            Line("median", (0.5, len(values) + 0.5), (middle, middle), Role.DEFAULT, dashed=True, thin=True),
            Spans(places, lows, highs, Role.MEASURED),
            Points("process", places, values, Role.MEASURED, hover=hover, legend=False),
            Label(len(values), middle, f"median {number(middle)}{NBSP}ms", Role.DEFAULT),
        ),
    )
