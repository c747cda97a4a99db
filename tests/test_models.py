"""Real models through the whole of `tune` on the CPU: RTMO-t, and PP-OCRv4 with its dynamic shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto

import build_rtmo
import models
from models import node
from program import Program, lacking
from rtmo_optuna.study.library import load_study
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import Origin, StudyRecord

SHORT = ("--provider", "cpu", "--quick", "--warmup", "1", "--runs", "3", "--timeout", "400s", "--study-name", "s")


@pytest.fixture
def tune(program: Program) -> Callable[..., StudyRecord]:
    """Return a function that tunes a model with a few short trials and gives its study."""

    def tuned(model: Path, *more: str, trials: int = 3) -> StudyRecord:
        assert program("tune", str(model), *SHORT, "--trials", str(trials), *more) == 0
        return load_study("sqlite:///studies/studies.db", "s").record()

    return tuned


@pytest.mark.slow
@pytest.mark.parametrize("style", ["plain", "exported"])
def test_rtmo_t_from_build_to_config(tune: Callable[..., StudyRecord], style: str) -> None:
    """The builder's model and input: default, two more trials, a configuration that ONNX Runtime takes, a report."""
    built = build_rtmo.build("t", style=style)
    onnx.save(built.model, "rtmo-t.onnx")
    np.savez("rtmo-t.npz", input=built.image)
    record = tune(Path("rtmo-t.onnx"), "--input", "rtmo-t.npz", "--shape", "1x3x416x416")
    assert record.inputs.fixed
    assert [trial.origin for trial in record.runs] == [Origin.DEFAULT, Origin.SAMPLER, Origin.SAMPLER]
    assert (record.runs[0].measurement.outcome, record.runs[0].measurement.calls) == (Outcome.MEASURED, 3)
    assert "NonMaxSuppression" in record.model.operators
    assert record.model.nodes_by_provider["CPUExecutionProvider"] > 100
    assert not record.warnings
    held = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))["onnx"]
    best = min((t for t in record.runs if t.value is not None), key=lambda t: t.value or 0.0)
    assert {name: held[name] for name, _ in best.settings} == best.settings.to_plain()
    report = Path("results/s/report.md").read_text(encoding="utf-8")
    assert not lacking(report, "rtmo-t.npz", "1x3x416x416")


@pytest.mark.slow
def test_the_same_settings_give_the_same_output_hash(tune: Callable[..., StudyRecord]) -> None:
    """What a child ran is hashed: every trial whose knobs leave the numerics alone has the default's hash."""
    models.dense(Path("m.onnx"), (4, 64))
    record = tune(Path("m.onnx"), "--search-only", trials=6)
    measured = [t for t in record.runs if t.measurement.outcome is Outcome.MEASURED]
    alike = [t for t in measured if t.settings.get("graph_optimization_level") is None]
    assert len({t.measurement.outputs_sha256 for t in alike}) == 1
    assert len(alike[0].measurement.outputs_sha256) == 64


@pytest.mark.slow
@pytest.mark.parametrize(("part", "shape"), [("det", "1x3x320x320"), ("rec", "2x3x48x320"), ("cls", "1x3x48x192")])
def test_pp_ocr_with_dynamic_shapes(tune: Callable[..., StudyRecord], ocr_models: Path, part: str, shape: str) -> None:
    """A public model, its dynamic dimensions given by --shape, from the file to config.yaml."""
    (model,) = ocr_models.glob(f"*{part}*.onnx")
    record = tune(model, "--shape", shape, trials=2)
    assert record.inputs.shapes == {record.model.inputs[0].name: tuple(map(int, shape.split("x")))}
    assert any("made from the signature" in warning for warning in record.warnings)
    assert record.runs[0].measurement.outcome is Outcome.MEASURED
    assert all(trial.measurement.outcome is not Outcome.FAILED for trial in record.runs)  # slow ones may be pruned
    assert Path("config.yaml").exists()


@pytest.mark.slow
def test_a_folder_of_pictures_is_the_input(tune: Callable[..., StudyRecord], ocr_models: Path) -> None:
    """Pictures are letterboxed to the shape; each is a sample, and all of them are run."""
    image = pytest.importorskip("PIL.Image")
    Path("pictures").mkdir()
    for number in range(3):
        colours = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
        image.fromarray(colours).save(f"pictures/{number}.png")
    (model,) = ocr_models.glob("*cls*.onnx")
    record = tune(model, "--input", "pictures", "--shape", "1x3x48x192", "--input-scale", "0.0039")
    assert record.inputs.samples == 3
    assert record.inputs.real
    assert record.runs[0].measurement.calls == 3


@pytest.mark.slow
def test_many_inputs_of_many_types(tune: Callable[..., StudyRecord]) -> None:
    """Several inputs, integers, booleans, doubles and a scalar, made from the signature alone."""
    nodes = [node("Cast", name, f"{name}_f", to=TensorProto.FLOAT) for name in "ibd"]
    nodes.append(node("Sum", "x i_f b_f d_f s", "y"))
    inputs: dict[str, tuple[int, tuple[int | str, ...]]] = {
        "x": (TensorProto.FLOAT, ("n", 4)),
        "i": (TensorProto.INT64, ("n", 4)),
        "b": (TensorProto.BOOL, (1, 4)),
        "d": (TensorProto.DOUBLE, (4,)),
        "s": (TensorProto.FLOAT, ()),
    }
    models.save(Path("m.onnx"), nodes, inputs, {"y": (TensorProto.FLOAT, ("n", 4))})
    record = tune(Path("m.onnx"), "--shape", "x=5x4", trials=2)
    assert (record.inputs.shapes["i"], record.inputs.shapes["s"]) == ((5, 4), ())
    assert record.runs[0].measurement.outcome is Outcome.MEASURED
