"""The verdict of a study and what its claims say, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna.digits import written
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.space.resolve import size
from rtmo_optuna.types.findings import LEAST_GAIN, LEAST_PAIRS, Decided, FinalsRecord, Status

if TYPE_CHECKING:
    from rtmo_optuna.types.findings import Claim
    from rtmo_optuna.types.request import Settings
    from rtmo_optuna.types.study import StudyRecord

_TIME_UP = "The time was up before all pairs were run; the same command goes on."


def sentence(record: StudyRecord) -> str:
    """Return the verdict of a study."""
    verdict, finals = record.verdict, record.finals
    if verdict.status is None:
        return "No settings could be measured."
    if verdict.status is Status.TOO_LITTLE:
        return _too_little(record)
    if finals is None or not finals.ended:
        return _measured(record)
    held = finals.incumbent
    if not finals.decided:
        blocks = f"{finals.blocks} block{'s' * (finals.blocks != 1)}"
        spent = f"{blocks} of the race and {finals.rounds} of the {LEAST_PAIRS} pairs that a claim takes"
        return f"Not confirmed: the time allowed {spent}. {_stays(record, held)}"
    told = _told(record, finals)
    if verdict.incumbent_failed and verdict.best:
        failed = f"{_words(record, held).capitalize()} failed."
        return f"{failed} Fastest of the others: {verdict.best.settings}. {told}".strip()
    told = told or f"No proven gain: nothing was faster than {_words(record, held)}."
    return f"{told} {_stays(record, held)}" if verdict.best and verdict.best.settings == held else told


def _told(record: StudyRecord, finals: FinalsRecord) -> str:
    """Return what the claims say, at last that of the default settings where they are taken in the winner's place."""
    told = [
        (claim.subject == finals.winner, claim_sentence(claim, whom(record, claim.rival))) for claim in finals.claims
    ]
    ours = [text for of_winner, text in told if of_winner]
    also = [f"The default settings are, too, and taken: {text}" for of_winner, text in told if not of_winner]
    return " ".join([*ours, *([] if finals.over else [_TIME_UP]), *also])


def whom(record: StudyRecord, rival: Settings) -> str:
    """Return what a rival of the winner is."""
    return "the default settings" if rival == record.space.fixed else "what config.yaml held"


def claim_sentence(claim: Claim, versus: str, *, two_sided: bool = False) -> str:
    """Return what pairs say of a claim's subject against its rival, which is called `versus`."""
    figures = estimate(claim)
    if figures is None:
        return f"Not confirmed against {versus}: {claim.sound} sound pairs of {LEAST_PAIRS}, {claim.failed} failed."
    ratio, low, high = figures
    interval = f"(98 % interval {low} to {high}, {claim.pairs} pairs of fresh processes)"
    if claim.decided is not Decided.UNPROVEN:
        return f"{ratio} times as fast as {versus} {interval}."
    what = "difference from" if two_sided else "gain over"
    least, most = claim.interval or (1, 1)
    small = "" if least <= 1 <= most else f" Under {LEAST_GAIN:.0%} nothing is claimed."
    return f"No proven {what} {versus}: {ratio} times as fast {interval}.{small}"


def estimate(claim: Claim) -> tuple[str, str, str] | None:
    """Return a claim's ratio and the ends of its interval; None before it has any."""
    return None if claim.ratio is None or claim.interval is None else written(claim.ratio, *claim.interval)


def _too_little(record: StudyRecord) -> str:
    verdict, finals, every = record.verdict, record.finals, size(record.space)
    advice = [
        *([f"more --trials than {record.definition.trials}"] if verdict.more_trials else []),
        *([f"--timeout {verdict.minutes}m or more"] if verdict.minutes else []),
    ]
    ended = finals if finals and finals.ended else None
    tried = f"{record.tried} of {every:,} settings" if record.tried <= every else f"{record.tried} settings"
    raced = "" if ended and ended.blocks else ", and no race"
    what = f"Give {' and '.join(advice)}." if advice else "The same command goes on from here."
    stays = _stays(record, ended.incumbent if ended else record.space.fixed)
    return f"Too little was tried for a verdict: {tried}{raced}. {what} {stays}"


def _measured(record: StudyRecord) -> str:
    best, default, unit = record.verdict.best, record.verdict.default, OBJECTIVES[record.definition.objective].unit
    value = f"{_short(best.value if best else None)} {unit}"
    if best and default and best.settings == default.settings:
        reached = f"no other of the {record.tried} settings tried was measured faster than the default settings"
        return f"Not confirmed: {reached} ({value})."
    if default is None or default.value is None:
        return f"Best measured, not confirmed: {value}; the default settings could not be measured."
    beside = f"{_short(default.value)} {unit} with the default settings"
    return f"Best measured, not confirmed: {value} against {beside}."


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _words(record: StudyRecord, settings: Settings) -> str:
    return "the default settings" if settings == record.space.fixed else "what config.yaml holds"


def _stays(record: StudyRecord, held: Settings) -> str:
    words = _words(record, held).capitalize()
    return f"{words} {'stay' if held == record.space.fixed else 'stays'}."
