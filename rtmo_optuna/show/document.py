"""What a report says, before it is Markdown or HTML: sections of paragraphs, tables, listings and pictures."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from rtmo_optuna.show import tables, words
from rtmo_optuna.show.charts import CHARTS, Chapter
from rtmo_optuna.show.tables import Code, Inline, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtmo_optuna.records import Settings, StudyRecord, Value

UNCONFIRMED = "best measured, not confirmed"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph, in bold where it is `strong`."""

    text: Inline
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of short texts."""

    items: tuple[Inline, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """The few numbers that matter, each with its name."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Text to copy, in a computer language."""

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The place of the chart `name`."""

    name: str
    caption: str


Block: TypeAlias = Paragraph | Bullets | Facts | Listing | Picture | Table


@dataclass(frozen=True, slots=True)
class Section:
    """A headed part of the report; the first one is its title."""

    title: str
    blocks: tuple[Block, ...]


def document(record: StudyRecord, applied: str = "") -> tuple[Section, ...]:
    """Return the report on `record`, the verdict first; `applied` says where the settings were written, if they were.

    Parts that the study has nothing for are left out.
    """
    parts = (
        Section(f"Fastest ONNX Runtime settings: {record.name}", tuple(_verdict(record))),
        Section("Warnings", _bullets(record.warnings)),
        Section("How to apply it", tuple(_application(record, applied))),
        Section("Machine and model", (tables.machine(record),)),
        Section("Ranking", tuple(_ranking(record))),
        Section("What each knob does here", tuple(_knobs(record))),
        Section("What left the space, and why", _filled(tables.left_out(record))),
        Section("What failed, and why", _filled(tables.failures(record))),
        Section("Where the time went", (*_pictures(Chapter.TIME), *_filled(tables.times(record)))),
        Section("How to go on", tuple(_resumption(record))),
    )
    return tuple(part for part in parts if any(not isinstance(block, Picture) for block in part.blocks))


def _verdict(record: StudyRecord) -> Iterator[Block]:
    verdict = record.verdict
    sentence = words.sentence(verdict.sentence)
    yield Paragraph(sentence, strong=True)
    if verdict.best is not None and not verdict.confirmed:
        yield Paragraph(
            f"Status: {UNCONFIRMED}. The winner was not run again side by side with the default, so a part of its lead "
            "may be luck."
        )
    if not record.complete:
        yield Paragraph("The search did not reach its end: more runs may find better settings.")
    yield Facts(tables.facts(record))


def _application(record: StudyRecord, applied: str) -> Iterator[Block]:
    best = record.verdict.best
    if best is None:
        yield Paragraph(words.sentence(applied) or "There is nothing to apply.")
        return
    if applied:
        yield Paragraph(words.sentence(applied))
    if not len(best.settings):
        yield Paragraph("The best settings are ONNX Runtime's defaults: there is nothing to set.")
    yield Listing(yaml(best.settings), "yaml")


def yaml(settings: Settings) -> str:
    """Return settings as a YAML mapping, knobs under their own names; what is not named stays at its default."""
    return "\n".join(f"{_scalar(knob)}: {_scalar(value)}" for knob, value in settings) or "{}"


def _scalar(value: Value) -> str:
    """Return `value` as YAML 1.1 and 1.2 both read it; whatever is no plain name is quoted as JSON, which is YAML."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", value)
    if plain and str(value).lower() not in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}:
        return str(value)
    return json.dumps(value)


def _ranking(record: StudyRecord) -> Iterator[Block]:
    table = tables.ranking(record)
    if table is None:
        yield Paragraph("No run was measured to its end.")
        return
    yield from _pictures(Chapter.RANKING)
    yield table
    yield from _pictures(Chapter.STEADINESS)


def _knobs(record: StudyRecord) -> Iterator[Block]:
    table = tables.knobs(record)
    if table is not None:
        yield from _pictures(Chapter.KNOBS)
        yield table


def _resumption(record: StudyRecord) -> Iterator[Block]:
    how = (
        ". The same command goes on from there: no settings are run twice, and more trials or more time continue the "
        "search."
    )
    where = Code(tables.without_password(record.storage))
    yield Paragraph(("The study ", Code(record.name), " is kept in ", where, how))


def _pictures(chapter: Chapter) -> tuple[Picture, ...]:
    return tuple(Picture(plot.name, plot.caption) for plot in CHARTS if plot.chapter is chapter)


def _bullets(items: tuple[str, ...]) -> tuple[Block, ...]:
    return (Bullets(items),) if items else ()


def _filled(table: Table | None) -> tuple[Block, ...]:
    return () if table is None else (table,)
