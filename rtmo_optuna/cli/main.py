"""Verbs and exit codes; no logic."""

from __future__ import annotations

import functools
import logging
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from rtmo_optuna.cli import printed
from rtmo_optuna.cli.printed import say
from rtmo_optuna.cli.progress import Progress
from rtmo_optuna.cli.spelling import (
    DEVIATION,
    FACTOR,
    MEAN,
    RATE,
    SHARE,
    SLOWER_BY,
    TIME,
    Spelling,
    one_of,
    path,
    text,
    whole,
)
from rtmo_optuna.display import without_password
from rtmo_optuna.errors import LostError, TunerError, UsageError
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.scratch import lost_file, scratch
from rtmo_optuna.show.words import number
from rtmo_optuna.space.definition import shipped
from rtmo_optuna.types.study import DEFAULT_STORAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtmo_optuna.verbs.monitor import Health
    from rtmo_optuna.verbs.prepare import TuneOptions


FAILED = 1
SLOWER = 3
NO_VERDICT = 4
INTERRUPTED = 130
_TUNED = (
    "Exit codes: 0 done; 1 nothing could be measured; 2 bad usage or input, nothing was written; 4 no verdict (too "
    "little was tried, or not confirmed), the YAML file was left alone; 130 interrupted, after the report."
)
_BENCHED = (
    "Exit codes: 0 done; 1 some settings could not be run; 2 bad usage or input; with --fail-if 3 for proven to be "
    "slower, and 4 where the time did not do to say so."
)
_CONFIG = Path("config.yaml")
_SHIPPED = tuple(path.stem for path in shipped())
_FORMATS = ("markdown", "csv", "json")
_GATES = one_of("auto", "elementwise", "detections", "off")

app = typer.Typer(
    help="Find the fastest ONNX Runtime settings for a model on this machine.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _epilog(*examples: str, then: str = "") -> str:
    """Return what ends a verb's help: `examples` a line each, as they are, and a paragraph."""
    lines = "\n".join(f"  rtmo-optuna {example}" for example in examples)
    return f"\b\nExamples:\n{lines}\n\n{then}"


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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/json.md); the rest on stderr.")]
Pixels = Annotated[
    bool, typer.Option("--pixels", help="Sessions take pictures as applications have them: uint8, height x width x 3.")
]
Mean = Annotated[
    Any,  # Typer would take a tuple for so many values
    _option("--mean", MEAN, "With --pixels: taken from each pixel, after the scale; a number a channel."),
]
Deviation = Annotated[Any, _option("--std", DEVIATION, "With --pixels: what each pixel is divided by at last.")]
Engine = Annotated[str, _option("--engine", one_of("onnxruntime", "scripted"), hidden=True)]


