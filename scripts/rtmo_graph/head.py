"""RTMO's dense head: for every prior a score, a box, the visibility of each keypoint and a pose feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .graph import Tensor
from .layers import conv, conv_silu
from .people import score_shift
from .sizes import KEYPOINTS, STRIDES

if TYPE_CHECKING:
    from collections.abc import Callable

    from .graph import Graph
    from .kernels import Array
    from .sizes import Size

_GROUPS = 8
_SCORE_CHANNELS = 256
"""Of the score branch, at a backbone width of 1."""
_FILLERS = (0, -1)
"""The prior of each level that `suppression.kept_priors` fills up with, which therefore should be nobody."""
_SMOOTHNESS = 1.0
"""Of the branches' filters: neighbours see the same person, so that suppression halves the number of boxes."""
_BOX_MEAN = np.array([0.0, 0.0, 2.0, 2.0])
"""Of a raw box: offset of the centre in strides, logarithm of the sides in strides. Sides of 120 and 240 pixels."""
_BOX_DEVIATION = np.array([0.5, 0.5, 0.15, 0.15])


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the head says of each prior; priors go level by level, row by row."""

    boxes: Tensor
    """[batch, priors, 4]: left, top, right, bottom in pixels of the input."""
    scores: Tensor
    """[batch, priors, 1], 0 to 1."""
    pose: Tensor
    """[batch, priors, size.pose]: what the keypoints are decoded from."""
    visibility: Tensor
    """[batch, priors, 17], 0 to 1."""


def head(
    graph: Graph,
    size: Size,
    maps: list[Tensor],
    people: int,
    *,
    flatten: Callable[[Graph, Tensor], Tensor],
    corners: Callable[[Graph, Size, Tensor], Tensor],
) -> Predictions:
    """Predictions from the neck's maps, with scores such that the graph's example input holds `people` people.

    `flatten` makes rows [batch, height * width, channels] of a map, `corners` boxes of raw ones [batch, priors, 4].
    """
    with graph.scope("head"):
        levels = []
        for stride, filler, x in zip(STRIDES, _FILLERS, maps, strict=True):
            with graph.scope(f"stride{stride}"):
                levels.append([flatten(graph, y) for y in _level(graph, size, x, filler)])
        scores, raw_boxes, visibility, pose = zip(*levels, strict=True)
        boxes = corners(graph, size, graph.op("Concat", *raw_boxes, axis=1))
        logits = graph.op("Concat", *scores, axis=1)

        shift = score_shift(boxes.example[0], logits.example[0, :, 0], people)
        for stride in STRIDES:
            graph.initializers[f"head/stride{stride}/score/bias"] += shift

        return Predictions(
            boxes=boxes,
            scores=graph.op("Sigmoid", logits, name="scores"),
            pose=graph.op("Concat", *pose, axis=1, name="pose"),
            visibility=graph.op("Sigmoid", graph.op("Concat", *visibility, axis=1), name="visibility"),
        )


def priors(size: Size) -> tuple[Array, Array]:
    """Centre [priors, 2] and stride [priors, 1] of each prior, in pixels."""
    centres, strides = [], []
    for stride in STRIDES:
        places = (np.arange(size.side // stride) + 0.5) * stride - 0.5
        x, y = np.meshgrid(places, places)
        centres.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), float(stride)))
    return np.concatenate(centres), np.concatenate(strides)


def _level(graph: Graph, size: Size, x: Tensor, filler: int) -> tuple[Tensor, ...]:
    """Maps of the score's logit, the raw box, the visibility's logits and the pose feature, from one level's map."""
    score, pose = graph.ops("Split", x, outputs=2, split=[size.pose // 2] * 2, axis=1)
    score_channels, pose_channels = int(_SCORE_CHANNELS * size.widen), _GROUPS * size.group
    for layer in range(2):
        score = conv_silu(graph, f"score{layer}", score, score_channels, kernel=3, smoothness=_SMOOTHNESS)
    pose = conv_silu(graph, "pose0", pose, pose_channels, kernel=3, smoothness=_SMOOTHNESS)
    for layer in range(1, 4):
        pose = conv_silu(graph, f"pose{layer}", pose, pose_channels, kernel=3, groups=_GROUPS, smoothness=_SMOOTHNESS)
    return (
        conv(graph, "score", score, 1, deviation=2.0, low_at=filler),
        conv(graph, "box", pose, 4, mean=_BOX_MEAN, deviation=_BOX_DEVIATION),
        conv(graph, "visibility", pose, KEYPOINTS),
        conv(graph, "pose", pose, size.pose),
    )


def flatten(graph: Graph, x: Tensor) -> Tensor:
    """[batch, height * width, channels] of [batch, channels, height, width]."""
    rows = graph.op("Transpose", x, perm=[0, 2, 3, 1])
    return graph.op("Reshape", rows, np.array([0, -1, x.example.shape[1]]))


def corners(graph: Graph, size: Size, raw: Tensor) -> Tensor:
    """Left, top, right, bottom from raw boxes: offset of the centre in strides, logarithm of the sides in strides."""
    centre, stride = map(graph.constant, priors(size))
    offset, log_sides = graph.ops("Split", raw, outputs=2, split=[2, 2], axis=2)
    middle = graph.op("Add", graph.op("Mul", offset, stride), centre)
    half = graph.op("Div", graph.op("Mul", graph.op("Exp", log_sides), stride), 2.0)
    corners = graph.op("Sub", middle, half), graph.op("Add", middle, half)
    return graph.op("Concat", *corners, axis=2, name="boxes")
