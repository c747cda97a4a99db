"""A report as Markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from rtmo_optuna.display import fenced, visible
from rtmo_optuna.show.render.blocks import (
    Block,
    Bullets,
    Code,
    Column,
    Facts,
    Image,
    Inline,
    Listing,
    Paragraph,
    Section,
    Table,
)
from rtmo_optuna.show.render.chart import Chart

_SPECIAL = re.compile(
    r"[\\`*\[\]<>&|~$]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # emphasis, unlike one inside a word
    r"|^(?:[#=]|[-+](?=[\s-]|$)|\d+(?=[.)](?:\s|$)))"  # headings, rules, lists
)

_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def markdown(sections: Sequence[Section], pictures: Mapping[str, str]) -> str:
    """Return the report as Markdown; `pictures` maps a chart's name to its path relative to the report."""
    parts: list[str] = []
    for level, section in enumerate(sections):
        parts += [f"{'##' if level else '#'} {visible(_inline(section.title))}", body(section.blocks, pictures)]
    return "\n\n".join(filter(None, parts)) + "\n"


def body(blocks: Iterable[Block], pictures: Mapping[str, str] | None = None) -> str:
    """Return `blocks` as Markdown, charts where there are `pictures` of them."""
    return visible("\n\n".join(text for block in blocks if (text := _block(block, pictures or {}))))


def _escape(text: str) -> str:
    """Return `text` on one line, with everything that Markdown would take for markup disarmed."""

    def disarm(match: re.Match[str]) -> str:
        found = match[0]
        return f"{found}\\" if found.isdigit() else _ENTITIES.get(found, f"\\{found}")

    return _SPECIAL.sub(disarm, re.sub(r"\s*[\r\n]\s*", " ", text))


def _code(text: str) -> str:
    """Return a code span: fenced by more backticks than it holds, bars escaped since tables are cut first."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, pad = "`" * (longest + 1), " " * bool(longest)
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


def _inline(text: Inline, *, in_table: bool = False) -> str:
    if isinstance(text, tuple):
        return "".join(_inline(part, in_table=in_table) for part in text)
    if isinstance(text, Code):
        return _code(text.text).replace("|", "\\|") if in_table else _code(text.text)
    return _escape(text)


def _block(block: Block, pictures: Mapping[str, str]) -> str:
    match block:
        case Paragraph():
            text = _inline(block.text)
            return f"**{text}**" if block.strong else text
        case Bullets():
            return "\n".join(f"- {_inline(item)}" for item in block.items)
        case Facts():
            columns = tuple(Column(name) for name, _ in block.pairs)
            return _table(Table(columns, (tuple(value for _, value in block.pairs),)))
        case Listing():
            return fenced(block.text, block.language)
        case Chart() | Image():
            path = pictures.get(block.name)
            return f"![Plot: {block.name}]({quote(path)})\n\n*{_escape(block.caption)}*" if path else ""
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    rule = ["---:" if column.number else "---" for column in table.columns]
    marked = [
        [f"**{text}**" if i in table.marked and text else text for text in _cells(row)]
        for i, row in enumerate(table.rows)
    ]
    lines = [_cells(tuple(column.title for column in table.columns)), rule, *marked]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: tuple[Inline, ...]) -> list[str]:
    return [_inline(cell, in_table=True) for cell in row]
