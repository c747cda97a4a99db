"""RTMO's neck: a hybrid encoder, attention on the coarsest map and convolutions across all three."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .layers import conv, conv_silu, linear, near
from .sizes import NECK_CHANNELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .graph import Graph, Tensor
    from .kernels import Array
    from .sizes import Size

HEADS = 8
_FEED_FORWARD = 1024


def neck(graph: Graph, size: Size, maps: list[Tensor], mix: Callable[[Graph, Tensor, int], Tensor]) -> list[Tensor]:
    """Feature maps [batch, size.pose, side / stride, side / stride] at strides 16 and 32.

    `mix` makes tokens [batch, places, 256] of a map and adds to each what it attends to.
    """
    with graph.scope("neck"):
        fine, middle, coarse = (conv(graph, f"input{level}", x, NECK_CHANNELS) for level, x in enumerate(maps, start=3))
        coarse = _encoder(graph, mix(graph, coarse, size.side // 32), size.side // 32)
        coarse = conv_silu(graph, "lateral5", coarse, NECK_CHANNELS)
        middle = _fuse(graph, "down4", size, _double(graph, coarse), middle)
        middle = conv_silu(graph, "lateral4", middle, NECK_CHANNELS)
        fine = _fuse(graph, "down3", size, _double(graph, middle), fine)

        shrunk = conv_silu(graph, "shrink4", fine, NECK_CHANNELS, kernel=3, stride=2)
        middle = _fuse(graph, "up4", size, shrunk, middle)
        shrunk = conv_silu(graph, "shrink5", middle, NECK_CHANNELS, kernel=3, stride=2)
        coarse = _fuse(graph, "up5", size, shrunk, coarse)
        return [conv(graph, f"project{level}", x, size.pose) for level, x in enumerate((middle, coarse), start=4)]


def _double(graph: Graph, x: Tensor) -> Tensor:
    """`x` at twice its height and width, each value repeated."""
    return graph.op(
        "Resize",
        x,
        np.empty(0),  # a region of interest, which this mode does not have
        np.array([1.0, 1.0, 2.0, 2.0]),
        coordinate_transformation_mode="asymmetric",
        mode="nearest",
        nearest_mode="floor",
    )


def _fuse(graph: Graph, name: str, size: Size, *maps: Tensor) -> Tensor:
    """One map of 256 channels from two of the same height and width."""
    with graph.scope(name):
        x = graph.op("Concat", *maps, axis=1)
        y = conv_silu(graph, "conv1", x, size.hidden)
        for block in range(size.rep_blocks):
            y = conv_silu(graph, f"rep{block}", y, size.hidden, kernel=3)
        y = graph.op("Add", y, conv_silu(graph, "conv2", x, size.hidden))
        return y if size.hidden == NECK_CHANNELS else conv_silu(graph, "conv3", y, NECK_CHANNELS)


def mix(graph: Graph, x: Tensor, side: int) -> Tensor:
    """Tokens [batch, side * side, 256] of `x`, and added to each what it attends to."""
    with graph.scope("encoder"):
        tokens = graph.op("Reshape", x, np.array([0, NECK_CHANNELS, -1]))
        tokens = graph.op("Transpose", tokens, perm=[0, 2, 1])
        return graph.op("Add", tokens, _attention(graph, tokens, side))


def _encoder(graph: Graph, mixed: Tensor, side: int) -> Tensor:
    """The map [batch, 256, side, side] of tokens that attention has mixed: the rest of a transformer layer."""
    with graph.scope("encoder"):
        tokens = _layer_norm(graph, "norm1", mixed)
        wide = _gelu(graph, linear(graph, "expand", tokens, NECK_CHANNELS, _FEED_FORWARD))
        mixed = graph.op("Add", tokens, linear(graph, "contract", wide, _FEED_FORWARD, NECK_CHANNELS))
        tokens = _layer_norm(graph, "norm2", mixed)
        tokens = graph.op("Transpose", tokens, perm=[0, 2, 1])
        return graph.op("Reshape", tokens, np.array([0, NECK_CHANNELS, side, side]))


def _attention(graph: Graph, tokens: Tensor, side: int) -> Tensor:
    """Self-attention of [batch, side * side, 256]; places are told apart in queries and keys only."""
    head_shape = np.array([0, side * side, HEADS, NECK_CHANNELS // HEADS])

    def heads(name: str, x: Tensor, perm: list[int], scale: float | None = None) -> Tensor:
        x = linear(graph, name, x, NECK_CHANNELS, NECK_CHANNELS)
        if scale is not None:
            x = graph.op("Mul", x, scale)
        return graph.op("Transpose", graph.op("Reshape", x, head_shape), perm=perm)

    with graph.scope("attention"):
        placed = graph.op("Add", tokens, positions(side))
        query = heads("query", placed, [0, 2, 1, 3], (NECK_CHANNELS // HEADS) ** -0.5)
        key = heads("key", placed, [0, 2, 3, 1])
        value = heads("value", tokens, [0, 2, 1, 3])
        attention = graph.op("Softmax", graph.op("MatMul", query, key), axis=-1)
        x = graph.op("Transpose", graph.op("MatMul", attention, value), perm=[0, 2, 1, 3])
        x = graph.op("Reshape", x, np.array([0, side * side, NECK_CHANNELS]))
        return linear(graph, "output", x, NECK_CHANNELS, NECK_CHANNELS)


def positions(side: int) -> Array:
    """Encoding [1, side * side, 256] of each place's row and column."""
    quarter = NECK_CHANNELS // 4
    wavelengths = 10000.0 ** (np.arange(quarter) / quarter)
    row, column = np.divmod(np.arange(side * side), side)
    phases = [place[:, None] / wavelengths for place in (row, column)]
    return np.concatenate([wave(phase) for phase in phases for wave in (np.cos, np.sin)], axis=1)[None]


def _gelu(graph: Graph, x: Tensor) -> Tensor:
    """Multiply `x` by the normal distribution function at x."""
    error = graph.op("Erf", graph.op("Div", x, math.sqrt(2)))
    return graph.op("Mul", graph.op("Mul", x, graph.op("Add", error, 1.0)), 0.5)


def _layer_norm(graph: Graph, name: str, x: Tensor) -> Tensor:
    """Normalise the last axis: in the basic operators before opset 17, which brought one for it."""
    with graph.scope(name):
        if graph.dialect.opset >= 17:  # noqa: PLR2004 - see below
            weights = near(graph, "weight", 1.0, NECK_CHANNELS), near(graph, "bias", 0.0, NECK_CHANNELS)
            return graph.op("LayerNormalization", x, *weights, axis=-1, epsilon=1e-5)
        centred = graph.op("Sub", x, graph.op("ReduceMean", x, axes=[-1], keepdims=1))
        variance = graph.op("ReduceMean", graph.op("Pow", centred, 2.0), axes=[-1], keepdims=1)
        scaled = graph.op("Div", centred, graph.op("Sqrt", graph.op("Add", variance, 1e-5)))
        scaled = graph.op("Mul", scaled, near(graph, "weight", 1.0, NECK_CHANNELS))
        return graph.op("Add", scaled, near(graph, "bias", 0.0, NECK_CHANNELS))
