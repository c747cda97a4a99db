"""What the screening found: each knob flipped from the default, and which of them do nothing here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna.show import words
from rtmo_optuna.show.blocks import Bullets, Paragraph
from rtmo_optuna.show.cells import Code, Column, Inline, Table, without_empty
from rtmo_optuna.show.scores import objective
from rtmo_optuna.show.words import NBSP, change
from rtmo_optuna.types.findings import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtmo_optuna.show.blocks import Block
    from rtmo_optuna.types.findings import KnobEffect
    from rtmo_optuna.types.study import StudyRecord


def screened(record: StudyRecord) -> Iterator[Block]:
    """Yield what is inert here and why, what was left out, and what each flip did."""
    found = record.screening
    if found is None:
        return
    if found.inert:
        yield Paragraph(
            f"Inert here: {words.count(found.pairs, 'pair')} of fresh processes show that these change nothing by as "
            f"much as 3{NBSP}%, and the outputs are the default's to the last bit. They stayed at their defaults."
        )
        yield Bullets(tuple((Code(one.name), f": {one.reason}" if one.reason else "") for one in found.inert))
    if found.left_out:
        yield Paragraph(found.left_out)
    if found.effects:
        yield Paragraph("Each choice by itself, against the default settings:")
        yield _table(record, found.effects)


def _table(record: StudyRecord, effects: tuple[KnobEffect, ...]) -> Table:
    goal = objective(record)
    lower = goal.direction == "minimize"
    columns = (
        Column("Choice"),
        Column(f"Change of {goal.name}", number=True),
        Column(f"98{NBSP}% interval", number=True),
        Column("From"),
        Column("Outputs"),
        Column("Reading"),
    )
    return without_empty(Table(columns, tuple(_row(effect, lower_is_better=lower) for effect in effects)))


def _row(effect: KnobEffect, *, lower_is_better: bool) -> tuple[Inline, ...]:
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
