"""NumPy versions of the ONNX operators that lie upstream of RTMO's scores and boxes.

Each takes an operator's inputs as arrays and its attributes as keywords, under ONNX's names, and gives its output. They
cover the cases that occur in RTMO, no more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Array: TypeAlias = npt.NDArray[Any]

_ERF = np.frompyfunc(math.erf, 1, 1)


def _windows(x: Array, kernel_shape: Sequence[int], strides: Sequence[int], pads: Sequence[int], fill: float) -> Array:
    """View [batch, channels, height, width, kernel height, kernel width] of the padded `x`."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    windows = sliding_window_view(padded, tuple(kernel_shape), axis=(2, 3))
    return windows[:, :, :: strides[0], :: strides[1]]


def convolve(
    x: Array,
    weight: Array,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    group: int,
) -> Array:
    """Convolution without bias of one image, [1, channels, height, width], as one matrix product a group."""
    windows = _windows(x, kernel_shape, strides, pads, 0.0)
    height, width = windows.shape[2:4]
    columns = windows[0].transpose(0, 3, 4, 1, 2).reshape(group, -1, height * width)
    product: Array = weight.reshape(group, -1, columns.shape[1]) @ columns
    return product.reshape(1, -1, height, width)


def _max_pool(x: Array, *, kernel_shape: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> Array:
    pooled: Array = _windows(x, kernel_shape, strides, pads, -np.inf).max(axis=(4, 5))
    return pooled


def _sigmoid(x: Array) -> Array:
    # By the hyperbolic tangent, which cannot overflow.
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _softmax(x: Array, *, axis: int) -> Array:
    exponential = np.exp(x - x.max(axis, keepdims=True))
    shares: Array = exponential / exponential.sum(axis, keepdims=True)
    return shares


def _slice(x: Array, starts: Array, ends: Array, axes: Array, steps: Array | None = None) -> Array:
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, [1] * len(axes) if steps is None else steps, strict=True):
        cut[axis] = slice(start, end, step)
    part: Array = x[tuple(cut)]
    return part


def _reshape(x: Array, shape: Array) -> Array:
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(shape.tolist())])


def _resize(x: Array, _roi: Array, scales: Array, **_modes: str) -> Array:
    _, _, down, across = scales.astype(int)
    return x.repeat(down, axis=2).repeat(across, axis=3)


def _divide(x: Array, y: Array) -> Array:
    quotient: Array = x // y if x.dtype.kind == "i" else x / y
    return quotient


def _layer_normalization(x: Array, scale: Array, bias: Array, *, axis: int, epsilon: float) -> Array:
    centred = x - x.mean(axis, keepdims=True)
    normal: Array = centred / np.sqrt(np.square(centred).mean(axis, keepdims=True) + np.float32(epsilon))
    return normal * scale + bias


def _top_k(x: Array, k: Array, *, axis: int, largest: int = 1, sorted: int = 1) -> list[Array]:  # noqa: A002 - ONNX's
    del largest, sorted
    order = np.argsort(-x, axis, kind="stable").take(np.arange(k[0]), axis)
    return [np.take_along_axis(x, order, axis), order]


KERNELS: Mapping[str, Callable[..., Array | list[Array]]] = {
    "Add": np.add,
    "Cast": lambda x, *, to: x.astype(helper.tensor_dtype_to_np_dtype(to)),
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "Div": _divide,
    "Erf": lambda x: np.asarray(_ERF(x), np.float32),
    "Exp": np.exp,
    "Gather": lambda x, places, *, axis: np.take(x, places, axis),
    "Gemm": lambda x, weight, bias, *, transB: x @ (weight.T if transB else weight) + bias,  # noqa: N803 - ONNX's name
    "LayerNormalization": _layer_normalization,
    "MatMul": np.matmul,
    "MaxPool": _max_pool,
    "Mul": np.multiply,
    "Pow": np.power,
    "ReduceMax": lambda x, *, axes, keepdims: x.max(tuple(axes), keepdims=bool(keepdims)),
    "ReduceMean": lambda x, *, axes, keepdims: x.mean(tuple(axes), keepdims=bool(keepdims)),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda x: np.array(x.shape),
    "Sigmoid": _sigmoid,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": lambda x, *, split, axis: np.split(x, np.cumsum(split[:-1]), axis),
    "Sqrt": np.sqrt,
    "Squeeze": lambda x, *, axes: x.squeeze(tuple(axes)),
    "Sub": np.subtract,
    "TopK": _top_k,
    "Transpose": lambda x, *, perm: x.transpose(perm),
    "Unsqueeze": lambda x, *, axes: np.expand_dims(x, tuple(axes)),
}
"""By ONNX operator."""
