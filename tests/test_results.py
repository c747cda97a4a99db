"""Results of `bench`: several settings side by side, kept in files, and two files against each other."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from program import Program
from rtmo_optuna.cli import app
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.subject import Machine
from rtmo_optuna.verbs import kept
from rtmo_optuna.verbs.circumstances import Circumstances
from rtmo_optuna.verbs.comparison import Bench, Comparison, Side
from scripted import write_script

COMMON = ["bench", "script.json", "--engine", "scripted", "--provider", "cpu", "--pairs", "10"]


@pytest.mark.slow
def test_several_settings_stand_side_by_side(tmp_path: Path, program: Program) -> None:
    """Each against the same default: what is proven slower fails, by more than was asked it does not; a row each."""
    write_script(tmp_path, base_ms=4.0, effects={"enable_mem_pattern=False": 1.5, "enable_cpu_mem_arena=False": 0.5})
    Path("fast.yaml").write_text("onnx: {enable_cpu_mem_arena: false}\n", encoding="utf-8")
    sides = ["--side", "enable_mem_pattern=0", "--side", "fast.yaml", "--output", "kept.json"]
    assert program(*COMMON, *sides, "--format", "csv", "--fail-if", "slower:20") == app.SLOWER
    rows = {row["settings"]: row for row in csv.DictReader(io.StringIO(program.out))}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "enable_mem_pattern=0": "slower",
        "enable_cpu_mem_arena=0": "faster",
        "default": "",
    }
    assert rows["default"]["processes"] == rows["enable_cpu_mem_arena=0"]["processes"] == "10"
    found = kept.load(Path("kept.json"))
    assert [pair.slower for pair in found.comparisons] == [True, False]


def result(path: str, *latencies_ms: float, **more: Any) -> None:  # noqa: ANN401 - of the circumstances
    """Write a result of `bench` in which the default took so long, and another one twice as long."""
    second = Side(Settings(), len(latencies_ms), 1.0, {}, None, None, None, processes_ms=latencies_ms)
    first = replace(second, settings=Settings.of({"x": 1}), processes_ms=tuple(2 * ms for ms in latencies_ms))
    pair = Comparison(first, second, None, None, None, 0, "", "", "")
    made_of = Circumstances("", "m.onnx", "aa", "cpu", "", "", 1, {"x": (1,)}, Machine("", "", 1, 1, ""), {})
    kept.keep(Bench((pair,), made_of=replace(made_of, **more)), Path(path))


TEN = tuple(1 + i / 100 for i in range(10))


@pytest.mark.parametrize(("then_ms", "limit", "code", "verdict"), [
    (TEN, "slower", 0, "no proven difference"),
    ([0.8 * one for one in TEN], "slower", 3, "slower"),
    ([0.8 * one for one in TEN], "slower:40", 0, "slower"),
    ([1.3 * one for one in TEN], "slower", 0, "faster"),
    (TEN[:9], "slower", 4, "not confirmed"),
])  # fmt: skip
def test_two_results_are_compared(
    program: Program, then_ms: Sequence[float], limit: str, code: int, verdict: str
) -> None:
    """Of each settings that both have; with fewer than ten processes nothing can be said, which is no pass."""
    result("now.json", *TEN)
    result("then.json", *then_ms)
    assert program("bench", "--compare", "now.json", "then.json", "--fail-if", limit, "--json") == code
    found = json.loads(program.out)["comparisons"]
    assert [(pair["first"]["settings"], pair["verdict"]) for pair in found] == [({"x": 1}, verdict), ({}, verdict)]


def test_luck_is_no_proof_between_two_results() -> None:
    """Where both are of one distribution, the interval of 98 % misses 1 in no more than 3 of 100."""
    random = np.random.default_rng(7)

    def lucky() -> bool:
        one, other = (
            Side(Settings(), 10, 1.0, {}, None, None, None, processes_ms=tuple(random.lognormal(0, 0.1, 10)))
            for _ in "ab"
        )
        low, high = kept.ratio_of(one, other).interval or (0, 0)
        return not low <= 1 <= high

    assert sum(lucky() for _ in range(400)) <= 12


@pytest.mark.parametrize(("more", "words"), [
    ({"model_sha256": "bb"}, "now.json is of another model (aa) than then.json (bb)"),
    ({"shapes": {"x": (2,)}}, "now.json is of another input shape"),
])  # fmt: skip
def test_results_of_other_things_are_refused(program: Program, more: dict[str, object], words: str) -> None:
    """One sentence, and exit code 2."""
    result("now.json", *TEN)
    result("then.json", *TEN, **more)
    assert program("bench", "--compare", "now.json", "then.json") == 2
    assert program.err.startswith(f"error: {words}")


@pytest.mark.parametrize(("text", "words"), [
    (None, "cannot be read: No such file or directory"),
    ("{", "is no JSON"),
    ("[]", "holds no result of rtmo-optuna bench"),
    ('{"schema": 2, "kind": "tune"}', "holds no result of rtmo-optuna bench"),
    ('{"schema": 99, "kind": "bench"}', "is of schema 99, and this version of rtmo-optuna reads 2"),
    ('{"schema": 2, "kind": "bench", "comparisons": 7}', "is damaged"),
])  # fmt: skip
def test_what_is_no_result_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    """It is named, and what is wrong with it."""
    file = tmp_path / "then.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(f"{file} {words}: give two files")):
        kept.load(file)
