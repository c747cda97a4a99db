"""What a study is about: its inputs, the machine, what is searched and by which rules."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from rtmo_optuna.types.measurement import GateRules
from rtmo_optuna.types.request import MOST_TIMED, Dimension, Limits, Measuring, Pixels, Settings, Value


@dataclass(frozen=True, slots=True)
class InputFacts:
    """Where the input arrays lie (one leading axis of samples), and what they are.

    `free_dimensions` are the symbolic dimensions that the user fixed, by name; `fixed` says whether every shape is.
    `shapes` are the model's, where a session takes `pixels` too.
    """

    path: str
    sha256: str
    shapes: Mapping[str, tuple[int, ...]]
    samples: int
    source: str
    real: bool
    free_dimensions: Mapping[str, int] = field(default_factory=dict)
    fixed: bool = False
    pixels: Pixels | None = None

    @property
    def timed(self) -> int:
        """How many of the samples are timed, the first ones: all are compared, but windows hold whole cycles."""
        return min(self.samples, MOST_TIMED)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU as NVML tells it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    driver: str
    compute_capability: str


class ClockReason(enum.IntFlag):
    """Why a GPU's clocks are held down: NVML's bits (nvml.h, nvmlClocksEventReasons), but for those of an idle one."""

    CHOSEN = 0x02
    POWER_CAP = 0x04
    HARDWARE = 0x08
    HEAT_SOFTWARE = 0x20
    HEAT_HARDWARE = 0x40
    POWER_BRAKE = 0x80


@dataclass(frozen=True, slots=True)
class GpuState:
    """How fast a GPU runs: SM clock in MHz, temperature in degrees Celsius (None: not told), what holds it down.

    `reasons` are the bits of `ClockReason`, and others that NVML tells.
    """

    sm_mhz: int | None
    reasons: int
    celsius: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """The host, and the GPU that a study runs on (None on a provider of the host's).

    `instructions` are those of the processor that a knob's choices may ask for, under the kernel's names.
    """

    system: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str
    gpu: Gpu | None = None
    instructions: tuple[str, ...] = ()

    @property
    def device_name(self) -> str:
        """The name of what a study runs on: the GPU's, else the processor's."""
        return self.gpu.name if self.gpu else self.cpu


@dataclass(frozen=True, slots=True)
class Frozen:
    """A knob or choice that is not searched, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The dimensions of a study, what is fixed in every trial, and what left the space on this machine."""

    provider: str
    dimensions: tuple[Dimension, ...]
    fixed: Settings = field(default_factory=Settings)
    left_out: tuple[Frozen, ...] = ()


@dataclass(frozen=True, slots=True)
class StudyDefinition:
    """A study definition file: what is searched, how it is measured, when it ends.

    `knobs` maps each searched dimension to its choices' labels (None: the table's own), `fixed` sets knobs in every
    trial. Machine-dependent choices are resolved later, by `space.resolve`. `batch` fixes the leading dimension of
    inputs that leave it open; settings that take more than `max_memory_gb` (GiB) of GPU memory fail. With `pixels`
    sessions take pictures as uint8.
    """

    name: str
    provider: str
    knobs: Mapping[str, tuple[Value, ...] | None]
    fixed: Mapping[str, Value] = field(default_factory=dict)
    objective: str = "latency"
    sampler: str = "auto"
    trials: int = 40
    timeout_s: float = 600.0
    prune_ratio: float = 1.5
    measuring: Measuring = field(default_factory=Measuring)
    limits: Limits = field(default_factory=Limits)
    gate: GateRules = field(default_factory=GateRules)
    batch: int | None = None
    pixels: bool = False
    max_memory_gb: float | None = None
