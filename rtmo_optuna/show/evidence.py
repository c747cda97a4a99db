"""What the processes beside the trials say of the noise, and of what could be found."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rtmo_optuna.types.findings import Decided, Purpose
from rtmo_optuna.types.study import Origin

if TYPE_CHECKING:
    from rtmo_optuna.types.findings import Claim, ProcessRecord
    from rtmo_optuna.types.study import StudyRecord


def alternatives_met(record: StudyRecord) -> bool:
    """Whether fresh processes of anything but the default, and what config.yaml holds, ran side by side with others."""
    rivals = {t.settings for t in record.trials if t.origin is Origin.CONFIG} | {record.space.fixed}
    return any(p.settings not in rivals for p in ran(record, Purpose.RACE, Purpose.CONFIRMATION))


def findable(record: StudyRecord) -> float | None:
    """Return the gain that such a study mostly finds; None where nothing new was compared, or less is proven."""
    found = record.noise and record.noise.found
    claims = record.finals.claims if record.finals else ()
    proven = [claim.ratio - 1 for claim in claims if claim.decided is Decided.FASTER and claim.ratio]
    return found if found and alternatives_met(record) and all(gain >= found for gain in proven) else None


def ran(record: StudyRecord, *purposes: Purpose) -> tuple[ProcessRecord, ...]:
    """Return the processes beside the trials that ran for `purposes`, in order."""
    return tuple(process for process in record.processes if process.purpose in purposes)


def met(record: StudyRecord) -> tuple[Claim, ...]:
    """Return the winner's claims against those whom it met in pairs; none before the first pair."""
    finals = record.finals
    return tuple(one for one in finals.claims if one.subject == finals.winner) if finals and finals.rounds else ()


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
