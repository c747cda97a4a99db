"""What a study may claim, what it exports, and its record with all that it has found."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace

from rtmo_optuna.codec import decode
from rtmo_optuna.search.decide import judge
from rtmo_optuna.search.decide.budget import enough_minutes
from rtmo_optuna.search.finals import FinalsState, held_finals, noise_of
from rtmo_optuna.space.resolve import size
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import Claim, Decided, FinalsRecord, ProcessRecord, Purpose, Racer, Status
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import ENOUGH_TRIED, StudyRecord, Verdict
from rtmo_optuna.types.subject import GpuState


def judged(study: Study, finals: FinalsState | None) -> StudyRecord:
    """Return the study's record with its verdict and all that it has found; `finals` as in `verdict`."""
    told = verdict(study, finals)
    return study.record(
        verdict=told,
        finals=_finals(study, told.status, finals),
        noise=noise_of(study, finals),
        gpu_states=decode(tuple[GpuState, ...], study.get("gpu_states") or []),
        screening=study.screening,
        cut_short=bool(study.get("cut_short")),
        sketch=str(study.get("sketch") or ""),
    )


def verdict(study: Study, finals: FinalsState | None) -> Verdict:
    """Return the verdict of a study whose race and confirmation came to `finals`: None before they ended.

    Only the confirmation's estimate is a claim. Exported is its winner where that is proven faster than what
    config.yaml held (the default settings where it held none), or where that failed; else what it held. Where the
    default settings are proven faster than that too, and the winner no faster than they, they are exported. Before a
    confirmation the best measured is named, and called so. Where next to nothing was tried, there is no verdict.
    """
    best, default = judge.best(study.trials, study.objective), study.about.space.fixed
    if best is None:
        return Verdict()
    if finals is None or not finals.ended:
        alone = study.default is not None and best.settings == default and _tried(study) == 1
        return _too_little(study, default, None) if alone else Verdict(Status.MEASURED, best)
    winner, held, claims = finals.winner, finals.incumbent, finals.claims
    if winner is None or not finals.decided:
        return Verdict(Status.MEASURED, study.known(held))
    proven = [claim for claim in claims if claim.decided is Decided.FASTER]
    if not proven and not _compared(study, finals):
        return _too_little(study, held, finals)
    beaten, failed = {claim.rival for claim in proven if claim.subject == winner}, study.failed(held)
    confirmed = (default if failed or winner == held else held) in beaten
    taken = proven[-1].subject if confirmed else winner if failed else held
    unsure = any(claim.decided is Decided.UNCONFIRMED for claim in claims) or (not claims and winner != held)
    status = Status.CONFIRMED if confirmed else Status.UNCONFIRMED if unsure else Status.NO_GAIN
    return Verdict(status, study.known(taken), incumbent_failed=failed)


def _compared(study: Study, finals: FinalsState) -> bool:
    """Whether anything new was compared with what there was: in fresh processes, or in trials where nobody was near."""
    tried, every = {trial.settings for trial in study.trials if trial.run}, size(study.about.space)
    if not tried - {study.about.space.fixed, finals.incumbent}:
        return len(tried) >= every
    if finals.claims or finals.blocks:
        return True
    return finals.rules.blocks > 0 and len(tried) >= min(ENOUGH_TRIED, every)


def _tried(study: Study) -> int:
    return len({trial.settings for trial in study.trials if trial.run})


def _too_little(study: Study, held: Settings, finals: FinalsState | None) -> Verdict:
    """Return that there is no verdict, and what brings one: where race and confirmation had no turn, to go on."""
    definition, minutes = study.about.definition, None
    more = study.counted >= definition.trials and _tried(study) < size(study.about.space)
    if finals and (study.get("cut_short") or not more):
        enough = enough_minutes(statistics.median(study.walls_s or [0.0]))
        minutes = max(enough, math.floor(definition.timeout_s / 60) + 1)
    return Verdict(Status.TOO_LITTLE, study.known(held), more_trials=more, minutes=minutes)


def _finals(study: Study, status: Status | None, finals: FinalsState | None) -> FinalsRecord:
    """Return what is to be told of race and confirmation: what they came to, or what ran of them where that is open."""
    if finals and finals.ended:
        told: FinalsRecord = finals
    elif held := held_finals(study):
        claims = tuple(Claim(one.subject, one.rival) for one in held.claims if one.subject == held.winner)
        told = replace(held, claims=claims, over=False, ended=False)
    else:
        told = FinalsRecord(study.about.space.fixed)
    rounds = sum(len(sides) > 1 for sides in study.results(Purpose.CONFIRMATION).values())
    stays = status is Status.NO_GAIN and not told.claims
    winner = told.winner if rounds or stays else None
    return replace(told, winner=winner, rounds=rounds, racers=racers(study.processes, winner))


def racers(processes: Iterable[ProcessRecord], winner: Settings | None) -> tuple[Racer, ...]:
    """Return who raced, by the `processes` of a study: those who stayed longest first, the `winner` before others."""
    groups: dict[Settings, list[ProcessRecord]] = {}
    for process in processes:
        if process.purpose is Purpose.RACE:
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
    return tuple(
        sorted(found, key=lambda one: (-(one.left_after or blocks), one.settings != winner, one.cost or math.inf))
    )
