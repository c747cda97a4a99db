"""What the processes beside the trials say: who raced, who won, which pairs confirm it, how much noise there was."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtmo_optuna.types.findings import Claim, Purpose
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin

if TYPE_CHECKING:
    from rtmo_optuna.types.findings import ProcessRecord
    from rtmo_optuna.types.study import StudyRecord

FASTER, OPEN = "faster", "not confirmed"
"""What a claim's `decided` says where it is proven, and where there were too few pairs to say anything."""


class Status(enum.StrEnum):
    """How far what the study found may be believed."""

    CONFIRMED = "confirmed"
    NO_GAIN = "no proven gain"
    UNCONFIRMED = "not confirmed"
    MEASURED = "best measured, not confirmed"
    TOO_LITTLE = "too little was tried"


VERDICTS = frozenset({Status.CONFIRMED, Status.NO_GAIN})
"""Where the study says something; in every other state it has no verdict."""


@dataclass(frozen=True, slots=True)
class Racer:
    """Settings in the race: their costs in fresh processes, and after how many blocks they left (None: never)."""

    settings: Settings
    costs: tuple[float, ...]
    failures: int
    left_after: int | None


@dataclass(frozen=True, slots=True)
class Duel:
    """The winner's rival in the confirmation, and the claim about it (None before there is one)."""

    settings: Settings
    name: str
    claim: Claim | None


def status(record: StudyRecord) -> Status | None:
    """Return how far the verdict may be believed; None where nothing could be measured."""
    verdict = record.verdict
    if verdict.best is None:
        return None
    if not verdict.compared:
        return Status.TOO_LITTLE
    if verdict.confirmed:
        return Status.CONFIRMED
    if not record.complete or not record.processes:
        return Status.MEASURED
    if any(claim.decided == OPEN for claim in verdict.claims) or not (verdict.claims or verdict.speedup):
        return Status.UNCONFIRMED
    return Status.NO_GAIN


def alternatives_met(record: StudyRecord) -> bool:
    """Whether fresh processes of anything but the default, and what config.yaml holds, ran side by side with others."""
    rivals = {t.settings for t in record.trials if t.origin is Origin.CONFIG} | {record.space.fixed}
    return any(p.settings not in rivals for p in ran(record, Purpose.RACE, Purpose.CONFIRMATION))


def findable(record: StudyRecord) -> float | None:
    """Return the gain that such a study mostly finds; None where nothing new was compared, or less is proven."""
    found = record.noise and record.noise.found
    proven = [claim.ratio - 1 for claim in record.verdict.claims if claim.decided == FASTER and claim.ratio]
    return found if found and alternatives_met(record) and all(gain >= found for gain in proven) else None


def ran(record: StudyRecord, *purposes: Purpose) -> tuple[ProcessRecord, ...]:
    """Return the processes beside the trials that ran for `purposes`, in order."""
    return tuple(process for process in record.processes if process.purpose in purposes)


def winner(record: StudyRecord) -> Settings | None:
    """Return the race's winner: the first pair begins with it, and where no pair was needed it is what stays."""
    pairs = ran(record, Purpose.CONFIRMATION)
    if pairs:
        return pairs[0].settings
    stays = status(record) is Status.NO_GAIN and not record.verdict.claims
    return record.verdict.best.settings if stays and record.verdict.best else None


def duels(record: StudyRecord) -> tuple[Duel, ...]:
    """Return whom the winner met in the confirmation; the claims come in the order of the first pair."""
    _, *rivals = dict.fromkeys(p.settings for p in ran(record, Purpose.CONFIRMATION)) or (None,)
    claims = (*record.verdict.claims, *(None,) * len(rivals))
    return tuple(
        Duel(rival, "default" if rival == record.space.fixed else "config.yaml", claim)
        for rival, claim in zip(rivals, claims, strict=False)
        if rival is not None
    )


def racers(record: StudyRecord) -> tuple[Racer, ...]:
    """Return who raced, those who stayed longest first."""
    groups: dict[Settings, list[ProcessRecord]] = {}
    for process in ran(record, Purpose.RACE):
        groups.setdefault(process.settings, []).append(process)
    blocks = 1 + max((p.index for group in groups.values() for p in group), default=0)
    found = [
        Racer(
            settings,
            tuple(p.cost for p in group if p.cost is not None),
            sum(p.cost is None for p in group),
            None if (last := 1 + max(p.index for p in group)) == blocks else last,
        )
        for settings, group in groups.items()
    ]
    first = winner(record)
    return tuple(sorted(found, key=lambda one: (-(one.left_after or blocks), one.settings != first, _middle(one))))


def _middle(racer: Racer) -> float:
    return sorted(racer.costs)[len(racer.costs) // 2] if racer.costs else float("inf")


def left_out(record: StudyRecord) -> int:
    """Return how many calls of windows that count were left out, since they ran on a slow core."""
    return sum(trial.measurement.left_out for trial in record.runs) + sum(p.left_out for p in record.processes)


def dropped(record: StudyRecord) -> Counter[str]:
    """Return how many windows were measured again, by reason; of processes beside the trials no reason is kept."""
    reasons: Counter[str] = Counter()
    for trial in record.runs:
        reasons.update(trial.measurement.dropped)
    if beside := sum(process.dropped for process in record.processes):
        reasons["beside the trials"] += beside
    return reasons
