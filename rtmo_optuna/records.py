"""Every type that flows through the program: frozen, slotted, units in names, no behaviour beyond derived values."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rtmo_optuna.measurement import (
    GateMode,
    GateRequest,
    GateResult,
    GateRules,
    Measurement,
    Outcome,
    OutputError,
    StageTimes,
    Window,
)
from rtmo_optuna.wire import (
    BenchmarkRequest,
    Choice,
    Dimension,
    EngineKind,
    Limits,
    Measuring,
    ModelFacts,
    Scope,
    SessionSpec,
    Settings,
    Stage,
    TensorSpec,
    Value,
)

__all__ = [
    "BenchmarkRequest",
    "Choice",
    "Claim",
    "Dimension",
    "EngineKind",
    "Event",
    "Frozen",
    "GateMode",
    "GateRequest",
    "GateResult",
    "GateRules",
    "Gpu",
    "GpuState",
    "InputFacts",
    "KnobEffect",
    "Limits",
    "Machine",
    "Measurement",
    "Measuring",
    "ModelFacts",
    "Noise",
    "Note",
    "Observer",
    "Origin",
    "Outcome",
    "OutputError",
    "ProcessRecord",
    "Purpose",
    "Reading",
    "Scope",
    "Screening",
    "SearchSpace",
    "SessionSpec",
    "Settings",
    "Stage",
    "StageTimes",
    "StudyDefinition",
    "StudyLine",
    "StudyRecord",
    "TensorSpec",
    "TrialEnded",
    "TrialRecord",
    "TrialStarted",
    "Value",
    "Verdict",
    "Window",
    "WindowDone",
    "key",
]


class Purpose(enum.StrEnum):
    """What a process beside the trials is for."""

    BASELINE = "baseline"
    PINNED = "baseline, pinned to quiet cores"
    SCREENING = "screening"
    RACE = "race"
    CONFIRMATION = "confirmation"


class Origin(enum.StrEnum):
    """Why these settings were tried."""

    DEFAULT = "default"
    CONFIG = "config.yaml"
    ADVICE = "the guide's advice"
    SCREENING = "screening"
    SAMPLER = "sampler"


@dataclass(frozen=True, slots=True)
class InputFacts:
    """Where the input arrays lie (one leading axis of samples), and what they are.

    `free_dimensions` are the symbolic dimensions that the user fixed, by name; `fixed` says whether every shape is.
    """

    path: str
    sha256: str
    shapes: Mapping[str, tuple[int, ...]]
    samples: int
    source: str
    real: bool
    free_dimensions: Mapping[str, int] = field(default_factory=dict)
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU as NVML tells it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    driver: str
    compute_capability: str


@dataclass(frozen=True, slots=True)
class GpuState:
    """How fast a GPU runs: SM clock in MHz, temperature in degrees Celsius (None: not told), what holds it down.

    `reasons` are NVML's bits (nvmlClocksEventReasons).
    """

    sm_mhz: int | None
    reasons: int
    celsius: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """The host, and the GPU that a study runs on (None on the `cpu` provider)."""

    hostname: str
    system: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str
    gpu: Gpu | None = None


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
    trial. Machine-dependent choices are resolved later, by `space.resolve`. `batch` fixes the leading dimension of inputs
    that leave it open; settings that take more than `max_memory_gb` (GiB) of GPU memory fail.
    """

    name: str
    provider: str
    knobs: Mapping[str, tuple[Value, ...] | None]
    fixed: Mapping[str, Value] = field(default_factory=dict)
    objective: str = "latency"
    sampler: str = "tpe"
    trials: int = 40
    timeout_s: float = 600.0
    prune_ratio: float = 1.5
    measuring: Measuring = field(default_factory=Measuring)
    limits: Limits = field(default_factory=Limits)
    gate: GateRules = field(default_factory=GateRules)
    batch: int | None = None
    max_memory_gb: float | None = None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of a study; `run` counts those that were really run, from 1 (0: answered from an earlier trial)."""

    number: int
    run: int
    settings: Settings
    origin: Origin
    measurement: Measurement
    value: float | None = None
    answered_from: int | None = None
    started: str = ""
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A fresh process beside the trials: of the baseline, of block `index` of the race, or of pair `index`.

    `cost` is what the race compares: the latency in ms, or what the objective has in its place; None where the process
    failed, for `reason`. `windows_ms` are its windows' medians, `outputs_sha256` is the hash of its outputs.
    """

    purpose: Purpose
    index: int
    settings: Settings
    cost: float | None
    latency_ms: float | None = None
    windows_ms: tuple[float, ...] = ()
    memory_bytes: int | None = None
    reason: str = ""
    dropped: int = 0
    wall_s: float = 0.0
    outputs_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Noise:
    """How far processes of the same settings, and windows of one process, differ (relative standard deviations).

    `found` is the gain that a study finds with a probability of 80 % on such a host. `judged` processes had windows
    enough to tell whether they are of one level; `unsteady` counts those that are not, by what they are.
    """

    between: float | None
    within: float | None
    noisy: bool
    found: float | None
    judged: int = 0
    unsteady: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """What fresh pairs say of the winner `against` other settings: how many times as fast, with the 98 % interval."""

    against: str
    ratio: float | None
    low: float | None
    high: float | None
    pairs: int
    decided: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the study may claim: `best` is what is exported; `speedup`, against the default, is the confirmed estimate.

    Where nothing is `confirmed`, `best` is what was there before, and a study that was cut off has no `speedup`.
    """

    sentence: str
    best: TrialRecord | None
    default: TrialRecord | None
    speedup: float | None
    confirmed: bool = False
    claims: tuple[Claim, ...] = ()


class Reading(enum.StrEnum):
    """What the screening says of a flip: a knob's choice tried alone, or with the one that it needs."""

    FASTER = "faster"
    SLOWER = "slower"
    INERT = "inert here"
    UNDECIDED = "undecided"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class KnobEffect:
    """What a flip of `options` (dimension and choice) from the default settings did.

    `ratio` is its cost over the default's, with the 98 % interval `low` to `high`: of a single trial, or of as many
    `pairs` of processes in which it was in play; None where there is no figure. `equal_outputs` says whether its
    outputs were the default's to the last bit.
    """

    options: tuple[tuple[str, Value], ...]
    settings: Settings
    reading: Reading
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    equal_outputs: bool = False


