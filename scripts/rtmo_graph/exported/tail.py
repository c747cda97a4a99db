"""What follows RTMO's dense head, from the suppression on, as torch.onnx.export writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_graph.decoder import AXES, CHANNELS, MARGIN, gated_attention, place
from rtmo_graph.exported.shapes import index, part, size, vector
from rtmo_graph.exported.suppression import kept_priors
from rtmo_graph.head import priors
from rtmo_graph.layers import linear
from rtmo_graph.sizes import KEYPOINTS

if TYPE_CHECKING:
    from rtmo_graph.graph import Graph, Tensor
    from rtmo_graph.head import Predictions
    from rtmo_graph.sizes import Size


def tail(graph: Graph, model: Size, predictions: Predictions, *, dynamic: bool) -> tuple[Tensor, Tensor]:
    """The boxes and scores [batch, kept, 5] and the keypoints [batch, kept, 17, 3] of what suppression keeps.

    A keypoint is its x and y in pixels of the input, and its visibility from 0 to 1.
    """
    kept, images = kept_priors(graph, predictions.boxes, predictions.scores, dynamic=dynamic)
    with graph.scope("decoder"):
        scored = graph.op("Concat", predictions.boxes, predictions.scores, axis=2)
        detections = index(graph, scored, images, kept, rank=3, name="dets")
        pose, visibility = (index(graph, x, images, kept, rank=3) for x in (predictions.pose, predictions.visibility))
        prior = graph.op("Gather", graph.shared("priors", priors(model)[0]), kept, axis=0)

        def corner(start: int) -> Tensor:
            return part(graph, detections, 2, start, start + 2)

        span = graph.op("Mul", graph.op("Sub", corner(2), corner(0)), MARGIN)
        centre = graph.op("Mul", graph.op("Add", corner(2), corner(0)), 0.5)
        box = graph.op("Concat", centre, span, axis=-1)

        features = linear(graph, "features", pose, model.pose, KEYPOINTS * CHANNELS)
        shape = vector(graph, *(size(graph, features, axis) for axis in (0, 1)), KEYPOINTS, CHANNELS)
        features = gated_attention(graph, graph.op("Reshape", features, shape))
        centre, span = graph.ops("Split", box, outputs=2, split=[2, 2], axis=-1)
        centre = graph.op("Sub", centre, prior)
        places = []
        for column, axis in enumerate(AXES):
            along = [part(graph, x, 2, column, column + 1) for x in (span, centre, prior)]
            places.append(graph.op("Unsqueeze", place(graph, axis, features, along), axes=[-1]))
        keypoints = graph.op("Concat", *places, axis=-1)
        visibility = graph.op("Unsqueeze", visibility, axes=[-1])
        return detections, graph.op("Concat", keypoints, visibility, axis=-1, name="keypoints")
