"""The race: fresh processes side by side."""

from collections.abc import Iterator, Mapping

from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Block, Code, Column, Inline, Paragraph, Table, filled, numbers, texts
from rtmo_optuna.show.render.chart import Axis, Chart, Role, Row, Rows
from rtmo_optuna.show.render.layout import FAR, spaced, ticks
from rtmo_optuna.show.scores import axis_name, differing, label, role_of, titles
from rtmo_optuna.show.words import NBSP, change, number
from rtmo_optuna.types.findings import Racer
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import StudyRecord

MOST_RACERS = 16


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield who raced and how it went."""
    listed = table(record)
    if listed is None:
        return
    racers = record.finals.racers
    blocks = max(len(racer.costs) + racer.failures for racer in racers)
    hidden = len(racers) - len(listed.rows)
    more = f" {hidden} more left early and are not shown." if hidden else ""
    yield Paragraph(
        f"The best of the trials ran again, in fresh processes side by side: {len(racers)} at first, fewer from block "
        f"to block, {blocks} blocks in all. Of those that are as fast as the best it chooses the simplest, and proves "
        f"no gain.{more}"
    )
    yield from filled(chart(record), listed)


def _listed(record: StudyRecord) -> tuple[Racer, ...]:
    """Return the racers to show: those who stayed longest, and the default and config.yaml's settings."""
    every = record.finals.racers
    return (*every[:MOST_RACERS], *(one for one in every[MOST_RACERS:] if titles(record, one.settings)))


def chart(record: StudyRecord) -> Chart | None:
    """Return each contender's median cost in the race, with the range of its processes, around the default's."""
    racers = [racer for racer in _listed(record) if racer.costs]
    if not racers:
        return None
    medians = {racer.settings: racer.cost for racer in racers if racer.cost}
    origin = medians.get(record.space.fixed)
    far = FAR * max(medians.values())
    near = [cost for racer in racers for cost in racer.costs if cost <= far]
    low, high = spaced(min(near), max(near))
    leader, every = record.finals.winner, record.finals.racers
    first = f"of {len(every)} settings: {differing(record, leader)} won" if leader is not None else ""
    short = len(first) < 70  # noqa: PLR2004 - what fits a line
    rule = "" if origin is None else "; the upright line is the default's median"
    return Chart(
        name="race",
        title=f"Race {first}" if first and short else f"Race of {words.count(len(every), 'settings', 'settings')}",
        subtitle=f"Median and range of fresh processes, side by side{rule}",
        x=Axis(axis_name(record), low, high, ticks=ticks(low, high)),
        y=Axis(""),
        marks=(Rows(tuple(_row(record, racer, racers[0], medians, high) for racer in racers), origin=origin or low),),
        caption="Who raced, in fresh processes: the median of each, and the range.",
    )


def _row(record: StudyRecord, racer: Racer, first: Racer, medians: Mapping[Settings, float], reach: float) -> Row:
    tags = [name for name in titles(record, racer.settings) if name != "default" or len(racer.settings)]
    value = medians[racer.settings]
    role = role_of(record, racer.settings)
    stayed = "to the end" if racer.left_after is None else f"left after {words.count(racer.left_after, 'block')}"
    return Row(
        label=label(record, racer.settings, first.settings, tags),
        value=value,
        low=min(racer.costs),
        high=min(reach, max(racer.costs)),
        role=Role.MUTED if role is Role.MEASURED and racer.left_after is not None else role,
        text=f"{number(value)} ({words.count(len(racer.costs), 'process', 'processes')})",
        hover=f"{differing(record, racer.settings)}\n{number(value, 4)}, from {number(min(racer.costs), 4)} to "
        f"{number(max(racer.costs), 4)}\n{stayed}",
    )


def table(record: StudyRecord) -> Table | None:
    """Return who raced, those who stayed longest first; None where there was no race."""
    racers = _listed(record)
    origin = next((racer.cost for racer in racers if racer.settings == record.space.fixed), None)
    columns = (
        Column("Settings", wide=True),
        *numbers("Processes", "Failed", f"Median {axis_name(record)}", "Range", "vs default"),
        *texts("Left after", "Note"),
    )
    marked = frozenset(i for i, racer in enumerate(racers) if racer.settings == record.finals.winner)
    rows = tuple(_cells(record, racer, origin) for racer in racers)
    return Table(columns, rows, marked).without_empty() if rows else None


def _cells(record: StudyRecord, racer: Racer, origin: float | None) -> tuple[Inline, ...]:
    middle, left = racer.cost, racer.left_after
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
