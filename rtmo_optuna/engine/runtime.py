"""What an application needs to run exactly what was tuned: a session opened as config.yaml says."""

import logging
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.cutting import store
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.engine.feed import DTYPES, is_fixed, shown
from rtmo_optuna.engine.monitor import Monitor
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine import gpu, host
from rtmo_optuna.providers.table import PROVIDERS, automatic, device_of
from rtmo_optuna.space import benchmark_info, configfile
from rtmo_optuna.space.benchmark_info import BenchmarkInfo
from rtmo_optuna.space.knobs import canonical, knob_table
from rtmo_optuna.types.request import Pixels, Scope, SessionSpec, Settings, Value

_LOG = logging.getLogger("rtmo_optuna")


def open_session(
    model: str | Path,
    config: str | Path = "config.yaml",
    *,
    config_path: str = "",
    profile: str = "auto",
    provider: str = "auto",
    device: int = 0,
    strict: bool = True,
    shapes: Mapping[str, Sequence[int]] | None = None,
    monitor: bool | float = False,
) -> Session:
    """Return a session of `model` with the settings that `config` holds: what was tuned is what runs.

    `config_path` names the place in the file, as `tune --config-path` does. Of a file with profiles `auto` takes the
    one of the GPU (or processor) at hand, where there is none what stands beside them; the session's `profile` says
    which. `provider` is one of those of `tune --provider`; `auto` is the one that was tuned, else what it is there.
    `device` is the GPU's number. `shapes` are the model's inputs' shapes by name, in place of those that the file fixed
    for tuning; `{}` fixes none. Where the file says so (`pixels`), the session takes pictures as uint8, height x width
    x 3, in place of the model's arrays. With `monitor` the session's `monitor` keeps what calls take, and logs a
    warning where they stay slower than what tuning promised, by more than 10 % or the share given (0.2: 20 %).

    Raises UsageError where the file does not exist or holds unknown settings or none, where the model does not take the
    shapes or a CUDA graph lacks some, and where GPU, ONNX Runtime, model or provider are not those that were tuned:
    with `strict=False` that last is a warning. Raises SettingsRefusedError where ONNX Runtime does not take the
    settings.
    """
    held = _held(Path(config), config_path, provider, profile, device)
    watching = None if monitor is False else Monitor.of(held.info, Path(config), monitor)
    if not Path(model).is_file():
        raise UsageError(f"The model {model} does not exist or is no file; give the path of an ONNX file.")
    if shapes is not None:
        held = _reshaped(held, Path(model), shapes)
    spec = SessionSpec(
        model=str(model),
        provider=held.provider,
        settings=held.settings,
        device=device,
        shapes=held.shapes,
        free_dimensions=held.free_dimensions,
        extras=held.extras,
        pixels=held.pixels,
    )
    if told := _differences(held.info, spec):
        sentence = f"{config} was tuned for something else ({'; '.join(told)}): tune again here"
        if strict:
            raise UsageError(f"{sentence}, or open the session with strict=False.")
        warnings.warn(f"{sentence}.", stacklevel=2)
    _LOG.info("%s: %s of %s.", model, f"profile {held.profile!r}" if held.profile else "the settings", config)
    return Session(spec, profile=held.profile, monitor=watching)


def provider_options(
    config: str | Path = "config.yaml",
    *,
    config_path: str = "",
    profile: str = "auto",
    provider: str = "auto",
    device: int = 0,
) -> list[tuple[str, dict[str, str]]]:
    """Return what to give to `InferenceSession(providers=...)` for the provider options that `config` holds.

    Session options are `session_options`; binding, CUDA graphs and cut models need `open_session`, and leave these
    options out. Raises UsageError as `open_session` does for the file, and for a plugin, which has no such name.
    """
    runtime, settings = _plain(_held(Path(config), config_path, provider, profile, device))
    if not runtime.provider.named:
        raise UsageError(
            f"{runtime.provider.ort_name} is a plugin, which InferenceSession does not know by its name: call "
            "open_session, or give InferenceSession what session_options returns."
        )
    return [(runtime.provider.ort_name, runtime.options(settings, device=device)[1])]


def session_options(
    config: str | Path = "config.yaml",
    *,
    config_path: str = "",
    profile: str = "auto",
    provider: str = "auto",
    device: int = 0,
) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
    """Return `onnxruntime.SessionOptions` with the session's settings that `config` holds, and with its plugin."""
    held = _held(Path(config), config_path, provider, profile, device)
    runtime, settings = _plain(held)
    options, given = runtime.options(settings, free_dimensions=held.free_dimensions)
    runtime.provider.chain(runtime.ort, options, given, 0)
    return options


