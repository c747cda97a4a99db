"""Inputs that are made: what is supposed first, what next where the model refuses, and the sentence at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import models
from models import node
from program import lacking
from rtmo_optuna.engine.inputs.guesses import Guess, is_batch, others
from rtmo_optuna.engine.inputs.inputs import load, prepare
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import TensorSpec
from rtmo_optuna.verbs import first_look
from rtmo_optuna.verbs.prepare import Plan, TuneOptions, plan

Inputs = dict[str, tuple[int, Sequence[int | str | None]]]

_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64


def _planned(folder: Path, *shapes: str, given: Path | None = None) -> Plan:
    options = TuneOptions(
        model=folder / "m.onnx", config=folder / "c.yaml", output=folder, provider="cpu", shapes=shapes, input=given
    )
    return plan(options, folder)


def _lookup(path: Path) -> None:
    """Write a look-up in a table of one row, where the only index is 0."""
    nodes = [node("Gather", "table ids", "y")]
    weights = {"table": np.ones((1, 4), np.float32)}
    models.save(path, nodes, {"ids": (_INT64, ("batch", "length"))}, {"y": (_FLOAT, ("batch", "length", 4))}, weights)


def _graph_network(path: Path) -> None:
    """Write a step over a graph's edges, which index its nodes."""
    nodes = [node("Gather", "x edge_index", "y")]
    inputs: Inputs = {"x": (_FLOAT, ("num_nodes", 4)), "edge_index": (_INT64, (2, "num_edges"))}
    models.save(path, nodes, inputs, {"y": (_FLOAT, (2, "num_edges", 4))})


def _wide(path: Path) -> None:
    """Write that product as the operator of which ONNX Runtime's refusal names the size."""
    _product(path, "Gemm")


def _product(path: Path, operator: str = "MatMul") -> None:
    """Write a matrix product whose weights alone tell the width of the input; the refusal of MatMul names no size."""
    nodes = [node(operator, "x w", "y")]
    weights = {"w": np.ones((23, 4), np.float32)}
    models.save(path, nodes, {"x": (_FLOAT, ("batch", "features"))}, {"y": (_FLOAT, ("batch", 4))}, weights)


def _recurrent(path: Path) -> None:
    """Write an LSTM over [steps, batch, 8] with its state as inputs, whose batch has no name."""
    nodes = [helper.make_node("LSTM", ["x", "w", "r", "", "", "h0", "c0"], ["y", "h", "c"], hidden_size=4)]
    weights = {"w": np.ones((1, 16, 8), np.float32), "r": np.ones((1, 16, 4), np.float32)}
    inputs: Inputs = {"x": (_FLOAT, ("seq", "batch", 8)), "h0": (_FLOAT, (1, None, 4)), "c0": (_FLOAT, (1, None, 4))}
    outputs: Inputs = {"y": (_FLOAT, ("seq", 1, "batch", 4)), "h": (_FLOAT, (1, None, 4)), "c": (_FLOAT, (1, None, 4))}
    models.save(path, nodes, inputs, outputs, weights)


def _text_line(path: Path) -> None:
    """Write a reader of lines that are 48 pixels high."""
    nodes = [
        node("ReduceMean", "x", "m", axes=[1, 3], keepdims=0),
        node("MatMul", "m w", "y"),
    ]
    weights = {"w": np.ones((48, 4), np.float32)}
    models.save(path, nodes, {"x": (_FLOAT, ("batch", 3, None, None))}, {"y": (_FLOAT, ("batch", 4))}, weights)


@pytest.mark.parametrize(("make", "shapes", "others_tried"), [
    (_lookup, {"ids": (1, 64)}, True),
    (_graph_network, {"x": (64, 4), "edge_index": (2, 64)}, False),
    (_wide, {"x": (1, 23)}, True),
    (_product, {"x": (1, 23)}, True),
    (_recurrent, {"x": (64, 1, 8), "h0": (1, 1, 4), "c0": (1, 1, 4)}, False),
    (_text_line, {"x": (1, 3, 48, 320)}, True),
])  # fmt: skip
def test_models_run_on_an_input_of_our_own(
    tmp_path: Path,
    make: Callable[[Path], None],
    shapes: dict[str, tuple[int, ...]],
    others_tried: bool,  # noqa: FBT001
) -> None:
    """Indices, widths that only the weights tell, states and text lines: the bare command finds an input that runs."""
    make(tmp_path / "m.onnx")
    inputs = _planned(tmp_path).about.inputs
    assert inputs.shapes == shapes
    assert ("that it refused" in inputs.source) is others_tried
    assert {name: array.shape for name, array in load(inputs.path)[0].items()} == shapes


