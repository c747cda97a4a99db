"""Rows that do not know of each other: one number of them serves for all; whatever brings them together is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto

import models
from calling import assembled
from models import node
from rtmo_optuna.engine.cutting.cut import cut

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
WIDTH, MOST = 6, 90


WEIGHTS = {
    "last": np.array([-1]), "first": np.array([0]), "second": np.array([1]), "third": np.array([2]),
    "six": np.array([WIDTH]), "pairs": np.array([-1, 2, 3]), "flat": np.array([-1, WIDTH], np.int64),
    "column": np.array([-1, 1], np.int64), "line": np.array([1, -1], np.int64), "whole": np.array([-1], np.int64),
    "twice": np.array([1, 2], np.int64), "half": np.array(0.5, np.float32), "zero": np.array(0), "one": np.array(1),
    "matrix": np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32),
    "bias": np.arange(WIDTH, dtype=np.float32),
}  # fmt: skip
APART: Mapping[str, Sequence[NodeProto]] = {
    "elementwise": [node("Mul", "rows bias", "a"), node("Sigmoid", "a", "y")],
    "product": [node("MatMul", "rows matrix", "y")],
    "product of pairs": [
        node("Reshape", "rows pairs", "a"), node("Transpose", "a", "b", perm=[0, 2, 1]), node("MatMul", "a b", "c"),
        node("ReduceMax", "c", "m", axes=[1], keepdims=0), node("Concat", "m m m", "y", axis=1),
    ],
    "Gemm": [node("Gemm", "rows matrix bias", "y", transB=1)],
    "softmax": [node("Softmax", "rows", "y", axis=-1)],
    "reduction": [node("ReduceSum", "rows last", "s", keepdims=1), node("Sub", "rows s", "y")],
    "back and forth": [
        node("Reshape", "rows pairs", "a"), node("Transpose", "a", "b", perm=[1, 0, 2]), node("Exp", "b", "c"),
        node("Transpose", "c", "d", perm=[1, 0, 2]), node("Reshape", "d flat", "y"),
    ],
    "parts": [
        node("Slice", "rows first third second", "a"), node("Split", "rows", "b c", axis=1),
        node("Gather", "rows first", "d", axis=1), node("Concat", "d a c", "y", axis=1),
    ],
    "a table": [
        node("Squeeze", "top second", "t"), node("Cast", "t", "k", to=INT64), node("Gather", "matrix k", "g", axis=0),
        node("Add", "g rows", "y"),
    ],
    "filled with one number": [
        node("Shape", "rows", "shape"), node("ConstantOfShape", "shape", "zeros"), node("Add", "rows zeros", "y"),
    ],
    "tiled": [
        node("Tile", "top twice", "t"), node("ReduceSum", "t second", "s", keepdims=1), node("Add", "rows s", "y"),
    ],
}  # fmt: skip
"""Nodes from `rows` [n, 6] and `top` [n, 1], the largest of each, to y, by what they do."""
MIXED: Mapping[str, tuple[Sequence[NodeProto], str]] = {
    "sum of all": ([node("ReduceSum", "rows first", "s", keepdims=1), node("Sub", "rows s", "y")], "ReduceSum 's'"),
    "sum of all, all axes": ([node("ReduceSum", "rows", "s", keepdims=1), node("Sub", "rows s", "y")], "ReduceSum 's'"),
    "softmax across": ([node("Softmax", "rows", "y", axis=0)], "Softmax 'y'"),
    "running sum": ([node("CumSum", "rows zero", "y")], "CumSum 'y'"),
    "against each other": (
        [node("Transpose", "top", "t"), node("Sub", "top t", "d"), node("ReduceMax", "d", "m", axes=[1], keepdims=1),
         node("Add", "rows m", "y")],
        "Sub 'd'",
    ),
    "product of all": (
        [node("Transpose", "rows", "t"), node("MatMul", "t rows", "p"), node("MatMul", "rows p", "y")], "MatMul 'p'",
    ),
    "shifted": (
        [node("Slice", "rows first last first", "a"), node("Slice", "rows last whole first", "b"),
         node("Concat", "b a", "y", axis=0)],
        "",
    ),
    "reversed": ([node("Slice", "rows last lowest first last", "y")], "Slice 'y'"),
    "mean by their number": (
        [node("Shape", "rows", "shape"), node("Gather", "shape zero", "n"), node("Cast", "n", "f", to=FLOAT),
         node("Div", "rows f", "y")],
        "Div 'y' is told how many rows there are",
    ),
    "numbered": (
        [node("Shape", "rows", "shape"), node("Gather", "shape zero", "n"), node("Range", "zero n one", "r"),
         node("Cast", "r", "f", to=FLOAT), node("Reshape", "f column", "c"), node("Add", "rows c", "y")],
        "is told how many rows there are",
    ),
    "torn": ([node("Transpose", "rows", "t"), node("Reshape", "t flat", "y")], "Reshape 'y'"),
    "unknown": ([node("Einsum", "rows", "y", equation="ij->ij")], "Einsum 'y' brings rows together, or"),
}  # fmt: skip


def model(path: Path, nodes: Sequence[NodeProto]) -> Path:
    """Write a model that finds those of 90 numbers that are positive, takes their rows of a table, and runs `nodes`."""
    before = [
        node("Relu", "x", "r"),
        node("NonZero", "r", "places"),
        node("Transpose", "places", "where", perm=[1, 0]),
        node("GatherND", "table where", "found"),
        *(node("Add" if step % 2 else "Mul", f"f{step} half", f"f{step + 1}") for step in range(10)),
        node("Identity", "f10", "rows"),
        node("ReduceMax", "rows", "top", axes=[1], keepdims=1),
    ]
    before.insert(4, node("Identity", "found", "f0"))
    weights = {
        **WEIGHTS,
        "lowest": np.array([-1000]),
        "table": np.random.default_rng(1).random((MOST, WIDTH), np.float32),
    }
    return models.save(path, [*before, *nodes], {"x": (FLOAT, (MOST,))}, {"y": (FLOAT, ("n", WIDTH))}, weights)


@pytest.mark.parametrize("case", APART)
def test_rows_apart_are_filled_up_and_cut_off(tmp_path: Path, case: str) -> None:
    """For no row, some, as many as there is room for and more, what is given is the whole model's, to the last bit."""
    path = model(tmp_path / "m.onnx", APART[case])
    found = cut(str(path), {}, str(tmp_path / "cuts"))
    assert (found.why, found.rows, found.axes["y"]) == ("", 64, 0)
    plain, split = (assembled(path, how, level="ORT_DISABLE_ALL").call for how in ("plain", "split+host"))
    random = np.random.default_rng(2)
    for count in (0, 1, 5, 63, 64, 65, MOST):
        x = -random.random(MOST).astype(np.float32)
        x[random.permutation(MOST)[:count]] *= -1
        (wanted,), (given,) = (call.run(["y"], {"x": x}) for call in (plain, split))
        assert given.shape == wanted.shape == (count, WIDTH)
        assert np.allclose(given, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", MIXED)
def test_rows_together_are_told(tmp_path: Path, case: str) -> None:
    """What follows runs for the rows that there are, and the node that brings them together is named."""
    nodes, reason = MIXED[case]
    found = cut(str(model(tmp_path / "m.onnx", nodes)), {}, str(tmp_path))
    assert found.rows == 0
    assert reason in found.why
    assert found.why
