"""How steady the measurement was: windows of a process, processes of the default, what could be found."""

from collections import Counter
from collections.abc import Iterator

from rtmo_optuna import stats
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Block, Column, Inline, Paragraph, Table, filled
from rtmo_optuna.show.render.chart import Axis, Chart, Label, Line, Points, Role, Spans
from rtmo_optuna.show.render.layout import FAR, apart, spaced, ticks
from rtmo_optuna.show.scores import best_title
from rtmo_optuna.show.words import NBSP, number, percent
from rtmo_optuna.types.findings import Decided, ProcessRecord, Purpose
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import Origin, StudyRecord, TrialRecord


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield how noisy the host was, first a banner where it was too much."""
    told = table(record)
    if told is None:
        return
    found = record.noise
    if found and found.noisy and found.between is not None:
        gain = findable(record)
        power = f", so gains under {100 * gain:.1f}{NBSP}% will mostly not be found" if gain else ""
        differ = f"processes of the same settings differ by {100 * found.between:.1f}{NBSP}%"
        yield Paragraph(f"Noisy host: {differ}{power}.", strong=True)
    yield from filled(told, chart(record))


def _alternatives_met(record: StudyRecord) -> bool:
    """Whether fresh processes of anything but the default, and what config.yaml holds, ran side by side with others."""
    rivals = {t.settings for t in record.trials if t.origin is Origin.CONFIG} | {record.space.fixed}
    return any(p.settings not in rivals for p in _ran(record, Purpose.RACE, Purpose.CONFIRMATION))


def findable(record: StudyRecord) -> float | None:
    """Return the gain that such a study mostly finds; None where nothing new was compared, or less is proven."""
    found = record.noise and record.noise.found
    proven = [claim.ratio - 1 for claim in record.finals.claims if claim.decided is Decided.FASTER and claim.ratio]
    return found if found and _alternatives_met(record) and all(gain >= found for gain in proven) else None


def table(record: StudyRecord) -> Table | None:
    """Return how noisy the host was, each figure with what it says; None where nothing is known of it."""
    found = record.noise
    rows: list[tuple[Inline, ...]] = []
    if found and found.between is not None:
        text = "How far fresh processes of the same settings differ (standard deviation)."
        rows.append(("Between processes, s_b", percent(found.between), text))
    if found and found.within is not None:
        text = "How far the windows of one process differ: what a longer measurement could average out."
        rows.append(("Within a process, s_w", percent(found.within), text))
    if gain := findable(record):
        text = "A gain as large is found in four studies of five; smaller ones mostly not."
        rows.append(("Gain that can be found", percent(gain), text))
    baseline = _ran(record, Purpose.BASELINE)
    if baseline:
        rows.append(("Baseline", str(len(baseline)), "Fresh processes of the default settings, before the search."))
    if found and found.judged:
        how = " and ".join(f"{count} {kind}" for kind, count in found.unsteady.items())
        text = f"{how or 'None on two levels or drifting'}, of those that ran for windows enough to tell."
        rows.append(("Unsteady processes", f"{sum(found.unsteady.values())} of {found.judged}", text))
    dropped = _dropped(record)
    if rows or dropped:
        reasons = ", ".join(f"{reason}: {amount}" for reason, amount in dropped.most_common())
        why = f"Disturbed and measured again ({reasons})." if reasons else "None was disturbed."
        rows.append(("Windows dropped", str(dropped.total()), why))
    beside = sum(process.left_out for process in record.processes)
    if left_out := beside + sum(trial.measurement.left_out for trial in record.runs):
        text = "Single calls beside which the core was slow, or shared: left out of their windows."
        rows.append(("Calls left out", str(left_out), text))
    columns = (Column("Figure"), Column("Value", number=True), Column("What it says", wide=True))
    return Table(columns, tuple(rows)) if rows else None


def _ran(record: StudyRecord, *purposes: Purpose) -> tuple[ProcessRecord, ...]:
    """Return the processes beside the trials that ran for `purposes`, in order."""
    return tuple(process for process in record.processes if process.purpose in purposes)


def _dropped(record: StudyRecord) -> Counter[str]:
    """Return how many windows were measured again, by reason; of processes beside the trials no reason is kept."""
    reasons: Counter[str] = Counter()
    for trial in record.runs:
        reasons.update(trial.measurement.dropped)
    if beside := sum(process.dropped for process in record.processes):
        reasons["beside the trials"] += beside
    return reasons


def _windows_ms(record: StudyRecord, trial: TrialRecord | None) -> list[tuple[float, ...]]:
    """Return the windows of every run of a trial's settings, in milliseconds."""
    if trial is None:
        return []
    same = [t for t in record.runs if t.settings == trial.settings and t.measurement.outcome is Outcome.MEASURED]
    return [tuple(w / 1e6 for w in t.measurement.windows_ns) for t in same or [trial] if t.measurement.windows_ns]


def windows(record: StudyRecord) -> Chart | None:
    """Return each window's median latency, window by window, for every run of the default and of the best."""
    default, best = record.default, record.verdict.best
    groups = [("default", Role.DEFAULT, _windows_ms(record, default))]
    if best is not None and (default is None or best.settings != default.settings):
        groups.append((best_title(record), Role.BEST, _windows_ms(record, best)))
    groups = [group for group in groups if group[2]]
    if not groups:
        return None
    lines: list[Line] = []
    labels: list[Label] = []
    spreads: list[str] = []
    every = [run for _, _, runs in groups for run in runs]
    last, far = max(map(len, every)), FAR * max(map(stats.median, every))
    inside = [value for run in every for value in run if value <= far]
    beyond = sum(map(len, every)) - len(inside)
    low, high = spaced(min(inside), max(inside))
    for name, role, runs in groups:
        lines += [Line(name, (*range(1, len(run) + 1),), run, role, thin=len(runs) > 1, dotted=True) for run in runs]
        middle = stats.median([value for run in runs for value in run])
        several = f" ({len(runs)} runs)" if len(runs) > 1 else ""
        labels.append(Label(middle, f"{name} {number(middle)}{NBSP}ms{several}", role))
        spreads.append(f"{100 * stats.median([*map(stats.reach, runs)]):.1f}{NBSP}% ({name})")
    return Chart(
        name="windows",
        title=f"Windows of one process lie within {words.listed(spreads)}",
        subtitle=f"Median latency of each window of a trial, in order; a trial is one fresh process{_beyond(beyond)}",
        x=Axis("window", 0.6, last + 0.4, ticks=ticks(1, last, 9, least_step=1)),
        y=Axis("latency, ms", low, high, ticks=ticks(low, high)),
        marks=(*lines, *apart(labels, high - low)),
        caption="How steady a process was: the windows of the default's trial and of the best settings'.",
    )


def _beyond(windows: int) -> str:
    return f"; {words.count(windows, 'slow window')} beyond the top" if windows else ""


def chart(record: StudyRecord) -> Chart | None:
    """Return the default's processes of the baseline in order, each with the range of its windows."""
    known = [(p, p.latency_ms) for p in _ran(record, Purpose.BASELINE) if p.latency_ms is not None]
    if len(known) < 2:  # noqa: PLR2004 - one process says nothing of others
        return None
    processes = [p for p, _ in known]
    values = tuple(value for _, value in known)
    middle = stats.median(values)
    ends = [(min((*p.windows_ms, value)), max((*p.windows_ms, value))) for p, value in known]
    reach = 100 * stats.reach(values)
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
            Label(middle, f"median {number(middle)}{NBSP}ms", Role.DEFAULT),
        ),
        caption="The default settings in fresh processes, before the search: what differs here is noise.",
    )
