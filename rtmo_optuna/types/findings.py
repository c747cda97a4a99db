"""What runs beside the trials, and what may be concluded from it: noise, claims, what each knob does."""

from __future__ import annotations

import enum
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