@dataclass(frozen=True, slots=True)
class _Held:
    """What a configuration file says of a session."""

    provider: str
    settings: Settings
    shapes: Mapping[str, tuple[int, ...]]
    free_dimensions: Mapping[str, int]
    info: BenchmarkInfo
    extras: Mapping[str, Value]
    profile: str
    pixels: Pixels | None


def _held(path: Path, config_path: str, provider: str, profile: str, device: int) -> _Held:
    if path.is_dir():
        raise UsageError(f"The configuration {path} is a folder: give the path of a YAML file.")
    if not path.is_file():
        message = f"The configuration {path} does not exist: tune first (rtmo-optuna tune MODEL --config {path})."
        raise UsageError(message)
    gpus = gpu.gpus()
    at_hand = next((one for one in gpus if one.index == device), None)
    name = host.host(device_of(provider, at_hand) if provider in {"auto", *PROVIDERS} else at_hand).device_name
    wanted = {"profile": "" if profile == configfile.AUTO else profile, "device": name}
    info = benchmark_info.read(configfile.read_info(path, config_path, **wanted), path)
    chosen = provider if provider != "auto" else info.provider or automatic(next(iter(gpus), None))
    if chosen not in PROVIDERS:
        where = f"benchmark_info of {path} says" if provider == "auto" else "this call says"
        raise UsageError(f"There is no provider {str(chosen)!r}, which {where}: it must be {' or '.join(PROVIDERS)}.")
    config = configfile.read(path, chosen, config_path, **wanted)
    configfile.check_settings(config, config_path)
    return _Held(
        provider=chosen,
        settings=config.settings,
        shapes=info.shapes,
        free_dimensions=info.free_dimensions,
        info=info,
        extras=config.extras,
        profile=config.profile,
        pixels=info.pixels,
    )


def _reshaped(held: _Held, model: Path, shapes: Mapping[str, Sequence[int]]) -> _Held:
    """Return `held` with the dimensions of `model` fixed as `shapes` says, whatever the file fixed."""
    from rtmo_optuna.engine.inputs.pixels import settled  # noqa: PLC0415 - needed here only
    from rtmo_optuna.engine.inputs.shapes import (  # noqa: PLC0415 - needed here only, and the next one is slow
        bound,
        named,
    )
    from rtmo_optuna.engine.whole import read_signature  # noqa: PLC0415

    specs = [spec for spec in read_signature(model) if spec.dtype in DTYPES]
    fixed = bound(specs, {name: _shape(name, sizes) for name, sizes in shapes.items()}, "shapes=")
    pixels = held.pixels
    if pixels:
        fixed, pixels = settled(fixed, pixels)
    loose = next((spec for spec in fixed if not is_fixed(spec.shape)), None)
    if loose and held.settings.get("enable_cuda_graph"):
        raise UsageError(
            f"These settings capture a CUDA graph, which needs fixed shapes, and the input {loose.name!r} has "
            f"{shown(loose.shape)}: give them all, as shapes={{{loose.name!r}: (...)}}."
        )
    return replace(
        held,
        shapes={} if loose else {s.name: tuple(size for size in s.shape if isinstance(size, int)) for s in fixed},
        free_dimensions=named(specs, fixed),
        pixels=pixels,
    )


def _shape(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = tuple(operator.index(size) for size in sizes)
    except TypeError as error:
        message = f"shapes= gives {sizes!r} for {name!r}, which is no shape: write (1, 3, 640, 640), for instance."
        raise UsageError(message) from error
    return shape


def _differences(info: BenchmarkInfo, spec: SessionSpec) -> list[str]:
    """Return what is not as it was tuned; nothing is asked of the machine that the file does not speak of."""
    ask: dict[str, Callable[[], str]] = {
        "provider": lambda: spec.provider,
        "gpu_name": lambda: getattr(dict(enumerate(gpu.gpus())).get(spec.device), "name", "no such GPU"),
        "cpu_name": lambda: host.host().cpu,
        "onnxruntime_version": lambda: ort.load(spec.provider).versions()["onnxruntime"],
        "model_sha256": lambda: store.content_hash(Path(spec.model)),
    }
    found = {name: (was, tell()) for name, tell in ask.items() if (was := getattr(info, name))}
    return [f"{name} was {was[:40]}, is {now[:40]}" for name, (was, now) in found.items() if was != now]


def _plain(held: _Held) -> tuple[ort.Runtime, Settings]:
    """Return who runs the settings, loaded, and what it is given of them: all but what needs more than options."""
    calls = {name for name, knob in knob_table(held.provider).items() if knob.scope is Scope.CALL}
    provider, settings = PROVIDERS[held.provider].chosen(held.settings)
    plain = canonical(provider.name, {name: value for name, value in settings if name not in calls})
    return replace(ort.load(provider.name), extras=held.extras), plain