@app.command(
    epilog=_epilog(
        "tune model.onnx --input photos/",
        "tune model.onnx --shape 1x3x640x640 --config service.yaml",
        "tune model.onnx --rate 30 --study realtime --timeout 20m",
        "tune model.onnx --dry-run",
        then=_TUNED,
    )
)
def tune(  # noqa: PLR0917 - one parameter an option
    model: Annotated[Path, typer.Argument(help="ONNX file to tune.")],
    config: Annotated[Path, _option("--config", path("FILE"), "YAML file that takes the best settings.")] = _CONFIG,
    output: Output = None,
    study: Annotated[
        str | None,
        _option(
            "--study",
            text("NAME"),
            f"Study definition: a path, or one that ships ({', '.join(_SHIPPED)}). Default: the provider's.",
            autocompletion=lambda: list(_SHIPPED),
        ),
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
    trials: Annotated[
        int | None, _option("--trials", whole(1), "Trials that the study is to have in all. Default: 40.")
    ] = None,
    timeout: Annotated[float | None, _option("--timeout", TIME, "When to stop, such as 90s. Default: 10m.")] = None,
    provider: Provider = "auto",
    input: Annotated[  # noqa: A002 - the option's name
        Path | None,
        _option("--input", path("PATH"), "What to run the model on: .npz, .npy, an image or a folder of images."),
    ] = None,
    input_scale: Annotated[
        float, _option("--input-scale", FACTOR, "Factor on an image's 0-255 values, such as 0.003922.")
    ] = 1.0,
    pixels: Pixels = False,
    mean: Mean = None,
    std: Deviation = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="NAME=1x3x640x640", help="Shape of a dynamic input; may be repeated.")
    ] = None,
    gate: Annotated[
        str | None,
        _option("--gate", _GATES, "How outputs are compared with the CPU's. Default: the study definition's, auto."),
    ] = None,
    precision: Annotated[
        str,
        _option("--precision", one_of("search", "keep"), "keep: the model's own, whatever the study would search."),
    ] = "search",
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
    as_json: Json = False,
    engine: Engine = "onnxruntime",
) -> None:
    """Search for the fastest settings, write them to config.yaml, and report with plots.

    The same command resumes a study that was interrupted, up to the same number of trials.
    """
    from rtmo_optuna.types.measurement import GateMode
    from rtmo_optuna.types.request import EngineKind
    from rtmo_optuna.verbs import answers, prepare
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
        pixels=pixels,
        mean=mean or (),
        std=std or (),
        shapes=tuple(shape or ()),
        storage=storage,
        new=new,
        gate=GateMode(gate) if gate else None,
        allow_busy=allow_busy,
        search_only=search_only,
        keep_precision=precision == "keep",
        engine=EngineKind(engine),
    )
    if dry_run:
        with scratch() as folder:
            plan = prepare.plan_tune(options, folder)
            if as_json:
                typer.echo(printed.as_json("plan", answers.planned(plan)))
            else:
                printed.show_plan(plan)
        return
    with Progress(err=as_json) as progress:
        result = verb.tune(options, progress)
    told = answers.tuned(result)
    if as_json:
        typer.echo(printed.as_json("tune", told))
    else:
        printed.show_result(told)
    if result.interrupted or result.undecided:
        raise typer.Exit(INTERRUPTED if result.interrupted else NO_VERDICT)


