"""The choice of the boxes that RTMO keeps, by non-maximum suppression inside the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .people import MAX_OVERLAP, MIN_SCORE

if TYPE_CHECKING:
    from .graph import Graph, Tensor
    from .kernels import Array

CANDIDATES = 2000
SUPPRESSED_TO = 200
MOST_KEPT = 50


def kept_priors(graph: Graph, boxes: Tensor, scores: Tensor, count: int, *, dynamic: bool) -> Tensor:
    """Indices [batch, kept] of the kept boxes among `count` priors, best first, at most 50.

    One more than there are people, where there is room: the last, -1, means the last prior. With a dynamic batch, the
    images that have fewer people than all images together are filled up with index 0.
    """
    with graph.scope("suppression"):
        candidates = np.array([min(CANDIDATES, count)])
        select = _select_of_many if dynamic else _select_of_one
        rows, indices = select(graph, boxes, scores, candidates)
        row_scores = graph.op("Gather", rows, 4, axis=2)
        found = graph.op("Gather", graph.op("Shape", row_scores), np.array([1]), axis=0)
        _, ranks = graph.ops("TopK", row_scores, graph.op("Min", found, np.array([MOST_KEPT])), outputs=2, axis=1)
        return graph.op("GatherND", indices, graph.op("Unsqueeze", ranks, axes=[2]), batch_dims=1)


def _select_of_one(graph: Graph, boxes: Tensor, scores: Tensor, candidates: Array) -> tuple[Tensor, Tensor]:
    """Boxes with scores [1, found + 1, 5] and prior indices [1, found + 1] after suppression in one image."""
    best = graph.op("Squeeze", graph.op("ReduceMax", scores, axes=[2], keepdims=0), axes=[0])
    _, order = graph.ops("TopK", best, candidates, outputs=2, axis=0)
    boxes, scores = (graph.op("Gather", x, order, axis=1) for x in (boxes, scores))

    places = graph.op("Gather", _suppress(graph, boxes, scores), 2, axis=1)
    rows = graph.op("Concat", *(graph.op("Gather", x, places, axis=1) for x in (boxes, scores)), axis=2)
    indices = graph.op("Unsqueeze", graph.op("Gather", order, places, axis=0), axes=[0])
    return (
        graph.op("Concat", rows, np.zeros((1, 1, 5)), axis=1),
        graph.op("Concat", indices, np.array([[-1]]), axis=1),
    )


def _select_of_many(graph: Graph, boxes: Tensor, scores: Tensor, candidates: Array) -> tuple[Tensor, Tensor]:
    """Select as `_select_of_one` does, in any number of images.

    Each image has a row for whatever is found in any; the rows and indices that are not its own are zero.
    """
    best = graph.op("ReduceMax", scores, axes=[2], keepdims=0)
    _, order = graph.ops("TopK", best, candidates, outputs=2, axis=1)
    order_index = graph.op("Unsqueeze", order, axes=[2])
    boxes, scores = (graph.op("GatherND", x, order_index, batch_dims=1) for x in (boxes, scores))

    selected = _suppress(graph, boxes, scores)
    places = graph.op("Gather", selected, np.array([0, 2]), axis=1)
    rows = graph.op("Concat", *(graph.op("GatherND", x, places) for x in (boxes, scores)), axis=1)
    indices = graph.op("GatherND", order, places)

    batch = graph.op("Gather", graph.op("Shape", scores), 0, axis=0)
    images = graph.op("Unsqueeze", graph.op("Range", 0, batch, 1), axes=[1])
    own = graph.op("Equal", graph.op("Gather", selected, 0, axis=1), images)
    batch_size = graph.op("Unsqueeze", batch, axes=[0])
    once_each = graph.op("Concat", batch_size, np.array([1]), axis=0)
    once_each_row = graph.op("Concat", once_each, np.array([1]), axis=0)

    rows = graph.op("Tile", graph.op("Unsqueeze", rows, axes=[0]), once_each_row)
    rows = graph.op("Where", graph.op("Unsqueeze", own, axes=[2]), rows, 0.0)
    indices = graph.op("Tile", graph.op("Unsqueeze", indices, axes=[0]), once_each)
    indices = graph.op("Where", own, indices, 0)
    return (
        graph.op("Concat", rows, graph.op("Tile", np.zeros((1, 1, 5)), once_each_row), axis=1),
        graph.op("Concat", indices, graph.op("Tile", np.array([[-1]]), once_each), axis=1),
    )


def _suppress(graph: Graph, boxes: Tensor, scores: Tensor) -> Tensor:
    """Image, class and place [found, 3] of each box that is left."""
    by_class = graph.op("Transpose", scores, perm=[0, 2, 1])
    return graph.op("NonMaxSuppression", boxes, by_class, np.array([SUPPRESSED_TO]), MAX_OVERLAP, MIN_SCORE)
