"""The layers that every part of RTMO is made of, with weights drawn so that what flows stays of the order of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .kernels import convolve

if TYPE_CHECKING:
    from .graph import Graph, Tensor
    from .kernels import Array


def conv(
    graph: Graph,
    name: str,
    x: Tensor,
    channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    smoothness: float = 0.0,
    mean: float | Array = 0.0,
    deviation: float | Array = 1.0,
    low_at: int | None = None,
) -> Tensor:
    """Convolve `x` into `channels` channels.

    Each has this mean and standard deviation (one for all, or one each) over the graph's example input, as it would if
    a batch normalisation had been folded into random weights. `smoothness` is the deviation of what a filter's taps
    have in common, relative to what they have not. At the place `low_at`, counted row by row, no channel is above its
    mean.
    """
    geometry: dict[str, Any] = {
        "kernel_shape": [kernel, kernel],
        "strides": [stride, stride],
        "pads": [kernel // 2] * 4,
        "group": groups,
    }
    filters = (channels, x.example.shape[1] // groups)
    drawn = graph.rng.standard_normal((*filters, kernel, kernel), np.float32)
    if smoothness:
        drawn += smoothness * graph.rng.standard_normal((*filters, 1, 1), np.float32)
    product = convolve(x.example, drawn, **geometry)
    average = product.mean(axis=(0, 2, 3))
    scale = deviation / product.std(axis=(0, 2, 3))
    if low_at is not None:
        scale *= np.sign(average - product.reshape(channels, -1)[:, low_at])
    offset = mean - scale * average
    with graph.scope(name):
        weight = graph.weight("weight", drawn * scale[:, None, None, None])
        bias = graph.weight("bias", offset)
        value = product * scale[:, None, None] + offset[:, None, None]
        return graph.op("Conv", x, weight, bias, example=value.astype(np.float32), **geometry)


def silu(graph: Graph, x: Tensor) -> Tensor:
    """Multiply `x` by its sigmoid."""
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def conv_silu(
    graph: Graph,
    name: str,
    x: Tensor,
    channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    smoothness: float = 0.0,
) -> Tensor:
    """`conv` and `silu`, with SiLU where it bends gently.

    Random layers that bend more make large errors of small ones: with zero mean and unit deviation, the rounding of
    TensorFloat-32 grows to 20 % of RTMO-l's outputs, and with these to 2 %.
    """
    y = conv(
        graph,
        name,
        x,
        channels,
        kernel=kernel,
        stride=stride,
        groups=groups,
        smoothness=smoothness,
        mean=0.5,
        deviation=0.5,
    )
    return silu(graph, y)


def linear(
    graph: Graph, name: str, x: Tensor, inputs: int, outputs: int, *, bias: bool = True, deviation: float = 1.0
) -> Tensor:
    """A linear map of the last axis, which keeps unit variance but for the factor `deviation`."""
    with graph.scope(name):
        y = graph.op("MatMul", x, graph.weight("weight", matrix(graph, inputs, outputs, deviation)))
        return graph.op("Add", y, near(graph, "bias", 0.0, outputs)) if bias else y


def matrix(graph: Graph, inputs: int, outputs: int, deviation: float = 1.0) -> Array:
    """Draw a matrix [inputs, outputs] that keeps unit variance but for the factor `deviation`."""
    drawn: Array = deviation * inputs**-0.5 * graph.rng.standard_normal((inputs, outputs), np.float32)
    return drawn


def near(graph: Graph, name: str, centre: float, *shape: int, computed: bool = False) -> Tensor:
    """A weight close to `centre`, but not equal to it: no optimizer may find that it does nothing."""
    return graph.weight(name, centre + 0.05 * graph.rng.standard_normal(shape, np.float32), computed=computed)
