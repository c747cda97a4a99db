"""What rounding to float16 does to a model, found on the CPU; planted faults, and the regions that mend them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

import models
from models import node
from rtmo_optuna.child import references
from rtmo_optuna.child.protocol import RoundingRequest
from rtmo_optuna.codec import encode
from rtmo_optuna.engine import ort, regions, rounding
from rtmo_optuna.engine.gate.outputs import judge
from rtmo_optuna.engine.precision import half, halved
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.errors import SettingsRefusedError, UsageError
from rtmo_optuna.providers.cuda import PROVIDER as CUDA
from rtmo_optuna.space import resolve
from rtmo_optuna.space.values import parse_value
from rtmo_optuna.types.measurement import GateRules, Rounding
from rtmo_optuna.types.request import Limits, SessionSpec, Settings
from test_precision import F16, F32, STUDY, run
from test_space import MACHINE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LAYERS, WIDTH = 12, 16
RULES = GateRules()
X = np.random.default_rng(0).standard_normal((1, WIDTH)).astype(np.float32)


def layers(path: Path, *, planted: float = 1.0) -> Path:
    """Write a model of a dozen layers; the sixth one's weights are `planted` times as large, and its answer divided."""
    random = np.random.default_rng(1)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, NDArray[Any]] = {}
    x = "x"
    for n in range(LAYERS):
        weights[f"w{n}"] = (2 * random.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
        nodes += [node("MatMul", f"{x} w{n}", f"m{n}"), node("Sigmoid", f"m{n}", f"s{n}")]
        nodes.append(node("Mul", f"m{n} s{n}", f"y{n}" if n < LAYERS - 1 else "y"))
        x = f"y{n}"
        if n == LAYERS // 2:
            weights[f"w{n}"] *= planted**0.5
            weights |= {"up": np.array([planted**0.5], np.float32), "down": np.array([1 / planted], np.float32)}
            nodes += [node("Mul", f"{x} up", "large"), node("Mul", "large down", "small")]
            x = "small"
    for n, one in enumerate(nodes):
        one.name = f"{one.op_type}_{n}"
    ends = {"x": (F32, (1, WIDTH))}, {"y": (F32, (1, WIDTH))}
    return models.save(path, nodes, *ends, weights)


def found(path: Path) -> Rounding:
    """Return what float16 does to a model of `layers`."""
    reference = [{"y": run(path, x=X)[0]}]
    return rounding.find(path, [{"x": X}], reference, RULES, {}, tf32=False)


def test_a_model_that_bears_float16_needs_three_runs(tmp_path: Path) -> None:
    """The range of all tensors, TF32 and float16: nothing more is asked."""
    path = layers(tmp_path / "m.onnx")
    reference = [{"y": run(path, x=X)[0]}]
    told = rounding.find(path, [{"x": X}], reference, RULES, {}, tf32=True)
    assert told == Rounding(runs=3, pictures=1)


def test_a_scale_of_1e5_in_one_layer_is_refused_named_and_mended(tmp_path: Path) -> None:
    """What it makes leaves float16's range: the gate refuses it, the node is named, and its region stays float32."""
    path = layers(tmp_path / "m.onnx", planted=1e5)
    told = found(path)
    assert told.refusal.startswith("wrong output: y ")
    assert [text.split(" reaches ")[0] for text in told.overflows] == ["Mul_21"]
    assert (told.runs, told.precision.split()[0]) == (3, "mixed")
    assert len(told.kept) == 1
    made = half(str(path), str(tmp_path / "cache"), precision=told.precision)
    types = {one.name: one.data_type for one in onnx.load(made).graph.initializer}
    assert (types["up"], types["w0"], types["w11"]) == (F32, F16, F16)
    (whole,), (mixed,) = run(path, x=X), run(made, x=X)
    assert judge([{"y": whole}], [{"y": mixed}], RULES).passed


def test_a_range_in_float16_is_refused(tmp_path: Path) -> None:
    """Planted by rounding it in spite of all: it no longer counts from 2,049 on."""
    nodes = [node("Range", "a b c", "r"), node("Mul", "r one", "m"), node("Add", "x m", "y")]
    weights = {name: np.array(value, np.float32) for name, value in (("a", 2000), ("b", 4000), ("c", 1), ("one", 1))}
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (F32, (1,))}, {"y": (F32, (2000,))}, weights)
    model, x = onnx.load(path), np.zeros(1, np.float32)
    assert "r" not in halved(model)
    gaps = [{"y": np.diff(outputs)} for outputs in (run(path, x=x)[0], _counted(rounding.rounded(model, {"r"}), x))]
    told = judge(gaps[:1], gaps[1:], RULES)
    assert told.reason.startswith("wrong output: y is off by")


