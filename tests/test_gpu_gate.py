"""The output gate on a real GPU: twenty random networks, whose TF32 is right and whose planted errors are wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import pytest

import build_rtmo
from rtmo_optuna.engine import rounding
from rtmo_optuna.engine.gate.outputs import judge
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.types.measurement import GateResult
from rtmo_optuna.types.request import SessionSpec, Settings
from test_outputs import PLANTED, RAW, RULES, WHOLE, Sample, edited
from test_precision import run
from test_rounding import X, layers

pytestmark = pytest.mark.gpu
SEEDS = range(20)
GOOD = {
    "heuristic": Settings.of({"cudnn_conv_algo_search": "HEURISTIC"}),
    "fused": Settings.of({"prefer_nhwc": True, "fuse_conv_bias": True}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the models lie."""
    return tmp_path_factory.mktemp("gate")


@cache
def outputs(folder: Path, seed: int) -> dict[str, Sample]:
    """Return the outputs of RTMO-t on the CPU, on the GPU by default, and with each good settings."""
    built = build_rtmo.build("t", seed=seed)
    built.model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in RAW)
    path = folder / "model.onnx"
    onnx.save(built.model, path)
    spec = SessionSpec(str(path), "cuda")
    specs = {"cpu": replace(spec, provider="cpu"), "default": spec}
    specs |= {name: replace(spec, settings=settings) for name, settings in GOOD.items()}
    found = {}
    for name, each in specs.items():
        engine = OnnxRuntimeEngine(each)
        found[name] = dict(zip(engine.output_names, engine.run({"input": built.image}), strict=True))
    return found


def part(sample: Sample, names: list[str]) -> Sample:
    """Return some of the outputs."""
    return {name: sample[name] for name in names}


def own(found: dict[str, Sample], names: list[str]) -> GateResult:
    """Return the error of the default settings, which widens the limits for all others, and for themselves."""
    return judge([part(found["cpu"], names)], [part(found["default"], names)], RULES)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("names", [WHOLE, RAW], ids=["whole", "raw"])
def test_the_default_with_tf32_is_right(folder: Path, seed: int, names: list[str]) -> None:
    """None of the networks makes the gate reject ONNX Runtime's default settings."""
    found = outputs(folder, seed)
    default = judge([part(found["cpu"], names)], [part(found["default"], names)], RULES, own(found, names))
    assert default.passed, default.reason
    assert not default.vacuous


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("settings", GOOD)
def test_settings_that_only_round_otherwise_are_right(folder: Path, seed: int, settings: str) -> None:
    """Another algorithm; another layout with fused bias."""
    found = outputs(folder, seed)
    told = judge([part(found["cpu"], WHOLE)], [part(found[settings], WHOLE)], RULES, own(found, WHOLE))
    assert told.passed, told.reason


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("plant", PLANTED)
def test_errors_planted_in_the_outputs_are_found(folder: Path, seed: int, plant: str) -> None:
    """What is wrong is found on top of the rounding of other settings, with limits widened by the default's."""
    found = outputs(folder, seed)
    wrong = edited(part(found["heuristic"], WHOLE), PLANTED[plant])
    assert not judge([part(found["cpu"], WHOLE)], [wrong], RULES, own(found, WHOLE)).passed


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", RAW)
def test_a_channel_zeroed_in_a_raw_output_is_found(folder: Path, seed: int, name: str) -> None:
    """The first, the middle and the last channel."""
    found = outputs(folder, seed)
    raw = part(found["heuristic"], RAW)
    for channel in {0, raw[name].shape[2] // 2, raw[name].shape[2] - 1}:
        wrong = edited(raw, lambda sample: sample[name][..., channel].fill(0))  # noqa: B023 - called at once
        assert not judge([part(found["cpu"], RAW)], [wrong], RULES, own(found, RAW)).passed


def test_what_leaves_float16s_range_is_mended_by_a_mixed_precision(folder: Path) -> None:
    """What the CPU foretells of a layer with a scale of 1e5 is what happens: infinity in float16, and not in mixed."""
    path = layers(folder / "layers.onnx", planted=1e5)
    reference = {"y": run(path, x=X)[0]}
    told = rounding.find(path, [{"x": X}], [reference], RULES, {}, tf32=True)
    for precision, right in (("float16", False), (told.precision, True)):
        engine = OnnxRuntimeEngine(SessionSpec(str(path), "cuda", Settings.of({"precision": precision})))
        outputs = dict(zip(engine.output_names, engine.run({"x": X}), strict=True))
        assert judge([reference], [outputs], RULES).passed is right, precision
