"""The child, the launcher and the protocol, with real children."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from program import ended
from rtmo_optuna.child import protocol, timer
from rtmo_optuna.child.measure import Decision, describe, measure, trusted
from rtmo_optuna.errors import ChildError
from rtmo_optuna.search.decide import judge
from rtmo_optuna.types.measurement import Measurement, Outcome, Window
from rtmo_optuna.types.request import BenchmarkRequest, EngineKind, Limits, SessionSpec, Settings, Stage
from scripted import SHORT, request


def three_windows(windows: Sequence[Window]) -> Decision:
    """Stop after the third."""
    return Decision.ENOUGH if len(windows) >= 3 else Decision.GO_ON


def benchmark(wanted: BenchmarkRequest, folder: Path) -> Measurement:
    """Measure with three windows."""
    return measure(wanted, log=folder / "log.txt", decide=three_windows)


def test_a_measurement_has_all_that_was_timed(tmp_path: Path) -> None:
    """Every call's latency is kept, the medians follow from them, each stage has its time."""
    wanted = request(tmp_path, base_ms=20.0, build_ms=30.0, first_run_ms=20.0)
    found = benchmark(wanted, tmp_path)
    assert found.outcome is Outcome.MEASURED, found.reason
    assert len(found.samples_ns) == len(found.windows_ns) == 3
    assert all(len(window) >= SHORT.window_calls for window in found.samples_ns)
    assert found.calls == sum(map(len, found.samples_ns))
    assert found.latency_ms == pytest.approx(20.0, rel=0.5)
    stages = found.stages
    assert (stages.build_ns or 0) >= 30e6
    assert (stages.first_run_ns or 0) >= 20e6
    parts = (stages.start_ns, stages.import_ns, stages.build_ns, stages.first_run_ns, stages.warmup_ns)
    assert sum(part or 0 for part in parts) < (stages.total_ns or 0)


def test_where_no_core_is_quiet_disturbed_windows_count_at_last(tmp_path: Path) -> None:
    """No core spins in 1 ns: two windows of at most four are repeated, then three are taken as they are, and told."""
    wanted = replace(request(tmp_path), pin=True, best_spin_ns=1)
    found = benchmark(wanted, tmp_path)
    assert found.outcome is Outcome.MEASURED, found.reason
    assert (dict(found.dropped), found.left_out) == ({"slow core": 5}, 0)
    assert len(found.windows_ns) == 3
    assert all(len(window) >= SHORT.window_calls for window in found.samples_ns)


def test_only_quiet_calls_count(tmp_path: Path) -> None:
    """What any core can do is quiet: a window then holds its calls, and what was left out is none of them."""
    wanted = replace(request(tmp_path), pin=True, best_spin_ns=10**9)
    found = benchmark(wanted, tmp_path)
    assert found.outcome is Outcome.MEASURED, found.reason
    assert found.spin_ns < 10**9
    assert found.calls == sum(map(len, found.samples_ns))
    assert found.dropped or all(len(window) >= SHORT.window_calls for window in found.samples_ns)


def test_the_warm_up_is_on_a_quiet_core_already() -> None:
    """The first window begins with warm caches, and knows what the beats beside a quiet call take."""
    seen: list[str] = []
    core = SimpleNamespace(before=lambda: seen.append("before"), quiet=lambda: seen.append("quiet"))
    engine = SimpleNamespace(run=lambda _: seen.append("call"))
    timed = timer.Timer(cast("Any", engine), [{}], replace(SHORT, warmup_s=0.0, warmup_calls=2), cast("Any", core))
    assert len(timed.warm_up()) == 2
    assert seen == ["before", "call", "quiet", "call", "quiet"]


@pytest.mark.slow
def test_quiet_calls_of_a_lost_window_begin_the_next() -> None:
    """One call in eight is quiet: no window of five gets its calls at once, and none of them is lost or told twice."""

    class Rarely:
        best_ns, calls = 1, 0

        def before(self) -> None: ...

        def quiet(self) -> bool:
            self.calls += 1
            return self.calls % 8 == 0

    rarely = Rarely()
    engine = SimpleNamespace(run=lambda _: None)
    rules = replace(SHORT, window_s=1e-6, window_calls=5)
    timed = timer.Timer(cast("Any", engine), [{}], rules, cast("Any", rarely))
    windows = [timed.window() for _ in range(12)]
    assert {window.slow for window in windows} == {True, False}
    quiet = sum(len(window.samples_ns) for window in windows if not window.slow)
    assert quiet == 5 * sum(not window.slow for window in windows)
    assert quiet > 0.6 * rarely.calls / 8


def test_disturbed_windows_count_only_without_better_ones() -> None:
    """Three quiet windows are enough to tell the value; with fewer, all of them do."""
    quiet, slow = Window((1, 1)), Window((9, 9), "slow core")
    assert trusted([quiet, slow, quiet, quiet]) == [quiet] * 3
    assert trusted([quiet, slow, quiet]) == [quiet, slow, quiet]


@pytest.mark.parametrize(("fault", "stage", "words"), [
    ("exit", Stage.BUILD, "exit code 7"),
    ("refuse", Stage.BUILD, "refuses these settings"),
    ("out of memory", Stage.BUILD, "SIGKILL (out of memory"),
    ("hang in build", Stage.BUILD, "longer than 2 s"),
    ("crash", Stage.FIRST_RUN, "SIGSEGV"),
    ("raise", Stage.FIRST_RUN, "raises here"),
    ("hang in run", Stage.WARMUP, "longer than 2 s"),
])  # fmt: skip
def test_a_dead_child_is_a_failed_measurement(tmp_path: Path, fault: str, stage: Stage, words: str) -> None:
    """Whatever kills a child ends as FAILED, with the stage and the reason."""
    found = benchmark(request(tmp_path, faults=[{"when": {}, "fault": fault}]), tmp_path)
    assert (found.outcome, found.stage) == (Outcome.FAILED, stage)
    assert words in found.reason


