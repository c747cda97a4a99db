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


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401
    """Return a node; the names of its inputs and outputs are separated by blanks."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


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
    nodes = [node("MatMul", "x w1", "h"), node("Relu", "h", "r"), node("MatMul", "r w2", "y")]
    sizes = {"w1": (width, 64), "w2": (64, 4)}
    weights = {name: random.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    floats = TensorProto.FLOAT
    return save(path, nodes, {"x": (floats, shape)}, {"y": (floats, (*shape[:-1], 4))}, weights)


def text(path: Path) -> Path:
    """Write a model whose input is a string tensor."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return save(path, nodes, {"x": (TensorProto.STRING, (1,))}, {"y": (TensorProto.STRING, (1,))})


def spelt(path: Path) -> Path:
    """Write a model of numbers with a second output that spells them."""
    floats, shape = TensorProto.FLOAT, (1, 4)
    nodes = [node("Relu", "x", "y"), node("Cast", "y", "words", to=TensorProto.STRING)]
    return save(path, nodes, {"x": (floats, shape)}, {"y": (floats, shape), "words": (TensorProto.STRING, shape)})


def external(path: Path) -> Path:
    """Write a model whose weights lie in a file beside it."""
    dense(path)
    return outside(path)


def outside(path: Path) -> Path:
    """Move the weights of the model at `path` into the file weights.bin beside it."""
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path
