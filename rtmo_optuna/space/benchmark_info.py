"""`benchmark_info`: what a tune writes beside the settings, and what is read of it; a person may have edited it."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rtmo_optuna.errors import UsageError

_SHAPE = re.compile(r"\d{1,12}([x, ]+\d{1,12})*")
_SIZE = re.compile(r"\d{1,12}")
_ALWAYS = frozenset({"latency_ms", "latency_range_ms", "speedup", "speedup_interval", "status"})
"""What is written even where it is not known."""


@dataclass(frozen=True, slots=True)
class BenchmarkInfo:
    """Under which circumstances settings were tuned, and what came of it; None is not known, or does not apply.

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
    model_sha256: str | None = None
    study: str | None = None

    def written(self, held: Collection[str]) -> dict[str, Any]:
        """Return what stands in the file, in order; of what it `held` before, nothing of another study is left."""
        told: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        told["shapes"] = {name: "x".join(map(str, shape)) for name, shape in self.shapes.items()}
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
    one that is no number above 0 is not known.
    """
    shapes = {name: _shape(name, shape, path) for name, shape in _mapping(held, "shapes", path).items()}
    sizes = _mapping(held, "free_dimensions", path).items()
    return BenchmarkInfo(
        **{name: str(held[name]) for name in _TEXTS if held.get(name)},  # type: ignore[arg-type]
        **{name: figure for name in _FIGURES if (figure := _figure(held.get(name)))},  # type: ignore[arg-type]
        pinned=held.get("pinned") == "true",
        shapes={name: shape for name, shape in shapes.items() if shape},
        free_dimensions={n: int(_matching(_SIZE, size, f"free_dimensions: {n}", "4", path)) for n, size in sizes},
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
