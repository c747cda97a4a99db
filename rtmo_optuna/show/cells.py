"""Text and tables as plain rows, to be rendered by whoever needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


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


def without_empty(table: Table) -> Table:
    """Return `table` without the columns that hold nothing."""
    kept = [i for i in range(len(table.columns)) if any(row[i] for row in table.rows)]
    columns = tuple(table.columns[i] for i in kept)
    return Table(columns, tuple(tuple(row[i] for i in kept) for row in table.rows), table.marked)
