"""The ways in which the same network is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from . import backbone, head, neck
from .decoder import decode
from .exported import dense
from .exported.tail import tail as exported_tail
from .graph import PLAIN, Dialect, Dimension, Graph, Tensor
from .sizes import Size
from .suppression import kept_priors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .head import Predictions


class Tail(Protocol):
    """What follows the dense head."""

    def __call__(
        self, graph: Graph, size: Size, predictions: Predictions, /, *, dynamic: bool
    ) -> tuple[Tensor, Tensor]:
        """The boxes and scores [batch, kept, 5] and the keypoints [batch, kept, 17, 3] of what suppression keeps."""
        ...


@dataclass(frozen=True, slots=True)
class Style:
    """A dialect, and those parts of the network that are written in more than one way."""

    dialect: Dialect
    batches: frozenset[bool]
    """Whether the batch may be dynamic."""
    detection: Dimension
    """Declared length of a detection, which is 5."""
    focus: Callable[[Graph, Tensor], Tensor]
    mix: Callable[[Graph, Tensor, int], Tensor]
    flatten: Callable[[Graph, Tensor], Tensor]
    corners: Callable[[Graph, Size, Tensor], Tensor]
    tail: Tail


def _plain_tail(graph: Graph, size: Size, predictions: Predictions, *, dynamic: bool) -> tuple[Tensor, Tensor]:
    count = len(head.priors(size)[0])
    kept = kept_priors(graph, predictions.boxes, predictions.scores, count, dynamic=dynamic)
    return decode(graph, size, predictions, kept)


_EXPORTED = ("Reshapedets_dim_2", dense.focus, dense.mix, dense.rows, dense.corners, exported_tail)

STYLES: Mapping[str, Style] = {
    "plain": Style(
        PLAIN, frozenset({False, True}), 5, backbone.focus, neck.mix, head.flatten, head.corners, _plain_tail
    ),
    "exported": Style(Dialect(opset=11, constant_nodes=True), frozenset({True}), *_EXPORTED),
    "opset17": Style(Dialect(opset=17, constant_nodes=True, folds=True), frozenset({False}), *_EXPORTED),
}
"""By name: in few nodes, and as PyTorch exports RTMO at opset 11 for any batch and at opset 17 for one image."""
