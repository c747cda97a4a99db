"""The choice of the boxes that RTMO keeps, as mmdeploy writes it in PyTorch and torch.onnx.export in operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rtmo_graph.exported.shapes import filled, index, number, repeat, size, whole_number
from rtmo_graph.people import MAX_OVERLAP, MIN_SCORE
from rtmo_graph.suppression import CANDIDATES, MOST_KEPT, SUPPRESSED_TO

if TYPE_CHECKING:
    from rtmo_graph.graph import Graph, Tensor


def kept_priors(graph: Graph, boxes: Tensor, scores: Tensor, *, dynamic: bool) -> tuple[Tensor, Tensor]:
    """Indices [batch, kept] of the kept boxes, best first, at most 50, and the number [batch, 1] of each image.

    One more than there are people, where there is room: the last, -1, becomes the prior before the image's first one,
    which is the last image's last prior for the first image. With a dynamic batch, the images that have fewer people
    than all images together are filled up with index 0.
    """
    with graph.scope("suppression"):
        return (_select_of_many if dynamic else _select_of_one)(graph, boxes, scores)


def _select_of_many(graph: Graph, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    batch = size(graph, scores, 0)
    best = graph.op("ReduceMax", scores, axes=[-1], keepdims=0)
    _, order = graph.ops("TopK", best, _candidates(boxes), outputs=2, axis=-1, largest=1, sorted=1)
    images = _images(graph, batch)
    counted = whole_number(graph, images)
    boxes, scores = (index(graph, x, counted, order, rank=3) for x in (boxes, scores))

    by_class = graph.op("Transpose", scores, perm=[0, 2, 1])
    image, label, place = _suppress(graph, boxes, by_class)
    box = index(graph, boxes, image, place, rank=3)
    fronted = graph.op("Transpose", scores, perm=[0, 2, 1])
    score = index(graph, by_class, image, label, place, rank=3, fronted=fronted)
    rows = graph.op("Concat", box, graph.op("Unsqueeze", score, axes=[1]), axis=1)

    template = graph.op("Range", 0, whole_number(graph, batch), 1)
    own = graph.op("Equal", image, graph.op("Unsqueeze", template, axes=[1]))
    rows = repeat(graph, graph.op("Unsqueeze", rows, axes=[0]), batch, 1, 1)
    rows = graph.op("Where", graph.op("Unsqueeze", own, axes=[-1]), rows, np.array([0.0]))
    count = size(graph, rows, 0)
    rows = graph.op("Concat", rows, filled(graph, 0.0, count, 1, 5), axis=1)

    prior = graph.op("Unsqueeze", index(graph, order, image, place, rank=2), axes=[0])
    prior = graph.op("Where", own, repeat(graph, prior, batch, 1), np.array([0]))
    prior = graph.op("Concat", prior, graph.op("Neg", filled(graph, 1, count, 1)), axis=1)
    ranks = _ranks(graph, rows)
    return index(graph, prior, _images(graph, batch), ranks, rank=2), images


def _select_of_one(graph: Graph, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    best = graph.op("ReduceMax", scores, axes=[-1], keepdims=0)
    best = graph.op("Squeeze", best, axes=[0])
    _, order = graph.ops("TopK", best, _candidates(boxes), outputs=2, axis=-1, largest=1, sorted=1)
    boxes, scores = (graph.op("Gather", x, order, axis=1) for x in (boxes, scores))

    by_class = graph.op("Transpose", scores, perm=[0, 2, 1])
    _, label, place = _suppress(graph, boxes, by_class)
    box = graph.op("Gather", boxes, place, axis=1)
    fronted = graph.op("Transpose", scores, perm=[2, 1, 0])
    score = index(graph, by_class, label, place, rank=3, first=1, fronted=fronted)
    rows = graph.op("Concat", box, graph.op("Unsqueeze", score, axes=[2]), axis=2)
    rows = graph.op("Concat", rows, np.zeros((1, 1, 5)), axis=1)

    prior = graph.op("Gather", graph.op("Unsqueeze", order, axes=[0]), place, axis=1)
    prior = graph.op("Concat", prior, np.array([[-1]]), axis=1)
    ranks = graph.op("Squeeze", _ranks(graph, rows), axes=[0])
    return graph.op("Gather", prior, ranks, axis=1), graph.constant(np.array([[0]]))


def _candidates(boxes: Tensor) -> np.ndarray:
    return np.array([min(CANDIDATES, boxes.example.shape[1])])


def _images(graph: Graph, batch: Tensor) -> Tensor:
    """The number [batch, 1] of each image."""
    numbers = graph.op("Range", 0, whole_number(graph, batch), 1)
    return graph.op("Reshape", numbers, np.array([-1, 1]))


def _suppress(graph: Graph, boxes: Tensor, by_class: Tensor) -> list[Tensor]:
    """Image, class and place [found] of each box that is left."""
    limits = np.array([SUPPRESSED_TO]), np.array([MAX_OVERLAP]), np.array([MIN_SCORE])
    selected = graph.op("NonMaxSuppression", boxes, by_class, *limits)
    return [graph.op("Gather", selected, number(graph, column), axis=1) for column in range(3)]


def _ranks(graph: Graph, rows: Tensor) -> Tensor:
    """Places [batch, kept] of the rows [batch, found, 5] that score best."""
    scores = graph.op("Gather", rows, number(graph, -1), axis=2)
    found = size(graph, scores, 1)
    most = graph.op("Where", graph.op("Less", MOST_KEPT, found), MOST_KEPT, found)
    most = graph.op("Reshape", most, np.array([1]))
    return graph.ops("TopK", scores, most, outputs=2, axis=1, largest=1, sorted=1)[1]
