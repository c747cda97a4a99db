"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtmo_optuna.types.request import ModelFacts

OPSET = 13


def facts(version: str = "1.31.1", **more: Any) -> ModelFacts:  # noqa: ANN401 - any field
    """Return what a child would tell of a model on that ONNX Runtime."""
    told = {"inputs": (), "outputs": (), "opset": 0, "operators": {}, "nodes_by_provider": {}, "provider": "cuda"}
    return ModelFacts(**{**told, "versions": {"onnxruntime": version}, **more})


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str | None]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str | None]]],
    weights: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a model of `nodes`; inputs and outputs map a name to (ONNX type, shape)."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.save(model, path)
    return path


def dense(path: Path, shape: Sequence[int | str] = (1, 8)) -> Path:
    """Write a model of two matrix products, input `x` of `shape`, output `y`."""
    random = np.random.default_rng(0)
    width = int(shape[-1])
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    weights = {
        "w1": random.standard_normal((width, 64)).astype(np.float32),
        "w2": random.standard_normal((64, 4)).astype(np.float32),
    }
    floats = TensorProto.FLOAT
    return save(path, nodes, {"x": (floats, shape)}, {"y": (floats, (*shape[:-1], 4))}, weights)


def text(path: Path) -> Path:
    """Write a model whose input is a string tensor."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return save(path, nodes, {"x": (TensorProto.STRING, (1,))}, {"y": (TensorProto.STRING, (1,))})


def spelt(path: Path) -> Path:
    """Write a model of numbers with a second output that spells them."""
    floats, shape = TensorProto.FLOAT, (1, 4)
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Cast", ["y"], ["words"], to=TensorProto.STRING),
    ]
    return save(path, nodes, {"x": (floats, shape)}, {"y": (floats, shape), "words": (TensorProto.STRING, shape)})


def external(path: Path) -> Path:
    """Write a model whose weights lie in a file beside it."""
    dense(path)
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0,
    )  # fmt: skip
    return path
