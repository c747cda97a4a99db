"""What comes out of a benchmark: windows, stages, what the output gate says; and what the gate is asked."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rtmo_optuna.types.request import Stage


class Outcome(enum.StrEnum):
    """How a trial truly ended; Optuna's own state says less (see docs/design.md)."""

    MEASURED = "measured"
    PRUNED = "pruned"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class GateMode(enum.StrEnum):
    """How outputs are compared; `auto` is `detections` where one of them is a list of boxes, else `elementwise`."""

    AUTO = "auto"
    OFF = "off"
    ELEMENTWISE = "elementwise"
    DETECTIONS = "detections"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the gate: its title, the field of GateRules that limits it (none: 0), whether 1 is all of it."""

    title: str
    rule: str
    share: bool = True


FIGURES: Mapping[str, Figure] = {
    "norm": Figure("error in all", "elementwise_error"),
    "typical": Figure("typical error", "elementwise_error"),
    "axis": Figure("error of the worst channel", "elementwise_error"),
    "unequal": Figure("numbers that differ", "unequal"),
    "missing": Figure("confident rows not found", "unfound"),
    "extra": Figure("confident rows too many", "unfound"),
    "invented": Figure("rows from nothing", "min_rows", share=False),
    "box": Figure("boxes that do not overlap", "row_error"),
    "score": Figure("typical error of the scores", "row_error"),
    "column": Figure("typical error of the worst column", "row_error"),
    "label": Figure("rows that differ", "unfound"),
    "pixels": Figure("typical distance, px", "keypoint_px", share=False),
    "keypoint": Figure("distance of the worst point, px", "keypoint_px", share=False),
    "lost": Figure("people or objects lost", "", share=False),
    "added": Figure("people or objects too many", "", share=False),
    "far": Figure("distance of 95 % of the points, px", "keypoint_px", share=False),
    "picture": Figure("typical distance in the worst picture, px", "keypoint_px", share=False),
}
"""All figures that the gate compares outputs by."""


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
    `figures` are its errors by the names of `FIGURES`, the worst of all samples, with a number for each part that is
    judged alone; `counts` are the rows behind `missing` and `extra`. `wrong` says why it is wrong, else it is empty.
    """

    name: str
    kind: str
    figures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    wrong: str = ""


OUTLINES = frozenset({4, 34})
"""How many numbers an outline has: a box, or x and y of 17 keypoints."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What was found in one picture: how many are `there`, how many of them are `lost`, how many others were `added`.

    `px` is the median distance of keypoints in pixels, None without pairs of people or without keypoints.
    """

    there: int
    lost: int
    added: int
    px: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of what is there in the pictures of the input, both ways.

    Who belongs together is told by `measure`, "OKS" for people with keypoints, else "IoU", of which `similarity` is the
    median over pairs. `px` and `px95` are the median and the 95th percentile of the distances of keypoints, in pixels.
    Of the picture at place `worst` the outlines are kept that the `reference` and the output (`outlines`) have: x and y
    of each keypoint in turn, or left, top, right and bottom of a box, for those who score most.
    """

    measure: str
    similarity: float
    px: float | None
    px95: float | None
    pictures: tuple[Picture, ...]
    worst: int = 0
    reference: tuple[tuple[float, ...], ...] = ()
    outlines: tuple[tuple[float, ...], ...] = ()

    @property
    def there(self) -> int:
        """How many there are in all pictures, clear of the score's threshold by more than rounding."""
        return sum(picture.there for picture in self.pictures)

    @property
    def lost(self) -> int:
        """How many of them were not found."""
        return sum(picture.lost for picture in self.pictures)

    @property
    def added(self) -> int:
        """How many were found that are not there."""
        return sum(picture.added for picture in self.pictures)

    @property
    def sound(self) -> bool:
        """Whether there is a worst picture, and every outline is a skeleton's or a box's."""
        lengths = {len(outline) for side in (self.reference, self.outlines) for outline in side}
        return 0 <= self.worst < len(self.pictures) and lengths <= OUTLINES

    @property
    def differs(self) -> bool:
        """Whether anything is otherwise in the worst picture than in the reference."""
        worst = self.pictures[self.worst]
        return bool(worst.lost or worst.added or worst.px)


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate says: `reason` begins with "wrong output" where it did not pass, else it is empty.

    `vacuous` is true where the reference holds too few rows to judge any settings by; `warnings` are sentences. `found`
    is what was found picture by picture, where an output is a list of boxes.
    """

    passed: bool
    mode: GateMode
    errors: tuple[OutputError, ...] = ()
    vacuous: bool = False
    reason: str = ""
    warnings: tuple[str, ...] = ()
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """Neighbouring nodes, from `first` to `last` by name, and what it does to round them alone to float16.

    `places` are the model's regions that they are (see `engine.regions`). `strain` is the largest figure of the gate
    over its limit: from 1 on the gate refuses that alone; infinite where outputs cannot even be compared.
    """

    first: str
    last: str
    nodes: int
    places: tuple[int, ...]
    strain: float


@dataclass(frozen=True, slots=True)
class Rounding:
    """What rounding to float16 does to a model, found on the CPU in so many `runs` of `pictures` samples.

    `error` says why the model cannot be converted at all, `refusal` what the gate says of it in float16: where both are
    empty it passes. `overflows` name nodes that leave float16's range, with how far they go. `regions` are those whose
    error was measured. `precision` is the mixed one that passes, in which those at the places `kept` stay float32; both
    are empty where none was found.
    """

    error: str = ""
    refusal: str = ""
    overflows: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    precision: str = ""
    kept: tuple[int, ...] = ()
    runs: int = 0
    pictures: int = 0


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
    windows that were repeated, by reason, `left_out` the calls of the others that ran on a slow core, `missed` the
    slots of a fixed rate that passed while a call ran; `spin_ns` is the shortest spin of the canary. Where there was a
    second process, `latency_ns` and `quantiles_ns` are the mean of both, `second_ns` is the latency in the second and
    `costs` are what either cost by the study's objective. `notes` say what did not run as the settings ask. `accident`
    says that its settings need not be at fault: it was killed from outside, lost before it knew them, or the system had
    no room for it. `samples_ns` are the calls of each window, `warmup_samples_ns` those of the warm-up.
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
    left_out: int = 0
    missed: int = 0
    second_ns: float | None = None
    costs: tuple[float, ...] = ()
    log_tail: str = ""
    notes: tuple[str, ...] = ()
    provider_options: Mapping[str, str] = field(default_factory=dict)
    accident: bool = False
    samples_ns: tuple[tuple[int, ...], ...] = ()
    warmup_samples_ns: tuple[int, ...] = ()

    @property
    def latency_ms(self) -> float | None:
        """The latency in milliseconds."""
        return None if self.latency_ns is None else self.latency_ns / 1e6

    def quantile_ms(self, name: str) -> float | None:
        """Return a quantile in milliseconds; None where there were too few calls for it."""
        return self.quantiles_ns[name] / 1e6 if name in self.quantiles_ns else None

    @property
    def why(self) -> str:
        """The reason, with the stage before it where one is known."""
        return f"{self.stage}: {self.reason}" if self.stage else self.reason

    def summary(self) -> Measurement:
        """Return this without the parts that only the trial's artifact keeps."""
        return replace(self, samples_ns=(), warmup_samples_ns=(), provider_options={}, log_tail="")
