"""The verb `bench`: two settings against each other, in real children of the scripted engine."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rtmo_optuna.cli import main
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.subject import Machine
from rtmo_optuna.verbs import kept
from rtmo_optuna.verbs.circumstances import Circumstances
from rtmo_optuna.verbs.comparison import Bench, Comparison, Side
from scripted import write_script

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMON = ["script.json", "--engine", "scripted", "--provider", "cpu", "--pairs", "10"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bench(*more: str) -> int:
    """Run `bench` and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", *COMMON, *more])
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_a_planted_difference_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half the latency: faster, with an interval around two; equal outputs; the file that is not there stays away."""
    write_script(tmp_path, base_ms=4.0, effects={"enable_mem_pattern=False": 0.5})
    assert bench("--set", "enable_mem_pattern=off", "--json", "--output", "kept.json") == 0
    told = capsys.readouterr().out
    (found,) = json.loads(told)["comparisons"]
    assert told == Path("kept.json").read_text(encoding="utf-8")
    assert found["verdict"] == "faster"
    assert found["low"] <= found["ratio"] <= found["high"]
    assert 1.6 < found["ratio"] < 2.5
    assert found["outputs"] == "equal"
    assert found["first"]["settings"] == {"enable_mem_pattern": False}
    assert found["second"]["settings"] == {}
    assert found["first"]["processes"] == found["pairs"] == 10
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.slow
def test_no_difference_is_no_proof_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 whatever the verdict, and a table for people."""
    write_script(tmp_path, base_ms=2.0, between=0.05)
    assert bench("--set", "enable_mem_pattern=off", "--pairs", "10") == 0
    told = capsys.readouterr().out
    assert "verdict:" in told
    assert "session build, ms" in told
    assert "GPU memory" not in told  # no side has any


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["the same settings"]),
        (["--set", "enable_mem_pattern=off", "--config", "nowhere.yaml"], ["nowhere.yaml does not exist"]),
        (["--set", "enable_mem_patern=off"], ["enable_mem_patern", "enable_mem_pattern"]),
        (["--set", "enable_mem_pattern"], ["knob=value"]),
        (["--set", "enable_mem_pattern=perhaps"], ["perhaps"]),
        (["--set", "enable_mem_pattern=off", "--against", "enable_mem_pattern=off"], ["same"]),
        (["--set", "enable_mem_pattern=off", "--set", "enable_mem_pattern=on"], ["given already, so leave out one"]),
        (["--against", "enable_mem_pattern=off", "--against", "enable_mem_pattern=off"], ["given already"]),
        (["--set", "enable_mem_pattern=off", "--against", "config"], ["config.yaml does not exist"]),
    ],
)
def test_bad_sides_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    """Equal sides, an unknown knob or value: exit code 2 and the words that help."""
    write_script(tmp_path)
    assert bench(*arguments) == 2
    told = capsys.readouterr().err
    for word in words:
        assert word in told


@pytest.mark.parametrize("text", ["", "app: {threads: 4}\n"])
def test_a_file_without_settings_is_no_side(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Named, it is refused: its side would be the default. What merely lies there is not asked."""
    write_script(tmp_path)
    Path("config.yaml").write_text(text, encoding="utf-8")
    for named in (["--config", "config.yaml"], ["--against", "config"]):
        assert bench("--set", "enable_mem_pattern=off", *named) == 2
        assert "config.yaml holds no settings: name another file, or tune first" in capsys.readouterr().err
    assert bench("--set", "enable_mem_pattern=on") == 2
    assert "Both sides are the same settings (default)" in capsys.readouterr().err


def test_what_the_file_holds_is_either_side(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The first by default, the second by its name."""
    write_script(tmp_path)
    Path("config.yaml").write_text("onnx: {enable_mem_pattern: false}\n", encoding="utf-8")
    assert bench("--config", "config.yaml", "--against", "config") == 2
    assert "Both sides are the same settings (enable_mem_pattern=0)" in capsys.readouterr().err


def test_settings_that_fail_are_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can be compared with a crash: exit code 1 and where it happened."""
    write_script(tmp_path, faults=[{"when": {"enable_mem_pattern": False}, "fault": "crash"}])
    assert bench("--set", "enable_mem_pattern=off") == 1
    assert "SIGSEGV" in capsys.readouterr().err


@pytest.mark.slow
def test_several_settings_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each against the same default: what is proven slower fails, by more than was asked it does not; a row each."""
    write_script(tmp_path, base_ms=4.0, effects={"enable_mem_pattern=False": 1.5, "enable_cpu_mem_arena=False": 0.5})
    Path("fast.yaml").write_text("onnx: {enable_cpu_mem_arena: false}\n", encoding="utf-8")
    sides = ["--side", "enable_mem_pattern=0", "--side", "fast.yaml", "--output", "kept.json"]
    assert bench(*sides, "--format", "csv", "--fail-if", "slower:20") == main.SLOWER
    rows = {row["settings"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
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


@pytest.mark.parametrize(
    ("then_ms", "limit", "code", "verdict"),
    [
        (TEN, "slower", 0, "no proven difference"),
        ([0.8 * one for one in TEN], "slower", 3, "slower"),
        ([0.8 * one for one in TEN], "slower:40", 0, "slower"),
        ([1.3 * one for one in TEN], "slower", 0, "faster"),
        (TEN[:9], "slower", 4, "not confirmed"),
    ],
)
def test_two_results_are_compared(
    capsys: pytest.CaptureFixture[str], then_ms: Sequence[float], limit: str, code: int, verdict: str
) -> None:
    """Of each settings that both have; with fewer than ten processes nothing can be said, which is no pass."""
    result("now.json", *TEN)
    result("then.json", *then_ms)
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", "--compare", "now.json", "then.json", "--fail-if", limit, "--json"])
    assert (ended.value.code or 0) == code
    found = json.loads(capsys.readouterr().out)["comparisons"]
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


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model_sha256": "bb"}, "now.json is of another model (aa) than then.json (bb)"),
        ({"shapes": {"x": (2,)}}, "now.json is of another input shape"),
    ],
)
def test_results_of_other_things_are_refused(
    capsys: pytest.CaptureFixture[str], more: dict[str, object], words: str
) -> None:
    """One sentence, and exit code 2."""
    result("now.json", *TEN)
    result("then.json", *TEN, **more)
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", "--compare", "now.json", "then.json"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is no JSON"),
        ("[]", "holds no result of rtmo-optuna bench"),
        ('{"schema": 2, "kind": "tune"}', "holds no result of rtmo-optuna bench"),
        ('{"schema": 99, "kind": "bench"}', "is of schema 99, and this version of rtmo-optuna reads 2"),
        ('{"schema": 2, "kind": "bench", "comparisons": 7}', "is damaged"),
    ],
)
def test_what_is_no_result_is_refused(text: str | None, words: str) -> None:
    """It is named, and what is wrong with it."""
    if text is not None:
        Path("then.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(f"then.json {words}: give two files")):
        kept.load(Path("then.json"))
