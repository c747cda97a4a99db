"""Everything a run must know before it starts; nothing the user has is touched, and bad input ends here."""

from __future__ import annotations

import functools
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.child.pace import least_s, limits_at
from rtmo_optuna.child.prefork import ChildPool, size_for
from rtmo_optuna.codec import encode
from rtmo_optuna.display import without_password
from rtmo_optuna.engine.graph import hash_model
from rtmo_optuna.engine.inputs import inputs as engine_inputs
from rtmo_optuna.engine.inputs.shapes import parse_shapes
from rtmo_optuna.engine.watch import ModelWatch
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine import gpu as gpus
from rtmo_optuna.machine import host, load
from rtmo_optuna.providers.table import PROVIDERS, automatic
from rtmo_optuna.samplers.table import SAMPLERS
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.runner import Rules
from rtmo_optuna.space import configfile, definition, resolve
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.study import storage
from rtmo_optuna.study.library import foresee
from rtmo_optuna.types.measurement import GateMode, GateRequest
from rtmo_optuna.types.request import EngineKind, ModelFacts, SessionSpec
from rtmo_optuna.types.study import Observer, StudyRecord, key
from rtmo_optuna.verbs import first_look

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtmo_optuna.types.subject import Gpu, StudyDefinition

ALLOW_BUSY = "RTMO_OPTUNA_ALLOW_BUSY"
"""The environment variable that stands for `--allow-busy`, for hosts that never are idle."""
_NAMED = 3
_LONGEST_NAME = 200
_QUICK_TRIALS = 12
_QUICK_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the user asked for; None where the study definition or a default decides."""

    model: Path
    config: Path = Path("config.yaml")
    config_path: str = ""
    output: Path | None = None
    study: str | None = None
    study_name: str | None = None
    quick: bool = False
    warmup: int | None = None
    runs: int | None = None
    rate_hz: float | None = None
    trials: int | None = None
    timeout_s: float | None = None
    provider: str = "auto"
    input: Path | None = None
    input_scale: float = 1.0
    shapes: tuple[str, ...] = ()
    storage: str = storage.DEFAULT_STORAGE
    new: bool = False
    gate: GateMode | None = None
    allow_busy: bool = False
    search_only: bool = False
    engine: EngineKind = EngineKind.ONNXRUNTIME


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is known to be possible."""

    about: StudyRecord
    session: SessionSpec
    config: configfile.ConfigFile
    report: Path
    gate: GateRequest
    identity: Mapping[str, str] = field(default_factory=dict)

    @property
    def rules(self) -> Rules:
        """The rules of its processes, before a preflight."""
        return Rules.of(self.about.definition, self.gate)


def plan(options: TuneOptions, scratch: Path) -> Plan:
    """Return the plan of a tune; its input arrays lie in the folder `scratch`.

    Raises UsageError, with one sentence, for whatever the user has to change.
    """
    _check_model(options.model)
    _check_name(options.study_name)
    device = next(iter(gpus.gpus()), None)
    wanted = options.provider
    if wanted == "auto":
        wanted = automatic(device)
    chosen = _definition(options, wanted)
    if options.provider not in {"auto", chosen.provider}:
        message = (
            f"The study definition {chosen.name!r} is for the provider {chosen.provider!r}, --provider says "
            f"{options.provider!r}: leave one of them out."
        )
        raise UsageError(message)
    device = device if PROVIDERS[chosen.provider].on_gpu else None
    _check_runs(options, chosen)
    _check_rate(options, chosen)
    config = configfile.read(options.config, chosen.provider, options.config_path)
    configfile.check_writable(options.config)
    configfile.check_layout(config, chosen.provider)
    name = options.study_name or f"{options.model.stem}-{chosen.name}{'-quick' if options.quick else ''}"
    _check_length(name, options.study_name)
    report = _report_file(options.output, name)
    storage.sqlite_file(storage.url_of(options.storage))
    session = SessionSpec(str(options.model), chosen.provider, engine=options.engine, extras=config.extras)
    if not (options.allow_busy or os.environ.get(ALLOW_BUSY)):
        _check_idle(device)
    model = first_look.describe(session, chosen)
    _check_comparable(model, chosen)
    made = functools.partial(
        engine_inputs.prepare,
        model.inputs,
        source=options.input,
        shapes=parse_shapes(options.shapes, model.inputs),
        scale=options.input_scale,
        target=scratch / "inputs.npz",
        batch=chosen.batch,
    )
    inputs = made()
    _check_time(chosen, inputs.samples)
    chosen = replace(chosen, limits=limits_at(chosen.limits, chosen.measuring, inputs.samples))
    session = replace(session, free_dimensions=inputs.free_dimensions, shapes=inputs.shapes if inputs.fixed else {})
    gate = GateRequest(chosen.gate, str(scratch / "reference.npz"), baseline=True)
    model_sha256 = hash_model(options.model, model.external_files)
    content = {"model": model_sha256, "onnxruntime": model.versions["onnxruntime"]}
    inputs, told = first_look.reference(
        session, inputs, chosen, gate, content, lambda guess: made(guess=guess), model.widths
    )
    if told and not Path(gate.reference).exists():
        gate = replace(gate, rules=replace(gate.rules, mode=GateMode.OFF))
    warnings = (*first_look.warnings(model, inputs, chosen), *first_look.fixed_options(session, config.left_out), *told)
    machine = host.host(device)
    about = StudyRecord(
        name=name,
        definition=chosen,
        space=resolve.resolve(chosen, machine, model, fixed_shapes=inputs.fixed, real=inputs.real),
        machine=machine,
        model=model,
        model_path=str(options.model),
        model_sha256=model_sha256,
        inputs=inputs,
        trials=(),
        storage=without_password(options.storage),
        warnings=warnings,
    )
    same = identity(about) | ({"other options": key(config.extras)} if config.extras else {}) | first_look.environment()
    return Plan(about, session, config, report, gate, same)


