"""Frames that are submitted: answers as those of `run`, two under way, errors and ends where they belong."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import models
from rtmo_optuna.engine.ahead import Ahead
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import SessionSpec


def test_what_is_submitted_is_answered_as_by_run(tmp_path: Path) -> None:
    """Each frame by its own future, after a close too; a frame that is refused does not disturb the others."""
    session = Session(SessionSpec(str(models.dense(tmp_path / "m.onnx")), "cpu"))
    frames = [np.random.default_rng(n).random((1, 8), np.float32) for n in range(9)]
    futures = [session.submit(frame if n % 2 else {"x": frame}, ["y"]) for n, frame in enumerate(frames)]
    with pytest.raises(UsageError, match="'x' must have the shape 1x8, not 8x1"):
        session.submit(frames[0].T).result()
    session.close()
    assert all(future.done() for future in futures)
    futures[0] = session.submit(frames[0])
    for frame, future in zip(frames, futures, strict=True):
        np.testing.assert_array_equal(future.result()[0], session.run(None, {"x": frame})[0])
    session.close()
    session.close()


def test_two_calls_are_under_way_and_a_third_one_waits() -> None:
    """Until one of them is done; closing waits for both."""
    ahead, both, go = Ahead[int](), threading.Barrier(3), threading.Event()
    submitted: list[int] = []

    def call(number: int) -> int:
        if number < 2:
            both.wait(5)
        go.wait(5)
        return number

    def submit_all() -> None:
        for number in range(3):
            future = ahead.submit(partial(call, number))
            future.add_done_callback(lambda done: submitted.append(done.result()))
            started.append(number)

    started: list[int] = []
    thread = threading.Thread(target=submit_all)
    thread.start()
    both.wait(5)  # both are in their call at once
    time.sleep(0.05)
    assert started == [0, 1]
    go.set()
    thread.join(5)
    ahead.close()
    assert sorted(submitted) == [0, 1, 2]
