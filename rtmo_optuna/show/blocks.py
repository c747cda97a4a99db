"""What a report is made of, before it is Markdown or HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from rtmo_optuna.show.cells import Inline, Table


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
