"""A model that changes while a study runs: the study stops with one sentence, and loses nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import models
import scripted
from rtmo_optuna.engine.graph import hash_model
from rtmo_optuna.engine.watch import ModelWatch
from rtmo_optuna.errors import LostError
from rtmo_optuna.search.runner import recorded
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import EngineKind, Settings
from rtmo_optuna.types.study import Event, TrialEnded
from rtmo_optuna.verbs import tune
from rtmo_optuna.verbs.prepare import TuneOptions, plan, runner_of


def _swap(model: Path) -> None:
    models.dense(model, (1, 16))


def test_a_swapped_model_stops_the_study_and_one_put_back_goes_on(tmp_path: Path) -> None:
    """No process of another model counts; with the model back the same study goes on."""
    model = models.dense(tmp_path / "m.onnx")
    shutil.copy2(model, tmp_path / "kept")
    options = TuneOptions(model=model, config=tmp_path / "c.yaml", output=tmp_path, provider="cpu", warmup=0, runs=3)
    planned = plan(options, tmp_path)
    with contextlib.closing(runner_of(planned, lambda _: None)) as runner:
        _swap(model)
        with pytest.raises(LostError, match=r"m\.onnx changed while the study ran.*what was measured before is kept"):
            recorded(runner, planned.rules, Purpose.CONFIRMATION, 0, Settings())
        shutil.copy2(tmp_path / "kept", model)
        _, measurement = recorded(runner, planned.rules, Purpose.CONFIRMATION, 1, Settings())
    assert measurement.outcome is Outcome.MEASURED


def test_a_swap_during_a_process_is_seen_after_it(tmp_path: Path) -> None:
    """What ran while the model changed is not told as wrong output."""
    model = models.dense(tmp_path / "m.onnx")
    options = TuneOptions(model=model, config=tmp_path / "c.yaml", output=tmp_path, provider="cpu", warmup=0, runs=3)
    planned = plan(options, tmp_path)
    told_of_a_window = runner_of(planned, lambda _: _swap(model))
    with contextlib.closing(told_of_a_window) as runner, pytest.raises(LostError, match="changed while the study ran"):
        recorded(runner, planned.rules, Purpose.CONFIRMATION, 0, Settings())


@pytest.mark.slow
@pytest.mark.parametrize("accident", [_swap, Path.unlink])
def test_what_was_measured_before_is_reported(accident: Callable[[Path], object], tmp_path: Path) -> None:
    """A study whose model is swapped or gone after three trials: the report, exit code 1, and the study goes on."""
    model, ended = models.dense(tmp_path / "m.onnx"), 0
    kept = model.read_bytes()
    small = "provider: cpu\nknobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all}\n"
    wanted = scripted.tune_options(tmp_path, small, script={}, study_name="s", warmup=0, runs=3, search_only=True)
    options = replace(wanted, model=model, engine=EngineKind.ONNXRUNTIME)

    def observer(told: Event) -> None:
        nonlocal ended
        if isinstance(told, TrialEnded):
            ended += 1
            if ended == 3:
                accident(model)

    with pytest.raises(
        LostError, match=r"while the study ran.*What was measured until then is in .*report\.md"
    ) as lost:
        tune.tune(options, observer)
    assert lost.value.exit_code == 1
    report = (tmp_path / "results/report.md").read_text(encoding="utf-8")
    assert "The run ended early. The model" in report
    assert not options.config.exists()
    model.write_bytes(kept)
    assert len(tune.tune(options, lambda _: None).record.runs) == 4


@pytest.mark.parametrize("external", [False, True])
def test_what_is_only_touched_is_the_same(tmp_path: Path, external: bool) -> None:  # noqa: FBT001
    """A new time or a copy of the same content stops nothing; files of weights are watched as well."""
    (models.external if external else models.dense)(tmp_path / "m.onnx")
    files = ("weights.bin",) if external else ()
    watch = ModelWatch(tmp_path / "m.onnx", files, hash_model(tmp_path / "m.onnx", files))
    os.utime(tmp_path / "m.onnx", ns=(1, 1))
    watch()
    (tmp_path / (files[0] if files else "m.onnx")).unlink()
    with pytest.raises(LostError, match="is gone"):
        watch()
