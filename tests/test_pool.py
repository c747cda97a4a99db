"""Children made ahead: ready, used once each, and gone with the pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from models import save
from program import ended
from rtmo_optuna.child.measure import Decision, describe, measure
from rtmo_optuna.child.prefork import ChildPool, size_for
from rtmo_optuna.child.protocol import DescribeRequest
from rtmo_optuna.engine.inputs.inputs import prepare
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import BenchmarkRequest, Limits, Measuring, SessionSpec, Settings

RULES = Measuring(warmup_s=0.0, warmup_calls=1, window_s=0.0, window_calls=3)


@pytest.fixture
def request_(tmp_path: Path) -> BenchmarkRequest:
    """Return a benchmark of a model that does next to nothing."""
    shape = (TensorProto.FLOAT, [1, 4])
    model = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": shape}, {"y": shape})
    session = SessionSpec(str(model), "cpu")
    facts = describe(DescribeRequest(session), Limits())
    prepare(facts.inputs, source=None, shapes={}, scale=1.0, target=tmp_path / "in.npz")
    return BenchmarkRequest(session, str(tmp_path / "in.npz"), RULES)


@pytest.fixture
def pool() -> Iterator[ChildPool]:
    """Return a pool of two at a time."""
    with ChildPool("cpu", 2, 60.0) as made:
        yield made


def test_each_child_serves_one_request(request_: BenchmarkRequest, pool: ChildPool, tmp_path: Path) -> None:
    """Three trials, two children at a time: all measured, each with a log of its own, import paid for before."""
    for number in range(3):
        log = tmp_path / f"{number}.txt"
        measured = measure(request_, log=log, decide=lambda _windows: Decision.ENOUGH, pool=pool)
        assert measured.outcome is Outcome.MEASURED
        assert log.exists()
        assert (measured.stages.import_ns or 0) < 150e6
        assert (measured.stages.total_ns or 0) > 0


def test_a_child_that_died_in_the_pool_is_a_failed_measurement(
    request_: BenchmarkRequest, pool: ChildPool, tmp_path: Path
) -> None:
    """It is told as any other death, and the next child serves."""
    first = pool.take(tmp_path / "first.txt")
    os.killpg(first.pid, signal.SIGKILL)
    with first:
        pass
    waiting = pool.take(tmp_path / "second.txt")
    with waiting:
        os.killpg(waiting.pid, signal.SIGKILL)
    measured = measure(request_, log=tmp_path / "3.txt", decide=lambda _windows: Decision.ENOUGH, pool=pool)
    assert measured.outcome is Outcome.MEASURED


def test_unused_children_end_with_the_pool(tmp_path: Path) -> None:
    """Nobody is left, whether the pool is closed or its process is killed."""
    with ChildPool("cpu", 2, 60.0) as made, made.take(tmp_path / "log.txt"):
        pass
    code = (
        "import os, signal, sys; from pathlib import Path; from rtmo_optuna.child.prefork import ChildPool\n"
        "pool = ChildPool('cpu', 2, 60.0); child = pool.take(Path(sys.argv[1]))\n"
        "print(child.pid, pool._ready[0].pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.txt"], capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert ended(*pids)


def test_a_missing_provider_is_told_by_the_request(request_: BenchmarkRequest, tmp_path: Path) -> None:
    """What cannot be loaded ahead cannot be loaded later: the measurement says so, and nothing hangs."""
    session = SessionSpec(request_.session.model, "cuda", Settings())
    with ChildPool("cuda", 1, 60.0) as made:
        wanted = BenchmarkRequest(session, request_.inputs, RULES)
        measured = measure(wanted, log=tmp_path / "l.txt", decide=lambda _windows: Decision.ENOUGH, pool=made)
    assert measured.outcome in {Outcome.FAILED, Outcome.MEASURED}
    assert measured.outcome is Outcome.MEASURED or measured.reason


def test_sizes_follow_the_cores() -> None:
    """One for every second core, at least one, at most sixteen."""
    assert [size_for(cores) for cores in (1, 2, 4, 16, 128)] == [1, 1, 2, 8, 16]