@pytest.mark.slow
def test_what_is_refused_to_the_end_is_told_with_the_way_out(tmp_path: Path) -> None:
    """The sentence names the shapes and values that were assumed, ONNX Runtime's reason, and both options."""
    nodes = [
        node("MatMul", "a wa", "ya"),
        node("MatMul", "b wb", "yb"),
        node("Add", "ya yb", "y"),
    ]
    weights = {"wa": np.ones((23, 4), np.float32), "wb": np.ones((29, 4), np.float32)}
    inputs: Inputs = {"a": (_FLOAT, ("batch", "wide")), "b": (_FLOAT, ("batch", "wider"))}
    models.save(tmp_path / "m.onnx", nodes, inputs, {"y": (_FLOAT, ("batch", 4))}, weights)
    with pytest.raises(UsageError) as caught:
        _planned(tmp_path)
    said = str(caught.value)
    shapes = ("a 1x64, b 1x64", "batch=1, wide=64, wider=64", "--shape a=1x64 --shape b=1x64")
    assert not lacking(said, *shapes, "--input FILE.npz")
    assert "\n" not in said
    assert _planned(tmp_path, "a=1x23", "b=1x29").about.inputs.shapes == {"a": (1, 23), "b": (1, 29)}


def test_an_input_that_was_given_is_not_replaced(tmp_path: Path) -> None:
    """A refused input of the user's own ends the run; nothing else is tried in its place."""
    _wide(tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", x=np.ones((1, 22), np.float32))
    with pytest.raises(UsageError) as caught:
        _planned(tmp_path, given=tmp_path / "in.npz")
    assert "made for it" not in str(caught.value)


@pytest.mark.parametrize(("name", "shape", "axis", "batch"), [
    ("x", ("batch", 4), 0, True),
    ("x", ("num_nodes", 4), 0, False),
    ("x", ("seq", "batch", 4), 0, False),
    ("x", ("seq", "batch", 4), 1, True),
    ("x", (None, 4), 0, True),
    ("state", (2, None, 128), 1, True),
    ("h", (1, None, 128), 1, True),
    ("features", (1, None, 80), 1, False),
])  # fmt: skip
def test_the_first_dimension_is_not_always_a_batch(
    name: str,
    shape: tuple[int | str | None, ...],
    axis: int,
    batch: bool,  # noqa: FBT001
) -> None:
    """Names tell, and the place of the batch in a recurrent state."""
    assert is_batch(TensorSpec(name, "tensor(float)", shape), axis) is batch


def test_sizes_that_the_refusal_names_come_first() -> None:
    """Numbers of places in the source, of names and of times are no sizes."""
    told = "Name:'p2o.Concat.7' Message: concat.h:133 mismatch LeftShape: {1,64}, RightShape: {23,4} 2026-11-28 06"
    assert list(others(told))[:3] == [Guess(size=23), Guess(size=4), Guess(integer=0)]


@pytest.mark.parametrize("way", ["--shape", ".npz"])
def test_a_past_of_no_length_can_be_fed(tmp_path: Path, way: str) -> None:
    """A dimension of length zero is given by shape or by array, as a decoder's empty past is."""
    nodes = [node("Concat", "past x", "y", axis=1)]
    inputs: Inputs = {"past": (_FLOAT, (1, "length", 4)), "x": (_FLOAT, (1, 1, 4))}
    models.save(tmp_path / "m.onnx", nodes, inputs, {"y": (_FLOAT, (1, "k", 4))})
    np.savez(tmp_path / "in.npz", past=np.zeros((1, 0, 4), np.float32), x=np.ones((1, 1, 4), np.float32))
    planned = _planned(tmp_path, "past=1x0x4") if way == "--shape" else _planned(tmp_path, given=tmp_path / "in.npz")
    assert planned.about.inputs.shapes["past"] == (1, 0, 4)


@pytest.mark.parametrize("way", ["--shape", ".npz"])
def test_an_input_of_unknown_rank_can_be_fed(tmp_path: Path, way: str) -> None:
    """The rank is the user's to say; no CUDA graph is offered for it, since the model leaves it open."""
    x, y = (helper.make_tensor_value_info(name, _FLOAT, None) for name in "xy")
    graph = helper.make_graph([node("Relu", "x", "y")], "rank", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "in.npz", x=np.ones((2, 3), np.float32))
    planned = _planned(tmp_path, "x=2x3") if way == "--shape" else _planned(tmp_path, given=tmp_path / "in.npz")
    assert (planned.about.inputs.shapes, planned.about.inputs.fixed) == ({"x": (2, 3)}, way == "--shape")


@pytest.mark.parametrize("operator", ["Loop", "Scan", "If", "NonMaxSuppression"])
def test_a_made_input_is_warned_of_where_cost_follows_values(tmp_path: Path, operator: str) -> None:
    """What NonMaxSuppression gets, loops and branches get, and token ids."""
    facts = prepare([], source=None, shapes={}, scale=1.0, target=tmp_path / "in.npz")
    told = first_look.made_up(models.facts(operators={operator: 1}), facts)
    assert operator in told[0]
    ids = models.facts(operators={}, inputs=(TensorSpec("ids", "tensor(int64)", (1, 8)),))
    assert "token ids" in first_look.made_up(ids, facts)[0]