@app.command(
    epilog=_epilog(
        "bench model.onnx --input photos/",
        "bench model.onnx --set intra_op_num_threads=1 --fail-if slower:5",
        "bench model.onnx --side config --side other.yaml",
        "bench --compare today.json last-week.json --format markdown",
        then=_BENCHED,
    )
)
def bench(  # noqa: PLR0917 - one parameter an option
    model: Annotated[Path | None, typer.Argument(help="ONNX file.")] = None,
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
    side: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIDE",
            help="Settings beside the first: knob=value,knob=value, a YAML file, config or default. May be repeated.",
        ),
    ] = None,
    pairs: Annotated[int, _option("--pairs", whole(10), "Pairs of fresh processes, at most.")] = 20,
    rate: Rate = None,
    provider: Provider = "auto",
    input: Annotated[Path | None, _option("--input", path("PATH"), "As for tune.")] = None,  # noqa: A002
    input_scale: Annotated[float, _option("--input-scale", FACTOR, "As for tune.")] = 1.0,
    pixels: Pixels = False,
    mean: Mean = None,
    std: Deviation = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x640x640", help="As for tune. Default: what config.yaml was tuned for."),
    ] = None,
    gate: Annotated[str, _option("--gate", _GATES, "As for tune.")] = "auto",
    timeout: Annotated[float | None, _option("--timeout", TIME, "When to stop, such as 90s or 10m.")] = None,
    allow_busy: Annotated[bool, typer.Option("--allow-busy", help="As for tune.")] = False,
    fail_if: Annotated[
        float | None,
        _option("--fail-if", SLOWER_BY, "Exit with 3 where the first is proven slower, by more than PCT percent."),
    ] = None,
    output: Annotated[
        Path | None, _option("--output", path("PATH"), "File (.json) or folder of the result. Default: results/bench/.")
    ] = None,
    files: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A.json B.json", help="Run nothing: compare two results that were kept."),
    ] = None,
    form: Annotated[str, _option("--format", one_of("table", *_FORMATS), "How the result is printed.")] = "table",
    as_json: Json = False,
    engine: Engine = "onnxruntime",
) -> None:
    """Run settings against others in interleaved fresh processes: is one faster, and are outputs equal?

    The first is what config.yaml holds, the second ONNX Runtime's default, unless --set, --side and --against say
    otherwise.
    """
    from rtmo_optuna.cli import formats
    from rtmo_optuna.types.measurement import GateMode
    from rtmo_optuna.types.request import EngineKind
    from rtmo_optuna.verbs import bench as verb
    from rtmo_optuna.verbs import kept, prepare
    from rtmo_optuna.verbs.sides import Sides

    _set_logging()
    form = "json" if as_json else form
    if (model is None) == (files is None):
        message = "bench takes the path of an ONNX file, or --compare and two of its results."
        raise UsageError(message)
    if model is None:
        first, second = files or (Path(), Path())
        found, file = kept.against(first, second, fail_if), None
    else:
        file = kept.place(output, model)
        options = prepare.TuneOptions(
            model=model,
            config=config or _CONFIG,
            rate_hz=rate,
            provider=provider,
            input=input,
            input_scale=input_scale,
            pixels=pixels,
            mean=mean or (),
            std=std or (),
            shapes=tuple(shape or ()),
            gate=GateMode(gate),
            timeout_s=timeout,
            allow_busy=allow_busy,
            engine=EngineKind(engine),
        )
        wanted = Sides(change or (), side or (), against or ())
        with Progress(err=form != "table") as progress:
            found = verb.compare_all(options, wanted, pairs, progress, named=config is not None, slower_by=fail_if)
        kept.keep(found, file)
    if form == "table":
        formats.show_bench(found)
    else:
        typer.echo(formats.PRINTED[form](found))
    if file:
        say(f"result:   {file}", err=form != "table")
    if fail_if is not None and found.slower is not False:
        raise typer.Exit(NO_VERDICT if found.slower is None else SLOWER)


@app.command(
    epilog=_epilog(
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

    _set_logging()
    with Progress(err=as_json) as progress:
        found = verb.examine(model, provider, progress)
    if as_json:
        typer.echo(printed.as_json("doctor", found))
    else:
        printed.show_examination(found)
    if found.failed:
        raise typer.Exit(FAILED)


@app.command(
    epilog=_epilog(
        "monitor model.onnx --input photos/",
        "monitor model.onnx --every 15m --threshold 20% --json",
        then="Exit codes: 0 as promised; 3 proven to be slower; 1, 2, and 4 of --retune, as for tune.",
    )
)
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
    as_json: Json = False,
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


@app.command(epilog=_epilog("report rtmo-t-cpu", "report rtmo-t-cpu --output report.md --json"))
def report(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    storage: Storage = DEFAULT_STORAGE,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Write a study's report again. Runs nothing."""
    from rtmo_optuna.verbs import answers
    from rtmo_optuna.verbs import tune as verb

    _set_logging()
    told = answers.tuned(verb.report(name, storage, output))
    if as_json:
        typer.echo(printed.as_json("report", told))
    else:
        printed.name_files(told)


@app.command(epilog=_epilog("studies", "studies --storage postgresql://user@host/studies --json"))
def studies(storage: Storage = DEFAULT_STORAGE, as_json: Json = False) -> None:
    """List the studies of a storage."""
    from rtmo_optuna.study.library import list_studies

    _set_logging()
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


@app.command(epilog=_epilog("dashboard", "dashboard --port 8081"))
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
    level, form = (logging.INFO, "%(name)s: %(message)s") if verbose else (logging.WARNING, "%(message)s")
    logging.basicConfig(level=level, format=form)
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
