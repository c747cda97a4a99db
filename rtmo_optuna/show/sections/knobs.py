"""What each knob does here: flipped alone in the screening, and over all trials, all else equal."""

import math
from collections.abc import Iterator
from itertools import pairwise

from rtmo_optuna import stats
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Block, Bullets, Code, Inline, Paragraph, Table, filled, numbers, texts
from rtmo_optuna.show.render.chart import Axis, Chart, Role, Row, Rows
from rtmo_optuna.show.scores import objective, scored
from rtmo_optuna.show.words import NBSP, change, percent
from rtmo_optuna.space.resolve import params_of
from rtmo_optuna.stats import Effect
from rtmo_optuna.types.findings import INERT_BELOW, KnobEffect, Reading
from rtmo_optuna.types.request import Value
from rtmo_optuna.types.study import StudyRecord

MOST_EFFECTS = 20

TICKS = 8
_BETTER, _WORSE = "better", "worse"
_ROLES = {_BETTER: Role.FASTER, _WORSE: Role.SLOWER}


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield what the screening found, then what each choice does over all trials."""
    yield from _screened(record)
    every = effects(record)
    found = table(record, every)
    if found is not None:
        if record.screening and record.screening.effects:
            yield Paragraph("Each choice over all trials, all else equal:")
        yield from filled(chart(record, every), found)


def _screened(record: StudyRecord) -> Iterator[Block]:
    """Yield what is inert here and why, what was left out, and what each flip did."""
    found = record.screening
    if found is None:
        return
    if found.inert:
        yield Paragraph(
            f"Inert here: {words.count(found.pairs, 'pair')} of fresh processes show that these change nothing by as "
            f"much as {percent(INERT_BELOW)}, and the outputs are the default's to the last bit. They stayed at their "
            "defaults."
        )
        yield Bullets(tuple((Code(one.name), f": {one.reason}" if one.reason else "") for one in found.inert))
    if found.left_out:
        yield Paragraph(found.left_out)
    if found.effects:
        yield Paragraph("Each choice by itself, against the default settings:")
        yield _flips(record, found.effects)


def _flips(record: StudyRecord, effects: tuple[KnobEffect, ...]) -> Table:
    goal = objective(record)
    lower = goal.lower_is_better
    figures = numbers(f"Change of {goal.name}", f"98{NBSP}% interval")
    columns = (*texts("Choice"), *figures, *texts("From", "Outputs", "Reading"))
    return Table(columns, tuple(_flip(effect, lower_is_better=lower) for effect in effects)).without_empty()


def _flip(effect: KnobEffect, *, lower_is_better: bool) -> tuple[Inline, ...]:
    sides = [effect.low, effect.high] if lower_is_better else [effect.high, effect.low]
    low, high = (None if side is None else _as_score(side, lower_is_better=lower_is_better) for side in sides)
    known = effect.ratio is not None
    return (
        Code(", ".join(words.shown(name, label) for name, label in effect.options)),
        "" if effect.ratio is None else change(_as_score(effect.ratio, lower_is_better=lower_is_better)),
        "" if low is None or high is None else f"{change(low)} to {change(high)}",
        words.count(effect.pairs, "pair") if effect.pairs else "one trial",
        ("equal" if effect.equal_outputs else "differ") if known else "",
        "" if effect.reading is Reading.UNDECIDED and not known else effect.reading.value,
    )


def _as_score(ratio: float, *, lower_is_better: bool) -> float:
    """Return a ratio of costs as one of scores."""
    return ratio if lower_is_better else 1 / ratio


def effects(record: StudyRecord) -> tuple[Effect, ...]:
    """Return what each choice of the space does to the score, from all runs inside the space that have one."""
    default = record.default
    reference = {dimension.name: dimension.choices[0].label for dimension in record.space.dimensions}
    reference |= (default and params_of(record.space, default.settings)) or {}
    design: list[dict[str, Value]] = []
    values: list[float] = []
    for trial, value in scored(record):
        params = params_of(record.space, trial.settings)
        if value and params:
            design.append(params)
            values.append(value)
    order = [(dimension.name, choice.label) for dimension in record.space.dimensions for choice in dimension.choices]
    found = stats.main_effects(design, values, reference)
    return tuple(sorted(found, key=lambda effect: order.index((effect.knob, effect.choice))))


def chart(record: StudyRecord, found: tuple[Effect, ...] | None = None) -> Chart | None:
    """Return each choice's effect on the score as a ratio to its knob's default, with 95 % intervals.

    `found` are the record's `effects`, where they are at hand.
    """
    every = effects(record) if found is None else found
    known = [e for e in every if e.ratio is not None and e.low is not None and e.high is not None]
    if not known:
        return None
    sized = sorted(known, key=lambda e: abs(math.log(e.ratio or 1)), reverse=True)
    goal = objective(record)
    lower = goal.lower_is_better
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
            role=_ROLES.get(_reading(e, lower_is_better=lower), Role.MUTED),
            text=f"{change(e.ratio or 1)} ({_between(e)})",
            hover=f"{words.shown(e.knob, e.choice)} against {words.shown(e.knob, e.against)}\n"
            f"{change(e.ratio or 1)}, 95{NBSP}% interval {_between(e)}, {words.count(e.trials, 'run')}",
        )
        for e in kept
    )
    good = [e for e in kept if _reading(e, lower_is_better=lower) == _BETTER]
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
        caption="What each choice does, all else equal; one in twenty such intervals misses, and interactions are "
        "averaged.",
    )


def _ratio_ticks(left: float, right: float) -> tuple[tuple[float, str], ...]:
    """Return ticks for ratios from exp(-left) to exp(right), as changes in per cent up to a factor of two."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        ratios = [*(round(1 + step * i, 2) for i in range(-9, 20)), 3.0, 5.0, 10.0, 20.0, 50.0]
        inside = [ratio for ratio in ratios if ratio > 0 and -left <= math.log(ratio) <= right]
        if all(math.log(high / low) > (left + right) / TICKS for low, high in pairwise(inside)):
            break
    return tuple((ratio, change(ratio).replace(".0", "")) for ratio in inside)


