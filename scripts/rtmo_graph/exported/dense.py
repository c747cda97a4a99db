"""The parts before the non-maximum suppression that torch.onnx.export writes in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_graph.exported.shapes import flatten, number, part, share_numbers, size, vector, whole_number
from rtmo_graph.head import priors
from rtmo_graph.layers import linear, matrix, near
from rtmo_graph.neck import HEADS, positions
from rtmo_graph.sizes import NECK_CHANNELS

if TYPE_CHECKING:
    from rtmo_graph.graph import Graph, Tensor
    from rtmo_graph.sizes import Size

_TO_THE_END = 2**63 - 1


def focus(graph: Graph, image: Tensor) -> Tensor:
    """Each 2x2 patch of pixels as channels of one, [batch, 12, side / 2, side / 2]."""
    with graph.scope("focus"):
        share_numbers(graph)
        even, odd = (part(graph, image, 2, start, _TO_THE_END, step=2) for start in (0, 1))
        patches = [part(graph, rows, 3, start, _TO_THE_END, step=2) for start in (0, 1) for rows in (even, odd)]
        return graph.op("Concat", *patches, axis=1)


def mix(graph: Graph, x: Tensor, side: int) -> Tensor:
    """Tokens [batch, side * side, 256] of `x`, and added to each what it attends to."""
    with graph.scope("encoder"):
        flat = flatten(graph, x, 2, 4)
        tokens = graph.op("Transpose", flat, perm=[0, 2, 1])
        placed = graph.op("Add", tokens, graph.table(positions(side)))
        placed = graph.op("Transpose", placed, perm=[1, 0, 2])
        mixed = _attention(graph, placed, graph.op("Transpose", flat, perm=[2, 0, 1]))
        return graph.op("Add", tokens, graph.op("Transpose", mixed, perm=[1, 0, 2]))


def _attention(graph: Graph, placed: Tensor, tokens: Tensor) -> Tensor:
    """MultiheadAttention of [places, batch, 256]: queries and keys of `placed`, values of `tokens`, as torch has it."""
    with graph.scope("attention"):
        places, batch, channels = (size(graph, placed, axis) for axis in range(3))
        width = whole_number(graph, whole_number(graph, graph.op("Div", channels, HEADS)))
        query, key, value = (
            linear(graph, name, x, NECK_CHANNELS, NECK_CHANNELS)
            for name, x in (("query", placed), ("key", placed), ("value", tokens))
        )
        heads = graph.op("Mul", batch, HEADS)

        def split(x: Tensor, count: Tensor, perm: list[int]) -> Tensor:
            return graph.op("Transpose", graph.op("Reshape", x, vector(graph, count, heads, width)), perm=perm)

        query = split(query, places, [1, 0, 2])
        key = split(key, size(graph, key, 0), [1, 2, 0])
        value = split(value, size(graph, value, 0), [1, 0, 2])
        query = graph.op("Mul", query, (NECK_CHANNELS // HEADS) ** -0.5)
        attention = graph.op("Softmax", graph.op("MatMul", query, key), axis=2)
        x = graph.op("Transpose", graph.op("MatMul", attention, value), perm=[1, 0, 2])
        x = graph.op("Reshape", x, vector(graph, graph.op("Mul", places, batch), channels))
        with graph.scope("output"):
            weight = graph.weight("weight", matrix(graph, NECK_CHANNELS, NECK_CHANNELS).T)
            x = graph.op("Gemm", x, weight, near(graph, "bias", 0.0, NECK_CHANNELS), transB=1)
        return graph.op("Reshape", x, vector(graph, places, batch, size(graph, x, 1)))


def rows(graph: Graph, x: Tensor) -> Tensor:
    """[batch, height * width, channels] of [batch, channels, height, width]."""
    return flatten(graph, graph.op("Transpose", x, perm=[0, 2, 3, 1]), 1, 3)


def corners(graph: Graph, model: Size, raw: Tensor) -> Tensor:
    """Left, top, right, bottom from raw boxes: offset of the centre in strides, logarithm of the sides in strides."""
    centres, strides = priors(model)
    graph.shared("priors", centres)  # here, as torch has it, though it is used much later
    middle = graph.op("Mul", part(graph, raw, 2, 0, 2), strides[None])
    middle = graph.op("Add", middle, centres[None])
    sides = graph.op("Mul", graph.op("Exp", part(graph, raw, 2, 2, _TO_THE_END)), strides[None])
    ends = []
    for axis in (0, 1):
        centre, side = (graph.op("Gather", x, number(graph, axis), axis=2) for x in (middle, sides))
        half = graph.op("Div", side, 2.0)
        ends.append((graph.op("Sub", centre, half), graph.op("Add", centre, half)))
    edges = [graph.op("Unsqueeze", edge, axes=[-1]) for pair in zip(*ends, strict=True) for edge in pair]
    return graph.op("Concat", *edges, axis=-1, name="boxes")
