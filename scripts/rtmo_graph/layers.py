"""The layers that every part of RTMO is made of, with weights drawn so that what flows stays of the order of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    mean: float | Array = 0.0,
    deviation: float = 1.0,
) -> Tensor:
    """Convolve `x` into `channels` channels.

    Each of them has this mean (one for all, or one each) and standard deviation over the graph's example input, as it would if a batch normalisation
    had been folded into random weights.
    """
    geometry = {
        "kernel_shape": [kernel, kernel],
        "strides": [stride, stride],
        "pads": [kernel // 2] * 4,
        "group": groups,
    }
    drawn = graph.rng.standard_normal((channels, x.example.shape[1] // groups, kernel, kernel), np.float32)
    product = convolve(x.example, drawn, **geometry)
    scale = deviation / product.std(axis=(0, 2, 3))
    offset = mean - scale * product.mean(axis=(0, 2, 3))
    with graph.scope(name):
        weight = graph.weight("weight", drawn * scale[:, None, None, None])
        bias = graph.weight("bias", offset)
        value = product * scale[:, None, None] + offset[:, None, None]
        return graph.op("Conv", x, weight, bias, value=value, **geometry)


def silu(graph: Graph, x: Tensor) -> Tensor:
    """x times its sigmoid."""
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def conv_silu(
    graph: Graph, name: str, x: Tensor, channels: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
) -> Tensor:
    """`conv` and `silu`."""
    return silu(graph, conv(graph, name, x, channels, kernel=kernel, stride=stride, groups=groups))


def linear(
    graph: Graph, name: str, x: Tensor, inputs: int, outputs: int, *, bias: bool = True, deviation: float = 1.0
) -> Tensor:
    """A linear map of the last axis, which keeps unit variance but for the factor `deviation`."""
    with graph.scope(name):
        draw = graph.rng.standard_normal((inputs, outputs), np.float32)
        y = graph.op("MatMul", x, graph.weight("weight", deviation * inputs**-0.5 * draw))
        return graph.op("Add", y, near(graph, "bias", 0.0, outputs)) if bias else y


def near(graph: Graph, name: str, centre: float, *shape: int) -> Tensor:
    """A weight close to `centre`, but not equal to it: no optimizer may find that it does nothing."""
    return graph.weight(name, centre + 0.05 * graph.rng.standard_normal(shape, np.float32))