def _between(effect: Effect) -> str:
    return f"{change(effect.low or 1)} to {change(effect.high or 1)}"


def table(record: StudyRecord, found: tuple[Effect, ...] | None = None) -> Table | None:
    """Return what each choice does, by knob; None where no two choices can be compared. `found` is as for `chart`."""
    found = effects(record) if found is None else found
    if not found:
        return None
    goal = objective(record)
    lower = goal.lower_is_better
    seen = {(effect.knob, effect.choice) for effect in found} | {(effect.knob, effect.against) for effect in found}
    rows: list[tuple[Inline, ...]] = [
        (
            Code(words.shown(effect.knob, effect.choice)),
            Code(words.choice(effect.against)),
            "" if effect.ratio is None else change(effect.ratio),
            "" if effect.low is None or effect.high is None else f"{change(effect.low)} to {change(effect.high)}",
            str(effect.trials),
            _reading(effect, lower_is_better=lower),
        )
        for effect in found
    ]
    rows += [
        (Code(words.shown(dimension.name, choice.label)), "", "", "", "0", "never measured")
        for dimension in record.space.dimensions
        for choice in dimension.choices
        if (dimension.name, choice.label) not in seen
    ]
    figures = numbers(f"Change of {goal.name}", f"95{NBSP}% interval", "Runs")
    columns = (*texts("Choice", "Against"), *figures, *texts("Reading"))
    return Table(columns, tuple(rows))


def _reading(effect: Effect, *, lower_is_better: bool) -> str:
    if effect.ratio is None:
        return "cannot be told apart from other choices"
    if not effect.proven:
        return "not proven"
    return _BETTER if (effect.ratio < 1) == lower_is_better else _WORSE