def plan_tune(options: TuneOptions, scratch: Path) -> Plan:
    """Return the plan of a tune as its storage will have it: under the name that is free, where that is wanted.

    Raises UsageError as `plan` does, and where a study of this name was made for something else.
    """
    planned = plan(options, scratch)
    name = foresee(options.storage, planned.about.name, planned.identity, new=options.new)
    return replace(planned, about=replace(planned.about, name=name), report=_report_file(options.output, name))


def runner_of(
    planned: Plan, observer: Observer, check: Callable[[], None] = lambda: None, until: float = math.inf
) -> ChildRunner:
    """Return what runs the plan's processes, until `until` (monotonic seconds); `check` raises where that is over."""
    about = planned.about
    least_calls = planned.rules.objective.least_calls
    return ChildRunner(
        session=planned.session,
        inputs=about.inputs.path,
        observer=observer,
        gpu=about.machine.gpu,
        batch=about.batch,
        fixed=about.space.fixed,
        paced_s=least_s(about.definition.measuring, about.inputs.samples, least_calls),
        until=until,
        pool=_pool(planned),
        check=check,
        unchanged=ModelWatch(Path(about.model_path), about.model.external_files, about.model_sha256),
    )


def _pool(planned: Plan) -> ChildPool | None:
    """Return a pool of children, where there are cores to make several at once."""
    size = size_for(planned.about.machine.cores)
    if size == 1 or planned.session.engine is not EngineKind.ONNXRUNTIME:
        return None
    return ChildPool(planned.session.provider, size, planned.about.definition.limits.start_s)


def identity(about: StudyRecord) -> dict[str, str]:
    """Return what must be equal for a study to go on; values are short enough to be shown side by side."""
    machine, definition_, model = about.machine, about.definition, about.model
    hardware = (
        {"gpu": machine.gpu.name, "gpu memory": f"{machine.gpu.memory_bytes >> 20} MiB", "driver": machine.gpu.driver}
        if machine.gpu
        else {"cpu": machine.cpu, "cores": str(machine.cores)}
    )
    space = {d.name: [encode(choice.label) for choice in d.choices] for d in about.space.dimensions}
    measuring = {name: value for name, value in encode(definition_.measuring).items() if name != "rate_hz"}
    rate_hz = definition_.measuring.rate_hz
    return {
        "model": about.model_sha256,
        "input shapes": key({name: list(shape) for name, shape in about.inputs.shapes.items()}),
        "input": about.inputs.sha256,
        "fixed dimensions": key(about.inputs.free_dimensions),
        "provider": definition_.provider,
        "objective": definition_.objective,
        "measuring": key(measuring),
        **({"calls a second": f"{rate_hz:g}"} if rate_hz else {}),
        "pruning": str(definition_.prune_ratio),
        "max_memory_gb": str(definition_.max_memory_gb),
        "gate": key(encode(definition_.gate)),
        "space": key(space),
        "fixed": key(about.space.fixed.to_plain()),
        **hardware,
        **model.versions,
    }


def _check_model(model: Path) -> None:
    problem = (
        "does not exist" if not model.exists()
        else "is a folder" if model.is_dir()
        else "is empty" if not model.stat().st_size
        else ""
    )  # fmt: skip
    if problem:
        message = f"The model {model} {problem}; give the path of an ONNX file."
        raise UsageError(message)


def _check_name(study: str | None) -> None:
    """Refuse a study's name that would lead out of the results' folder, or that nobody could call it by."""
    if study is not None and (not study.strip() or study in {".", ".."} or set(study) & set("/\\\0")):
        message = f"{study!r} is no name for a study: give one without slashes, which stands for a folder of results."
        raise UsageError(message)


