"""The program, the options that several verbs share, and exit codes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from rtmo_optuna.cli.spelling import (
    DEVIATION,
    MEAN,
    RATE,
    Spelling,
    one_of,
    path,
    text,
)
from rtmo_optuna.providers.table import PROVIDERS

FAILED = 1
SLOWER = 3
NO_VERDICT = 4
INTERRUPTED = 130
CONFIG = Path("config.yaml")


app = typer.Typer(
    help="Find the fastest ONNX Runtime settings for a model on this machine.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def epilog(*examples: str, then: str = "") -> str:
    """Return what ends a verb's help: `examples` a line each, as they are, and a paragraph."""
    lines = "\n".join(f"  rtmo-optuna {example}" for example in examples)
    return f"\b\nExamples:\n{lines}\n\n{then}"


def option(name: str, kind: Spelling, about: str = "", **more: Any) -> Any:  # noqa: ANN401 - as typer.Option
    """Return an option whose values are spelt as `kind` says; `more` as `typer.Option` takes it."""
    return typer.Option(name, parser=kind.parser(name), metavar=kind.metavar, help=about, **more)


Storage = Annotated[
    str, typer.Option(metavar="URL", help="Database URL, or path of an SQLite file, that studies live in.")
]
Output = Annotated[
    Path | None,
    option("--output", path("PATH"), "Report file (.md), or a folder. Default: results/<study name>/."),
]
Provider = Annotated[
    str, option("--provider", one_of("auto", *PROVIDERS), "auto: cuda where there is a GPU, else host or cpu.")
]
Rate = Annotated[
    float | None,
    option("--rate", RATE, "Calls a second, as a camera's frames come. Default: each call right after the other."),
]
Profile = Annotated[
    str | None,
    option("--profile", text("NAME|auto"), "Profile in the YAML file, by GPU. Default: this GPU's, if it is there."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/json.md); the rest on stderr.")]
Pixels = Annotated[
    bool, typer.Option("--pixels", help="Sessions take pictures as applications have them: uint8, height x width x 3.")
]
Mean = Annotated[
    Any,  # Typer would take a tuple for so many values
    option("--mean", MEAN, "With --pixels: taken from each pixel, after the scale; a number a channel."),
]
Deviation = Annotated[Any, option("--std", DEVIATION, "With --pixels: what each pixel is divided by at last.")]
Engine = Annotated[str, option("--engine", one_of("onnxruntime", "scripted"), hidden=True)]


def set_logging(*, verbose: bool = False) -> None:
    """Set levels; to be called once Optuna is imported, which sets its own."""
    level, form = (logging.INFO, "%(name)s: %(message)s") if verbose else (logging.WARNING, "%(message)s")
    logging.basicConfig(level=level, format=form)
    logging.getLogger("optuna").setLevel(logging.INFO if verbose else logging.ERROR)
