"""A model that is one convolution: what a provider must be able to run."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-2
"""How far, relative to the largest output, a convolution may be from the CPU's: TensorFloat-32 has ten bits."""


def write_convolution(folder: Path) -> tuple[Path, Path]:
    """Write the model, and an input as a run's are kept (with an axis of samples in front); return both paths."""
    import onnx  # noqa: PLC0415 - takes 0.2 s
    from onnx import TensorProto, helper  # noqa: PLC0415

    random = np.random.default_rng(0)
    weight = random.standard_normal((8, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 32, 32])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)],
    )
    model, inputs = folder / "convolution.onnx", folder / "inputs.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
    np.savez(inputs, x=random.standard_normal((1, 1, 3, 32, 32)).astype(np.float32))
    return model, inputs


def alike(one: Path, other: Path) -> bool:
    """Return whether two files of outputs hold the same numbers, but for rounding."""
    with np.load(one) as first, np.load(other) as second:
        pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [(first[name], second[name]) for name in first.files]
    return all(float(np.abs(a - b).max()) <= TOLERANCE * float(np.abs(b).max()) for a, b in pairs)
