"""What a verb found, as lines and tables on standard output."""

from __future__ import annotations

import json
import os
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
from rtmo_optuna.verbs.envelope import answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtmo_optuna.types.request import Dimension
    from rtmo_optuna.verbs.answers import Tuned
    from rtmo_optuna.verbs.doctor import Examination
    from rtmo_optuna.verbs.prepare import Plan

_PLAIN_WIDTH = 160
_WIDEST = 80


def console(*, err: bool = False, quiet: bool = False) -> Console:
    """Return what prints on standard output, or error, in lines of a fixed width where that is no terminal.

    Where NO_COLOR is set there is no escape sequence at all in what it prints.
    """
    made = Console(
        highlight=False, stderr=err, quiet=quiet, color_system=None if os.environ.get("NO_COLOR") else "auto"
    )
    if not made.is_terminal:
        made.width = _PLAIN_WIDTH
    return made


def say(text: str, *, err: bool = False) -> None:
    """Print lines, control characters in them shown; on standard error with `err`.

    A terminal's are folded between words, so that a path stays whole.
    """
    terminal = console(err=err)
    lines = visible(text).split("\n")
    if terminal.is_terminal:
        fold = textwrap.TextWrapper(terminal.width - 1, break_long_words=False, break_on_hyphens=False)
        lines = [fold.fill(line) for line in lines]
    typer.echo("\n".join(lines), err=err)


def as_json(kind: str, told: object, indent: int | None = 2) -> str:
    """Return what a verb answers to machines, as text (docs/json.md), on one line where `indent` is None."""
    return json.dumps(answer(kind, told), indent=indent)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str = "") -> None:
    """Print a table on standard output, cut to the terminal's width."""
    table = Table(*columns, title=visible(title) or None, title_justify="left")
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    console().print(table)


def _space_rows(dimensions: Iterable[Dimension]) -> list[tuple[str, str]]:
    """Return a row for each dimension: its name and its choices."""
    return [(d.name, ", ".join("none" if c.label is None else str(c.label) for c in d.choices)) for d in dimensions]


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
    tell_pace(budget.measuring.rate_hz)
    say(f"study:    {about.name} in {about.storage}")
    say(f"settings: {plan.config.path}, now {plan.config.settings}")
    say(f"report:   {plan.report}")
    say("Nothing was written.")


def show_result(told: Tuned) -> None:
    """Print what a tune came to, and where it is written."""
    say(f"\n{told.sentence}")
    tell_pace(told.benchmark.rate_hz)
    if told.config:
        kept = f" (the old file is {told.backup})" if told.backup else ""
        say(f"settings: {told.config}{kept}")
    name_files(told)
    say(f"study:    {told.study} in {told.storage}")
    if told.interrupted:
        say("Interrupted; the configuration file was left alone. The same command goes on from here.")
    elif told.undecided:
        say("No verdict; the configuration file was left alone.")


def tell_pace(rate_hz: float | None) -> None:
    """Print the rate that calls come at, where there is one."""
    if rate_hz is not None:
        say(f"pace:     {pace(rate_hz)}")


def name_files(told: Tuned) -> None:
    """Print where a report lies."""
    say(f"report:   {told.report}\npage:     {told.page}")
