"""What runs beside the trials, and what may be concluded from it: noise, claims, what each knob does."""

import enum
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from rtmo_optuna.types.request import Settings, Value
from rtmo_optuna.types.subject import Frozen


class Purpose(enum.StrEnum):
    """What a process beside the trials is for."""

    BASELINE = "baseline"
    PINNED = "baseline, pinned to quiet cores"
    LEVEL = "default among the flips"
    SCREENING = "screening"
    PRECISION = "the best, in float16"
    RACE = "race"
    PLAIN = "the winner made plain"
    CONFIRMATION = "confirmation"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A fresh process beside the trials: of the baseline, of block `index` of flips or of the race, or of pair `index`.

    `cost` is what the race compares: the latency in ms, or what the objective has in its place; None where the process
    failed, for `reason`. `windows_ms` are its windows' medians, `dropped` counts those that were repeated, `left_out`
    the calls of the others that were disturbed; `outputs_sha256` is the hash of its outputs.
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
    left_out: int = 0
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


LEAST_PAIRS = 10
"""How many sound pairs a claim takes."""
LEAST_GAIN = 0.01
"""The gain under which nothing is claimed."""


class Decided(enum.StrEnum):
    """What fresh pairs say of one side against the other."""

    FASTER = "faster"
    SLOWER = "slower"
    UNPROVEN = "no proven gain"
    UNCONFIRMED = "not confirmed"


@dataclass(frozen=True, slots=True)
class Claim:
    """What fresh pairs say of `subject` against `rival`.

    `ratio` is how many times as fast the subject is (2.0: half the latency), with the 98 % `interval`, from the first
    `pairs` sound pairs; None, and 0, before there are LEAST_PAIRS. So many pairs were `sound`, and `failed`, by then.
    `over` tells that no more are to be run; until then `decided` is what may be said if the time is up now.
    """

    subject: Settings
    rival: Settings
    decided: Decided = Decided.UNCONFIRMED
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    pairs: int = 0
    sound: int = 0
    failed: int = 0
    over: bool = False


class Status(enum.StrEnum):
    """How far what a study found may be believed."""

    CONFIRMED = "confirmed"
    NO_GAIN = "no proven gain"
    UNCONFIRMED = "not confirmed"
    MEASURED = "best measured, not confirmed"
    TOO_LITTLE = "too little was tried"


INERT_BELOW = 0.03
"""The change of the cost under which a choice is said to do nothing."""
ANSWERS = frozenset({Status.CONFIRMED, Status.NO_GAIN})
"""Where the study says something; in every other state it has no verdict."""


@dataclass(frozen=True, slots=True)
class Racer:
    """Settings in the race: their costs in fresh processes, and after how many blocks they left (None: never)."""

    settings: Settings
    costs: tuple[float, ...]
    failures: int
    left_after: int | None

    @property
    def cost(self) -> float | None:
        """The median of the costs; None where every process failed."""
        return statistics.median(self.costs) if self.costs else None


@dataclass(frozen=True, slots=True)
class FinalsRecord:
    """What race and confirmation came to, against the default and the `incumbent`, which is what config.yaml held.

    `winner` won the race, without what nothing speaks for; `racers` are those who ran in it, who stayed longest first.
    `claims` say whom the winner meets in pairs, from before the first one on, of which `rounds` were run; one of
    another subject is of the default against the incumbent, where that is proven and the winner no faster than the
    default. The race had `blocks`. `over` is whether nothing is left to run, `ended` whether it came to that or the
    time was up; else it was broken off.
    """

    incumbent: Settings = field(default_factory=Settings)
    winner: Settings | None = None
    racers: tuple[Racer, ...] = ()
    claims: tuple[Claim, ...] = ()
    blocks: int = 0
    rounds: int = 0
    over: bool = False
    ended: bool = False

    @property
    def decided(self) -> bool:
        """Whether enough was run for a verdict: all of it, or for each comparison as many pairs as one look takes."""
        return self.over or (bool(self.claims) and all(claim.pairs for claim in self.claims))


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

    `tested` are the options that were tested for doing nothing, `pairs` how many pairs that took. `untried` flips found
    no time yet; `note` says what else was left out and why. Until it is `over`, a screening goes on.
    """

    effects: tuple[KnobEffect, ...] = ()
    inert: tuple[Frozen, ...] = ()
    tested: tuple[tuple[str, Value], ...] = ()
    pairs: int = 0
    untried: int = 0
    note: str = ""
    over: bool = False

    @property
    def left_out(self) -> str:
        """All that was left out, in sentences; empty where nothing was."""
        flips = "One flip was" if self.untried == 1 else f"{self.untried} flips were"
        time_up = f"{flips} not tried: the screening's share of time and trials was spent."
        return " ".join(filter(None, [time_up if self.untried else "", self.note]))
