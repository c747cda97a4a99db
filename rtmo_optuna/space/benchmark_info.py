"""`benchmark_info`: what a tune writes beside the settings, and what is read of it; a person may have edited it."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rtmo_optuna.codec import encode
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import Pixels

_SHAPE = re.compile(r"\d{1,12}([x, ]+\d{1,12})*")
_SIZE = re.compile(r"\d{1,12}")
_NOTHING = ("", "~", "null", None)
_CHANNELS = 3
_EXAMPLE = "{input: images, scale: 0.00392, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
_ALWAYS = frozenset({"latency_ms", "latency_range_ms", "speedup", "speedup_interval", "status"})
"""What is written even where it is not known."""


@dataclass(frozen=True, slots=True)
class BenchmarkInfo:
    """Under which circumstances settings were tuned, and what came of it; None is not known, or does not apply.

    `shapes` are the model's, where a session takes `pixels` too.
    `rate_hz` is the pace of the calls and `optimized_fps` the items a second where one call followed the other;
    latencies are in ms, intervals are those of the claims. `sm_mhz` is the GPU's clock at work, `pinned` says that
    windows ran on quiet cores.
    """

    gpu_name: str | None = None
    cpu_name: str | None = None
    rate_hz: float | None = None
    optimized_fps: float | None = None
    latency_ms: float | None = None
    latency_range_ms: tuple[float, ...] | None = None
    speedup: float | None = None
    speedup_interval: tuple[float, ...] | None = None
    speedup_over_previous: float | None = None
    speedup_over_previous_interval: tuple[float, ...] | None = None
    status: str | None = None
    benchmark_date: str | None = None
    onnxruntime_version: str | None = None
    cuda_version: str | None = None
    cudnn_version: str | None = None
    driver_version: str | None = None
    sm_mhz: float | None = None
    pinned: bool = False
    provider: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    free_dimensions: Mapping[str, int] = field(default_factory=dict)
    pixels: Pixels | None = None
    model_sha256: str | None = None
    study: str | None = None

    def written(self, held: Collection[str]) -> dict[str, Any]:
        """Return what stands in the file, in order; of what it `held` before, nothing of another study is left."""
        told: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        told["shapes"] = {name: "x".join(map(str, shape)) for name, shape in self.shapes.items()}
        told["pixels"] = self.pixels and {name: value for name, value in encode(self.pixels).items() if name != "batch"}
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
        kept = _ALWAYS.union(held)
        return {name: value or None for name, value in told.items() if value or name in kept}


_TEXTS = (
    "gpu_name", "cpu_name", "onnxruntime_version", "provider", "model_sha256", "cuda_version", "cudnn_version",
    "driver_version",
)  # fmt: skip
"""What is compared with the circumstances at hand, as text."""
_FIGURES = ("latency_ms", "rate_hz", "sm_mhz")
"""What the latency at hand is compared with."""


def read(held: Mapping[str, Any], path: Path) -> BenchmarkInfo:
    """Return what `held`, the mapping in the file `path`, says of where settings were tuned, and for which shapes.

    Shapes may be written as 1x64, "1,64" or [1, 64]; scalars, which have none, are left out. Raises UsageError, which
    names the file, for a shape or a size that is none. Of the figures those are read that a latency is compared with;
    one that is no number above 0 is not known. What a later study has made null is nothing, but no name of a provider.
    """
    held = {name: value for name, value in held.items() if name == "provider" or value not in _NOTHING}
    shapes = {name: _shape(name, shape, path) for name, shape in _mapping(held, "shapes", path).items()}
    shapes = {name: shape for name, shape in shapes.items() if shape}
    sizes = _mapping(held, "free_dimensions", path).items()
    return BenchmarkInfo(
        **{name: str(held[name]) for name in _TEXTS if held.get(name)},  # type: ignore[arg-type]
        **{name: figure for name in _FIGURES if (figure := _figure(held.get(name)))},  # type: ignore[arg-type]
        pinned=held.get("pinned") == "true",
        shapes=shapes,
        free_dimensions={n: int(_matching(_SIZE, size, f"free_dimensions: {n}", "4", path)) for n, size in sizes},
        pixels=_pixels(_mapping(held, "pixels", path), shapes, path),
    )


def promised_ms(info: BenchmarkInfo, path: Path) -> float:
    """Return the latency that `info`, in the file `path`, promises; UsageError where it promises none."""
    if info.latency_ms is None:
        raise UsageError(
            f"The configuration {path} does not say what was promised (benchmark_info with latency_ms beside the "
            f"settings): tune first (rtmo-optuna tune MODEL --config {path})."
        )
    return info.latency_ms


def _figure(written: Any) -> float | None:  # noqa: ANN401 - whatever YAML holds
    try:
        number = float(written)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < math.inf else None


def _pixels(said: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path) -> Pixels | None:
    """Return how pixels are fed; the batch is that of the input's shape."""
    if not said:
        return None
    found: Pixels | None
    try:
        name = str(said["input"])
        numbers = {key: _numbers(said[key]) for key in ("mean", "std") if key in said}
        found = Pixels(name, shapes[name][0], float(said.get("scale", 1)), **numbers)
    except (KeyError, TypeError, ValueError):
        found = None
    if found is None or not (said.keys() <= {"input", "scale", "mean", "std"} and _usable(found)):
        raise UsageError(
            f"benchmark_info of {path} says pixels: {said}, which has to be as in {_EXAMPLE}, for one of the "
            "inputs under shapes: write it so."
        )
    return found


def _numbers(written: Any) -> tuple[float, ...]:  # noqa: ANN401 - whatever YAML holds
    return tuple(map(float, written.values() if isinstance(written, Mapping) else written))


def _usable(pixels: Pixels) -> bool:
    counted = len(pixels.mean) == len(pixels.std) == _CHANNELS
    finite = all(map(math.isfinite, (pixels.scale, *pixels.mean, *pixels.std)))
    return counted and finite and min(pixels.scale, *pixels.std) > 0


def _shape(name: str, written: Any, path: Path) -> tuple[int, ...]:  # noqa: ANN401 - whatever YAML holds
    # A list comes as the mapping of its elements by number.
    text = "x".join(map(str, written.values())) if isinstance(written, Mapping) else str(written or "")
    if not text:
        return ()
    return tuple(map(int, re.findall(r"\d+", _matching(_SHAPE, text, f"shapes: {name}", "1x3x640x640", path))))


def _mapping(info: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    held = info.get(name) or {}
    if not isinstance(held, Mapping):
        raise UsageError(
            f"benchmark_info of {path} says {name}: {held}, which is no mapping of names: write {name}: {{x: ...}}, or "
            "leave it out."
        )
    return held


def _matching(wanted: re.Pattern[str], written: Any, what: str, example: str, path: Path) -> str:  # noqa: ANN401
    if not wanted.fullmatch(str(written)):
        message = f"benchmark_info of {path} says {what}: {written}, which has to be as in {example}: write it so."
        raise UsageError(message)
    return str(written)
