"""A model's graph in regions that few tensors cross, so that one of them in another precision takes few casts."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from rtmo_optuna.engine.cutting.static import reads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from onnx import GraphProto, NodeProto

REGIONS = 20
"""So many regions a graph has, where it has nodes enough. What mixed settings name are places among them: another
number, or another way to choose them, changes what a configuration means."""
_MIXED = "mixed"


def regions(graph: GraphProto, names: Collection[str], count: int = REGIONS) -> tuple[tuple[NodeProto, ...], ...]:
    """Return the nodes that write `names`, in the graph's order, in at most `count` regions of nearly equal size.

    Each boundary is where the fewest of `names` cross, within half a region's size of where it would be even.
    """
    nodes = [node for node in graph.node if not set(names).isdisjoint(node.output)]
    crossing = _crossing(nodes, names)
    size, ends = max(1.0, len(nodes) / count), [0]
    for place in range(1, min(count, len(nodes))):
        window = range(max(ends[-1] + 1, round((place - 0.5) * size)), min(len(nodes), round((place + 0.5) * size) + 1))
        ends.append(min(window, key=lambda end: (crossing[end], abs(end - place * size))))
    return tuple(tuple(nodes[start:end]) for start, end in pairwise([*ends, len(nodes)]))


def _crossing(nodes: Sequence[NodeProto], names: Collection[str]) -> list[int]:
    """Return how many of `names` are written before each place between `nodes`, and read from there on."""
    last = {name: place for place, node in enumerate(nodes) for name in reads(node) if name in names}
    crossing, alive = [0], set[str]()
    for place, node in enumerate(nodes):
        alive.update(name for name in node.output if last.get(name, -1) > place)
        alive = {name for name in alive if last[name] > place}
        crossing.append(len(alive))
    return crossing


def written(places: Iterable[int]) -> str:
    """Return the precision in which the regions at `places` stay float32, as in `mixed 3 8-11`."""
    spans: list[list[int]] = []
    for place in sorted(places):
        if spans and place == spans[-1][-1] + 1:
            spans[-1][1:] = [place]
        else:
            spans.append([place])
    return " ".join([_MIXED, *("-".join(map(str, span)) for span in spans)])


def read(precision: str) -> frozenset[int]:
    """Return the places that `written` wrote; none for any other precision."""
    if not precision.startswith(f"{_MIXED} "):
        return frozenset()
    spans = (re.split("-", span) for span in precision.split()[1:])
    return frozenset(place for span in spans for place in range(int(span[0]), int(span[-1]) + 1))
