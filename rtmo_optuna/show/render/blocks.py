"""What a report is made of, before it is Markdown or HTML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from rtmo_optuna.show.render.chart import Chart


@dataclass(frozen=True, slots=True)
class Code:
    """Text that a computer reads."""

    text: str


Inline: TypeAlias = str | Code | tuple[str | Code, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; whether it holds numbers, or long text that needs room."""

    title: str
    number: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; `marked` rows are to stand out."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Inline, ...], ...]
    marked: frozenset[int] = frozenset()

    def without_empty(self) -> Table:
        """Return the table without the columns that hold nothing."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        columns = tuple(self.columns[i] for i in kept)
        return Table(columns, tuple(tuple(row[i] for i in kept) for row in self.rows), self.marked)


def texts(*titles: str) -> tuple[Column, ...]:
    """Return columns of text."""
    return tuple(map(Column, titles))


def numbers(*titles: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(title, number=True) for title in titles)


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
class Image:
    """A picture that was drawn before: a JPEG file's bytes."""

    name: str
    content: bytes
    caption: str


Block: TypeAlias = Paragraph | Bullets | Facts | Listing | Chart | Table | Image


@dataclass(frozen=True, slots=True)
class Section:
    """A headed part of the report; the first one is its title."""

    title: str
    blocks: tuple[Block, ...]


def filled(*blocks: Block | None) -> tuple[Block, ...]:
    """Return those of `blocks` that there are."""
    return tuple(block for block in blocks if block is not None)


def images(sections: Iterable[Section]) -> tuple[Image, ...]:
    """Return all pictures of a report that were drawn before, in order."""
    return tuple(block for section in sections for block in section.blocks if isinstance(block, Image))


def charts(sections: Iterable[Section]) -> tuple[Chart, ...]:
    """Return all charts of a report, in order."""
    return tuple(block for section in sections for block in section.blocks if isinstance(block, Chart))