def _counted(model: onnx.ModelProto, x: NDArray[Any]) -> NDArray[Any]:
    session = ort.load("cpu").open(model.SerializeToString(), Settings())
    return np.asarray(session.run(None, {"x": x})[0])


def test_rounding_that_adds_up_is_mended_by_the_worst_parts(tmp_path: Path) -> None:
    """Weights that cancel out: no node overflows, and what is measured part by part tells which stays."""
    random = np.random.default_rng(2)
    weights = {f"w{n}": random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 4 for n in range(LAYERS)}
    nodes, x = [], "x"
    for n in range(LAYERS):
        nodes.append(node("MatMul", f"{x} w{n}", f"m{n}"))
        nodes.append(node("Tanh", f"m{n}", f"t{n}" if n < LAYERS - 1 else "y"))
        x = f"t{n}"
    weights["far"], at = np.array([3e4], np.float32), 2 * (LAYERS // 2)
    nodes[at:at] = [node("Add", "t5 far", "added"), node("Sub", "added far", "back")]
    nodes[at + 2].input[0] = "back"
    for n, one in enumerate(nodes):
        one.name = f"{one.op_type}_{n}"
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (F32, (1, WIDTH))}, {"y": (F32, (1, WIDTH))}, weights)
    told = found(path)
    assert (told.overflows, len(told.regions)) == ((), 5)
    assert told.runs <= rounding.MOST_RUNS
    worst = max(told.regions, key=lambda region: region.strain)
    assert worst.strain > 1
    assert set(worst.places) <= set(told.kept)
    assert len(told.kept) < regions.REGIONS


def test_regions_hold_every_node_once_and_meet_where_little_crosses(tmp_path: Path) -> None:
    """In a chain of layers, whose products are read twice, no boundary cuts between a product and who reads it."""
    model = onnx.load(layers(tmp_path / "m.onnx"))
    names = halved(model)
    parts = regions.regions(model.graph, names, 6)
    assert [one.name for part in parts for one in part] == [one.name for one in model.graph.node]
    assert len(parts) == 6
    for part, after in pairwise(parts):
        made = {name for one in part for name in one.output}
        assert len({name for one in after for name in one.input} & made) == 1


def test_the_words_for_regions_can_be_read_again() -> None:
    """What a configuration holds names the regions that stay, as spans."""
    assert regions.written([9, 3, 8, 10]) == "mixed 3 8-10"
    assert regions.read("mixed 3 8-10") == {3, 8, 9, 10}
    assert regions.read("float16") == frozenset()
    knob = next(one for one in CUDA.knobs if one.name == "precision")
    assert parse_value(knob, "mixed 3 8-10") == "mixed 3 8-10"
    with pytest.raises(UsageError, match="precision cannot be 'mixed 3-'"):
        parse_value(knob, "mixed 3-")


