"""Charts of race and confirmation: fresh processes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.show import evidence, words
from rtmo_optuna.show.layout import apart, spaced, ticks
from rtmo_optuna.show.marks import Axis, Band, Chart, Label, Line, Points, Role, Row, Rows, Shape, Spans
from rtmo_optuna.show.scores import differing, objective, role_of, titles
from rtmo_optuna.show.verdict import estimate
from rtmo_optuna.show.words import NBSP, number
from rtmo_optuna.types.findings import Decided, Purpose

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rtmo_optuna.types.findings import Claim, Racer
    from rtmo_optuna.types.request import Settings
    from rtmo_optuna.types.study import StudyRecord

MOST_RACERS = 16
FAR = 1.5
"""A process this many times as slow as the slower side's median is drawn at the edge, so that it squashes nothing."""


def axis_name(record: StudyRecord) -> str:
    """Return what a process's cost is, with its unit."""
    goal = objective(record)
    return f"{goal.name}, {goal.unit}" if goal.direction == "minimize" else "time for an item, ms"


def listed(record: StudyRecord) -> tuple[Racer, ...]:
    """Return the racers to show: those who stayed longest, and the default and config.yaml's settings."""
    every = record.finals.racers if record.finals else ()
    return (*every[:MOST_RACERS], *(one for one in every[MOST_RACERS:] if titles(record, one.settings)))


def race(record: StudyRecord) -> Chart | None:
    """Return each contender's median cost in the race, with the range of its processes, around the default's."""
    racers = [racer for racer in listed(record) if racer.costs]
    if not racers:
        return None
    medians = {racer.settings: stats.median(racer.costs) for racer in racers}
    origin = medians.get(record.space.fixed)
    far = FAR * max(medians.values())
    near = [cost for racer in racers for cost in racer.costs if cost <= far]
    low, high = spaced(min(near), max(near))
    leader, every = (record.finals.winner, record.finals.racers) if record.finals else (None, ())
    first = f"of {len(every)} settings: {differing(record, leader)} won" if leader is not None else ""
    short = len(first) < 70  # noqa: PLR2004 - what fits a line
    rule = "" if origin is None else "; the upright line is the default's median"
    return Chart(
        name="race",
        title=f"Race {first}" if first and short else f"Race of {words.count(len(every), 'settings', 'settings')}",
        subtitle=f"Median and range of fresh processes, side by side{rule}",
        x=Axis(axis_name(record), low, high, ticks=ticks(low, high)),
        y=Axis(""),
        marks=(Rows(tuple(_racer(record, racer, racers[0], medians, high) for racer in racers), origin=origin or low),),
    )


def _racer(record: StudyRecord, racer: Racer, first: Racer, medians: Mapping[Settings, float], reach: float) -> Row:
    lines = words.wrap(words.beside(differing(record, racer.settings), differing(record, first.settings)))
    tags = [name for name in titles(record, racer.settings) if name != "default" or len(racer.settings)]
    lines = (*lines[:-1], f"{lines[-1]}  [{', '.join(tags)}]") if tags else lines
    value = medians[racer.settings]
    role = role_of(record, racer.settings)
    stayed = "to the end" if racer.left_after is None else f"left after {words.count(racer.left_after, 'block')}"
    return Row(
        label=lines,
        value=value,
        low=min(racer.costs),
        high=min(reach, max(racer.costs)),
        role=Role.MUTED if role is Role.MEASURED and racer.left_after is not None else role,
        text=f"{number(value)} ({words.count(len(racer.costs), 'process', 'processes')})",
        hover=f"{differing(record, racer.settings)}\n{number(value, 4)}, from {number(min(racer.costs), 4)} to "
        f"{number(max(racer.costs), 4)}\n{stayed}",
    )


