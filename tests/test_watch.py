"""A model that changes while a study runs: the study stops with one sentence, and loses nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest

import models
from rtmo_optuna.engine.graph import hash_model
from rtmo_optuna.engine.watch import ModelWatch
from rtmo_optuna.errors import UsageError
from rtmo_optuna.prepare import TuneOptions, plan, runner_of
from rtmo_optuna.records import Outcome, Purpose, Settings

if TYPE_CHECKING:
    from pathlib import Path


def _swap(model: Path) -> None:
    models.dense(model, (1, 16))


def test_a_swapped_model_stops_the_study_and_one_put_back_goes_on(tmp_path: Path) -> None:
    """No process of another model counts; with the model back the same study goes on."""
    model = models.dense(tmp_path / "m.onnx")
    shutil.copy2(model, tmp_path / "kept")
    options = TuneOptions(model=model, config=tmp_path / "c.yaml", output=tmp_path, provider="cpu", warmup=0, runs=3)
    with contextlib.closing(runner_of(plan(options, tmp_path), lambda _: None)) as runner:
        _swap(model)
        with pytest.raises(UsageError, match=r"m\.onnx changed while the study ran.*what was measured before is kept"):
            runner.record(Purpose.CONFIRMATION, 0, Settings())
        shutil.copy2(tmp_path / "kept", model)
        _, measurement = runner.record(Purpose.CONFIRMATION, 1, Settings())
    assert measurement.outcome is Outcome.MEASURED


def test_a_swap_during_a_process_is_seen_after_it(tmp_path: Path) -> None:
    """What ran while the model changed is not told as wrong output."""
    model = models.dense(tmp_path / "m.onnx")
    options = TuneOptions(model=model, config=tmp_path / "c.yaml", output=tmp_path, provider="cpu", warmup=0, runs=3)
    with contextlib.closing(runner_of(plan(options, tmp_path), lambda _: None)) as runner:
        runner.observer = lambda _: _swap(model)  # told of a window: the process runs
        with pytest.raises(UsageError, match="changed while the study ran"):
            runner.record(Purpose.CONFIRMATION, 0, Settings())


@pytest.mark.parametrize("external", [False, True])
def test_what_is_only_touched_is_the_same(tmp_path: Path, external: bool) -> None:  # noqa: FBT001
    """A new time or a copy of the same content stops nothing; files of weights are watched as well."""
    (models.external if external else models.dense)(tmp_path / "m.onnx")
    files = ("weights.bin",) if external else ()
    watch = ModelWatch(tmp_path / "m.onnx", files, hash_model(tmp_path / "m.onnx", files))
    os.utime(tmp_path / "m.onnx", ns=(1, 1))
    watch()
    (tmp_path / (files[0] if files else "m.onnx")).unlink()
    with pytest.raises(UsageError, match="is gone"):
        watch()
