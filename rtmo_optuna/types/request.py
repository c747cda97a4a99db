"""The types that cross between a parent and its children; apart from the others, since a child's start is measured.

Frozen, slotted, units in names, no behaviour beyond derived values.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Value: TypeAlias = bool | int | float | str | None
MOST_TIMED = 16
"""How many samples of the input a child's windows go through."""


class Scope(enum.StrEnum):
    """Where ONNX Runtime takes a knob."""

    PROVIDER = "provider"
    SESSION = "session"
    ENTRY = "entry"
    CALL = "call"


class EngineKind(enum.StrEnum):
    """Who runs the model in a child: ONNX Runtime, or a script with planted behaviour for tests."""

    ONNXRUNTIME = "onnxruntime"
    SCRIPTED = "scripted"


class Stage(enum.StrEnum):
    """The stations of a child's life, in order; a failure names the one it happened in."""

    START = "start"
    BUILD = "session build"
    FIRST_RUN = "first run"
    GATE = "output gate"
    WARMUP = "warm-up"
    WINDOW = "window"


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs from ONNX Runtime's defaults, by knob; equal settings are equal objects.

    Made canonical by `space.knobs.canonical`: no default values, no knob that another one makes meaningless.
    """

    items: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Settings:
        """Return settings with `values` in the order of their names."""
        return cls(tuple(sorted(values.items())))

    def get(self, knob: str, default: Value = None) -> Value:
        """Return the value of `knob`, or `default` where these settings leave it alone."""
        return dict(self.items).get(knob, default)

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        """Yield (knob, value) by name."""
        return iter(self.items)

    def __len__(self) -> int:
        """Return how many knobs are off their default."""
        return len(self.items)

    def __str__(self) -> str:
        """Return `a=1, b=x`, or `default`."""
        return ", ".join(f"{knob}={_shown(value)}" for knob, value in self.items) or "default"

    def to_plain(self) -> dict[str, Value]:
        """Return a JSON-ready mapping."""
        return dict(self.items)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Value]) -> Settings:
        """Return what `to_plain` wrote."""
        return cls.of(plain)


def _shown(value: Value) -> str:
    return "none" if value is None else str(int(value) if isinstance(value, bool) else value)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its ONNX Runtime type (`tensor(float)`) and shape; None or a name where it is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a child found out about a model on one provider.

    `uncapturable` counts the operators that a CUDA graph cannot hold. `widths` are sizes that its weights want of what
    they multiply, `weights` the types of those that are no integers.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    operators: Mapping[str, int]
    nodes_by_provider: Mapping[str, int]
    provider: str
    versions: Mapping[str, str]
    external_files: tuple[str, ...] = ()
    random_operators: tuple[str, ...] = ()
    provider_options: tuple[str, ...] = ()
    uncapturable: Mapping[str, int] = field(default_factory=dict)
    widths: tuple[int, ...] = ()
    weights: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measuring:
    """The rules of warm-up and windows, the same for every settings of a study (docs/design.md, Measuring).

    With `rate_hz`, so many calls begin each second; without, one follows the other.
    """

    warmup_s: float = 0.3
    warmup_calls: int = 10
    warmup_exact: bool = False
    window_s: float = 0.12
    window_calls: int = 10
    slow_call_ms: float = 25.0
    slow_calls: int = 3
    windows_min: int = 4
    windows_max: int = 20
    precision: float = 0.003
    runs: int | None = None
    rate_hz: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that each stage of a child's life may take before its process group is killed."""

    start_s: float = 60.0
    build_s: float = 180.0
    first_run_s: float = 180.0
    window_s: float = 60.0
    exit_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Pixels:
    """That a session takes pictures as applications have them, uint8, in place of the model's arrays of floats.

    What the model's input of that name gets is (pixel * scale - mean) / std, in float32 and in this order, each step
    rounded; a step that changes nothing is left out. `mean` and `std` are one number for each of three channels, in the
    model's order, in units of what the scale makes of a pixel.

    One picture is fed as height x width x 3, a `batch` of more as batch x height x width x 3.
    """

    input: str
    batch: int = 1
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """All that is needed to open a session in a child.

    `free_dimensions` fixes symbolic dimensions of the inputs by name; `shapes` are those of all inputs where every
    dimension is fixed, by that or by the model, else it is empty. `extras` are ONNX Runtime's options that are no
    knobs; those of another provider are passed over. `pixels` says that one input is fed pictures; its shape is the
    model's here nevertheless.
    """

    model: str
    provider: str
    settings: Settings = field(default_factory=Settings)
    engine: EngineKind = EngineKind.ONNXRUNTIME
    device: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    free_dimensions: Mapping[str, int] = field(default_factory=dict)
    extras: Mapping[str, Value] = field(default_factory=dict)
    pixels: Pixels | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkRequest:
    """One isolated session benchmark.

    `pin` has the child choose a quiet core for each window, against the shortest spin that the study has seen. `gate`
    is an encoded `GateRequest`, empty where outputs are not compared: a child reads it after its first run.
    """

    session: SessionSpec
    inputs: str
    measuring: Measuring = field(default_factory=Measuring)
    limits: Limits = field(default_factory=Limits)
    pin: bool = False
    best_spin_ns: int = 0
    gate: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of a dimension: what Optuna sees, and the knobs that it sets."""

    label: Value
    values: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One categorical parameter of the search."""

    name: str
    choices: tuple[Choice, ...]