def confirmation(record: StudyRecord) -> Chart | None:
    """Return the confirmation's processes, pair by pair: the winner, its rivals, and where the claim puts it."""
    claims = evidence.met(record)
    sides = _sides(record, dict.fromkeys(side for claim in claims for side in (claim.subject, claim.rival)))
    if len(sides) < 2 or not all(sides.values()):  # noqa: PLR2004 - a pair
        return None
    medians = {settings: stats.median(list(values.values())) for settings, values in sides.items()}
    first, *others = sides
    fixed = record.space.fixed
    names = {first: "default" if first == fixed else "winner"} | {rival: rival_name(record, rival) for rival in others}
    roles = {first: Role.BEST} | {rival: Role.DEFAULT if rival == fixed else Role.CONFIG for rival in others}
    cap = FAR * max(medians.values())
    inside = [value for values in sides.values() for value in values.values() if value <= cap]
    band = _band(record, claims, medians)
    low, high = spaced(min([*inside, *([band.low] if band else [])]), max([*inside, *([band.high] if band else [])]))
    rounds = max(pair for values in sides.values() for pair in values)
    ends = (0.5, rounds + 0.5)
    lines = [Line(names[s], ends, (medians[s],) * 2, roles[s], dashed=True, thin=True, legend=False) for s in sides]
    labels = [Label(rounds, medians[s], f"{names[s]} {number(medians[s])}", roles[s]) for s in sides]
    points = [_points(names[s], roles[s], sides[s], cap, high) for s in sides]
    beyond = sum(value > cap for values in sides.values() for value in values.values())
    late = f"; {words.count(beyond, 'slow process', 'slow processes')} beyond the top" if beyond else ""
    return Chart(
        name="confirmation",
        title=_title(record, claims),
        subtitle=f"Each dot is a fresh process, each thin line a pair; dashed are the medians{late}",
        x=Axis("pair, in order", *ends, ticks=ticks(1, rounds, 11, least_step=1)),
        y=Axis(axis_name(record), low, high, ticks=ticks(low, high)),
        marks=(
            *([band] if band else []),
            _spans(sides, cap, high),
            *lines,
            *(mark for pair in points for mark in pair),
            *apart(labels, high - low),
        ),
    )


def rival_name(record: StudyRecord, rival: Settings) -> str:
    """Return what a rival of the winner is called in short."""
    return "default" if rival == record.space.fixed else "config.yaml"


def _sides(record: StudyRecord, settings: Iterable[Settings]) -> dict[Settings, dict[int, float]]:
    """Return each side's costs by pair, counted from 1."""
    sides: dict[Settings, dict[int, float]] = {one: {} for one in settings}
    for process in evidence.ran(record, Purpose.CONFIRMATION):
        if process.cost is not None and process.settings in sides:
            sides[process.settings][process.index + 1] = process.cost
    return sides


def _band(record: StudyRecord, claims: Iterable[Claim], medians: Mapping[Settings, float]) -> Band | None:
    """Return where the interval of the first claim puts the winner, given its rival's median."""
    for claim in claims:
        if claim.interval:
            low, high = (medians[claim.rival] / end for end in reversed(claim.interval))
            name = f"where the 98{NBSP}% interval puts the winner, seen from the {rival_name(record, claim.rival)}"
            return Band(name, low, high, Role.BEST)
    return None


def _title(record: StudyRecord, claims: Iterable[Claim]) -> str:
    for claim in claims:
        if figures := estimate(claim):
            doubt = "" if claim.decided is Decided.FASTER else f"{claim.decided}: ".capitalize()
            whom = "the default" if claim.rival == record.space.fixed else "config.yaml"
            ratio, low, high = figures
            return f"{doubt}{ratio} ({low} to {high}) times as fast as {whom}"
    return "Too few pairs for a claim"


def _points(name: str, role: Role, values: Mapping[int, float], cap: float, high: float) -> list[Points]:
    """Return one side's processes; those beyond `cap` lie at the edge, as arrows with their value."""
    inside = {pair: value for pair, value in values.items() if value <= cap}
    beyond = {pair: value for pair, value in values.items() if value > cap}
    marks = [Points(name, tuple(inside), tuple(inside.values()), role, hover=_hover(name, inside))]
    if beyond:
        heights, texts = (high,) * len(beyond), tuple(map(number, beyond.values()))
        marks.append(Points(name, tuple(beyond), heights, role, Shape.ARROW, _hover(name, beyond), texts, legend=False))
    return marks


def _hover(name: str, values: Mapping[int, float]) -> tuple[str, ...]:
    return tuple(f"pair {pair}, {name}: {number(value, 4)}" for pair, value in values.items())


def _spans(sides: Mapping[Settings, Mapping[int, float]], cap: float, high: float) -> Spans:
    first, *_ = sides.values()
    ends = {}
    for pair in first:
        met = [high if side[pair] > cap else side[pair] for side in sides.values() if pair in side]
        if len(met) > 1:
            ends[pair] = (min(met), max(met))
    return Spans(
        tuple(ends), tuple(low for low, _ in ends.values()), tuple(high for _, high in ends.values()), Role.MUTED
    )
