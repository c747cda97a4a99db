"""What a study may claim, in one sentence, and which settings it exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna.records import Claim, Settings, TrialRecord, Verdict
from rtmo_optuna.search import judge
from rtmo_optuna.search.confirm import Decided

if TYPE_CHECKING:
    from rtmo_optuna.search.finals import Outcomes
    from rtmo_optuna.search.study import Study

_HELD = "what config.yaml held"


def verdict(study: Study, outcomes: Outcomes | None) -> Verdict:
    """Return the verdict of a study.

    Only the confirmation's estimate is a claim. Exported is its winner where that is proven faster than what
    config.yaml held (the default settings where it held none), else what it held; before a confirmation, the best
    measured is named, and called so.
    """
    best = judge.best(study.trials, study.objective)
    if best is None:
        return Verdict("No settings could be measured.", None, study.default, None)
    if outcomes is None or not outcomes.over:
        return _unconfirmed(study, best)
    held = outcomes.incumbent
    claims = outcomes.claims
    against_default = next((claim for claim in claims if claim.against != _HELD), None)
    against_held = next((claim for claim in claims if claim.against == _HELD), against_default)
    winner = outcomes.winner
    if winner is None or any(claim.decided == Decided.UNCONFIRMED for claim in claims):
        sentence = f"Not confirmed: the time allowed {outcomes.blocks} blocks of the race and {_pairs(claims)} pairs"
        return Verdict(f"{sentence}; {_stays(study, held)}", _trial(study, held), study.default, None, claims=claims)
    if winner == held and against_default is None:
        sentence = f"No proven gain: nothing was faster than {_words(study, held)}; {_stays(study, held)}"
        return Verdict(sentence, _trial(study, held), study.default, 1.0, claims=claims)
    gained = winner != held and against_held is not None and against_held.decided == Decided.FASTER
    if gained or winner == held:
        told = " ".join(claim.sentence for claim in claims)
        proven = against_default is not None and against_default.decided == Decided.FASTER
        kept = "" if gained else f" {_stays(study, held).capitalize()}"
        speedup = against_default.ratio if against_default else None
        confirmed = gained or proven
        return Verdict(told + kept, _trial(study, winner), study.default, speedup, confirmed=confirmed, claims=claims)
    told = " ".join(claim.sentence for claim in claims if claim.decided != Decided.FASTER)
    return Verdict(
        f"{told} {_stays(study, held).capitalize()}", _trial(study, held), study.default, None, claims=claims
    )


def _unconfirmed(study: Study, best: TrialRecord) -> Verdict:
    unit, default = study.objective.unit, study.default
    sentence = f"Best measured, not confirmed: {best.value:.2f} {unit}"
    if default is None or default.value is None:
        return Verdict(f"{sentence}; the default settings could not be measured.", best, None, None)
    return Verdict(f"{sentence} against {default.value:.2f} {unit} with the default settings.", best, default, None)


def _pairs(claims: tuple[Claim, ...]) -> int:
    return min((claim.pairs for claim in claims), default=0)


def _words(study: Study, settings: Settings) -> str:
    return "the default settings" if settings == study.about.space.fixed else "what config.yaml holds"


def _stays(study: Study, held: Settings) -> str:
    return f"{_words(study, held)} {'stay' if held == study.about.space.fixed else 'stays'}."


def _trial(study: Study, settings: Settings) -> TrialRecord | None:
    return next((trial for trial in study.trials if trial.run and trial.settings == settings), None)