def test_a_child_that_hangs_in_a_window_is_killed(tmp_path: Path) -> None:
    """The limit of a window holds after the warm-up too, and the windows measured before are kept."""
    wanted = request(tmp_path, faulty_call=40, faults=[{"when": {}, "fault": "hang in run"}])
    start = time.monotonic()
    found = measure(wanted, log=tmp_path / "log.txt", decide=lambda _: Decision.GO_ON)
    assert (found.outcome, found.stage) == (Outcome.FAILED, Stage.WINDOW)
    assert found.windows_ns
    assert time.monotonic() - start < Limits().window_s


@pytest.mark.parametrize("fault", ["print megabytes", "print JSON"])
def test_prints_do_not_disturb_the_protocol(tmp_path: Path, fault: str) -> None:
    """Megabytes, or lines that look like answers, on stdout end in the log alone."""
    found = benchmark(request(tmp_path, faults=[{"when": {}, "fault": fault}]), tmp_path)
    assert found.outcome is Outcome.MEASURED, found.reason
    assert found.samples_ns[0] != (1,)
    assert (tmp_path / "log.txt").stat().st_size > 50


def test_a_fault_hits_its_settings_only(tmp_path: Path) -> None:
    """A script's fault belongs to some settings; others run."""
    faults = [{"when": {"intra_op_num_threads": 2}, "fault": "crash"}]
    assert benchmark(request(tmp_path, faults=faults), tmp_path).outcome is Outcome.MEASURED
    two = request(tmp_path, Settings.of({"intra_op_num_threads": 2}), faults=faults)
    assert benchmark(two, tmp_path).outcome is Outcome.FAILED


def test_a_pruned_child_keeps_its_windows(tmp_path: Path) -> None:
    """PRUNED is an outcome with a latency."""
    found = measure(request(tmp_path), log=tmp_path / "log.txt", decide=lambda _: Decision.PRUNE)
    assert found.outcome is Outcome.PRUNED
    assert found.latency_ns


def test_runs_limit_the_calls_exactly(tmp_path: Path) -> None:
    """With `runs`, a process times that many calls and none more."""
    wanted = request(tmp_path)
    wanted = replace(wanted, measuring=replace(wanted.measuring, runs=7, warmup_calls=1, warmup_exact=True))

    def seven(windows: Sequence[Window]) -> Decision:
        return Decision.ENOUGH if sum(len(window.samples_ns) for window in windows) >= 7 else Decision.GO_ON

    assert measure(wanted, log=tmp_path / "log.txt", decide=seven).calls == 7


@pytest.mark.parametrize("hot", [[True], [True, True]], ids=str)
def test_a_throttled_window_costs_no_runs(tmp_path: Path, hot: list[bool]) -> None:
    """All calls fit one window: those of a dropped one are timed again, and no window is empty."""
    wanted = request(tmp_path)
    rules = replace(SHORT, window_s=0.2, runs=20, windows_max=8, warmup_calls=1, warmup_exact=True)
    states = iter([*hot, *[False] * 9])
    found = measure(
        replace(wanted, measuring=rules),
        log=tmp_path / "log.txt",
        decide=partial(judge.after_window, rules=rules, prune_above_ns=None),
        throttled=lambda: next(states),
    )
    assert found.outcome is Outcome.MEASURED, found.reason
    assert found.calls == 20
    assert all(found.samples_ns)


@pytest.mark.parametrize("most_calls", [math.inf, 20, 1])
def test_an_order_survives_the_way(most_calls: float) -> None:
    """A window's bound is read as it was sent; `stop` and the end of the orders are none."""
    assert protocol.ordered_calls(protocol.next_window(most_calls)) == most_calls
    assert protocol.ordered_calls(protocol.STOP) is None
    assert protocol.ordered_calls(b"") is None


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Kill -9 of the parent leaves no child behind, though it hangs and reads nothing."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from rtmo_optuna.child.launcher import Child\n"
        "from rtmo_optuna.child import protocol\n"
        "from scripted import request\n"
        "folder = Path(sys.argv[1])\n"
        "child = Child(folder / 'log.txt')\n"
        "child.receive(20)\n"
        "child.send(protocol.dump(request(folder, faults=[{'when': {}, 'fault': 'hang in build'}])))\n"
        "print(child.pid, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert ended(child)


def test_describe_tells_bad_models_apart(tmp_path: Path) -> None:
    """A broken script is the user's input to mend; a crash is not."""
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    session = SessionSpec(str(broken), "cpu", engine=EngineKind.SCRIPTED)
    with pytest.raises(ChildError, match="cannot be read") as caught:
        describe(protocol.DescribeRequest(session), Limits())
    assert caught.value.bad_input


def test_protocol_lines_survive_the_way(tmp_path: Path) -> None:
    """Requests and answers come back equal; other lines are refused."""
    wanted = request(tmp_path, Settings.of({"execution_mode": "ORT_PARALLEL"}))
    assert protocol.load_request(protocol.dump(wanted)) == wanted
    timed = protocol.Timed((1, 2, 3))
    assert protocol.load_answer(protocol.dump(timed)) == timed
    older = protocol.dump(timed).replace(f'"protocol":{protocol.VERSION}'.encode(), b'"protocol":0')
    for line in (b"{}", b"[1]", b"noise", older):
        with pytest.raises(protocol.ProtocolError):
            protocol.load_answer(line)
