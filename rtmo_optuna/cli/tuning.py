"""The verbs that search and compare; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtmo_optuna.cli import printed
from rtmo_optuna.cli.app import (
    CONFIG,
    INTERRUPTED,
    NO_VERDICT,
    SLOWER,
    Deviation,
    Engine,
    Json,
    Mean,
    Output,
    Pixels,
    Profile,
    Provider,
    Rate,
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
    SLOWER_BY,
    TIME,
    one_of,
    path,
    text,
    whole,
)
from rtmo_optuna.errors import UsageError
from rtmo_optuna.scratch import scratch
from rtmo_optuna.space.definition import shipped
from rtmo_optuna.types.study import DEFAULT_STORAGE

_TUNED = (
    "Exit codes: 0 done; 1 nothing could be measured; 2 bad usage or input, nothing was written; 4 no verdict (too "
    "little was tried, or not confirmed), the YAML file was left alone; 130 interrupted, after the report."
)
_BENCHED = (
    "Exit codes: 0 done; 1 some settings could not be run; 2 bad usage or input; with --fail-if 3 for proven to be "
    "slower, and 4 where the time did not do to say so."
)
_SHIPPED = tuple(path.stem for path in shipped())
_FORMATS = ("markdown", "csv", "json")
_GATES = one_of("auto", "elementwise", "detections", "off")


@app.command(
    epilog=epilog(
        "tune model.onnx --input photos/",
        "tune model.onnx --shape 1x3x640x640 --config service.yaml",
        "tune model.onnx --rate 30 --study realtime --timeout 20m",
        "tune model.onnx --dry-run",
        then=_TUNED,
    )
)
def tune(  # noqa: PLR0917 - one parameter an option
    model: Annotated[Path, typer.Argument(help="ONNX file to tune.")],
    config: Annotated[Path, option("--config", path("FILE"), "YAML file that takes the best settings.")] = CONFIG,
    output: Output = None,
    study: Annotated[
        str | None,
        option(
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
    warmup: Annotated[int | None, option("--warmup", whole(0), "Warm-up calls before a trial is timed.")] = None,
    runs: Annotated[int | None, option("--runs", whole(1), "Timed calls of a trial.")] = None,
    rate: Rate = None,
    trials: Annotated[
        int | None, option("--trials", whole(1), "Trials that the study is to have in all. Default: 40.")
    ] = None,
    timeout: Annotated[float | None, option("--timeout", TIME, "When to stop, such as 90s. Default: 10m.")] = None,
    provider: Provider = "auto",
    input: Annotated[  # noqa: A002 - the option's name
        Path | None,
        option("--input", path("PATH"), "What to run the model on: .npz, .npy, an image or a folder of images."),
    ] = None,
    input_scale: Annotated[
        float, option("--input-scale", FACTOR, "Factor on an image's 0-255 values, such as 0.003922.")
    ] = 1.0,
    pixels: Pixels = False,
    mean: Mean = None,
    std: Deviation = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="NAME=1x3x640x640", help="Shape of a dynamic input; may be repeated.")
    ] = None,
    gate: Annotated[
        str | None,
        option("--gate", _GATES, "How outputs are compared with the CPU's. Default: the study definition's, auto."),
    ] = None,
    precision: Annotated[
        str,
        option("--precision", one_of("search", "keep"), "keep: the model's own, whatever the study would search."),
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
        str | None, option("--config-path", text("A.B.C"), "Where in the YAML file the settings go.")
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

    set_logging(verbose=verbose)

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
    epilog=epilog(
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
        option("--config", path("FILE"), "YAML file whose settings are the first side.", show_default="config.yaml"),
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
    pairs: Annotated[int, option("--pairs", whole(10), "Pairs of fresh processes, at most.")] = 20,
    rate: Rate = None,
    provider: Provider = "auto",
    input: Annotated[Path | None, option("--input", path("PATH"), "As for tune.")] = None,  # noqa: A002
    input_scale: Annotated[float, option("--input-scale", FACTOR, "As for tune.")] = 1.0,
    pixels: Pixels = False,
    mean: Mean = None,
    std: Deviation = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x640x640", help="As for tune. Default: what config.yaml was tuned for."),
    ] = None,
    gate: Annotated[str, option("--gate", _GATES, "As for tune.")] = "auto",
    timeout: Annotated[float | None, option("--timeout", TIME, "When to stop, such as 90s or 10m.")] = None,
    allow_busy: Annotated[bool, typer.Option("--allow-busy", help="As for tune.")] = False,
    fail_if: Annotated[
        float | None,
        option("--fail-if", SLOWER_BY, "Exit with 3 where the first is proven slower, by more than PCT percent."),
    ] = None,
    output: Annotated[
        Path | None, option("--output", path("PATH"), "File (.json) or folder of the result. Default: results/bench/.")
    ] = None,
    files: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A.json B.json", help="Run nothing: compare two results that were kept."),
    ] = None,
    form: Annotated[str, option("--format", one_of("table", *_FORMATS), "How the result is printed.")] = "table",
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

    set_logging()
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
            config=config or CONFIG,
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
