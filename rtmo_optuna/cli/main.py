"""Verbs and exit codes; no logic."""

from __future__ import annotations

import functools
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from rtmo_optuna.cli.printed import (
    name_files,
    print_table,
    say,
    show_comparison,
    show_examination,
    show_plan,
    tell_pace,
)
from rtmo_optuna.cli.progress import Progress
from rtmo_optuna.cli.spelling import FACTOR, RATE, SHARE, TIME, Spelling, one_of, path, text, whole
from rtmo_optuna.display import without_password
from rtmo_optuna.errors import LostError, TunerError, UsageError
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.scratch import lost_file, scratch
from rtmo_optuna.show.words import number
from rtmo_optuna.types.study import DEFAULT_STORAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtmo_optuna.verbs.monitor import Health
    from rtmo_optuna.verbs.prepare import TuneOptions

FAILED = 1
SLOWER = 3
NO_VERDICT = 4
INTERRUPTED = 130
_EXIT_CODES = (
    "Exit codes: 0 done; 1 nothing could be measured; 2 bad usage or input, nothing was written; 4 no verdict (too "
    "little was tried, or not confirmed), the YAML file was left alone; 130 interrupted, after the report."
)
_MONITORED = "Exit codes: 0 as promised; 3 proven to be slower; 1 and 2 as for tune."
_CONFIG = Path("config.yaml")
_GATES = one_of("auto", "elementwise", "detections", "off")

app = typer.Typer(
    help="Find the fastest ONNX Runtime settings for a model on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _option(name: str, kind: Spelling, about: str = "", **more: Any) -> Any:  # noqa: ANN401 - as typer.Option
    return typer.Option(name, parser=kind.parser(name), metavar=kind.metavar, help=about, **more)


Storage = Annotated[
    str, typer.Option(metavar="URL", help="Database URL, or path of an SQLite file, that studies live in.")
]
Output = Annotated[
    Path | None,
    _option("--output", path("PATH"), "Report file (.md), or a folder. Default: results/<study name>/."),
]
Provider = Annotated[
    str, _option("--provider", one_of("auto", *PROVIDERS), "auto: cuda where there is a GPU, else host or cpu.")
]
Rate = Annotated[
    float | None,
    _option("--rate", RATE, "Calls a second, as a camera's frames come. Default: each call right after the other."),
]
Profile = Annotated[
    str | None,
    _option("--profile", text("NAME|auto"), "Profile in the YAML file, by GPU. Default: this GPU's, if it is there."),
]
Engine = Annotated[str, _option("--engine", one_of("onnxruntime", "scripted"), hidden=True)]


@app.command(epilog=_EXIT_CODES)
def tune(  # noqa: PLR0917 - one parameter an option
    model: Annotated[Path, typer.Argument(help="ONNX file to tune.")],
    config: Annotated[Path, _option("--config", path("FILE"), "YAML file that takes the best settings.")] = _CONFIG,
    output: Output = None,
    study: Annotated[
        str | None, _option("--study", text("NAME"), "Study definition: a path, or the name of one that ships.")
    ] = None,
    study_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the study. Default: <model>-<definition>.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer trials and shorter windows: at most 3 minutes.")
    ] = False,
    warmup: Annotated[int | None, _option("--warmup", whole(0), "Warm-up calls before a trial is timed.")] = None,
    runs: Annotated[int | None, _option("--runs", whole(1), "Timed calls of a trial.")] = None,
    rate: Rate = None,
    trials: Annotated[int | None, _option("--trials", whole(1), "Trials that the study is to have in all.")] = None,
    timeout: Annotated[float | None, _option("--timeout", TIME, "When to stop, such as 90s or 10m.")] = None,
    provider: Provider = "auto",
    input: Annotated[  # noqa: A002 - the option's name
        Path | None,
        _option("--input", path("PATH"), "What to run the model on: .npz, .npy, an image or a folder of images."),
    ] = None,
    input_scale: Annotated[
        float, _option("--input-scale", FACTOR, "Factor on an image's 0-255 values, such as 0.003922.")
    ] = 1.0,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="NAME=1x3x640x640", help="Shape of a dynamic input; may be repeated.")
    ] = None,
    gate: Annotated[
        str | None,
        _option("--gate", _GATES, "How outputs are compared with the CPU's. Default: the study definition's, auto."),
    ] = None,
    allow_busy: Annotated[
        bool, typer.Option("--allow-busy", help="Measure though others compute on the GPU, or the CPU.")
    ] = False,
    search_only: Annotated[
        bool, typer.Option("--search-only", help="Stop before race and confirmation, and leave the YAML file alone.")
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
    new: Annotated[bool, typer.Option("--new", help="Start a new study beside one of the same name.")] = False,
    config_path: Annotated[
        str | None, _option("--config-path", text("A.B.C"), "Where in the YAML file the settings go.")
    ] = None,
    profile: Profile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more.")] = False,
    engine: Engine = "onnxruntime",
) -> None:
    """Search for the fastest settings, write them to config.yaml, and report with plots.

    The same command resumes a study that was interrupted, up to the same number of trials.
    """
    from rtmo_optuna.show.sections.verdict import sentence
    from rtmo_optuna.types.measurement import GateMode
    from rtmo_optuna.types.request import EngineKind
    from rtmo_optuna.verbs import prepare
    from rtmo_optuna.verbs import tune as verb

    _set_logging(verbose=verbose)

    options = prepare.TuneOptions(
        model=model,
        config=config,
        config_path=config_path or "",
        profile=profile or "",
        output=output,
        study=study,
        study_name=study_name,
        quick=quick,
        warmup=warmup,
        runs=runs,
        rate_hz=rate,
        trials=trials,
        timeout_s=timeout,
        provider=provider,
        input=input,
        input_scale=input_scale,
        shapes=tuple(shape or ()),
        storage=storage,
        new=new,
        gate=GateMode(gate) if gate else None,
        allow_busy=allow_busy,
        search_only=search_only,
        engine=EngineKind(engine),
    )
    if dry_run:
        with scratch() as folder:
            show_plan(prepare.plan_tune(options, folder))
        return
    with Progress() as progress:
        result = verb.tune(options, progress)
    say(f"\n{sentence(result.record)}")
    tell_pace(result.record.definition)
    if result.config:
        kept = f" (the old file is {result.backup})" if result.backup else ""
        say(f"settings: {result.config}{kept}")
    name_files(result.files)
    say(f"study:    {result.record.name} in {without_password(result.record.storage)}")
    if result.interrupted:
        say("Interrupted; the configuration file was left alone. The same command goes on from here.")
        raise typer.Exit(INTERRUPTED)
    if result.undecided:
        say("No verdict; the configuration file was left alone.")
        raise typer.Exit(NO_VERDICT)


