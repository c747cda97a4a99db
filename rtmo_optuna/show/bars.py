"""Charts of rows: the ranking of the single measurements, and what each choice does."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.show import words
from rtmo_optuna.show.marks import Axis, Chart, Role, Row, Rows
from rtmo_optuna.show.scores import (
    decided_by,
    default_of,
    differing,
    effects,
    objective,
    role_of,
    score,
    shortlist,
    titles,
    with_unit,
)
from rtmo_optuna.show.words import NBSP, change, number

if TYPE_CHECKING:
    from rtmo_optuna.show.scores import Standing
    from rtmo_optuna.stats import Effect
    from rtmo_optuna.types.study import StudyRecord

MOST_EFFECTS = 20
LONGEST_LEAD = 48
TICKS = 8


def _standing_row(record: StudyRecord, standing: Standing, first: Standing, default: float | None) -> Row:
    names = titles(record, standing.settings)
    role = role_of(record, standing.settings)
    role = Role.PRUNED if standing.pruned and role is Role.MEASURED else role
    shown = differing(record, standing.settings)
    extra = tuple(name for name in names if name != str(shown))
    lines = words.wrap(words.beside(shown, differing(record, first.settings)))
    against = "" if default is None or "default" in names else f" ({change(standing.score / default)})"
    tags = (*extra, *(("pruned",) if standing.pruned else ()))
    lines = (*lines[:-1], f"{lines[-1]}  [{', '.join(tags)}]") if tags else lines
    spread = standing.high > standing.low
    interval = f", windows {number(standing.low)} to {with_unit(record, standing.high)}" if spread else ""
    return Row(
        label=(f"{standing.rank}.{NBSP}{lines[0]}", *lines[1:]),
        value=standing.score,
        low=standing.low if spread else None,
        high=standing.high if spread else None,
        role=role,
        text=f"{with_unit(record, standing.score)}{against}",
        hover=f"{shown}\n{with_unit(record, standing.score)}{interval}",
    )


def ranking(record: StudyRecord) -> Chart | None:
    """Return the ten best settings as bars of their score, with the range of their windows."""
    listed = shortlist(record)
    if not listed:
        return None
    default = score(record, default_of(record))
    goal = objective(record)
    first = listed[0]
    lead = str(differing(record, first.settings))
    named = f" ({lead})" if len(lead) <= LONGEST_LEAD else ""
    rows = tuple(_standing_row(record, standing, first, default) for standing in listed)
    spans = "; the thin line spans its windows, from lowest to highest" if any(row.high for row in rows) else ""
    reach = 1.12 * max(max(row.value, min(row.high or 0, 1.3 * row.value)) for row in rows)
    return Chart(
        name="ranking",
        title=f"First of the trials: {with_unit(record, first.score)}{named}",
        subtitle=f"Median {goal.name} of each settings, {decided_by(record)}{spans}",
        x=Axis(f"{goal.name}, {goal.unit}", low=0.0, high=reach),
        y=Axis(""),
        marks=(Rows(rows),),
    )


def _effect_role(effect: Effect, *, lower_is_better: bool) -> Role:
    if not effect.proven or effect.ratio is None:
        return Role.MUTED
    return Role.FASTER if (effect.ratio < 1) == lower_is_better else Role.SLOWER


def _ratio_ticks(left: float, right: float) -> tuple[tuple[float, str], ...]:
    """Return ticks for ratios from exp(-left) to exp(right), as changes in per cent up to a factor of two."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        ratios = [*(round(1 + step * i, 2) for i in range(-9, 20)), 3.0, 5.0, 10.0, 20.0, 50.0]
        inside = [ratio for ratio in ratios if ratio > 0 and -left <= math.log(ratio) <= right]
        if all(math.log(high / low) > (left + right) / TICKS for low, high in pairwise(inside)):
            break
    return tuple((ratio, change(ratio).replace(".0", "")) for ratio in inside)


def knobs(record: StudyRecord) -> Chart | None:
    """Return each choice's effect on the score as a ratio to its knob's default, with 95 % intervals."""
    every = effects(record)
    known = [e for e in every if e.ratio is not None and e.low is not None and e.high is not None]
    if not known:
        return None
    sized = sorted(known, key=lambda e: abs(math.log(e.ratio or 1)), reverse=True)
    goal = objective(record)
    lower = goal.direction == "minimize"
    kept = sorted(sized[:MOST_EFFECTS], key=lambda e: e.ratio or 1, reverse=not lower)
    sizes = sorted(abs(math.log(e.ratio or 1)) for e in kept)
    ends = [abs(math.log(end)) for e in kept for end in (e.low, e.high) if end]
    cap = max(0.02, min(max(ends), max(math.log(1.6), 3 * stats.median(sizes)))) * 1.08
    left, right = (
        min(cap, max(1.08 * need, 0.3 * cap))
        for need in (max(-math.log(e.low or 1) for e in kept), max(math.log(e.high or 1) for e in kept))
    )
    rows = tuple(
        Row(
            label=(f"{words.shown(e.knob, e.choice)}",),
            value=e.ratio or 1,
            low=e.low,
            high=e.high,
            role=_effect_role(e, lower_is_better=lower),
            text=f"{change(e.ratio or 1)} ({_between(e)})",
            hover=f"{words.shown(e.knob, e.choice)} against {words.shown(e.knob, e.against)}\n"
            f"{change(e.ratio or 1)}, 95{NBSP}% interval {_between(e)}, {words.count(e.trials, 'run')}",
        )
        for e in kept
    )
    good = [e for e in kept if e.proven and ((e.ratio or 1) < 1) == lower]
    best = max(good, key=lambda e: abs(math.log(e.ratio or 1)), default=None)
    headline = f"Most in the trials: {words.shown(best.knob, best.choice)}, {change(best.ratio or 1)}" if best else ""
    hidden = (
        (len(every) - len(known), "not shown because the runs cannot tell their effects apart"),
        (len(known) - len(kept), "smaller effects not shown"),
    )
    notes = "".join(f"; {amount} {what}" for amount, what in hidden if amount)
    return Chart(
        name="knobs",
        title=headline or "No choice stands out in the trials",
        subtitle=f"Change of {goal.name} against the knob's default; grey where the 95{NBSP}% interval holds 0{notes}",
        x=Axis(f"change of {goal.name}", math.exp(-left), math.exp(right), log=True, ticks=_ratio_ticks(left, right)),
        y=Axis(""),
        marks=(Rows(rows, origin=1.0),),
    )


def _between(effect: Effect) -> str:
    return f"{change(effect.low or 1)} to {change(effect.high or 1)}"