def _check_length(name: str, given: str | None) -> None:
    """Refuse a study's name that no folder of results can have, with room for a number (`--new`)."""
    if len(os.fsencode(name)) > _LONGEST_NAME:
        whose = "--study-name" if given else "The model's and the study definition's names make a study's name that"
        size = len(os.fsencode(name))
        message = f"{whose} is too long ({size} bytes): give a --study-name of {_LONGEST_NAME} at most."
        raise UsageError(message)


def _definition(options: TuneOptions, provider: str) -> StudyDefinition:
    found = definition.load(definition.find(options.study or provider), samplers=SAMPLERS)
    measuring = found.measuring
    if options.quick:
        measuring = replace(measuring, windows_max=6, window_s=0.08, precision=0.01, warmup_s=0.2)
    if options.warmup is not None:
        measuring = replace(measuring, warmup_calls=options.warmup, warmup_exact=True)
    if options.runs is not None:
        measuring = replace(measuring, runs=options.runs)
    if options.rate_hz is not None:
        measuring = replace(measuring, rate_hz=options.rate_hz)
    trials, timeout_s = found.trials, found.timeout_s
    if options.quick:
        trials, timeout_s = min(trials, _QUICK_TRIALS), min(timeout_s, _QUICK_TIMEOUT_S)
    return replace(
        found,
        measuring=measuring,
        trials=options.trials or trials,
        timeout_s=options.timeout_s or timeout_s,
        gate=replace(found.gate, mode=options.gate or found.gate.mode),
    )


def _check_runs(options: TuneOptions, chosen: StudyDefinition) -> None:
    runs, least = chosen.measuring.runs, OBJECTIVES[chosen.objective].least_calls
    if runs is not None and runs < least:
        where = "'measuring: runs'" if options.runs is None else "--runs"
        message = (
            f"The objective {chosen.objective!r} of the study definition {chosen.name!r} needs {least} timed calls of "
            f"each process, and {where} gives {runs}: give at least {least}, or leave it out."
        )
        raise UsageError(message)


def _check_rate(options: TuneOptions, chosen: StudyDefinition) -> None:
    rate_hz = chosen.measuring.rate_hz
    if rate_hz is not None and not OBJECTIVES[chosen.objective].paced:
        where = "'measuring: rate_hz'" if options.rate_hz is None else "--rate"
        those = " and ".join(name for name, objective in OBJECTIVES.items() if objective.paced)
        message = (
            f"At a fixed rate there are the objectives {those}, and {where} gives one to the study definition "
            f"{chosen.name!r}, whose objective is {chosen.objective!r}: leave out one of them."
        )
        raise UsageError(message)


def _check_time(chosen: StudyDefinition, samples: int) -> None:
    """Refuse a rate at which one process alone would take all the time that there is."""
    each_s = least_s(chosen.measuring, samples, OBJECTIVES[chosen.objective].least_calls)
    if each_s > chosen.timeout_s:
        message = (
            f"At {chosen.measuring.rate_hz:g} calls a second each process takes {each_s:.0f} s at least, more than the "
            f"{chosen.timeout_s:g} s that all of the study may take: give a higher rate or more time."
        )
        raise UsageError(message)


def _check_idle(device: Gpu | None) -> None:
    """Refuse a GPU, or without one a processor, that others compute on."""
    if device:
        name, most = device.name, ""
        others = [(process.name, process.pid) for process in gpus.processes(device) if process.pid != os.getpid()]
    else:
        cores = host.host().cores
        loads = load.busy_with(cores)
        name, most = "The processor", f", on {sum(one.cores for one in loads):.1f} of {cores} cores"
        others = [(one.name, one.pid) for one in loads]
    if others:
        who = ", ".join(f"{called or 'a process'} (pid {pid})" for called, pid in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        message = f"{name} is busy with {who}{more}{most}: end that, or say --allow-busy and believe the figures less."
        raise UsageError(message)


def _check_comparable(model: ModelFacts, chosen: StudyDefinition) -> None:
    if model.random_operators and chosen.gate.mode is not GateMode.OFF:
        message = (
            f"The model draws random numbers ({', '.join(model.random_operators)}), so its outputs cannot be compared "
            "from run to run: run with --gate off, and check the outputs yourself."
        )
        raise UsageError(message)


def _report_file(output: Path | None, study: str) -> Path:
    given = output or Path("results", study)
    report = given if given.suffix.lower() in {".md", ".markdown"} else given / "report.md"
    standing = next(folder for folder in (report.parent, *report.parent.parents, Path()) if folder.exists())
    try:
        if not standing.is_dir():
            raise NotADirectoryError(None, "it is a file")
        with tempfile.TemporaryFile(dir=standing):
            pass
    except OSError as error:
        message = f"The output folder {report.parent} cannot be written: {error.strerror} ({standing}). Name --output."
        raise UsageError(message) from error
    if report.is_dir():
        message = f"The report {report} is a folder. Name another --output."
        raise UsageError(message)
    return report
