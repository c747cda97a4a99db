"""The tables of race, confirmation and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.show import evidence, words
from rtmo_optuna.show.cells import Code, Column, Inline, Table, without_empty
from rtmo_optuna.show.contest import axis_name, listed
from rtmo_optuna.show.scores import differing, titles
from rtmo_optuna.show.verdict import estimate, whom
from rtmo_optuna.show.words import NBSP, change, number, percent
from rtmo_optuna.types.findings import Decided, Purpose

if TYPE_CHECKING:
    from rtmo_optuna.types.findings import Claim, Racer
    from rtmo_optuna.types.study import StudyRecord


def claims(record: StudyRecord) -> Table | None:
    """Return what the pairs say of the winner against each rival; None before they say anything."""
    found = record.finals.claims if record.finals and record.finals.ended else ()
    rows = tuple(_claim(record, claim) for claim in found)
    columns = (
        Column("Against"),
        Column("Times as fast", number=True),
        Column(f"98{NBSP}% interval", number=True),
        Column("Pairs", number=True),
        Column("Decided"),
    )
    marked = frozenset(i for i, claim in enumerate(found) if claim.decided is Decided.FASTER)
    return Table(columns, rows, marked) if rows else None


def _claim(record: StudyRecord, claim: Claim) -> tuple[Inline, ...]:
    winner = record.finals.winner if record.finals else None
    by = "" if winner in {None, claim.subject} else ", by the default settings"
    ratio, *ends = estimate(claim) or ("not known",)
    return f"{whom(record, claim.rival)}{by}", ratio, " to ".join(ends), str(claim.pairs), claim.decided.value


def race(record: StudyRecord) -> Table | None:
    """Return who raced, those who stayed longest first; None where there was no race."""
    racers = listed(record)
    fixed = next((r.costs for r in racers if r.settings == record.space.fixed and r.costs), None)
    origin = stats.median(fixed) if fixed else None
    columns = (
        Column("Settings", wide=True),
        Column("Processes", number=True),
        Column("Failed", number=True),
        Column(f"Median {axis_name(record)}", number=True),
        Column("Range", number=True),
        Column("vs default", number=True),
        Column("Left after"),
        Column("Note"),
    )
    first = record.finals.winner if record.finals else None
    marked = frozenset(i for i, racer in enumerate(racers) if racer.settings == first)
    rows = tuple(_racer(record, racer, origin) for racer in racers)
    return without_empty(Table(columns, rows, marked)) if rows else None


def _racer(record: StudyRecord, racer: Racer, origin: float | None) -> tuple[Inline, ...]:
    middle = stats.median(racer.costs) if racer.costs else None
    left = racer.left_after
    return (
        Code(str(differing(record, racer.settings))),
        str(len(racer.costs)),
        str(racer.failures) if racer.failures else "",
        "" if middle is None else number(middle, 4),
        "" if middle is None else f"{number(min(racer.costs), 4)} to {number(max(racer.costs), 4)}",
        "" if middle is None or origin is None else change(middle / origin),
        "never" if left is None else words.count(left, "block").replace(" ", NBSP),
        ", ".join(titles(record, racer.settings)),
    )


def noise(record: StudyRecord) -> Table | None:
    """Return how noisy the host was, each figure with what it says; None where nothing is known of it."""
    found = record.noise
    rows: list[tuple[Inline, ...]] = []
    if found and found.between is not None:
        text = "How far fresh processes of the same settings differ (standard deviation)."
        rows.append(("Between processes, s_b", percent(found.between), text))
    if found and found.within is not None:
        text = "How far the windows of one process differ: what a longer measurement could average out."
        rows.append(("Within a process, s_w", percent(found.within), text))
    if findable := evidence.findable(record):
        text = "A gain as large is found in four studies of five; smaller ones mostly not."
        rows.append(("Gain that can be found", percent(findable), text))
    baseline = evidence.ran(record, Purpose.BASELINE)
    if baseline:
        rows.append(("Baseline", str(len(baseline)), "Fresh processes of the default settings, before the search."))
    if found and found.judged:
        how = " and ".join(f"{count} {kind}" for kind, count in found.unsteady.items())
        text = f"{how or 'None on two levels or drifting'}, of those that ran for windows enough to tell."
        rows.append(("Unsteady processes", f"{sum(found.unsteady.values())} of {found.judged}", text))
    dropped = evidence.dropped(record)
    if rows or dropped:
        reasons = [f"{reason}: {amount}" for reason, amount in dropped.most_common()]
        why = f"Disturbed and measured again ({', '.join(reasons)})." if reasons else "None was disturbed."
        rows.append(("Windows dropped", str(dropped.total()), why))
    if left_out := evidence.left_out(record):
        text = "Single calls beside which the core was slow, or shared: left out of their windows."
        rows.append(("Calls left out", str(left_out), text))
    columns = (Column("Figure"), Column("Value", number=True), Column("What it says", wide=True))
    return Table(columns, tuple(rows)) if rows else None