@app.command()
def bench(  # noqa: PLR0917 - one parameter an option
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    config: Annotated[
        Path | None,
        _option("--config", path("FILE"), "YAML file whose settings are the first side.", show_default="config.yaml"),
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help="Change the first side; may be repeated.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KNOB=VALUE", help="The second side: 'config', or changes of the default. May be repeated."
        ),
    ] = None,
    pairs: Annotated[int, _option("--pairs", whole(10), "Pairs of fresh processes, at most.")] = 20,
    rate: Rate = None,
    provider: Provider = "auto",
    input: Annotated[Path | None, _option("--input", path("PATH"), "As for tune.")] = None,  # noqa: A002
    input_scale: Annotated[float, _option("--input-scale", FACTOR, "As for tune.")] = 1.0,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x640x640", help="As for tune. Default: what config.yaml was tuned for."),
    ] = None,
    gate: Annotated[str, _option("--gate", _GATES, "As for tune.")] = "auto",
    timeout: Annotated[float | None, _option("--timeout", TIME, "When to stop, such as 90s or 10m.")] = None,
    allow_busy: Annotated[bool, typer.Option("--allow-busy", help="As for tune.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    engine: Engine = "onnxruntime",
) -> None:
    """Run two settings against each other in interleaved fresh processes: is one faster, and are outputs equal?

    The first is what config.yaml holds, the second ONNX Runtime's default, unless --set and --against say otherwise.
    """
    from rtmo_optuna.types.measurement import GateMode
    from rtmo_optuna.types.request import EngineKind
    from rtmo_optuna.verbs import bench as verb
    from rtmo_optuna.verbs import prepare

    _set_logging()
    options = prepare.TuneOptions(
        model=model,
        config=config or _CONFIG,
        rate_hz=rate,
        provider=provider,
        input=input,
        input_scale=input_scale,
        shapes=tuple(shape or ()),
        gate=GateMode(gate),
        timeout_s=timeout,
        allow_busy=allow_busy,
        engine=EngineKind(engine),
    )
    with Progress(quiet=as_json) as progress:
        found = verb.compare(options, change or [], against or [], pairs, progress, named=config is not None)
    if as_json:
        from rtmo_optuna.codec import encode

        typer.echo(json.dumps(encode(found), indent=2))
        return
    show_comparison(found)


@app.command(epilog="Exit codes: 0 nothing failed; 1 something did; 2 bad usage or input.")
def doctor(
    model: Annotated[
        Path | None, typer.Argument(help="ONNX file, to see which nodes a GPU leaves to the host.")
    ] = None,
    provider: Provider = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check whether this machine is fit: driver, libraries, GPU, cores, disk, and the nodes of a model."""
    from rtmo_optuna.verbs import doctor as verb

    _set_logging()
    with Progress(quiet=as_json) as progress:
        found = verb.examine(model, provider, progress)
    if as_json:
        from rtmo_optuna.codec import encode

        typer.echo(json.dumps(encode(found), indent=2))
    else:
        show_examination(found)
    if found.failed:
        raise typer.Exit(FAILED)


@app.command(epilog=_MONITORED)
def monitor(  # noqa: PLR0917 - one parameter an option
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    config: Annotated[Path, _option("--config", path("FILE"), "YAML file with the shipped settings.")] = _CONFIG,
    config_path: Annotated[str | None, _option("--config-path", text("A.B.C"), "As for tune.")] = None,
    profile: Profile = None,
    once: Annotated[bool, typer.Option("--once", help="Check once. This is the default.")] = False,
    every: Annotated[float | None, _option("--every", TIME, "Check again and again, such as every 15m.")] = None,
    threshold: Annotated[float, _option("--threshold", SHARE, "What slower means.", show_default="10%")] = 0.1,
    retune: Annotated[bool, typer.Option("--retune", help="Tune anew where it is proven to be slower.")] = False,
    study: Annotated[
        str | None, _option("--study", text("NAME"), "As for tune: how to measure, and what --retune searches.")
    ] = None,
    provider: Provider = "auto",
    input: Annotated[Path | None, _option("--input", path("PATH"), "As for tune.")] = None,  # noqa: A002
    input_scale: Annotated[float, _option("--input-scale", FACTOR, "As for tune.")] = 1.0,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x640x640", help="As for tune. Default: what config.yaml was tuned for."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, each check's on a line.")] = False,
    engine: Engine = "onnxruntime",
) -> None:
    """Check whether what config.yaml holds is still as fast as its benchmark_info promises, in fresh processes."""
    from rtmo_optuna.types.request import EngineKind
    from rtmo_optuna.verbs import monitor as verb
    from rtmo_optuna.verbs import prepare

    _set_logging()
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
                    _tuned_anew(replace(options, new=True), progress)
    with Progress(quiet=as_json) as progress:
        found = verb.check(options, progress, threshold)
        _tell_health(found, as_json=as_json)
        undecided = found.slower and retune and _tuned_anew(replace(options, new=True), progress)
    if undecided or (found.slower and not retune):
        raise typer.Exit(NO_VERDICT if undecided else SLOWER)


def _tell_health(found: Health, *, as_json: bool) -> None:
    from rtmo_optuna.codec import encode

    if as_json:
        typer.echo(json.dumps(encode(found)))
    else:
        say(f"{found.date}  {found.sentence}")


def _tuned_anew(options: TuneOptions, progress: Progress) -> bool:
    """Tune, and return whether there was no verdict."""
    from rtmo_optuna.show.sections.verdict import sentence
    from rtmo_optuna.verbs import tune as verb

    result = verb.tune(options, progress)
    say(sentence(result.record), err=True)
    return result.undecided or result.interrupted


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    storage: Storage = DEFAULT_STORAGE,
    output: Output = None,
) -> None:
    """Write a study's report again. Runs nothing."""
    from rtmo_optuna.verbs import tune as verb

    _set_logging()
    name_files(verb.report(name, storage, output))


@app.command()
def studies(storage: Storage = DEFAULT_STORAGE) -> None:
    """List the studies of a storage."""
    from rtmo_optuna.study.library import list_studies

    _set_logging()
    rows = [
        (
            line.name,
            line.provider,
            line.model,
            line.trials,
            "" if line.best is None else number(line.best),
            line.started,
        )
        for line in list_studies(storage)
    ]
    print_table(("study", "provider", "model", "trials", "best", "started (UTC)"), rows)


@app.command()
def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    host: Annotated[
        str, _option("--host", text("ADDRESS"), "Address to listen on. The dashboard has no log-in.")
    ] = "127.0.0.1",
    port: Annotated[int, _option("--port", whole(1, 65535))] = 8080,
) -> None:
    """Open optuna-dashboard on the studies, while a tune runs too."""
    from rtmo_optuna.study import dashboard as page
    from rtmo_optuna.study import storage as database

    _set_logging()
    database.open_storage(storage, create=False)
    say(f"http://{host}:{port}/dashboard/   (Ctrl-C ends it)")
    page.serve(database.url_of(storage), str(database.artifacts_folder(storage)), host, port)


def _set_logging(*, verbose: bool = False) -> None:
    """Set levels; to be called once Optuna is imported, which sets its own."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("optuna").setLevel(logging.INFO if verbose else logging.ERROR)


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
