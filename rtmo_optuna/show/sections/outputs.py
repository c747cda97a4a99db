"""What the output gate saw: how far the outputs are from the reference, and whom it refused."""

from collections.abc import Iterator

from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import (
    Block,
    Bullets,
    Code,
    Column,
    Inline,
    Paragraph,
    Table,
    filled,
    numbers,
    texts,
)
from rtmo_optuna.show.scores import differing
from rtmo_optuna.show.sections import answers
from rtmo_optuna.show.words import number, percent
from rtmo_optuna.types.measurement import FIGURES, Figure, GateMode, GateResult, Outcome
from rtmo_optuna.types.study import StudyRecord

MOST_WRONG = 10


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield what the output gate saw, and whom it refused."""
    if told := remarks(record):
        yield Bullets(told)
    found = table(record)
    if found is not None:
        yield Paragraph(
            "How far the outputs are from the reference, which is made without a GPU. A limit grows with the default's "
            "own error, so that no settings need to be nearer than rounding lets the default be."
        )
    yield from answers.blocks(record)
    yield from filled(found, wrong(record))


def remarks(record: StudyRecord) -> tuple[str, ...]:
    """Return what is to be known of the gate: that it was off or vacuous, and what it warned of."""
    if record.definition.gate.mode is GateMode.OFF:
        return ("The output gate was off: no settings' outputs were compared with a reference.",)
    results = [gate for trial in record.runs if (gate := trial.measurement.gate)]
    if not results:
        return ("No outputs were compared with a reference.",) if record.runs else ()
    vacuous = any(result.vacuous for result in results)
    empty = (
        ("The output gate was vacuous: the reference holds too little to judge any settings by.",) if vacuous else ()
    )
    return (*empty, *dict.fromkeys(warning for result in results for warning in result.warnings))


def table(record: StudyRecord) -> Table | None:
    """Return each output's errors: the default's own, and the worst of an accepted trial; None where none is known."""
    judged = [(trial, gate) for trial in record.runs if (gate := trial.measurement.gate)]
    default = next((gate for trial, gate in judged if trial.settings == record.space.fixed), None)
    accepted = [gate for _, gate in judged if gate.passed]
    own, worst = _worst([default] if default else []), _worst(accepted)
    kinds = {error.name: error.kind for gate in (*accepted, *([default] if default else [])) for error in gate.errors}
    rules = record.definition.gate
    rows: list[tuple[Inline, ...]] = []
    for name, figure in dict.fromkeys((*own, *worst)):
        known = FIGURES.get(figure, Figure(figure, "", share=False))
        rows.append((
            Code(name),
            kinds[name],
            known.title,
            _shown(own.get((name, figure)), share=known.share),
            _shown(getattr(rules, known.rule, None), share=known.share),
            _shown(worst.get((name, figure)), share=known.share),
        ))  # fmt: skip
    columns = (*texts("Output", "Compared", "Figure"), *numbers("Default's own", "Limit, at least", "Worst accepted"))
    return Table(columns, tuple(rows)).without_empty() if rows else None


def wrong(record: StudyRecord) -> Table | None:
    """Return the trials that the gate refused, by output with what is wrong about it; None where there are none."""
    refused = [
        (trial, error)
        for trial in record.runs
        if trial.measurement.outcome is Outcome.FAILED and trial.measurement.gate
        for error in trial.measurement.gate.errors
        if error.wrong
    ]
    rows: list[tuple[Inline, ...]] = [
        (Code(str(differing(record, trial.settings))), Code(error.name), words.sentence(error.wrong))
        for trial, error in refused[:MOST_WRONG]
    ]
    if len(refused) > MOST_WRONG:
        rows.append((f"and {len(refused) - MOST_WRONG} more", "", ""))
    columns = (Column("Refused settings", wide=True), Column("Output"), Column("What is wrong", wide=True))
    return Table(columns, tuple(rows)) if rows else None


def _worst(results: list[GateResult]) -> dict[tuple[str, str], float]:
    """Return the largest value of each output's figures, the parts of a figure taken together."""
    worst: dict[tuple[str, str], float] = {}
    for result in results:
        for error in result.errors:
            for figure, values in error.figures.items():
                place = error.name, figure.split(maxsplit=1)[0]
                worst[place] = max(worst.get(place, 0.0), *values) if values else worst.get(place, 0.0)
    return worst


def _shown(value: float | None, *, share: bool) -> str:
    if value is None:
        return ""
    return percent(value) if share else number(value)