@pytest.mark.parametrize(
    ("precision", "why"),
    [("mixed", "names no regions, as 'mixed 3 8-9' does: tune finds them"), ("mixed 40", "has 20 regions, none at 40")],
)
def test_a_mixed_precision_of_nothing_is_refused(tmp_path: Path, precision: str, why: str) -> None:
    """By hand, or for another model."""
    path = layers(tmp_path / "m.onnx")
    with pytest.raises(SettingsRefusedError, match=why):
        half(str(path), str(tmp_path / "cache"), precision=precision)


def test_a_piece_of_a_model_keeps_the_regions_of_the_whole(tmp_path: Path) -> None:
    """A cut head has other nodes, without names perhaps: what they write tells which they are."""
    path = layers(tmp_path / "whole.onnx", planted=1e5)
    piece = onnx.load(path)
    for one in piece.graph.node:
        one.name = ""
    del piece.graph.node[-3:]
    piece.graph.output[0].name = f"y{LAYERS - 2}"
    onnx.save(piece, tmp_path / "head.onnx")
    precision = found(path).precision
    made = half(str(tmp_path / "head.onnx"), str(tmp_path / "cache"), precision=precision, whole=str(path))
    types = {one.name: one.data_type for one in onnx.load(made).graph.initializer}
    assert (types["up"], types["w0"], types["w10"]) == (F32, F16, F16)


def test_a_session_computes_in_the_mixed_precision_of_its_settings(tmp_path: Path) -> None:
    """As a trial opens it, and `open_session`."""
    path = layers(tmp_path / "m.onnx", planted=1e5)
    settings = Settings.of({"precision": found(path).precision})
    engine = OnnxRuntimeEngine(SessionSpec(str(path), "cpu", settings))
    (whole,), (mixed,) = run(path, x=X), engine.run({"x": X})
    assert 0 < np.abs(whole - mixed).max() < 0.01 * np.abs(whole).max()


@pytest.mark.slow
def test_what_a_child_found_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nobody opens the model; a model that cannot be converted says where."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = layers(tmp_path / "m.onnx", planted=1e5)
    np.savez(tmp_path / "inputs.npz", x=X[None])
    kept: dict[str, Any] = {"0/y": run(path, x=X)[0]}
    np.savez(tmp_path / "reference.npz", **kept)
    session = SessionSpec(str(path), "cpu")
    request = RoundingRequest(session, str(tmp_path / "inputs.npz"), str(tmp_path / "reference.npz"), encode(RULES))
    told = references.rounding(request, Limits(), {"model": "a"})
    assert told.precision.startswith("mixed ")
    path.unlink()
    assert references.rounding(request, Limits(), {"model": "a"}) == told


@pytest.mark.parametrize(
    ("found", "mixed", "left_out"),
    [
        (Rounding(refusal="wrong", precision="mixed 3"), "mixed 3", {}),
        (Rounding(), "", {"mixed": "float16 passes as it is"}),
        (Rounding(refusal="wrong"), "", {"mixed": "too much of the model is to blame: wrong"}),
        (Rounding(error="node Conv_3"), "", {"float16": "node Conv_3", "mixed": "node Conv_3"}),
        (None, "", {"mixed": "which regions would stay float32 is not known: the output gate has to tell"}),
    ],
)
def test_mixed_is_searched_where_float16_fails(found: Rounding | None, mixed: str, left_out: dict[str, str]) -> None:
    """And only if some regions are to blame; a conversion that fails leaves float32, with the reason."""
    space = resolve.resolve(STUDY, MACHINE, models.facts(weights=("float32",)), fixed_shapes=True, rounding=found)
    assert {one.name.removeprefix("precision="): one.reason for one in space.left_out} == left_out
    values = [dict(c.values)["precision"] for d in space.dimensions if d.name == "precision" for c in d.choices]
    if mixed:
        assert values[-1] == mixed
        params = {"precision": "mixed", "prefer_nhwc": False}
        assert resolve.params_of(space, Settings.of({"precision": mixed})) == params
    else:
        assert not {"mixed", mixed}.intersection(values)
