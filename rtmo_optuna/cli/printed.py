"""What a verb found, as lines and tables on standard output."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtmo_optuna.display import visible
from rtmo_optuna.doctor.facts import Level
from rtmo_optuna.show.words import count, pace
from rtmo_optuna.space.resolve import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from rtmo_optuna.types.request import Dimension
    from rtmo_optuna.types.subject import StudyDefinition
    from rtmo_optuna.verbs.bench import Comparison, Side
    from rtmo_optuna.verbs.doctor import Examination
    from rtmo_optuna.verbs.prepare import Plan

_PLAIN_WIDTH = 160
_WIDEST = 80


def console(*, quiet: bool = False) -> Console:
    """Return what prints on standard output, in lines of a fixed width where that is no terminal."""
    made = Console(highlight=False, quiet=quiet)
    if not made.is_terminal:
        made.width = _PLAIN_WIDTH
    return made


def say(line: str, *, err: bool = False) -> None:
    """Print a line, control characters in it shown; on standard error with `err`."""
    typer.echo(visible(line), err=err)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str = "") -> None:
    """Print a table on standard output, cut to the terminal's width."""
    table = Table(*columns, title=visible(title) or None, title_justify="left")
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    console().print(table)


def _comparison_rows(found: Comparison) -> list[tuple[str, str, str]]:
    """Return a row for each figure that one of the two sides of a comparison has."""
    names = ("p50", "p90", "p99")
    figures: list[tuple[str, Callable[[Side], object]]] = [
        ("settings", lambda side: side.settings),
        ("processes", lambda side: side.processes),
        ("latency, ms", lambda side: _figure(side.latency_ms)),
        *((f"{name}, ms", lambda side, name=name: _figure(side.quantiles_ms.get(name))) for name in names),
        ("calls missed", lambda side: side.missed or ""),
        ("session build, ms", lambda side: _figure(side.session_build_ms)),
        ("first run, ms", lambda side: _figure(side.first_run_ms)),
        ("GPU memory, MiB", lambda side: _figure(side.gpu_memory_bytes and side.gpu_memory_bytes / 2**20)),
    ]
    rows = ((name, str(tell(found.first)), str(tell(found.second))) for name, tell in figures)
    return [row for row in rows if any(row[1:])]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _space_rows(dimensions: Iterable[Dimension]) -> list[tuple[str, str]]:
    """Return a row for each dimension: its name and its choices."""
    return [(d.name, ", ".join("none" if c.label is None else str(c.label) for c in d.choices)) for d in dimensions]


def show_comparison(found: Comparison) -> None:
    """Print what two settings came to."""
    print_table(("", "first", "second"), _comparison_rows(found))
    say(f"{found.sentence}\nverdict:  {found.verdict}\noutputs:  {found.outputs}")
    if found.made_of:
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in found.made_of.shapes.items())
        say(f"input:    {found.made_of.input} ({shapes})")
    if found.rate_hz is not None:
        say(f"pace:     {pace(found.rate_hz)}")
    for note in found.notes:
        say(f"note:     {note}")


def show_examination(found: Examination) -> None:
    """Print what the checks found, the worst first, and how many of each kind there are."""
    width = min(console().width, _WIDEST) - 1
    skipped: dict[str, list[str]] = {}
    for level in Level:
        for finding in (one for one in found.findings if one.level is level):
            if level is Level.SKIPPED:
                skipped.setdefault(finding.seen, []).append(finding.check)
                continue
            head = f"{level.value:<6}{finding.check:<13}"
            _say_filled(head, finding.seen, width)
            if finding.todo:
                _say_filled(" " * (len(head) - 3) + "-> ", finding.todo, width)
    for seen, names in skipped.items():
        _say_filled("skip  ", f"{', '.join(names)}: {seen}", width)
    levels = Counter(finding.level for finding in found.findings)
    say(", ".join(f"{levels[level]} {level.value}" for level in Level if levels[level]))


def _say_filled(head: str, text: str, width: int) -> None:
    """Print a text in lines of `width` columns, below each other after `head`."""
    say(
        textwrap.fill(
            visible(text), width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
        )
    )


def show_plan(plan: Plan) -> None:
    """Print what a tune would do."""
    about = plan.about
    device = about.machine.gpu.name if about.machine.gpu else about.machine.cpu
    print_table(("knob", "choices"), _space_rows(about.space.dimensions), f"{size(about.space)} combinations")
    for frozen in about.space.left_out:
        say(f"left out: {frozen.name}: {frozen.reason}")
    for warning in about.warnings:
        say(f"warning:  {warning}")
    budget = about.definition
    say(f"model:    {about.model_path} ({', '.join(f'{n} {s}' for n, s in about.inputs.shapes.items())})")
    say(f"machine:  {device}, {about.definition.provider}, ONNX Runtime {about.model.versions['onnxruntime']}")
    say(f"budget:   {count(budget.trials, 'trial')}, {budget.timeout_s:g} s")
    tell_pace(budget)
    say(f"study:    {about.name} in {about.storage}")
    say(f"settings: {plan.config.path}, now {plan.config.settings}")
    say(f"report:   {plan.report}")
    say("Nothing was written.")


def tell_pace(definition: StudyDefinition) -> None:
    """Print the rate that calls come at, where there is one."""
    if definition.measuring.rate_hz is not None:
        say(f"pace:     {pace(definition.measuring.rate_hz)}")


def name_files(files: Sequence[Path]) -> None:
    """Print where a report lies."""
    say(f"report:   {files[0]}\npage:     {files[1]}")
