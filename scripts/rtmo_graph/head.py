"""RTMO's dense head: for every prior a score, a box, the visibility of each keypoint and a pose feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .layers import conv, conv_silu
from .people import score_shift
from .sizes import KEYPOINTS, STRIDES

if TYPE_CHECKING:
    from .graph import Graph, Tensor
    from .kernels import Array
    from .sizes import Size

_GROUPS = 8
_SCORE_CHANNELS = 256
"""Of the score branch, at a backbone width of 1."""


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


def head(graph: Graph, size: Size, maps: list[Tensor], people: int) -> Predictions:
    """Predictions from the neck's maps, with scores such that the graph's example input holds `people` people."""
    with graph.scope("head"):
        levels = []
        for stride, x in zip(STRIDES, maps, strict=True):
            with graph.scope(f"stride{stride}"):
                levels.append([_flatten(graph, y) for y in _level(graph, size, x)])
        logits, boxes, visibility, pose = (
            graph.op("Concat", *parts, axis=1, name=name)
            for parts, name in zip(zip(*levels, strict=True), (None, None, None, "pose"), strict=True)
        )
        boxes = _decode_boxes(graph, size, boxes)

        shift = score_shift(boxes.example[0], logits.example[0, :, 0], people)
        for stride in STRIDES:
            graph.initializers[f"head/stride{stride}/score/bias"] += shift

        return Predictions(
            boxes=boxes,
            scores=graph.op("Sigmoid", logits, name="scores"),
            pose=pose,
            visibility=graph.op("Sigmoid", visibility, name="visibility"),
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


def _level(graph: Graph, size: Size, x: Tensor) -> tuple[Tensor, ...]:
    """Maps of the score's logit, the raw box, the visibility's logits and the pose feature, from one level's map."""
    score, pose = graph.ops("Split", x, outputs=2, split=[size.pose // 2] * 2, axis=1)
    for layer in range(2):
        score = conv_silu(graph, f"score{layer}", score, int(_SCORE_CHANNELS * size.widen), kernel=3)
    pose = conv_silu(graph, "pose0", pose, _GROUPS * size.group, kernel=3)
    for layer in range(1, 4):
        pose = conv_silu(graph, f"pose{layer}", pose, _GROUPS * size.group, kernel=3, groups=_GROUPS)
    return (
        conv(graph, "score", score, 1, deviation=2.0),
        # A mean side of exp(1.8) strides: boxes of about 100 pixels on one level and 200 on the other.
        conv(graph, "box", pose, 4, mean=np.array([0.0, 0.0, 1.8, 1.8]), deviation=0.3),
        conv(graph, "visibility", pose, KEYPOINTS),
        conv(graph, "pose", pose, size.pose),
    )


def _flatten(graph: Graph, x: Tensor) -> Tensor:
    """[batch, height * width, channels] of [batch, channels, height, width]."""
    x_channels = x.example.shape[1]
    return graph.op("Reshape", graph.op("Transpose", x, perm=[0, 2, 3, 1]), np.array([0, -1, x_channels]))


def _decode_boxes(graph: Graph, size: Size, raw: Tensor) -> Tensor:
    """Left, top, right, bottom from raw boxes: offset of the centre in strides, logarithm of the sides in strides."""
    centre, stride = map(graph.constant, priors(size))
    offset, log_sides = graph.ops("Split", raw, outputs=2, split=[2, 2], axis=2)
    middle = graph.op("Add", graph.op("Mul", offset, stride), centre)
    half = graph.op("Div", graph.op("Mul", graph.op("Exp", log_sides), stride), 2.0)
    corners = graph.op("Sub", middle, half), graph.op("Add", middle, half)
    return graph.op("Concat", *corners, axis=2, name="boxes")
