"""What a comparison was made of: model, input, machine and versions, for those who read its figures later."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rtmo_optuna.machine import gpu, host
from rtmo_optuna.providers.table import device_of
from rtmo_optuna.space import benchmark_info, configfile
from rtmo_optuna.types.subject import Machine

if TYPE_CHECKING:
    from rtmo_optuna.verbs.prepare import Plan, TuneOptions

_ARRAYS = {".npz", ".npy"}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What does not follow from the two settings; `date` is UTC, `shapes` are those of one of the input's `samples`."""

    date: str
    model: str
    model_sha256: str
    provider: str
    input: str
    input_sha256: str
    samples: int
    shapes: Mapping[str, tuple[int, ...]]
    machine: Machine
    versions: Mapping[str, str]


def circumstances(planned: Plan) -> Circumstances:
    """Return what is to be known of a comparison by that plan, made now."""
    about = planned.about
    return Circumstances(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=about.model_path,
        model_sha256=about.model_sha256,
        provider=about.definition.provider,
        input=about.inputs.source,
        input_sha256=about.inputs.sha256,
        samples=about.inputs.samples,
        shapes=about.inputs.shapes,
        machine=about.machine,
        versions=about.model.versions,
    )


def held_info(options: TuneOptions) -> dict[str, Any]:
    """Return `benchmark_info` of the settings that the configuration holds for the device at hand, as text."""
    machine = host.host(device_of(options.provider, next(iter(gpu.gpus()), None)))
    return configfile.read_info(
        options.config, options.config_path, profile=options.profile, device=machine.device_name
    )


def as_tuned(options: TuneOptions, model_sha256: str) -> TuneOptions:
    """Return `options` with the shapes that config.yaml was tuned for, where they say none and no array has its own.

    If sessions took pixels there, they do here, as they did there unless `options` say how. A file that was tuned for
    another model than the one with this hash says nothing of it.
    """
    if not options.config.is_file():
        return options
    info = benchmark_info.read(held_info(options), options.config)
    if info.model_sha256 and info.model_sha256 != model_sha256:
        return options
    if info.pixels and not options.pixels:
        scale = info.pixels.scale if options.input_scale == 1 else options.input_scale
        mean, std = options.mean or info.pixels.mean, options.std or info.pixels.std
        options = replace(options, pixels=True, input_scale=scale, mean=mean, std=std)
    arrays = options.input is not None and options.input.suffix.lower() in _ARRAYS
    if options.shapes or arrays:
        return options
    return replace(options, shapes=tuple(f"{name}={'x'.join(map(str, shape))}" for name, shape in info.shapes.items()))
