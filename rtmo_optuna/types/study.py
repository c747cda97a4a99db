"""Every type that flows through the program: frozen, slotted, units in names, no behaviour beyond derived values."""

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rtmo_optuna.types.findings import Claim, Decided, FinalsRecord, Noise, ProcessRecord, Purpose, Screening, Status
from rtmo_optuna.types.measurement import Measurement, Rounding
from rtmo_optuna.types.request import ModelFacts, Settings
from rtmo_optuna.types.subject import GpuState, InputFacts, Machine, SearchSpace, StudyDefinition

DEFAULT_STORAGE = "sqlite:///studies/studies.db"
"""Where studies are kept if nobody says otherwise."""
ENOUGH_TRIED = 10
"""Settings that say something of a space by single trials alone; all of it where it has fewer."""


class Origin(enum.StrEnum):
    """Why these settings were tried."""

    DEFAULT = "default"
    CONFIG = "config.yaml"
    ADVICE = "the guide's advice"
    WON = "what won elsewhere"
    SCREENING = "screening"
    SAMPLER = "sampler"
    PLAINER = "the best, made plainer"
    PLAIN = "the winner, made plain"


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of a study; `run` counts those that were really run, from 1 (0: answered from an earlier trial)."""

    number: int
    run: int
    settings: Settings
    origin: Origin
    measurement: Measurement
    value: float | None = None
    started: str = ""
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the study may claim: `best` is what is exported, before race and confirmation the best that was measured.

    Where nothing is confirmed, `best` is what was there before. Without a `status` nothing could be measured yet.
    `incumbent_failed` says whether what config.yaml held did. Where too little was tried, more than all trials that
    were asked for may bring a verdict (`more_trials`), or so many minutes.
    """

    status: Status | None = None
    best: TrialRecord | None = None
    incumbent_failed: bool = False
    more_trials: bool = False
    minutes: int | None = None

    @property
    def confirmed(self) -> bool:
        """Whether `best` is proven to be faster than what was there before."""
        return self.status is Status.CONFIRMED


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A whole study, as the report, the plots and the export need it.

    `gpu_states` are how the GPU ran after the study's first window and after its last one; empty without a GPU.
    `cut_short` says whether the search's share of the time was over before the search was, `pinned` whether its windows
    ran on quiet cores. `rounding` is what float16 does to the model, where that was looked at,
    `sketch` the picture on which what is exported is furthest from the reference, drawn, as a JPEG file in base64.
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
    storage: str
    verdict: Verdict = Verdict()
    warnings: tuple[str, ...] = ()
    finals: FinalsRecord = field(default_factory=FinalsRecord)
    processes: tuple[ProcessRecord, ...] = ()
    noise: Noise | None = None
    gpu_states: tuple[GpuState, ...] = ()
    screening: Screening | None = None
    cut_short: bool = False
    pinned: bool = False
    rounding: Rounding | None = None
    sketch: str = ""

    @property
    def comparable(self) -> tuple[ProcessRecord, ...]:
        """The processes beside the trials, without a baseline that ran otherwise than they did."""
        other = Purpose.BASELINE if self.pinned else Purpose.PINNED
        return tuple(process for process in self.processes if process.purpose is not other)

    @property
    def runs(self) -> tuple[TrialRecord, ...]:
        """The trials that were really run, in order."""
        return tuple(trial for trial in self.trials if trial.run)

    @property
    def tried(self) -> int:
        """How many different settings were really run."""
        return len({trial.settings for trial in self.runs})

    @property
    def batch(self) -> int:
        """How many items a call handles: the first input's leading dimension, 1 for a scalar."""
        shape = next(iter(self.inputs.shapes.values()), ())
        return shape[0] if shape else 1

    def proven(self, rival: Settings) -> Claim | None:
        """Return the claim that what is exported is faster than `rival`; None where that is not proven."""
        best = self.verdict.best if self.verdict.confirmed else None
        sides = best and (best.settings, rival)
        ours = (claim for claim in self.finals.claims if (claim.subject, claim.rival) == sides)
        return next((claim for claim in ours if claim.decided is Decided.FASTER), None)

    @property
    def default(self) -> TrialRecord | None:
        """The run of the default settings, None before it."""
        return next((trial for trial in self.runs if trial.settings == self.space.fixed), None)


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A line of the list of studies."""

    name: str
    trials: int
    best: float | None
    provider: str
    model: str
    started: str


class Phase(enum.StrEnum):
    """What a run is about at a time, in order, in words short enough for a status line."""

    LOOK = "first look"
    BASELINE = "baseline"
    SEARCH = "search"
    INERT = "what does nothing"
    RACE = "race"
    PLAIN = "made plain"
    CONFIRMATION = "confirmation"
    OUTPUTS = "outputs"
    PAIRS = "pair"
    PROCESSES = "process"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run began: what it is going to do, in a sentence, and after how many seconds it is over at the latest."""

    text: str
    most_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """A process of `settings` is about to run, the `place`-th of `total` of its phase.

    Either is 0 where it is not known, or has not changed. Without `settings` something else begins, in which none are
    timed. `origin` is a trial's.
    """

    phase: Phase
    place: int = 0
    total: int = 0
    settings: Settings | None = None
    origin: Origin = Origin.SAMPLER


@dataclass(frozen=True, slots=True)
class Waiting:
    """This run waits for `what` (who, and what they are at), until then (in seconds since the epoch) at the latest."""

    what: str
    until: float | None = None


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


Event: TypeAlias = RunStarted | Started | Waiting | WindowDone | TrialEnded | Note
Observer: TypeAlias = Callable[[Event], None]


def key(plain: Mapping[str, Any]) -> str:
    """Return `plain` as one canonical line of JSON, to compare or hash."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))
