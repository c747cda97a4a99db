"""A comparison as text: for people, as Markdown, as CSV, as JSON."""

import csv
import io
from collections.abc import Callable, Mapping

from rtmo_optuna.cli.printed import as_json, print_table, say
from rtmo_optuna.show.render.blocks import Code, Section, Table, numbers, texts
from rtmo_optuna.show.render.markdown import markdown
from rtmo_optuna.show.words import pace
from rtmo_optuna.verbs.comparison import Bench, Comparison, Side


def _quantile(name: str) -> Callable[[Side], object]:
    return lambda side: _figure(side.quantiles_ms.get(name))


_FIGURES: Mapping[str, Callable[[Side], object]] = {
    "processes": lambda side: side.processes,
    "latency, ms": lambda side: _figure(side.latency_ms),
    **{f"{name}, ms": _quantile(name) for name in ("p50", "p90", "p99")},
    "calls missed": lambda side: side.missed or "",
    "session build, ms": lambda side: _figure(side.session_build_ms),
    "first run, ms": lambda side: _figure(side.first_run_ms),
    "GPU memory, MiB": lambda side: _figure(side.gpu_memory_bytes and side.gpu_memory_bytes / 2**20),
}
_CLAIMS: Mapping[str, Callable[[Comparison], object]] = {
    "times as fast": lambda found: _figure(found.ratio),
    "from": lambda found: _figure(found.low),
    "to": lambda found: _figure(found.high),
    "verdict": lambda found: found.verdict,
    "outputs": lambda found: found.outputs,
}


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _rows(found: Bench) -> list[tuple[str, ...]]:
    """Return a row for each first side, with what is said of it, and one for each second side."""
    claims = {str(pair.first): tuple(str(tell(pair)) for tell in _CLAIMS.values()) for pair in found.comparisons}
    return [(*_cells(side), *claims.get(str(side), [""] * len(_CLAIMS))) for side in _sides(found)]


def _sides(found: Bench) -> list[Side]:
    """Return all sides, the first ones before the second ones, and what several comparisons have in common once."""
    sides = [pair.first for pair in found.comparisons] + [pair.second for pair in found.comparisons]
    return list({str(side): side for side in sides}.values())


def _cells(side: Side) -> tuple[str, ...]:
    return (str(side), *(str(tell(side)) for tell in _FIGURES.values()))


def _as_csv(found: Bench) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("settings", *_FIGURES, *_CLAIMS), *_rows(found)])
    return text.getvalue().rstrip("\n")


def _as_markdown(found: Bench) -> str:
    table = Table(
        (
            *texts("settings"),
            *numbers(*_FIGURES),
            *numbers("times as fast", "from", "to"),
            *texts("verdict", "outputs"),
        ),
        tuple((Code(settings), *cells) for settings, *cells in _rows(found)),
    )
    title = found.made_of.model if found.made_of else "Settings compared"
    return markdown([Section(title, (table.without_empty(),))], {}).rstrip("\n")


def _as_json(found: Bench) -> str:
    return as_json("bench", found)


PRINTED: Mapping[str, Callable[[Bench], str]] = {"markdown": _as_markdown, "csv": _as_csv, "json": _as_json}
"""The formats beside the table for people."""


def show_bench(found: Bench) -> None:
    """Print for people what settings came to."""
    sides = _sides(found)
    names = tuple(map(str, range(1, len(sides) + 1))) if found.comparisons[1:] else ("first", "second")
    rows = list(zip(("settings", *_FIGURES), *map(_cells, sides), strict=True))
    print_table(("", *names), [row for row in rows if any(row[1:])])
    for pair in found.comparisons:
        say(f"{pair.sentence}\nverdict:  {pair.verdict}\noutputs:  {pair.outputs}")
    if found.made_of:
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in found.made_of.shapes.items())
        say(f"input:    {found.made_of.input} ({shapes})")
    if found.rate_hz is not None:
        say(f"pace:     {pace(found.rate_hz)}")
    for note in found.notes:
        say(f"note:     {note}")
