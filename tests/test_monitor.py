"""Whether what was shipped is as fast as promised: the decision, its causes, the verb, and a session's own calls."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import models
import rtmo_optuna
from rtmo_optuna.cli import main
from rtmo_optuna.engine.monitor import Monitor
from rtmo_optuna.errors import NothingMeasuredError, UsageError
from rtmo_optuna.search.decide import slower
from rtmo_optuna.show.words import NBSP
from rtmo_optuna.space.benchmark_info import BenchmarkInfo
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.subject import ClockReason, GpuState
from rtmo_optuna.verbs.monitor import Health, Surroundings, causes, repeated, sentence
from scripted import write_script

if TYPE_CHECKING:
    from pathlib import Path

BRIEF = """
provider: cpu
knobs: {enable_mem_pattern: all}
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""
INFO = "onnx:\n  enable_mem_pattern: false\n  benchmark_info: {provider: cpu, latency_ms: 2.0}\n"


def claimed(above: float) -> float:
    """Return how often "slower" is said where a process is above the limit with that probability; exact.

    Every way that a check may go is followed through the decision itself.
    """
    said = 0.0
    ways: dict[tuple[float, ...], float] = {(): 1.0}
    while ways:
        longer: dict[tuple[float, ...], float] = {}
        for latencies, chance in ways.items():
            for latency, share in ((1.2, above), (1.0, 1 - above)):
                way = tuple(sorted((*latencies, latency)))
                found = slower.told(way, 1.0, 0.1)
                if found.over:
                    said += chance * share * found.slower
                else:
                    longer[way] = longer.get(way, 0.0) + chance * share
        ways = longer
    return said


def test_a_promise_that_is_kept_is_seldom_called_broken() -> None:
    """The error rates that stand beside the constants: at the limit itself, and of 15 % at a spread of 2 %."""
    assert 0.009 < claimed(0.5) < 0.0092
    above = 0.5 * math.erfc(-math.log(1.15 / 1.1) / 0.02 / math.sqrt(2))
    assert claimed(above) > 0.999
    assert claimed(1 - above) < 1e-9


def test_one_bad_process_is_no_proof() -> None:
    """Six processes within the limit end a check, whatever others took; eight above it are a proof."""
    one_bad = [1.0, 9.0, 1.0, 1.02, 1.0, 1.0, 0.99]
    assert [slower.told(one_bad[:n], 1.0, 0.1).over for n in range(1, 8)] == [*[False] * 6, True]
    assert not slower.told(one_bad, 1.0, 0.1).slower
    slow = slower.told([1.15, 1.2, 1.16, 1.14, 1.3, 1.15, 1.12, 1.11], 1.0, 0.1)
    assert (slow.slower, slow.over, slow.interval) == (True, True, (1.11, 1.3))
    assert not slower.told([1.2] * 7 + [1.05], 1.0, 0.1).over


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (
            Surroundings(state=GpuState(1980, ClockReason.HEAT_HARDWARE)),
            "throttling: the GPU held its clocks down (heat",
        ),
        (Surroundings(state=GpuState(1500, 0)), "clocks: the GPU ran at 1500 MHz, when it was tuned at 1980 MHz"),
        (Surroundings(others=("a", "b", "c", "d")), "others: a, b, c and 1 more"),
        (Surroundings({"gpu_name": "NVIDIA L4"}), "another machine: the GPU was NVIDIA T4, is NVIDIA L4"),
        (Surroundings({"driver_version": "580"}), "another driver: it was 570, is 580"),
        (Surroundings({"onnxruntime_version": "1.32"}), "another ONNX Runtime: it was 1.31, is 1.32"),
    ],
)
def test_what_is_otherwise_is_a_likely_cause(now: Surroundings, words: str) -> None:
    """Each cause is told alone where it is alone; nothing is told of what is as it was, or was not written down."""
    promised = BenchmarkInfo(
        gpu_name="NVIDIA T4", driver_version="570", onnxruntime_version="1.31", latency_ms=2.0, sm_mhz=1980
    )
    (told,) = causes(promised, now)
    assert told.startswith(words)
    same = Surroundings({"gpu_name": "NVIDIA T4", "cudnn_version": "9"}, GpuState(1975, ClockReason.POWER_CAP))
    assert causes(promised, same) == ()


def test_a_check_is_a_sentence() -> None:
    """What it came to, with the interval; the causes where it is slower, or that none is known."""
    fine = Health("d", "m", "", Settings(), 2.0, 0.1, 0.992, 0.969, 1.041, (2.0,) * 6, slower=False)
    figures = "0.992 times the 2.00 ms that were promised (0.969 to 1.041, 6 processes)"
    assert sentence(fine) == f"As promised: {figures}; it is not proven to be slower by more than 10{NBSP}%."
    assert sentence(replace(fine, slower=True)).startswith(f"Slower: {figures}. Likely cause: nothing known: machine,")
    slow = replace(fine, slower=True, causes=("others: x", "another driver: it was 1, is 2"))
    assert sentence(slow).endswith("Likely cause: others: x; another driver: it was 1, is 2.")


