"""RTMO's backbone, a CSPDarknet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .layers import conv_silu

if TYPE_CHECKING:
    from collections.abc import Callable

    from .graph import Graph, Tensor
    from .sizes import Size


def backbone(graph: Graph, size: Size, image: Tensor, focus: Callable[[Graph, Tensor], Tensor]) -> list[Tensor]:
    """Feature maps at strides 8, 16 and 32 of an image [batch, 3, side, side], of which `focus` makes 12 channels."""
    channels = int(64 * size.widen)
    maps = []
    with graph.scope("backbone"):
        x = conv_silu(graph, "stem", focus(graph, image), channels, kernel=3)
        for stage, blocks in enumerate(size.blocks, start=1):
            last = stage == len(size.blocks)
            channels *= 2
            with graph.scope(f"stage{stage}"):
                x = conv_silu(graph, "down", x, channels, kernel=3, stride=2)
                if last:
                    x = _pool_pyramid(graph, x, channels)
                x = _cross_stage(graph, x, channels, blocks, residual=not last)
            maps.append(x)
    return maps[1:]


def focus(graph: Graph, image: Tensor) -> Tensor:
    """Each 2x2 patch of pixels as channels of one, [batch, 12, side / 2, side / 2]."""

    def every_second(x: Tensor, axis: int, start: int) -> Tensor:
        starts, ends, axes, steps = (graph.constant(np.array([number])) for number in (start, 2**31 - 1, axis, 2))
        return graph.op("Slice", x, starts, ends, axes, steps)

    with graph.scope("focus"):
        patches = [
            every_second(every_second(image, 2, row), 3, column) for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))
        ]
        return graph.op("Concat", *patches, axis=1)


def _pool_pyramid(graph: Graph, x: Tensor, channels: int) -> Tensor:
    """Maxima over neighbourhoods of three sizes, mixed."""
    with graph.scope("spp"):
        x = conv_silu(graph, "conv1", x, channels // 2)
        pooled = [
            graph.op("MaxPool", x, kernel_shape=[width, width], strides=[1, 1], pads=[width // 2] * 4)
            for width in (5, 9, 13)
        ]
        return conv_silu(graph, "conv2", graph.op("Concat", x, *pooled, axis=1), channels)


def _cross_stage(graph: Graph, x: Tensor, channels: int, blocks: int, *, residual: bool) -> Tensor:
    """Half of the channels through `blocks` bottlenecks, half around them."""
    half = channels // 2
    with graph.scope("csp"):
        short = conv_silu(graph, "short", x, half)
        main = conv_silu(graph, "main", x, half)
        for block in range(blocks):
            with graph.scope(f"block{block}"):
                y = conv_silu(graph, "conv1", main, half)
                y = conv_silu(graph, "conv2", y, half, kernel=3)
                main = graph.op("Add", y, main) if residual else y
        return conv_silu(graph, "final", graph.op("Concat", main, short, axis=1), channels)
