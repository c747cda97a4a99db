"""What the user asked for, and the plan that comes of it: all that a run must know; nothing is touched yet."""

from __future__ import annotations

import functools
import math
import os
import time
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
from rtmo_optuna.engine.inputs.pixels import picture_of
from rtmo_optuna.engine.inputs.shapes import parse_shapes
from rtmo_optuna.engine.watch import ModelWatch
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine import gpu as gpus
from rtmo_optuna.machine import host
from rtmo_optuna.providers.table import PROVIDERS, automatic
from rtmo_optuna.samplers.table import SAMPLERS
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.runner import Rules
from rtmo_optuna.show.words import count, seconds
from rtmo_optuna.space import configfile, definition, resolve
from rtmo_optuna.study import storage
from rtmo_optuna.study.library import foresee
from rtmo_optuna.types.measurement import GateMode, GateRequest
from rtmo_optuna.types.request import EngineKind, ModelFacts, Pixels, SessionSpec
from rtmo_optuna.types.study import DEFAULT_STORAGE, Observer, RunStarted, StudyRecord, key
from rtmo_optuna.verbs import checks, first_look

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtmo_optuna.types.measurement import Rounding
    from rtmo_optuna.types.request import ModelFacts
    from rtmo_optuna.types.subject import Gpu, StudyDefinition

