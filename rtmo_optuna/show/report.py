"""The report: Markdown from a study, and all its files on disk."""

from __future__ import annotations

import glob
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from rtmo_optuna.cache import replacing
from rtmo_optuna.display import visible
from rtmo_optuna.errors import UsageError
from rtmo_optuna.scratch import sweep
from rtmo_optuna.show.blocks import Bullets, Facts, Listing, Paragraph, Picture
from rtmo_optuna.show.cells import Code, Column, Inline, Table
from rtmo_optuna.show.charts import CHARTS, charts
from rtmo_optuna.show.document import document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rtmo_optuna.show.blocks import Block
    from rtmo_optuna.types.study import StudyRecord

PLOTS = "plots"
_SPECIAL = re.compile(
    r"[\\`*\[\]<>&|~$]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # emphasis, unlike one inside a word
    r"|^(?:[#=]|[-+](?=[\s-]|$)|\d+(?=[.)](?:\s|$)))"  # headings, rules, lists
)
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def markdown(record: StudyRecord, pictures: Mapping[str, str], applied: str = "") -> str:
    """Return the report as Markdown; `pictures` maps a chart's name to its path relative to the report.

    `applied` says where the settings were written.
    """
    parts: list[str] = []
    for level, section in enumerate(document(record, applied)):
        parts.append(f"{'##' if level else '#'} {_inline(section.title)}")
        parts += [text for block in section.blocks if (text := _block(block, pictures))]
    return visible("\n\n".join(parts)) + "\n"


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
            return f"```{block.language}\n{block.text}\n```"
        case Picture():
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


def write(record: StudyRecord, report: Path, applied: str = "") -> tuple[Path, ...]:
    """Write the Markdown file `report`, and beside it the same as one HTML page and the pictures in `plots/`.

    Returns the Markdown file, the HTML page, then the pictures. Each file is replaced whole, the Markdown last, so that
    a reader never sees half of one. Raises UsageError where they cannot be written.
    """
    from rtmo_optuna.show.page import page  # noqa: PLC0415 - plotly and matplotlib are slow to import
    from rtmo_optuna.show.pictures import png  # noqa: PLC0415 - likewise

    drawn = charts(record)
    plots = report.parent / PLOTS
    html = report.with_suffix(".html")
    pictures = {chart.name: plots / f"{chart.name}.png" for chart in drawn}
    text = markdown(record, {name: f"{PLOTS}/{path.name}" for name, path in pictures.items()}, applied)
    try:
        plots.mkdir(parents=True, exist_ok=True)
        for chart in drawn:
            _put(pictures[chart.name], png(chart))
        _put(html, page(record, drawn, applied).encode())
        _put(report, text.encode())
        for path in (report, html, *pictures.values()):
            sweep(path.parent, f".{glob.escape(path.name)}.[0-9]*")
        for plot in CHARTS:
            if plot.name not in pictures:
                (plots / f"{plot.name}.png").unlink(missing_ok=True)
    except OSError as error:
        message = f"The report {report} cannot be written: {error.strerror or error}. Name another --output."
        raise UsageError(message) from error
    return (report, html, *pictures.values())


def _put(path: Path, content: bytes) -> None:
    with replacing(path) as fresh:
        fresh.write_bytes(content)
