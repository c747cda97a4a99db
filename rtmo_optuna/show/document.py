"""What a report says, before it is Markdown or HTML: sections of paragraphs, tables, listings and pictures."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from rtmo_optuna.display import without_password
from rtmo_optuna.show import findings, headline, tables, words
from rtmo_optuna.show.blocks import Bullets, Facts, Listing, Paragraph, Picture, Section
from rtmo_optuna.show.cells import Code
from rtmo_optuna.show.charts import Chapter
from rtmo_optuna.show.findings import filled, pictures
from rtmo_optuna.show.scores import decided_by
from rtmo_optuna.show.screened import screened
from rtmo_optuna.show.stages import saved_by_pruning
from rtmo_optuna.show.verdict import sentence
from rtmo_optuna.space.knobs import knob_table
from rtmo_optuna.types.findings import Status
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtmo_optuna.show.blocks import Block
    from rtmo_optuna.show.cells import Table
    from rtmo_optuna.types.request import Settings, Value
    from rtmo_optuna.types.study import StudyRecord


def document(record: StudyRecord, applied: str = "") -> tuple[Section, ...]:
    """Return the report on `record`, the verdict first; `applied` says where the settings were written, if they were.

    Parts that the study has nothing for are left out.
    """
    parts = (
        Section(f"Fastest ONNX Runtime settings: {record.name}", tuple(_verdict(record))),
        Section("Warnings", _bullets(record.warnings)),
        Section("How to apply it", tuple(_application(record, applied))),
        Section("Confirmation", tuple(findings.confirmation(record))),
        Section("Race", tuple(findings.race(record))),
        Section("Machine and model", (tables.machine(record),)),
        Section("Ranking", tuple(_ranking(record))),
        Section("What each knob does here", tuple(_knobs(record))),
        Section("Noise of this host", tuple(findings.noise(record))),
        Section("Outputs", tuple(findings.outputs(record))),
        Section("What left the space, and why", filled(tables.left_out(record))),
        Section("What ran otherwise than asked", filled(tables.notes(record))),
        Section("What failed, and why", filled(tables.failures(record))),
        Section("Where the time went", (*pictures(Chapter.TIME), *filled(*_times(record)), *_pruning(record))),
        Section("How to go on", tuple(_resumption(record))),
    )
    return tuple(part for part in parts if any(not isinstance(block, Picture) for block in part.blocks))


def _verdict(record: StudyRecord) -> Iterator[Block]:
    yield Paragraph(words.sentence(sentence(record)), strong=True)
    if line := headline.status_line(record):
        yield Paragraph(line)
    if line := headline.pace_line(record):
        yield Paragraph(line)
    yield Facts(headline.facts(record))


def _application(record: StudyRecord, applied: str) -> Iterator[Block]:
    best = record.verdict.best
    if best is None:
        yield Paragraph(words.sentence(applied) or "There is nothing to apply.")
        return
    if applied:
        yield Paragraph(words.sentence(applied))
    elif record.verdict.status is Status.MEASURED:
        yield Paragraph("These are the best measured settings; nothing is proven of them.")
    if not len(best.settings):
        yield Paragraph("These are ONNX Runtime's defaults: there is nothing to set.")
    yield Listing(yaml(best.settings), "yaml")
    table = knob_table(record.space.provider)
    if any(knob in table and table[knob].scope is Scope.CALL for knob, _ in best.settings):
        yield Paragraph(
            "They need a session that is called as the trials were: bound buffers, CUDA graphs and cut models are no "
            "options of ONNX Runtime's own. What is written into an input buffer of the session is copied to the GPU "
            "faster than any other array."
        )
        name = next(iter(record.inputs.shapes), "input")
        yield Listing(
            f'session = rtmo_optuna.open_session("model.onnx", "config.yaml")\nbuffer = session.input_buffer("{name}")',
            "python",
        )


def yaml(settings: Settings) -> str:
    """Return settings as a YAML mapping, knobs under their own names; what is not named stays at its default."""
    return "\n".join(f"{_scalar(knob)}: {_scalar(value)}" for knob, value in settings) or "{}"


def _scalar(value: Value) -> str:
    """Return `value` as YAML 1.1 and 1.2 both read it; whatever is no plain name is quoted as JSON, which is YAML."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", value)
    if plain and str(value).lower() not in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}:
        return str(value)
    return json.dumps(value)


def _ranking(record: StudyRecord) -> Iterator[Block]:
    table = tables.ranking(record)
    if table is None:
        yield Paragraph("No run was measured to its end.")
        return
    told = decided_by(record)
    yield Paragraph(f"{told[0].upper()}{told[1:]}. The order of close neighbours is chance.")
    yield from pictures(Chapter.RANKING)
    yield table
    yield from pictures(Chapter.STEADINESS)


def _knobs(record: StudyRecord) -> Iterator[Block]:
    yield from screened(record)
    table = tables.knobs(record)
    if table is not None:
        if record.screening and record.screening.effects:
            yield Paragraph("Each choice over all trials, all else equal:")
        yield from pictures(Chapter.KNOBS)
        yield table


def _resumption(record: StudyRecord) -> Iterator[Block]:
    how = (
        ". The same command goes on from there: no settings are tried twice, more trials or more time continue the "
        "search, and race and confirmation begin anew where trials were added."
    )
    where = Code(without_password(record.storage))
    yield Paragraph(("The study ", Code(record.name), " is kept in ", where, how))


def _times(record: StudyRecord) -> tuple[Table | None, ...]:
    return tables.study_times(record), tables.times(record)


def _pruning(record: StudyRecord) -> Iterator[Block]:
    saved = saved_by_pruning(record)
    if saved:
        count = sum(trial.measurement.outcome is Outcome.PRUNED for trial in record.runs)
        yield Paragraph(
            f"Pruning saved about {words.seconds(saved)}: {words.count(count, 'trial')} ended after a few windows, and "
            "would have taken as many as the others."
        )


def _bullets(items: tuple[str, ...]) -> tuple[Block, ...]:
    return (Bullets(items),) if items else ()
