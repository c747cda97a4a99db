"""What a study may claim, in one sentence, and which settings it exports."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING

from rtmo_optuna.search.decide import confirm, judge
from rtmo_optuna.search.decide.budget import enough_minutes
from rtmo_optuna.search.decide.confirm import LOOKS, Decided
from rtmo_optuna.search.finals import claim_of
from rtmo_optuna.space.resolve import size
from rtmo_optuna.types.findings import Claim, Purpose
from rtmo_optuna.types.study import ENOUGH_TRIED, TrialRecord, Verdict

if TYPE_CHECKING:
    from rtmo_optuna.search.finals import Outcomes
    from rtmo_optuna.study.study import Study
    from rtmo_optuna.types.request import Settings

_HELD = "what config.yaml held"
_TIME_UP = "The time was up before all pairs were run; the same command goes on."


def verdict(study: Study, outcomes: Outcomes | None) -> Verdict:  # noqa: PLR0911 - a case for each thing that can be said
    """Return the verdict of a study.

    Only the confirmation's estimate is a claim. Exported is its winner where that is proven faster than what
    config.yaml held (the default settings where it held none), or where that failed; else what it held. Where the
    default settings are proven faster than that too, and the winner no faster than they, they are exported. Before a
    confirmation the best measured is named, and called so. Where next to nothing was tried, there is no verdict.
    """
    best = judge.best(study.trials, study.objective)
    if best is None:
        return Verdict("No settings could be measured.", None, study.default, None)
    if outcomes is None:
        return _unconfirmed(study, best)
    held, claims = outcomes.incumbent, outcomes.claims
    winner = outcomes.winner if outcomes.decided else None
    if winner is None:
        sides = Counter(p.index for p in study.processes if p.purpose is Purpose.CONFIRMATION)
        pairs = sum(count > 1 for count in sides.values())
        least = min(LOOKS)
        blocks = f"{outcomes.blocks} block{'s' * (outcomes.blocks != 1)}"
        spent = f"{blocks} of the race and {pairs} of the {least} pairs that a claim takes"
        reached = f"Not confirmed: the time allowed {spent}."
        return Verdict(f"{reached} {_stays(study, held)}", _trial(study, held), study.default, None, claims=claims)
    by_name = {claim.against: claim for claim in claims}
    against_default = next((claim for name, claim in by_name.items() if name != _HELD), None)
    against_held = by_name.get(_HELD, against_default)
    told = " ".join([*(claim.sentence for claim in claims), *([] if outcomes.over else [_TIME_UP])])
    proven = against_default is not None and against_default.decided == Decided.FASTER
    speedup = against_default.ratio if against_default and proven else None
    if not any(claim.decided == Decided.FASTER for claim in claims) and not _compared(study, outcomes):
        return _too_little(study, held, outcomes)
    if study.failed(held):
        sentence = f"{_words(study, held).capitalize()} failed. Fastest of the others: {winner}. {told}".strip()
        return Verdict(sentence, _trial(study, winner), study.default, speedup, confirmed=proven, claims=claims)
    if winner == held:
        sentence = told or f"No proven gain: nothing was faster than {_words(study, held)}."
        alone = 1.0 if against_default is None else speedup
        sentence = f"{sentence} {_stays(study, held)}"
        return Verdict(sentence, _trial(study, held), study.default, alone, confirmed=proven, claims=claims)
    if against_held is not None and against_held.decided == Decided.FASTER:
        plain = None if proven or held == study.about.space.fixed else _by_default(study, held)
        if plain:
            told, claims = f"{told} The default settings are, too, and taken: {plain.sentence}", (*claims, plain)
            return Verdict(told, study.default, study.default, None, confirmed=True, claims=claims)
        return Verdict(told, _trial(study, winner), study.default, speedup, confirmed=True, claims=claims)
    return Verdict(f"{told} {_stays(study, held)}", _trial(study, held), study.default, None, claims=claims)


def _by_default(study: Study, held: Settings) -> Claim | None:
    """Return what the confirmation's rounds prove of the default settings against `held`; None where they do not."""
    default, rounds = study.about.space.fixed, study.results(Purpose.CONFIRMATION)
    pairs = [(costs[default], costs[held]) for costs in rounds.values() if {default, held} <= costs.keys()]
    told = confirm.confirm(pairs, confirm.ConfirmRules(looks=confirm.looks_for(len(pairs))), _HELD)
    return claim_of(f"{_HELD}, by the default settings", told) if told.decided is Decided.FASTER else None


def _compared(study: Study, outcomes: Outcomes) -> bool:
    """Whether anything new was compared with what there was: in fresh processes, or in trials where nobody was near."""
    tried, every = {trial.settings for trial in study.trials if trial.run}, size(study.about.space)
    if not tried - {study.about.space.fixed, outcomes.incumbent}:
        return len(tried) >= every
    if outcomes.claims or outcomes.blocks:
        return True
    return outcomes.rules.blocks > 0 and len(tried) >= min(ENOUGH_TRIED, every)


def _tried(study: Study) -> int:
    return len({trial.settings for trial in study.trials if trial.run})


def _tried_of(study: Study) -> str:
    every = size(study.about.space)
    return f"{_tried(study)} of {every:,} settings" if _tried(study) <= every else f"{_tried(study)} settings"


def _too_little(study: Study, held: Settings, outcomes: Outcomes | None = None) -> Verdict:
    """Return that there is no verdict, and what brings one: where race and confirmation had no turn, to go on."""
    definition, advice = study.about.definition, list[str]()
    if study.counted >= definition.trials and _tried(study) < size(study.about.space):
        advice.append(f"more --trials than {definition.trials}")
    if outcomes and (study.get("cut_short") or not advice):
        enough = enough_minutes(statistics.median(study.walls_s or [0.0]))
        advice.append(f"--timeout {max(enough, math.floor(definition.timeout_s / 60) + 1)}m or more")
    tried = f"{_tried_of(study)}{'' if outcomes and outcomes.blocks else ', and no race'}"
    what = f"Give {' and '.join(advice)}." if advice else "The same command goes on from here."
    told = f"Too little was tried for a verdict: {tried}. {what} {_stays(study, held)}"
    claims = outcomes.claims if outcomes else ()
    return Verdict(told, _trial(study, held), study.default, None, claims=claims, compared=False)


def _unconfirmed(study: Study, best: TrialRecord) -> Verdict:
    unit, default = study.objective.unit, study.default
    if default is not None and best.settings == default.settings:
        if _tried(study) == 1:
            return _too_little(study, default.settings)
        reached = f"no other of the {_tried(study)} settings tried was measured faster than the default settings"
        return Verdict(f"Not confirmed: {reached} ({_short(best.value)} {unit}).", best, default, None)
    sentence = f"Best measured, not confirmed: {_short(best.value)} {unit}"
    if default is None or default.value is None:
        return Verdict(f"{sentence}; the default settings could not be measured.", best, None, None)
    return Verdict(f"{sentence} against {_short(default.value)} {unit} with the default settings.", best, default, None)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _words(study: Study, settings: Settings) -> str:
    return "the default settings" if settings == study.about.space.fixed else "what config.yaml holds"


def _stays(study: Study, held: Settings) -> str:
    words = _words(study, held).capitalize()
    return f"{words} {'stay' if held == study.about.space.fixed else 'stays'}."


def _trial(study: Study, settings: Settings) -> TrialRecord | None:
    return next((trial for trial in study.trials if trial.run and trial.settings == settings), None)
