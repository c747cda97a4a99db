"""What PyTorch does in one word and torch.onnx.export spells out: sizes, shapes, slices, indexing by tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from rtmo_graph.graph import Graph, Tensor

_NUMBERS = (0, 1, 2, -1)


def share_numbers(graph: Graph) -> None:
    """Add the numbers that are indexed with: torch writes them where it slices the image, and then uses them again."""
    for value in _NUMBERS:
        number(graph, value)


def number(graph: Graph, value: int) -> Tensor:
    """The number 0, 1, 2 or -1 that all of the graph shares."""
    return graph.shared(f"number {value}", value)


def size(graph: Graph, x: Tensor, axis: int) -> Tensor:
    """`x.shape[axis]`, a number."""
    return graph.op("Gather", graph.op("Shape", x), axis, axis=0)


def vector(graph: Graph, *sizes: Tensor | int) -> Tensor:
    """A shape [len(sizes)] of numbers."""
    parts = [np.array([x]) if isinstance(x, int) else graph.op("Unsqueeze", x, axes=[0]) for x in sizes]
    return graph.op("Concat", *parts, axis=0)


def whole_number(graph: Graph, x: Tensor) -> Tensor:
    """`x` as int64, which it is."""
    return graph.op("Cast", x, to=TensorProto.INT64)


def part(graph: Graph, x: Tensor, axis: int, start: int, end: int, *, step: int = 1) -> Tensor:
    """`x[start:end:step]` along one axis."""
    return graph.op("Slice", x, *(np.array([bound]) for bound in (start, end, axis, step)))


def flatten(graph: Graph, x: Tensor, start: int, end: int) -> Tensor:
    """`x` with its axes from `start` up to `end` as one."""
    sizes = graph.op("Shape", x)

    def axes(low: int, high: int) -> list[Tensor]:
        return [graph.op("Slice", sizes, *(np.array([bound]) for bound in (low, high, 0)))] if low < high else []

    shape = graph.op("Concat", *axes(0, start), np.array([-1]), *axes(end, x.example.ndim), axis=0)
    return graph.op("Reshape", x, shape)


def filled(graph: Graph, value: float, *sizes: Tensor | int) -> Tensor:
    """A tensor of this shape that holds one value: as int64 or, where it is a float, as float32."""
    return _constant_of_shape(graph, value, vector(graph, *sizes))


def repeat(graph: Graph, x: Tensor, *times: Tensor | int) -> Tensor:
    """`x` so many times along each axis; torch spells out that axes may be added, though none is."""
    asked, again = vector(graph, *times), vector(graph, *times)
    ones = _constant_of_shape(graph, 1, graph.op("Shape", asked))
    return graph.op("Tile", graph.op("Expand", x, ones), again)


def index(
    graph: Graph,
    x: Tensor,
    *indices: Tensor,
    rank: int,
    first: int = 0,
    fronted: Tensor | None = None,
    name: str | None = None,
) -> Tensor:
    """`x[indices]` of an `x` with `rank` axes, of which these from `first` on are indexed, as one with the others kept.

    As torch writes it: rows of the flattened `x` are gathered, and the shape is put together again. `fronted` is `x`
    with the indexed axes in front, where that is not `x` itself.
    """
    shape, last = graph.op("Shape", x), first + len(indices)
    sizes = {axis: graph.op("Gather", shape, np.array([axis]), axis=0) for axis in range(rank) if axis != first}
    flat = graph.op("Flatten", fronted or x, axis=len(indices))
    row, step = indices[-1], None
    for axis in reversed(range(first + 1, last)):
        step = sizes[axis] if step is None else graph.op("Mul", step, sizes[axis])
        row = graph.op("Add", row, graph.op("Mul", indices[axis - 1 - first], step))
    rows, counted = graph.op("Gather", flat, row, axis=0), graph.op("Shape", row)
    before, after = ([sizes[axis] for axis in axes] for axes in (range(first), range(last, rank)))
    others = [*before, *after]
    flat_shape = graph.op("Concat", np.array([-1]), *others, axis=0) if others else np.array([-1])
    rows = graph.op("Reshape", rows, flat_shape)
    if first:
        rows = graph.op("Transpose", rows, perm=[*range(1, first + 1), 0, *range(first + 1, first + 1 + len(after))])
    return graph.op("Reshape", rows, graph.op("Concat", *before, counted, *after, axis=0), name=name)


def _constant_of_shape(graph: Graph, value: float, shape: Tensor) -> Tensor:
    kind = np.int64 if isinstance(value, int) else np.float32
    return graph.op("ConstantOfShape", shape, value=numpy_helper.from_array(np.array([value], kind)))