@dataclass(frozen=True, slots=True)
class Screening:
    """What each knob does here: the flips, which dimensions are `inert` and frozen at their defaults, and why.

    `tested` are the options that were tested for doing nothing, `pairs` how many pairs that took. `note` says what was
    left out and why. Until it is `over`, an interrupted screening goes on.
    """

    effects: tuple[KnobEffect, ...] = ()
    inert: tuple[Frozen, ...] = ()
    tested: tuple[tuple[str, Value], ...] = ()
    pairs: int = 0
    note: str = ""
    over: bool = False


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A whole study, as the report, the plots and the export need it.

    `gpu_states` are how the GPU ran after the study's first window and after its last one; empty without a GPU.
    """

    name: str
    definition: StudyDefinition
    space: SearchSpace
    machine: Machine
    model: ModelFacts
    model_path: str
    model_sha256: str
    inputs: InputFacts
    trials: tuple[TrialRecord, ...]
    verdict: Verdict
    storage: str
    warnings: tuple[str, ...] = ()
    complete: bool = False
    processes: tuple[ProcessRecord, ...] = ()
    noise: Noise | None = None
    gpu_states: tuple[GpuState, ...] = ()
    screening: Screening | None = None

    @property
    def runs(self) -> tuple[TrialRecord, ...]:
        """The trials that were really run, in order."""
        return tuple(trial for trial in self.trials if trial.run)

    @property
    def batch(self) -> int:
        """How many items a call handles: the first input's leading dimension, 1 for a scalar."""
        shape = next(iter(self.inputs.shapes.values()), ())
        return shape[0] if shape else 1

    @property
    def default(self) -> TrialRecord | None:
        """The run of the default settings, None before it."""
        return next((trial for trial in self.runs if trial.origin is Origin.DEFAULT), None)


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A line of the list of studies."""

    name: str
    trials: int
    best: float | None
    provider: str
    model: str
    started: str


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A trial is about to run: the `run`-th of `total` that the search, or the screening, has."""

    run: int
    total: int
    settings: Settings
    origin: Origin
    seconds_left: float


@dataclass(frozen=True, slots=True)
class WindowDone:
    """A window of the running trial was accepted."""

    latency_ms: float
    windows: int


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """The `run`-th trial of `total` ended; `best` is the best so far."""

    trial: TrialRecord
    run: int
    total: int
    best: TrialRecord | None
    default: TrialRecord | None


@dataclass(frozen=True, slots=True)
class Note:
    """A line that the user should see."""

    text: str
    warning: bool = False


Event: TypeAlias = TrialStarted | WindowDone | TrialEnded | Note
Observer: TypeAlias = Callable[[Event], None]


def key(plain: Mapping[str, Any]) -> str:
    """Return `plain` as one canonical line of JSON, to compare or hash."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))
