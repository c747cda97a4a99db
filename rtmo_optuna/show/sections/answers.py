"""What settings answer, in the words of the field: who is found of those who are there, and what rounding does."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Code, Column, Image, Inline, Paragraph, Table, filled, numbers
from rtmo_optuna.show.words import NBSP, TIMES, number, percent
from rtmo_optuna.space.resolve import MADE_UP, PRECISIONS
from rtmo_optuna.types.findings import Purpose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtmo_optuna.show.render.blocks import Block
    from rtmo_optuna.types.measurement import Found, GateResult, Picture
    from rtmo_optuna.types.request import Settings
    from rtmo_optuna.types.study import StudyRecord


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield what float16 would bring where it cannot be judged, who was found, the worst picture, the regions."""
    if told := foretold(record):
        yield Paragraph(told)
    yield from filled(table(record), sketch(record))
    if told := rounded(record):
        yield Paragraph(told)
    yield from filled(regions(record))


def in_words(gate: GateResult) -> str:
    """Return what was found of what is there, or how far numbers are off; empty where nothing could be compared."""
    if (found := gate.found) is None:
        off = [max(error.figures["norm"]) for error in gate.errors if "norm" in error.figures]
        return f"outputs off by {percent(max(off))} in all" if off else ""
    what = "people" if found.measure == "OKS" else "objects"
    extra = f", {found.added} too many" if found.added else ""
    near = (
        f"boxes overlap by {percent(found.similarity)}"
        if found.px95 is None
        else f"95{NBSP}% of keypoints within {number(found.px95, 2)}{NBSP}px"
    )
    return f"{found.there - found.lost} of {found.there} {what} found{extra}, {near}"


def changed(record: StudyRecord) -> str:
    """Return what is exported computes in, and what becomes of the answers: a sentence, empty in float32."""
    best = record.verdict.best
    precision = precision_of(best.settings) if best else ""
    if best is None or not precision:
        return ""
    told = in_words(best.measurement.gate) if best.measurement.gate else ""
    return f"In {precision}: {told or 'the outputs were not compared'}."


def precision_of(settings: Settings) -> str:
    """Return the type in which `settings` compute, empty for float32."""
    held = next((str(value) for knob, value in settings if knob in PRECISIONS), "")
    return "mixed precision" if held.startswith("mixed") else held


def foretold(record: StudyRecord) -> str:
    """Return what float16 would bring on an input that was made up, where it is never exported; empty elsewhere."""
    if all((one.name, one.reason) != ("precision=float16", MADE_UP) for one in record.space.left_out):
        return ""
    ask = "On an input that was made up it is never exported: give --input, pictures that matter to you."
    tried = [process for process in record.processes if process.purpose is Purpose.PRECISION]
    if not tried:
        return f"What float16 would bring was not tried. {ask}"
    without = next((t for t in record.runs if t.settings == _in_float32(tried[-1].settings)), None)
    if tried[-1].latency_ms is None or without is None or not without.measurement.latency_ms:
        return f"Float16 was tried once: {words.sentence(tried[-1].reason)} {ask}"
    ratio = without.measurement.latency_ms / tried[-1].latency_ms
    return (
        f"The best measured settings ran {number(ratio)}{TIMES} as fast in float16, in one process beside the trials, "
        f"which proves nothing. {ask}"
    )


def _in_float32(settings: Settings) -> Settings:
    return type(settings).of({knob: value for knob, value in settings if knob != "precision"})


def table(record: StudyRecord) -> Table | None:
    """Return who was found by the default and by what is exported; None where no output is a list of boxes."""
    best = record.verdict.best
    sides = {"default": record.default} | ({"exported": best} if best and best != record.default else {})
    gates = {name: trial.measurement.gate for name, trial in sides.items() if trial}
    rows = tuple(_row(name, gate.found) for name, gate in gates.items() if gate and gate.found)
    columns = numbers("There", "Found", "Lost", "Too many", "OKS or IoU", "Typical px", f"95{NBSP}% within px")
    columns = (Column("Settings"), *columns, *numbers("Worst picture: found", "px"))
    return Table(columns, rows) if rows else None


def _row(name: str, found: Found) -> tuple[Inline, ...]:
    worst: Picture = found.pictures[found.worst]
    px = [_px(value) for value in (found.px, found.px95)]
    return (
        f"{name}, {words.count(len(found.pictures), 'picture')}",
        str(found.there),
        str(found.there - found.lost),
        str(found.lost),
        str(found.added),
        number(found.similarity),
        *px,
        f"{worst.there - worst.lost} of {worst.there}",
        _px(worst.px),
    )


def _px(value: float | None) -> str:
    return "" if value is None else number(value, 2)


def sketch(record: StudyRecord) -> Image | None:
    """Return the worst picture of what is exported, with both sides' outlines; None where it was not kept."""
    gate = record.verdict.best.measurement.gate if record.verdict.best else None
    if not record.sketch or gate is None or gate.found is None:
        return None
    where = f"Picture {gate.found.worst + 1} of {len(gate.found.pictures)}, on which the two are furthest apart"
    caption = f"{where}: the reference in blue, what is exported in orange over it."
    return Image("worst", base64.b64decode(record.sketch), caption)


def rounded(record: StudyRecord) -> str:
    """Return what float16 does to the model, and what is done about it; empty where it does no harm."""
    found = record.rounding
    if found is None or not found.refusal:
        return ""
    over = f" Float16 holds numbers up to 65,504: {words.listed(found.overflows)}." if found.overflows else ""
    kept = words.count(len(found.kept), "region")
    mended = f"In mixed precision {kept} of the model stay float32." if found.kept else "No few regions are to blame."
    runs = f"{found.runs} runs of up to {words.count(found.pictures, 'picture')}"
    return f"Rounded to float16 on the CPU, in {runs}: {words.sentence(found.refusal)}{over} {mended}"


def regions(record: StudyRecord) -> Table | None:
    """Return what rounding each part of the model alone to float16 does; None where that was not measured."""
    found = record.rounding
    if found is None or not found.regions:
        return None
    rows = tuple(
        (
            (Code(region.first), " to ", Code(region.last)),
            str(region.nodes),
            number(region.strain, 2),
            "float32" if all(place in found.kept for place in region.places) else "float16",
        )
        for region in found.regions
    )
    columns = (Column("Rounded alone", wide=True), *numbers("Nodes", "Error, limit 1"), Column("In mixed precision"))
    return Table(columns, rows)
