"""What a study ran on, and which model with which input."""

from collections.abc import Mapping

from rtmo_optuna.display import without_password
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Code, Column, Inline, Table
from rtmo_optuna.show.scores import objective
from rtmo_optuna.show.words import NBSP, TIMES
from rtmo_optuna.types.request import Pixels
from rtmo_optuna.types.study import StudyRecord
from rtmo_optuna.types.subject import ClockReason, GpuState

_HOLDS: Mapping[ClockReason, str] = {
    ClockReason.CHOSEN: "chosen clocks",
    ClockReason.POWER_CAP: "the power cap",
    ClockReason.HARDWARE: "hardware slowdown",
    ClockReason.HEAT_SOFTWARE: "heat (software)",
    ClockReason.HEAT_HARDWARE: "heat (hardware)",
    ClockReason.POWER_BRAKE: "the power brake",
}

_VERSIONS: Mapping[str, str] = {"onnxruntime": "ONNX Runtime", "cuda": "CUDA", "cudnn": "cuDNN"}


def table(record: StudyRecord) -> Table:
    """Return what the study ran on, and which model with which input."""
    host, model, inputs = record.machine, record.model, record.inputs
    rate_hz = record.definition.measuring.rate_hz
    rows: list[tuple[str, Inline]] = []
    if host.gpu:
        rows += [("GPU", host.gpu.name), ("GPU memory", words.gib(host.gpu.memory_bytes)), ("Driver", host.gpu.driver)]
    if len(record.gpu_states):
        first, last = map(_state, record.gpu_states)
        rows.append(("GPU at work", f"{first} after the first window, {last} after the last one"))
    rows += [
        ("CPU", host.cpu),
        ("Cores, memory", f"{host.cores}, {words.gib(host.memory_bytes)}"),
        ("System", host.system),
        ("Python", host.python),
        *((_VERSIONS.get(name, name), version) for name, version in model.versions.items()),
        ("Provider", model.provider),
        ("Model", Code(record.model_path)),
        ("SHA-256", Code(record.model_sha256[:16])),
        *((f"Shape of {name}", "x".join(map(str, shape)) or "scalar") for name, shape in inputs.shapes.items()),
        ("Input data", inputs.source),
        *((("Pixels", _pixels(inputs.pixels)),) if inputs.pixels else ()),
        ("Nodes", ", ".join(f"{name} {count}" for name, count in model.nodes_by_provider.items()) or "not known"),
        ("Objective", f"{objective(record).name}, {objective(record).unit}"),
        ("Pace", words.pace(rate_hz) if rate_hz is not None else "each call right after the other"),
        ("Fixed in every run", Code(str(record.space.fixed)) if len(record.space.fixed) else "nothing"),
        ("Study", record.name),
        ("Storage", Code(without_password(record.storage))),
    ]
    return Table((Column("What"), Column("Value")), tuple(rows))


def _pixels(pixels: Pixels) -> str:
    """Return what is done to pixels in front of the model."""
    mean, std = (", ".join(f"{number:g}" for number in numbers) for numbers in (pixels.mean, pixels.std))
    return f"uint8, (pixel {TIMES} {pixels.scale:g} - ({mean})) / ({std}) in float32"


def _state(state: GpuState) -> str:
    """Return a clock, a temperature and what holds the clock down, where there is any of them."""
    clock = "clock not known" if state.sm_mhz is None else f"{state.sm_mhz}{NBSP}MHz"
    heat = "" if state.celsius is None else f" at {state.celsius}{NBSP}°C"
    held = held_down(state.reasons)
    return f"{clock}{heat}{f' (held down by {held})' if held else ''}"


def held_down(reasons: int) -> str:
    """Return what holds clocks down for `reasons` (the bits of `ClockReason`); nothing where nothing does."""
    held = [what for bit, what in _HOLDS.items() if reasons & bit]
    return words.listed(held) if held else ""


def left_out(record: StudyRecord) -> Table | None:
    """Return what was not searched on this machine, and why; None where nothing was left out."""
    rows = tuple((Code(frozen.name), words.sentence(frozen.reason)) for frozen in record.space.left_out)
    return Table((Column("Knob or choice"), Column("Reason", wide=True)), rows) if rows else None
