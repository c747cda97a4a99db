"""RTMO's dynamic coordinate classifier: keypoints from the pose features of the boxes that are kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .head import priors
from .layers import linear, near, silu
from .sizes import KEYPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Graph, Tensor
    from .head import Predictions
    from .sizes import Size

CHANNELS = 128
"""Of each keypoint's feature."""
_INNER_CHANNELS = 256
AXES = {"x": 192, "y": 256}
"""Places at which each keypoint may lie across and down its box."""
MARGIN = 1.25
"""Length that the bins cover, in sides of the box."""
_LARGEST_LOGIT = 5e4
_SHARPNESS = 3.0
"""Deviation of the bins' logits: a keypoint prefers a part of its box, but rounding does not move it far."""


def decode(graph: Graph, size: Size, predictions: Predictions, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes and scores [batch, kept, 5] and the keypoints [batch, kept, 17, 3] of the kept priors [batch, kept].

    A keypoint is its x and y in pixels of the input, and its visibility from 0 to 1.
    """
    with graph.scope("decoder"):
        index = graph.op("Unsqueeze", kept, axes=[2])
        scored = graph.op("Concat", predictions.boxes, predictions.scores, axis=2)
        detections = graph.op("GatherND", scored, index, name="dets", batch_dims=1)
        pose, visibility = (
            graph.op("GatherND", x, index, batch_dims=1) for x in (predictions.pose, predictions.visibility)
        )
        prior = graph.op("Gather", priors(size)[0], kept, axis=0)

        low, high, _ = graph.ops("Split", detections, outputs=3, split=[2, 2, 1], axis=2)
        centre = graph.op("Sub", graph.op("Div", graph.op("Add", low, high), 2.0), prior)
        span = graph.op("Mul", graph.op("Sub", high, low), MARGIN)
        features = linear(graph, "features", pose, size.pose, KEYPOINTS * CHANNELS)
        features = graph.op("Reshape", features, np.array([0, 0, KEYPOINTS, CHANNELS]))
        features = gated_attention(graph, features)

        axes = [graph.ops("Split", x, outputs=2, split=[1, 1], axis=2) for x in (span, centre, prior)]
        places = [
            graph.op("Unsqueeze", place(graph, axis, features, box), axes=[3])
            for axis, box in zip(AXES, zip(*axes, strict=True), strict=True)
        ]
        visibility = graph.op("Unsqueeze", visibility, axes=[3])
        return detections, graph.op("Concat", *places, visibility, axis=3, name="keypoints")


def gated_attention(graph: Graph, features: Tensor) -> Tensor:
    """Exchange among the keypoints of each person: features [batch, kept, 17, 128] to the same."""
    with graph.scope("attention"):
        norm = graph.op("Mul", graph.op("ReduceL2", features, axes=[-1], keepdims=1), CHANNELS**-0.5)
        x = graph.op("Mul", graph.op("Div", features, graph.op("Clip", norm, 1e-5)), near(graph, "norm", 1.0, 1))
        widths = [_INNER_CHANNELS, _INNER_CHANNELS, CHANNELS]
        x = silu(graph, linear(graph, "expand", x, CHANNELS, sum(widths), bias=False))
        gate, value, base = graph.ops("Split", x, outputs=3, split=widths, axis=3)
        query, key = (
            graph.op(
                "Add",
                graph.op("Mul", base, near(graph, f"{name}_scale", 1.0, CHANNELS, computed=True)),
                near(graph, f"{name}_offset", 0.0, KEYPOINTS, CHANNELS, computed=True),
            )
            for name in ("query", "key")
        )
        attention = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
        attention = graph.op("Relu", graph.op("Div", attention, math.sqrt(CHANNELS)))
        attention = graph.op("Mul", attention, attention)
        x = graph.op("Mul", gate, graph.op("MatMul", attention, value))
        x = linear(graph, "contract", x, _INNER_CHANNELS, CHANNELS, bias=False)
        return graph.op("Add", graph.op("Mul", features, near(graph, "shortcut", 1.0, CHANNELS)), x)


def place(graph: Graph, axis: str, features: Tensor, box: Sequence[Tensor]) -> Tensor:
    """Each keypoint's expected coordinate [batch, kept, 17] along one axis, over bins that its box lays out.

    The box is given by its span, its centre relative to the prior, and the prior, each [batch, kept, 1].
    """
    span, centre, prior = box
    with graph.scope(axis):
        fractions = np.linspace(-0.5, 0.5, AXES[axis])
        bins = graph.op("Add", graph.op("Mul", span, fractions), centre)
        wavelengths = 300.0 ** (np.arange(CHANNELS // 2) / (CHANNELS // 2))
        phases = graph.op("Div", graph.op("Unsqueeze", bins, axes=[3]), wavelengths)
        waves = graph.op("Concat", graph.op("Cos", phases), graph.op("Sin", phases), axis=3)
        encoded = linear(graph, "bins", waves, CHANNELS, CHANNELS, deviation=_SHARPNESS * (2 / CHANNELS) ** 0.5)

        logits = graph.op("MatMul", features, graph.op("Transpose", encoded, perm=[0, 1, 3, 2]))
        logits = graph.op("Clip", logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)
        weights = graph.op("Exp", graph.op("Sub", logits, graph.op("ReduceMax", logits, axes=[-1], keepdims=1)))
        total = graph.op("Add", graph.op("ReduceSum", weights, axes=[-1], keepdims=1), 1e-8)
        weighted = graph.op("Mul", graph.op("Div", weights, total), graph.op("Unsqueeze", bins, axes=[2]))
        return graph.op("Add", graph.op("ReduceSum", weighted, axes=[-1], keepdims=0), prior)
