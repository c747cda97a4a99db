"""`bench --timeout`: a process that hangs ends with the time, and what was measured until then is said."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

import scripted
from rtmo_optuna.child.measure import Decision, measure
from rtmo_optuna.errors import NothingMeasuredError
from rtmo_optuna.machine.host import PROCESSOR, device_lock
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Stage
from rtmo_optuna.types.study import Event, Note, WindowDone
from rtmo_optuna.verbs.bench import compare
from test_killed_children import OTHER, children

STUDY = "provider: cpu\nknobs: {enable_mem_pattern: all}\n"
PAIR_S, EARLY_S, LATE_S = 12.0, 4.0, 8.0
"""Times that are given, and how much later a busy machine may end: far less than the limits of stages."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")
def test_one_that_hangs_within_a_pair_ends_with_the_time(tmp_path: Path) -> None:
    """It is stopped in the second pair: the pair does not count, and who hung is named with the stage."""
    options = scripted.tune_options(tmp_path, STUDY, script={}, timeout_s=PAIR_S)
    told: list[Event] = []

    def observer(event: Event) -> None:
        told.append(event)
        if isinstance(event, WindowDone) and any(isinstance(t, Note) and t.text.startswith("pair 1:") for t in told):
            for pid in children():
                os.kill(pid, signal.SIGSTOP)

    begun = time.monotonic()
    found = compare(options, ["enable_mem_pattern=off"], [], 20, observer)
    assert time.monotonic() - begun < PAIR_S + LATE_S
    assert found.first.processes == 1
    assert "1 sound pair of 10" in found.sentence
    assert "The time was up before that, while " in found.sentence
    assert found.sentence.endswith("was in the stage window.")


@pytest.mark.slow
def test_a_device_that_another_program_keeps_ends_it_with_the_time(tmp_path: Path) -> None:
    """What the first pair said is said, and who has measured since."""
    options = scripted.tune_options(tmp_path, STUDY, script={}, timeout_s=PAIR_S)
    with contextlib.ExitStack() as kept:

        def observer(event: Event) -> None:
            if isinstance(event, Note) and event.text.startswith("pair 1:"):
                kept.enter_context(device_lock(PROCESSOR))

        found = compare(options, ["enable_mem_pattern=off"], [], 20, observer)
    assert found.first.processes == 1
    assert found.sentence.endswith(f"The time was up before that, while process {os.getpid()} measured on this device.")


@pytest.mark.slow
def test_one_that_hangs_before_the_pairs_ends_with_the_time(tmp_path: Path) -> None:
    """While outputs are compared: nothing was measured, which is said with the stage."""
    faults = [{"when": {"enable_mem_pattern": False}, "fault": "hang in build"}]
    options = scripted.tune_options(tmp_path, STUDY, script={"faults": faults}, timeout_s=EARLY_S)
    begun = time.monotonic()
    with pytest.raises(
        NothingMeasuredError, match="enable_mem_pattern=0 cannot be run: session build: The child took longer"
    ):
        compare(options, ["enable_mem_pattern=off"], [], 20, lambda _: None)
    assert time.monotonic() - begun < EARLY_S + LATE_S


@pytest.mark.parametrize(("fault", "stage"), [("hang in build", Stage.BUILD), ("hang in run", Stage.WARMUP)])
def test_no_process_goes_on_after_its_time(fault: str, stage: Stage, tmp_path: Path) -> None:
    """Whatever the stage's own limit is."""
    wanted = scripted.request(tmp_path, OTHER, faults=[{"when": {}, "fault": fault}])
    begun = time.monotonic()
    found = measure(wanted, log=tmp_path / "log.txt", decide=lambda _: Decision.GO_ON, until=begun + 1.5)
    assert (found.outcome, found.stage) == (Outcome.FAILED, stage)
    assert "took longer" in found.why
