"""The command line: its verbs, `--version`, and what becomes of errors."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rtmo_optuna.cli import tuning, upkeep  # noqa: F401 - their verbs are the program's once they are imported
from rtmo_optuna.cli.app import INTERRUPTED, app
from rtmo_optuna.cli.printed import say
from rtmo_optuna.errors import LostError, TunerError
from rtmo_optuna.scratch import lost_file

if TYPE_CHECKING:
    from collections.abc import Callable


def _tell_version(asked: bool) -> None:
    if asked:
        from rtmo_optuna.machine.gpu import gpus
        from rtmo_optuna.space.extras import installed_runtime

        runtime, cuda = installed_runtime()
        cards = ", ".join(f"{card.name} (driver {card.driver})" for card in gpus()) or "none"
        say(f"rtmo-optuna  {version('rtmo-optuna')}\nONNX Runtime {runtime}\nCUDA         {cuda}\nGPU          {cards}")
        raise typer.Exit


@app.callback()
def _program(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Versions of all that matters, and exit."
        ),
    ] = False,
) -> None:
    pass


def _fail(error: TunerError) -> NoReturn:
    say(f"error: {error}", err=True)
    sys.exit(error.exit_code)


def main(arguments: list[str] | None = None, command: Callable[..., object] = app) -> NoReturn:
    """Run the command line `command` and exit; every error of ours is one sentence on stderr and an exit code."""
    try:
        command(arguments, prog_name="rtmo-optuna")
        sys.exit(0)
    except TunerError as error:
        _fail(error)
    except OSError as error:
        _fail(LostError(lost_file(error)))
    except KeyboardInterrupt:
        say("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