ALLOW_BUSY = "RTMO_OPTUNA_ALLOW_BUSY"
"""The environment variable that stands for `--allow-busy`, for hosts that never are idle."""
_QUICK_TRIALS = 12
_QUICK_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the user asked for; None where the study definition or a default decides."""

    model: Path
    config: Path = Path("config.yaml")
    config_path: str = ""
    profile: str = ""
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
    pixels: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    shapes: tuple[str, ...] = ()
    storage: str = DEFAULT_STORAGE
    new: bool = False
    gate: GateMode | None = None
    allow_busy: bool = False
    search_only: bool = False
    engine: EngineKind = EngineKind.ONNXRUNTIME
    keep_precision: bool = False


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


def foretell(options: TuneOptions) -> RunStarted:
    """Return what a tune is going to do, and for how long at most, as far as is known without a look at the model.

    Raises UsageError as `plan` does.
    """
    chosen, device = _chosen(options)
    where = device.name if device else "the processor"
    stages = "search" if options.search_only else "search, race and confirmation"
    then = "" if options.search_only else f", and {options.config} with the settings"
    report = options.output or f"results/{_name(options, chosen)}/"
    text = (
        f"Tuning {options.model.name} on {where}: baseline, {stages}, {count(chosen.trials, 'trial')} and "
        f"{seconds(chosen.timeout_s)} at most. Then there is a report in {report}{then}."
    )
    return RunStarted(text, chosen.timeout_s)


def _chosen(options: TuneOptions) -> tuple[StudyDefinition, Gpu | None]:
    """Return the study definition as the options change it, and the GPU that it is run on."""
    checks.check_model(options.model)
    checks.check_name(options.study_name)
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
    return chosen, device if PROVIDERS[chosen.provider].on_gpu else None


def _name(options: TuneOptions, chosen: StudyDefinition) -> str:
    return options.study_name or f"{options.model.stem}-{chosen.name}{'-quick' if options.quick else ''}"


def plan(options: TuneOptions, scratch: Path, tuned: Callable[[TuneOptions, str], TuneOptions] | None = None) -> Plan:
    """Return the plan of a tune; its input arrays lie in the folder `scratch`.

    With `tuned` it is that of a comparison: nothing is exported, and `tuned` makes of the options and the model's hash
    what is meant by the configuration. Raises UsageError, with one sentence, for whatever the user has to change.
    """
    chosen, device = _chosen(options)
    checks.check_runs(chosen, given=options.runs is not None)
    checks.check_rate(chosen, given=options.rate_hz is not None)
    machine = host.host(device)
    checks.check_profile(options.profile, machine.device_name)
    config = configfile.read(
        options.config, chosen.provider, options.config_path, profile=options.profile, device=machine.device_name
    )
    name = _name(options, chosen)
    if tuned is None:
        configfile.check_writable(options.config)
        configfile.check_layout(config, chosen.provider)
        checks.check_length(name, given=options.study_name is not None)
    report = checks.report_file(options.output, name)
    storage.sqlite_file(storage.url_of(options.storage))
    session = SessionSpec(str(options.model), chosen.provider, engine=options.engine, extras=config.extras)
    if not (options.allow_busy or os.environ.get(ALLOW_BUSY)):
        checks.check_idle(device)
    model = first_look.describe(session, chosen)
    model_sha256 = hash_model(options.model, model.external_files)
    if tuned:
        options = tuned(options, model_sha256)
        chosen, device = _chosen(options)
    checks.check_normalised(chosen, mean=options.mean, std=options.std)
    checks.check_comparable(model, chosen)
    made = functools.partial(
        engine_inputs.prepare,
        model.inputs,
        source=options.input,
        shapes=parse_shapes(options.shapes, model.inputs),
        scale=options.input_scale,
        target=scratch / "inputs.npz",
        batch=chosen.batch,
        pixels=_pixels(options, model) if chosen.pixels else None,
    )
    inputs = made()
    checks.check_time(chosen, inputs.timed)
    chosen = replace(chosen, limits=limits_at(chosen.limits, chosen.measuring, inputs.timed))
    session = replace(
        session,
        free_dimensions=inputs.free_dimensions,
        shapes=inputs.shapes if inputs.fixed else {},
        pixels=inputs.pixels,
    )
    gate = GateRequest(chosen.gate, str(scratch / "reference.npz"), baseline=True)
    content = {"model": model_sha256, "onnxruntime": model.versions["onnxruntime"]}
    inputs, told = first_look.reference(
        session, inputs, chosen, gate, content, lambda guess: made(guess=guess), model.widths
    )
    if told and not Path(gate.reference).exists():
        gate = replace(gate, rules=replace(gate.rules, mode=GateMode.OFF))
    rounding: Rounding | None = None
    if inputs.real and _wants_mixed(chosen, session, gate) and not resolve.unconvertible(model):
        rounding, unknown = first_look.rounding(session, inputs, chosen, gate, content)
        told = (*told, *unknown)
    warnings = (*first_look.warnings(model, inputs, chosen), *first_look.fixed_options(session, config.left_out), *told)
    about = StudyRecord(
        name=name,
        definition=chosen,
        space=resolve.resolve(chosen, machine, model, fixed_shapes=inputs.fixed, real=inputs.real, rounding=rounding),
        machine=machine,
        model=model,
        model_path=str(options.model),
        model_sha256=model_sha256,
        inputs=inputs,
        trials=(),
        storage=without_password(options.storage),
        warnings=warnings,
        rounding=rounding,
    )
    same = identity(about) | ({"other options": key(config.extras)} if config.extras else {}) | first_look.environment()
    return Plan(about, session, config, report, gate, same)


def _wants_mixed(chosen: StudyDefinition, session: SessionSpec, gate: GateRequest) -> bool:
    """Whether the study searches a mixed precision, and the output gate can tell of it."""
    labels = chosen.knobs.get("precision", ())
    judged = gate.rules.mode is not GateMode.OFF and session.engine is EngineKind.ONNXRUNTIME
    return judged and (labels is None or "mixed" in labels)


def plan_tune(options: TuneOptions, scratch: Path) -> Plan:
    """Return the plan of a tune as its storage will have it: under the name that is free, where that is wanted.

    Raises UsageError as `plan` does, and where a study of this name was made for something else.
    """
    planned = plan(options, scratch)
    name = foresee(options.storage, planned.about, planned.identity, new=options.new)
    return replace(planned, about=replace(planned.about, name=name), report=checks.report_file(options.output, name))


def runner_of(
    planned: Plan,
    observer: Observer,
    check: Callable[[], None] = lambda: None,
    wait_until: float = math.inf,
    until: float = math.inf,
) -> ChildRunner:
    """Return what runs the plan's processes, as `ChildRunner` takes `check`, `wait_until` and `until`."""
    about = planned.about
    least_calls = planned.rules.objective.least_calls
    return ChildRunner(
        session=planned.session,
        inputs=about.inputs.path,
        observer=observer,
        gpu=about.machine.gpu,
        batch=about.batch,
        fixed=about.space.fixed,
        paced_s=least_s(about.definition.measuring, about.inputs.timed, least_calls),
        until=until,
        wait_until=wait_until,
        run_end=time.time() + min(until - time.monotonic(), about.definition.timeout_s),
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
        **({"pixels": key(encode(about.inputs.pixels))} if about.inputs.pixels else {}),
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
    left_out = {"precision"} if options.keep_precision else set()
    return replace(
        found,
        knobs={name: labels for name, labels in found.knobs.items() if name not in left_out},
        measuring=measuring,
        trials=options.trials or trials,
        timeout_s=options.timeout_s or timeout_s,
        gate=replace(found.gate, mode=options.gate or found.gate.mode),
        pixels=options.pixels or found.pixels,
    )


def _pixels(options: TuneOptions, model: ModelFacts) -> Pixels:
    """Return how pictures are fed to `model`; raise UsageError where it has no input for them."""
    plain = Pixels(picture_of(model.inputs).name, scale=options.input_scale)
    return replace(plain, mean=options.mean or plain.mean, std=options.std or plain.std)