def test_checks_go_on_while_settings_cannot_be_run() -> None:
    """Each check at its time; one that cannot be made is told, and the next one comes all the same."""
    fine = Health("d", "m", "", Settings(), 2.0, 0.1, 1.0, 1.0, 1.0, (2.0,), slower=False)
    results: list[Health | None] = [fine, None, fine]
    waited: list[float] = []
    failed: list[str] = []

    def once() -> Health:
        found = results.pop(0)
        if found is None:
            raise NothingMeasuredError("the GPU is full")
        return found

    checks = repeated(once, 60.0, failed.append, waited.append)
    assert [next(checks), next(checks)] == [fine, fine]
    assert failed == ["the GPU is full"]
    assert waited == pytest.approx([60.0, 60.0], abs=5.0)


def run(folder: Path, *arguments: str) -> int:
    """Run `monitor` on a script in `folder` and return its exit code."""
    config = [] if "--config" in arguments else ["--config", str(folder / "config.yaml")]
    with pytest.raises(SystemExit) as ended:
        main.main(["monitor", str(folder / "script.json"), "--engine", "scripted", *config, *arguments])
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_the_verb_says_that_a_promise_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half as slow again: exit code 3 and a JSON object. The file stays as it is."""
    (tmp_path / "config.yaml").write_text(INFO, encoding="utf-8")
    (tmp_path / "brief.yaml").write_text(BRIEF, encoding="utf-8")
    write_script(tmp_path, base_ms=3.0)
    assert run(tmp_path, "--json", "--once", "--study", str(tmp_path / "brief.yaml")) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["slower"]
    assert 1.1 < found["low"] <= found["ratio"] <= found["high"]
    assert (found["promised_ms"], found["settings"], found["kind"]) == (2.0, {"enable_mem_pattern": False}, "monitor")
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == INFO


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "0"], "--threshold must be a share above 0, such as 10% or 0.1, not '0'."),
        (["--every", "0s"], "--every must be a time above 0"),
        (["--every", "5s", "--once"], "--once and --every exclude each other: leave out one."),
        (["--config", "none.yaml"], "The configuration none.yaml does not exist"),
        ([], "does not say what was promised (benchmark_info with latency_ms beside the settings): tune first"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Exit code 2, before anything is run."""
    write_script(tmp_path)
    (tmp_path / "config.yaml").write_text("onnx: {enable_mem_pattern: false}\n", encoding="utf-8")
    assert run(tmp_path, *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_session_keeps_what_its_calls_take(tmp_path: Path) -> None:
    """`monitor=True` keeps the calls of the tuned shapes; without a promise, or with no share, it is refused."""
    model, config = models.dense(tmp_path / "m.onnx", (1, 64)), tmp_path / "config.yaml"
    config.write_text(INFO, encoding="utf-8")
    session = rtmo_optuna.open_session(model, config, monitor=True)
    assert session.monitor is not None
    assert session.monitor.summary().median_ms is None
    for _ in range(5):
        session.run(None, {"x": np.zeros((1, 64), np.float32)})
    found = session.monitor.summary()
    assert (found.calls, found.promised_ms, found.slower) == (5, 2.0, False)
    assert found.median_ms is not None
    assert found.ratio == found.median_ms / 2
    with pytest.raises(UsageError, match=r"monitor=0.0 of open_session is no share above 0"):
        rtmo_optuna.open_session(model, config, monitor=0.0)
    config.write_text("onnx: {enable_mem_pattern: false}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"does not say what was promised"):
        rtmo_optuna.open_session(model, config, monitor=True)


def test_slow_calls_are_logged_once_they_last(caplog: pytest.LogCaptureFixture) -> None:
    """Not after a burst of a thousand slow calls but one block; once after eight blocks, and never again."""
    monitor = Monitor(2.0)
    with caplog.at_level(logging.WARNING):
        for latency_ms, calls in ((2.5, 7 * 128), (2.0, 128), (2.1, 1280)):
            for _ in range(calls):
                monitor.add(int(latency_ms * 1e6))
        assert not caplog.records
        for _ in range(4 * 1024):
            monitor.add(2_500_000)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(
        "The last 1024 calls took 2.5 ms (median), 1.25 times as long as the 2 ms that tuning promised"
    )
    assert (monitor.summary().slower, monitor.summary().p99_ms) == (True, 2.5)
