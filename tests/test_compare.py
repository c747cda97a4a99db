"""The verb `bench`: two settings against each other, in real children, what they ran on, and for how long."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import models
import scripted
from program import Program, lacking
from rtmo_optuna.child.measure import Decision, measure
from rtmo_optuna.errors import NothingMeasuredError, UsageError
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Stage
from rtmo_optuna.types.study import Event, Note, WindowDone
from rtmo_optuna.verbs.bench import compare
from rtmo_optuna.verbs.circumstances import as_tuned
from rtmo_optuna.verbs.prepare import TuneOptions, plan
from scripted import write_script
from test_killed_children import OTHER, children, needs_proc

COMMON = ["script.json", "--engine", "scripted", "--provider", "cpu", "--pairs", "10"]


def bench(program: Program, *more: str) -> int:
    """Run `bench` and return its exit code."""
    return program("bench", *COMMON, *more)


@pytest.mark.slow
def test_a_planted_difference_is_proven(tmp_path: Path, program: Program) -> None:
    """Half the latency: faster, with an interval around two; equal outputs; the file that is not there stays away."""
    write_script(tmp_path, base_ms=4.0, effects={"enable_mem_pattern=False": 0.5})
    assert bench(program, "--set", "enable_mem_pattern=off", "--json", "--output", "kept.json") == 0
    assert program.out == Path("kept.json").read_text(encoding="utf-8")
    (found,) = json.loads(program.out)["comparisons"]
    assert (found["verdict"], found["outputs"]) == ("faster", "equal")
    assert found["low"] <= found["ratio"] <= found["high"]
    assert 1.6 < found["ratio"] < 2.5
    assert [found[side]["settings"] for side in ("first", "second")] == [{"enable_mem_pattern": False}, {}]
    assert found["first"]["processes"] == found["pairs"] == 10
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.slow
def test_no_difference_is_no_proof_and_no_failure(tmp_path: Path, program: Program) -> None:
    """Exit code 0 whatever the verdict, and a table for people."""
    write_script(tmp_path, base_ms=2.0, between=0.05)
    assert bench(program, "--set", "enable_mem_pattern=off", "--pairs", "10") == 0
    assert not lacking(program.out, "verdict:", "session build, ms")
    assert "GPU memory" not in program.out  # no side has any


@pytest.mark.parametrize(("arguments", "words"), [
    ([], ["the same settings"]),
    (["--set", "enable_mem_pattern=off", "--config", "nowhere.yaml"], ["nowhere.yaml does not exist"]),
    (["--set", "enable_mem_patern=off"], ["enable_mem_patern", "enable_mem_pattern"]),
    (["--set", "enable_mem_pattern"], ["knob=value"]),
    (["--set", "enable_mem_pattern=perhaps"], ["perhaps"]),
    (["--set", "enable_mem_pattern=off", "--against", "enable_mem_pattern=off"], ["same"]),
    (["--set", "enable_mem_pattern=off", "--set", "enable_mem_pattern=on"], ["given already, so leave out one"]),
    (["--against", "enable_mem_pattern=off", "--against", "enable_mem_pattern=off"], ["given already"]),
    (["--set", "enable_mem_pattern=off", "--against", "config"], ["config.yaml does not exist"]),
])  # fmt: skip
def test_bad_sides_are_refused(tmp_path: Path, program: Program, arguments: list[str], words: list[str]) -> None:
    """Equal sides, an unknown knob or value: exit code 2 and the words that help."""
    write_script(tmp_path)
    assert bench(program, *arguments) == 2
    assert not lacking(program.err, *words)


@pytest.mark.parametrize("text", ["", "app: {threads: 4}\n"])
def test_a_file_without_settings_is_no_side(tmp_path: Path, program: Program, text: str) -> None:
    """Named, it is refused: its side would be the default. What merely lies there is not asked."""
    write_script(tmp_path)
    Path("config.yaml").write_text(text, encoding="utf-8")
    for named in (["--config", "config.yaml"], ["--against", "config"]):
        assert bench(program, "--set", "enable_mem_pattern=off", *named) == 2
        assert "config.yaml holds no settings: name another file, or tune first" in program.err
    assert bench(program, "--set", "enable_mem_pattern=on") == 2
    assert "Both sides are the same settings (default)" in program.err


def test_what_the_file_holds_is_either_side(program: Program, tmp_path: Path) -> None:
    """The first by default, the second by its name."""
    write_script(tmp_path)
    Path("config.yaml").write_text("onnx: {enable_mem_pattern: false}\n", encoding="utf-8")
    assert bench(program, "--config", "config.yaml", "--against", "config") == 2
    assert "Both sides are the same settings (enable_mem_pattern=0)" in program.err


def test_settings_that_fail_are_said_to(tmp_path: Path, program: Program) -> None:
    """Nothing can be compared with a crash: exit code 1 and where it happened."""
    write_script(tmp_path, faults=[{"when": {"enable_mem_pattern": False}, "fault": "crash"}])
    assert bench(program, "--set", "enable_mem_pattern=off") == 1
    assert "SIGSEGV" in program.err


LIMITED = ("bench", "script.json", "--engine", "scripted", "--provider", "cpu", "--set", "enable_mem_pattern=off")


@pytest.mark.slow
def test_json_tells_what_was_run_on_what(tmp_path: Path, program: Program) -> None:
    """Schema, date, shapes, input, machine, versions, and the latency of every process."""
    write_script(tmp_path, base_ms=1.0)
    assert not program(*LIMITED, "--timeout", "6s", "--json")
    found = json.loads(program.out)
    made_of = found["made_of"]
    assert (found["schema"], made_of["shapes"]) == (2, {"input": [1]})
    assert made_of["input"].startswith("made from the signature")
    assert made_of["machine"]["cores"] >= 1
    assert "onnxruntime" in made_of["versions"]
    assert made_of["date"].endswith("+00:00")
    (pair,) = found["comparisons"]
    for side in (pair["first"], pair["second"]):
        assert len(side["processes_ms"]) == side["processes"]


@pytest.mark.slow
def test_a_time_limit_ends_it_without_a_verdict(tmp_path: Path, program: Program) -> None:
    """No pair begins past the limit; what cannot be said is not said; the made input is told to people too."""
    write_script(tmp_path, base_ms=20.0)
    assert not program(*LIMITED, "--timeout", "8s")
    made = ("input:    made from the signature", "note:     The input is made from the signature")
    assert not lacking(program.out, "not confirmed", "The time was up", *made)


@pytest.mark.parametrize(("info", "shapes", "expected"), [
    ("shapes: {x: 3x8}", (), ("x=3x8",)),
    ("shapes: {x: 3x8}", ("x=2x8",), ("x=2x8",)),
    ("shapes: {x: 3x8}\n    model_sha256: '00'", (), ()),
])  # fmt: skip
def test_the_shapes_that_were_tuned_are_taken(
    tmp_path: Path, info: str, shapes: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """Those of config.yaml, unless --shape says otherwise or the file was tuned for another model."""
    config = tmp_path / "config.yaml"
    config.write_text(f"onnx:\n  enable_mem_pattern: false\n  benchmark_info:\n    {info}\n", encoding="utf-8")
    options = TuneOptions(model=tmp_path / "m.onnx", config=config, shapes=shapes)
    assert as_tuned(options, "11").shapes == expected


def test_what_is_only_read_may_be_laid_out_oddly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison writes nothing into the configuration; and this process does not parse the model."""
    config = tmp_path / "config.yaml"
    config.write_text("? onnx\n: ? enable_mem_pattern\n  : false\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "onnx", None)
    models.dense(tmp_path / "m.onnx", (1, 8))
    options = TuneOptions(model=tmp_path / "m.onnx", config=config, provider="cpu")
    with pytest.raises(UsageError, match="too unusually"):
        plan(options, tmp_path)
    assert dict(plan(options, tmp_path, as_tuned).config.settings) == {"enable_mem_pattern": False}


def test_a_time_limit_that_is_over_before_any_process_is_told(tmp_path: Path, program: Program) -> None:
    """It is no fault of the settings, and what to do is said."""
    write_script(tmp_path, base_ms=1.0)
    assert program(*LIMITED, "--timeout", "0.01s") == 1
    assert "The time was up before the outputs were compared" in program.err


STUDY = "provider: cpu\nknobs: {enable_mem_pattern: all}\n"
PAIR_S, EARLY_S, LATE_S = (12.0, 48.0, 192.0), (6.0, 24.0, 96.0), 30.0
"""Times that are given, more where a machine is too busy to come that far in them; and how much later it may end."""


@pytest.mark.slow
@needs_proc
def test_one_that_hangs_within_a_pair_ends_with_the_time(tmp_path: Path) -> None:
    """It is stopped in the second pair: the pair does not count, and who hung is named with the stage."""
    stopped = list[int]()
    told = list[Event]()

    def observer(event: Event) -> None:
        told.append(event)
        if isinstance(event, WindowDone) and any(isinstance(t, Note) and t.text.startswith("pair 1:") for t in told):
            stopped.extend(children())
            for pid in children():
                os.kill(pid, signal.SIGSTOP)

    for given_s in PAIR_S:
        options, begun = scripted.tune_options(tmp_path, STUDY, script={}, timeout_s=given_s), time.monotonic()
        found = compare(options, ["enable_mem_pattern=off"], [], 20, observer)
        if stopped:
            break
    assert time.monotonic() - begun < given_s + LATE_S
    assert found.first.processes == 1
    assert "1 sound pair of 10" in found.sentence
    assert "The time was up before that, while " in found.sentence
    assert found.sentence.endswith("was in the stage window.")


@pytest.mark.slow
def test_one_that_hangs_before_the_pairs_ends_with_the_time(tmp_path: Path) -> None:
    """While outputs are compared: nothing was measured, which is said with the stage."""
    faults = [{"when": {"enable_mem_pattern": False}, "fault": "hang in build"}]
    for given_s in EARLY_S:
        options = scripted.tune_options(tmp_path, STUDY, script={"faults": faults}, timeout_s=given_s)
        begun = time.monotonic()
        with pytest.raises(NothingMeasuredError) as told:
            compare(options, ["enable_mem_pattern=off"], [], 20, lambda _: None)
        if "session build" in str(told.value):
            break
    assert time.monotonic() - begun < given_s + LATE_S
    assert "enable_mem_pattern=0 cannot be run: session build: The child took longer" in str(told.value)


@pytest.mark.parametrize(("fault", "stage"), [("hang in build", Stage.BUILD), ("hang in run", Stage.WARMUP)])
def test_no_process_goes_on_after_its_time(fault: str, stage: Stage, tmp_path: Path) -> None:
    """Whatever the stage's own limit is."""
    wanted = scripted.request(tmp_path, OTHER, faults=[{"when": {}, "fault": fault}])
    begun = time.monotonic()
    found = measure(wanted, log=tmp_path / "log.txt", decide=lambda _: Decision.GO_ON, until=begun + 4.0)
    assert (found.outcome, found.stage) == (Outcome.FAILED, stage)
    assert "took longer" in found.why
