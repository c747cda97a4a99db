"""What settings answer, as report and verdict tell it; what float16 would bring on an input that was made up."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import models
import simulated
from rtmo_optuna.search.verdict import judged
from rtmo_optuna.show.report import write
from rtmo_optuna.show.sections import answers
from rtmo_optuna.show.sections.verdict import sentence
from rtmo_optuna.show.words import NBSP, TIMES
from rtmo_optuna.space.resolve import resolve
from rtmo_optuna.types.findings import Claim, Decided, FinalsRecord, Purpose, Status
from rtmo_optuna.types.measurement import (
    Found,
    GateMode,
    GateResult,
    Measurement,
    Outcome,
    OutputError,
    Picture,
    Region,
    Rounding,
)
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import StudyRecord, Verdict
from rtmo_optuna.types.subject import StudyDefinition
from rtmo_optuna.verbs.prepare import plan
from scripted import tune_options
from test_show_charts import measured, study
from test_space import MACHINE

if TYPE_CHECKING:
    from pathlib import Path

HALF = Settings.of({"precision": "float16"})
PICTURES = (Picture(200, 0, 0, 0.2), Picture(212, 1, 2, 0.9))
FOUND = Found("OKS", 0.985, 0.21, 0.58, PICTURES, 1, ((1.0,) * 34,), ((2.0,) * 34,))
BOXES = Found("IoU", 0.97, None, None, (Picture(57, 0, 0),))
NUMBERS = OutputError("map", "elementwise", {"norm": (0.0012,), "typical": (0.0004,)})


def gated(found: Found | None) -> GateResult:
    """Return what the gate says of settings that pass."""
    return GateResult(passed=True, mode=GateMode.AUTO, errors=(NUMBERS,), found=found)


def confirmed(settings: Settings, found: Found | None) -> StudyRecord:
    """Return a study that has proven that `settings` are 1.9 times as fast as the default, with what they answer."""
    runs = [(Settings(), measured(4.0)), (settings, replace(measured(2.1), gate=gated(found)))]
    record = study(runs)
    claim = Claim(settings, Settings(), Decided.FASTER, 1.9, (1.85, 1.95), 20, 20, over=True)
    finals = FinalsRecord(winner=settings, claims=(claim,), blocks=5, rounds=20, over=True, ended=True)
    return replace(record, finals=finals, verdict=Verdict(Status.CONFIRMED, record.trials[1]))


@pytest.mark.parametrize(
    ("settings", "found", "told"),
    [
        ({"precision": "float16"}, FOUND, f"In float16: 411 of 412 people found, 2 too many, 95{NBSP}% of keypoints"),
        ({"precision": "mixed 3"}, BOXES, f"In mixed precision: 57 of 57 objects found, boxes overlap by 97{NBSP}%."),
        ({"precision": "float16"}, None, f"In float16: outputs off by 0.12{NBSP}% in all."),
        ({"prefer_nhwc": True}, FOUND, "of fresh processes)."),
    ],
)
def test_a_claim_says_what_changed(settings: dict[str, str], found: Found | None, told: str) -> None:
    """Only where the model computes in something else than float32."""
    text = sentence(confirmed(Settings.of(dict(settings)), found))
    assert text.startswith("1.900 times as fast as the default settings")
    assert told in text
    assert text.endswith((told, f"within 0.58{NBSP}px."))


def test_the_report_tells_who_was_found_and_shows_the_worst_picture(tmp_path: Path) -> None:
    """As a table, a picture beside the plots and in the page; it goes with the next report that has none."""
    drawn = b"\xff\xd8 a picture"
    parts = (Region("a", "f", 9, (0, 1), 2.5), Region("g", "y", 8, (2,), 0.1))
    rounding = Rounding("", "wrong output", ("Mul_21 reaches 1.1e+05",), parts, "mixed 0-1", (0, 1), 9, 4)
    record = replace(confirmed(HALF, FOUND), sketch=base64.b64encode(drawn).decode(), rounding=rounding)
    markdown, page, *pictures = write(record, tmp_path / "report.md")
    text = markdown.read_text("utf-8")
    assert "| exported, 2 pictures | 412 | 411 | 1 | 2 | 0.985 | 0.21 | 0.58 | 211 of 212 | 0.90 |" in text
    assert "wrong output. Float16 holds numbers up to 65,504: Mul_21 reaches 1.1e+05." in text
    assert "In mixed precision 2 regions of the model stay float32." in text
    assert "| `a` to `f` | 9 | 2.5 | float32 |" in text
    assert "| `g` to `y` | 8 | 0.10 | float16 |" in text
    assert (tmp_path / "plots/worst.jpg").read_bytes() == drawn
    assert tmp_path / "plots/worst.jpg" in pictures
    assert base64.b64encode(drawn).decode() in page.read_text("utf-8")
    write(replace(record, sketch=""), tmp_path / "report.md")
    assert not (tmp_path / "plots/worst.jpg").exists()


def test_on_an_input_that_was_made_up_float16_is_tried_once_and_never_exported(tmp_path: Path) -> None:
    """The report says what it would bring, of which nothing is a claim, and asks for pictures."""
    knobs = {"precision": None, "prefer_nhwc": None}
    definition = StudyDefinition("half", "cuda", knobs, trials=4, timeout_s=600.0)
    model = models.facts("99.0", weights=("float32",))
    space = resolve(definition, MACHINE, model, fixed_shapes=True, real=False)
    opened = simulated.opened(tmp_path, definition, MACHINE, model, space=space)

    def process(settings: Settings, _number: int) -> Measurement:
        latency_ns = 4e6 / (2.0 if settings.get("precision") else 1.0) / (1.5 if settings.get("prefer_nhwc") else 1.0)
        return Measurement(Outcome.MEASURED, latency_ns=latency_ns, windows_ns=(latency_ns,) * 4, calls=40)

    runner = simulated.SimulatedRunner(process)
    finals = simulated.tune(opened, runner).run()
    record = judged(opened, finals)
    best = Settings.of({"prefer_nhwc": True})
    tried = [one.settings for one in record.processes if one.purpose is Purpose.PRECISION]
    assert tried == [Settings.of({"precision": "float16", "prefer_nhwc": True})]
    assert record.verdict.best
    assert record.verdict.best.settings == best
    told = answers.foretold(record)
    assert f"ran 2.00{TIMES} as fast in float16" in told
    assert told.endswith("it is never exported: give --input, pictures that matter to you.")
    simulated.tune(opened, runner).run()
    assert runner.ran[tried[0]] == 1
    assert answers.foretold(replace(record, space=replace(space, left_out=()))) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keep", "searched"), [(False, {"precision", "enable_cpu_mem_arena"}), (True, {"enable_cpu_mem_arena"})]
)
def test_a_precision_that_is_kept_is_no_dimension(tmp_path: Path, searched: set[str], *, keep: bool) -> None:
    """Whatever the study definition says."""
    text = "provider: cpu\nknobs: {precision: [float32, float16], enable_cpu_mem_arena: all}\n"
    options = tune_options(tmp_path, text, script={}, keep_precision=keep, input=tmp_path / "mine.npz")
    np.savez(tmp_path / "mine.npz", input=np.zeros(1, np.float32))
    assert {one.name for one in plan(options, tmp_path).about.space.dimensions} == searched
