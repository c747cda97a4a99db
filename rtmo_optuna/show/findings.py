"""The parts of the report that say how much is proven: confirmation, race, noise, outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna.show import evidence, gate, proofs, words
from rtmo_optuna.show.blocks import Bullets, Paragraph, Picture
from rtmo_optuna.show.cells import Code
from rtmo_optuna.show.charts import CHARTS, Chapter
from rtmo_optuna.show.scores import differing
from rtmo_optuna.show.verdict import whom
from rtmo_optuna.show.words import NBSP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtmo_optuna.show.blocks import Block
    from rtmo_optuna.show.cells import Table
    from rtmo_optuna.types.study import StudyRecord


def pictures(chapter: Chapter) -> tuple[Picture, ...]:
    """Return the places of all charts of `chapter`."""
    return tuple(Picture(plot.name, plot.caption) for plot in CHARTS if plot.chapter is chapter)


def filled(*tables: Table | None) -> tuple[Table, ...]:
    """Return those of `tables` that there are."""
    return tuple(table for table in tables if table is not None)


def confirmation(record: StudyRecord) -> Iterator[Block]:
    """Yield who met whom in fresh pairs, the claims, and the chart of the pairs."""
    claims = evidence.met(record)
    tables = filled(proofs.claims(record))
    if claims:
        rivals = words.listed(whom(record, claim.rival) for claim in claims)
        settings = Code(str(differing(record, claims[0].subject)))
        how = (
            f" of the race met {rivals} again, in fresh processes one right after the other and in alternating order. "
            "Nothing else in this report is a claim."
        )
        yield Paragraph(("The winner ", settings, how))
    if claims and not tables:
        yield Paragraph("It did not reach its end, so it says nothing yet.")
    yield from tables
    if claims:
        yield from pictures(Chapter.CONFIRMATION)


def race(record: StudyRecord) -> Iterator[Block]:
    """Yield who raced and how it went."""
    table = proofs.race(record)
    if table is None:
        return
    racers = record.finals.racers if record.finals else ()
    blocks = max(len(racer.costs) + racer.failures for racer in racers)
    hidden = len(racers) - len(table.rows)
    more = f" {hidden} more left early and are not shown." if hidden else ""
    yield Paragraph(
        f"The best of the trials ran again, in fresh processes side by side: {len(racers)} at first, fewer from block "
        f"to block, {blocks} blocks in all. Of those that are as fast as the best it chooses the simplest, and proves "
        f"no gain.{more}"
    )
    yield from pictures(Chapter.RACE)
    yield table


def noise(record: StudyRecord) -> Iterator[Block]:
    """Yield how noisy the host was, first a banner where it was too much."""
    table = proofs.noise(record)
    if table is None:
        return
    found = record.noise
    if found and found.noisy and found.between is not None:
        findable = evidence.findable(record)
        power = f", so gains under {100 * findable:.1f}{NBSP}% will mostly not be found" if findable else ""
        differ = f"processes of the same settings differ by {100 * found.between:.1f}{NBSP}%"
        yield Paragraph(f"Noisy host: {differ}{power}.", strong=True)
    yield table
    yield from pictures(Chapter.NOISE)


def outputs(record: StudyRecord) -> Iterator[Block]:
    """Yield what the output gate saw, and whom it refused."""
    if remarks := gate.remarks(record):
        yield Bullets(remarks)
    table = gate.outputs(record)
    if table is not None:
        yield Paragraph(
            "How far the outputs are from the reference, which is made without a GPU. A limit grows with the default's "
            "own error, so that no settings need to be nearer than rounding lets the default be."
        )
    yield from filled(table, gate.wrong(record))
