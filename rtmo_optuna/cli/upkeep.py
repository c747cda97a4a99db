"""The verbs that look: at the machine, at what was shipped, at studies; no logic."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtmo_optuna.cli import printed
from rtmo_optuna.cli.app import (
    CONFIG,
    FAILED,
    NO_VERDICT,
    SLOWER,
    Engine,
    Json,
    Output,
    Profile,
    Provider,
    Storage,
    app,
    epilog,
    option,
    set_logging,
)
from rtmo_optuna.cli.printed import say
from rtmo_optuna.cli.progress import Progress
from rtmo_optuna.cli.spelling import (
    FACTOR,
    SHARE,
    TIME,
    path,
    text,
    whole,
)
from rtmo_optuna.display import without_password
from rtmo_optuna.errors import UsageError
from rtmo_optuna.show.words import number
from rtmo_optuna.types.study import DEFAULT_STORAGE

if TYPE_CHECKING:
    from rtmo_optuna.verbs.monitor import Health
    from rtmo_optuna.verbs.prepare import TuneOptions


@app.command(
    epilog=epilog(
        "doctor model.onnx",
        "doctor --provider cuda --json",
        then="Exit codes: 0 nothing failed; 1 something did; 2 bad usage or input.",
    )
)
def doctor(
    model: Annotated[
        Path | None, typer.Argument(help="ONNX file, to see which nodes a GPU leaves to the host.")
    ] = None,
    provider: Provider = "auto",
    as_json: Json = False,
) -> None:
    """Check whether this machine is fit: driver, libraries, GPU, cores, disk, and the nodes of a model."""
    from rtmo_optuna.verbs import doctor as verb

    set_logging()
    with Progress(err=as_json) as progress:
        found = verb.examine(model, provider, progress)
    if as_json:
        typer.echo(printed.as_json("doctor", found))
    else:
        printed.show_examination(found)
    if found.failed:
        raise typer.Exit(FAILED)


@app.command(
    epilog=epilog(
        "monitor model.onnx --input photos/",
        "monitor model.onnx --every 15m --threshold 20% --json",
        then="Exit codes: 0 as promised; 3 proven to be slower; 1, 2, and 4 of --retune, as for tune.",
    )
)
def monitor(  # noqa: PLR0917 - one parameter an option
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    config: Annotated[Path, option("--config", path("FILE"), "YAML file with the shipped settings.")] = CONFIG,
    config_path: Annotated[str | None, option("--config-path", text("A.B.C"), "As for tune.")] = None,
    profile: Profile = None,
    once: Annotated[bool, typer.Option("--once", help="Check once. This is the default.")] = False,
    every: Annotated[float | None, option("--every", TIME, "Check again and again, such as every 15m.")] = None,
    threshold: Annotated[float, option("--threshold", SHARE, "What slower means.", show_default="10%")] = 0.1,
    retune: Annotated[bool, typer.Option("--retune", help="Tune anew where it is proven to be slower.")] = False,
    study: Annotated[
        str | None, option("--study", text("NAME"), "As for tune: how to measure, and what --retune searches.")
    ] = None,
    provider: Provider = "auto",
    input: Annotated[Path | None, option("--input", path("PATH"), "As for tune.")] = None,  # noqa: A002
    input_scale: Annotated[float, option("--input-scale", FACTOR, "As for tune.")] = 1.0,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x640x640", help="As for tune. Default: what config.yaml was tuned for."),
    ] = None,
    as_json: Json = False,
    engine: Engine = "onnxruntime",
) -> None:
    """Check whether what config.yaml holds is still as fast as its benchmark_info promises, in fresh processes."""
    from rtmo_optuna.types.request import EngineKind
    from rtmo_optuna.verbs import monitor as verb
    from rtmo_optuna.verbs import prepare

    set_logging()
    if once and every is not None:
        message = "--once and --every exclude each other: leave out one."
        raise UsageError(message)
    options = prepare.TuneOptions(
        model=model,
        config=config,
        config_path=config_path or "",
        profile=profile or "",
        study=study,
        provider=provider,
        input=input,
        input_scale=input_scale,
        shapes=tuple(shape or ()),
        engine=EngineKind(engine),
    )
    if every is not None:
        with Progress(quiet=True) as progress:
            once_more = functools.partial(verb.check, options, progress, threshold)
            for found in verb.repeated(once_more, every, lambda why: say(why, err=True)):
                _tell_health(found, as_json=as_json)
                if found.slower and retune:
                    _tuned_anew(verb.as_shipped(options), progress)
    with Progress(err=as_json) as progress:
        found = verb.check(options, progress, threshold)
        _tell_health(found, as_json=as_json)
        undecided = found.slower and retune and _tuned_anew(verb.as_shipped(options), progress)
    if undecided or (found.slower and not retune):
        raise typer.Exit(NO_VERDICT if undecided else SLOWER)


def _tell_health(found: Health, *, as_json: bool) -> None:
    if as_json:
        typer.echo(printed.as_json("monitor", found, indent=None))
    else:
        say(f"{found.date}  {found.sentence}")


def _tuned_anew(options: TuneOptions, progress: Progress) -> bool:
    """Tune, and return whether there was no verdict."""
    from rtmo_optuna.show.sections.verdict import sentence
    from rtmo_optuna.verbs import tune as verb

    result = verb.tune(replace(options, new=True), progress)
    say(sentence(result.record), err=True)
    return result.undecided or result.interrupted


@app.command(epilog=epilog("report rtmo-t-cpu", "report rtmo-t-cpu --output report.md --json"))
def report(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    storage: Storage = DEFAULT_STORAGE,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Write a study's report again. Runs nothing."""
    from rtmo_optuna.verbs import answers
    from rtmo_optuna.verbs import tune as verb

    set_logging()
    told = answers.tuned(verb.report(name, storage, output))
    if as_json:
        typer.echo(printed.as_json("report", told))
    else:
        printed.name_files(told)


@app.command(epilog=epilog("studies", "studies --storage postgresql://user@host/studies --json"))
def studies(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """List the studies of a storage."""
    from rtmo_optuna.study.library import list_studies

    set_logging()
    found = list_studies(storage)
    if as_json:
        from rtmo_optuna.verbs.answers import Studies

        typer.echo(printed.as_json("studies", Studies(without_password(storage), found)))
        return
    rows = [
        (
            line.name,
            line.provider,
            line.model,
            line.trials,
            "" if line.best is None else number(line.best),
            line.started,
        )
        for line in found
    ]
    printed.print_table(("study", "provider", "model", "trials", "best", "started (UTC)"), rows)


@app.command(epilog=epilog("dashboard", "dashboard --port 8081"))
def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    host: Annotated[
        str, option("--host", text("ADDRESS"), "Address to listen on. The dashboard has no log-in.")
    ] = "127.0.0.1",
    port: Annotated[int, option("--port", whole(1, 65535))] = 8080,
) -> None:
    """Open optuna-dashboard on the studies, while a tune runs too."""
    from rtmo_optuna.study import dashboard as page
    from rtmo_optuna.study import storage as database

    set_logging()
    database.open_storage(storage, create=False)
    say(f"http://{host}:{port}/dashboard/   (Ctrl-C ends it)")
    page.serve(database.url_of(storage), str(database.artifacts_folder(storage)), host, port)
