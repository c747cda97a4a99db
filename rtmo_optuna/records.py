"""Every type that flows through the program: frozen, slotted, units in names, no behaviour beyond derived values."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

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
    "InputFacts",
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
    "Scope",
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


class Outcome(enum.StrEnum):
    """How a trial truly ended; Optuna's own state says less (see docs/design.md)."""

    MEASURED = "measured"
    PRUNED = "pruned"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Purpose(enum.StrEnum):
    """What a process beside the trials is for."""

    BASELINE = "baseline"
    RACE = "race"
    CONFIRMATION = "confirmation"


class Origin(enum.StrEnum):
    """Why these settings were tried."""

    DEFAULT = "default"
    CONFIG = "config.yaml"
    SAMPLER = "sampler"


@dataclass(frozen=True, slots=True)
class InputFacts:
    """Where the input arrays lie (one leading axis of samples), and what they are."""

    path: str
    sha256: str
    shapes: Mapping[str, tuple[int, ...]]
    samples: int
    source: str
    real: bool


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
class Machine:
    """The host, and the GPU that a study runs on (None on the `cpu` provider)."""

    hostname: str
    system: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str
    gpu: Gpu | None = None


class GateMode(enum.StrEnum):
    """How outputs are compared; `auto` is `detections` where one of them is a list of boxes, else `elementwise`."""

    AUTO = "auto"
    OFF = "off"
    ELEMENTWISE = "elementwise"
    DETECTIONS = "detections"


@dataclass(frozen=True, slots=True)
class GateRules:
    """The limits of the gate; each one grows with the default settings' own error (see `judge`).

    `elementwise_error` is relative to the reference's norm, `unequal` a share of whole numbers, `overlap` an
    intersection over union, `confident` a score, `unfound` a share of rows, `keypoint_px` in pixels, `row_error`
    relative. With fewer than `min_rows` rows to judge by the gate is vacuous; a default that leaves more than
    `reported` of the rows unfound is warned of. `own_factor` and `tail_factor` say how many times the default's own
    error is allowed, in figures that many numbers share and in those that a few can decide.
    """

    mode: GateMode = GateMode.AUTO
    elementwise_error: float = 0.01
    unequal: float = 0.0
    overlap: float = 0.5
    confident: float = 0.1
    unfound: float = 0.05
    keypoint_px: float = 2.0
    row_error: float = 0.1
    min_rows: int = 5
    reported: float = 0.2
    own_factor: float = 3.0
    tail_factor: float = 10.0


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far one output is from the reference.

    `kind` says how it was compared: `elementwise`, `boxes`, `keypoints` or `rows` (of which each belongs to a box).
    `figures` are its errors by the names of `_FIGURES`, the worst of all samples, with a number for each part that is
    judged alone; `counts` are the rows behind `missing` and `extra`. `wrong` says why it is wrong, else it is empty.
    """

    name: str
    kind: str
    figures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate says: `reason` begins with "wrong output" where it did not pass, else it is empty.

    `vacuous` is true where the reference holds too few rows to judge any settings by; `warnings` are sentences.
    """

    passed: bool
    mode: GateMode
    errors: tuple[OutputError, ...] = ()
    vacuous: bool = False
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateRequest:
    """What a child compares its outputs with: the file of the reference, and the default settings' own result.

    The `baseline` is judged by its own result, which it thereby gives.
    """

    rules: GateRules
    reference: str
    own: GateResult | None = None
    baseline: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """The latencies of one window's calls; `disturbed` says why it is not to be believed, empty where it is."""

    samples_ns: tuple[int, ...]
    disturbed: str = ""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long each station of a child's life took; None where it was not reached."""

    start_ns: int | None = None
    import_ns: int | None = None
    preload_ns: int | None = None
    build_ns: int | None = None
    first_run_ns: int | None = None
    warmup_ns: int | None = None
    windows_ns: int | None = None
    total_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a child measured, or how it died.

    `latency_ns` is the median of the windows' medians (None before the first window), `windows_ns` those medians,
    `quantiles_ns` p50, p90, p95 and p99 of all calls, each only where there are enough of them. `dropped` counts the
    windows that were repeated, by reason; `spin_ns` is the shortest spin of the canary. `second_ns` is the latency in a
    second process, where there was one.
    """

    outcome: Outcome
    stage: Stage | None = None
    reason: str = ""
    latency_ns: float | None = None
    windows_ns: tuple[float, ...] = ()
    quantiles_ns: Mapping[str, float] = field(default_factory=dict)
    calls: int = 0
    batch: int = 1
    stages: StageTimes = field(default_factory=StageTimes)
    gpu_memory_bytes: int | None = None
    outputs_sha256: str = ""
    gate: GateResult | None = None
    spin_ns: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    second_ns: float | None = None
    log_tail: str = ""
    provider_options: Mapping[str, str] = field(default_factory=dict)
    samples_ns: tuple[tuple[int, ...], ...] = ()

    @property
    def latency_ms(self) -> float | None:
        """The latency in milliseconds."""
        return None if self.latency_ns is None else self.latency_ns / 1e6

    def summary(self) -> Measurement:
        """Return this without the parts that only the trial's artifact keeps."""
        return replace(self, samples_ns=(), provider_options={}, log_tail="")


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
    trial. Machine-dependent choices are resolved later, by `space.knobs.space`.
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
    failed, for `reason`. `windows_ms` are its windows' medians.
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


@dataclass(frozen=True, slots=True)
class Noise:
    """How far processes of the same settings, and windows of one process, differ (relative standard deviations).

    `found` is the gain that a study finds with a probability of 80 % on such a host.
    """

    between: float | None
    within: float | None
    noisy: bool
    found: float | None


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


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A whole study, as the report, the plots and the export need it."""

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
    """A trial is about to run: the `run`-th of `total`."""

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
    """A trial ended; `best` is the best so far."""

    trial: TrialRecord
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
