"""Which axis of a tensor are its rows, and whether no row knows of another.

What a suppression keeps is a number of rows that changes from call to call. The shapes of everything behind it follow
from that number: supposing several numbers tells how. Where each row is computed from itself alone, rows may be added
behind the others and what becomes of them left away: then one number of rows serves for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rtmo_optuna.engine.cutting.folding import dimensions
from rtmo_optuna.engine.cutting.rowwise import RESHAPING, RULES, UNCLEAR, Place, View
from rtmo_optuna.engine.cutting.static import Analysis, hosted, reads
from rtmo_optuna.engine.cutting.tail import Division

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import NodeProto

_MOST = 64
"""Rows of one graph: more are done in several turns. As many fit into the small kernels of a tail at no cost."""
_BOXES = 10_000
"""No more are supposed to be kept by one suppression: what follows is limited, or in turns anyway."""
_FEW = (1, 2)
_UNLIKE = 3
"""By which the numbers that are supposed for two suppressions of a model differ: they keep different numbers."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What follows a selection, made for `count` rows: its nodes, in order, and what is known of all tensors then.

    `axes` tells which axis of each tensor the rows are; a tensor that has none is not in it.
    """

    count: int
    nodes: tuple[NodeProto, ...]
    analysis: Analysis
    axes: Mapping[str, int]


def fix_rows(
    analysis: Analysis,
    suppose: Callable[[Mapping[str, Sequence[int]]], Analysis],
    division: Division,
    outputs: Sequence[str],
) -> Rows | str:
    """Return `division.finish`, which gives `outputs`, for a fixed number of rows; or why it cannot have one, in words.

    `analysis` is that of the whole model, `suppose` makes another one, with shapes that some tensors are supposed to
    have. The number of rows is the largest that the selection can hand over, but not over 64: where it hands over more,
    they take several turns.
    """
    found = _supposable(division, analysis)
    if isinstance(found, str):
        return found

    def numbers(boxes: int) -> Analysis:
        return suppose({name: shape(boxes + _UNLIKE * place) for place, (name, shape) in enumerate(found)})

    few = [numbers(number) for number in _FEW]
    most = numbers(_BOXES)
    try:
        axes = _axes(few, division.handed)
        count = _count(most, division.handed, axes)
        if count > _MOST:
            first = _count(few[0], division.handed, axes)
            most = numbers(_FEW[0] + _MOST - first)
            count = _count(most, division.handed, axes)
        nodes = _nodes(most, division, outputs)
        _check(nodes, few, most, axes)
    except _MixedError as error:
        return str(error)
    return Rows(count, nodes, most, {name: axes[name].axis for name in (*division.handed, *outputs) if name in axes})


class _MixedError(Exception):
    """Why rows are not rows, in words."""


def _supposable(division: Division, analysis: Analysis) -> list[tuple[str, Callable[[int], Sequence[int]]]] | str:
    """Return the tensors that make rows, with their shapes for a number of boxes; or what stands in the way."""
    known = {*analysis.types, *analysis.constants, *(name for node in analysis.constant for name in node.output)}
    found: list[tuple[str, Callable[[int], Sequence[int]]]] = []
    made: set[str] = set()
    for node in division.select:
        if node.op_type == "NonMaxSuppression":
            found.append((node.output[0], partial(_boxes, _limit(node, analysis))))
        elif node.op_type == "NonZero" and (shape := dimensions(analysis.types.get(node.input[0]))) is not None:
            found.append((node.output[0], partial(_places, shape)))
        elif known.issuperset(reads(node)) and made.isdisjoint(reads(node)):
            return f"{_named(node)} gives a number of rows that nothing is known of"
        made.update(node.output)
    return found


def _boxes(limit: int, kept: int) -> Sequence[int]:
    return min(kept, limit), 3


def _places(shape: Sequence[int], found: int) -> Sequence[int]:
    return len(shape), min(found, math.prod(shape))


def _limit(node: NodeProto, analysis: Analysis) -> int:
    """Return the most boxes that the suppression `node` can keep."""
    from onnx import numpy_helper  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    scores = dimensions(analysis.types.get(node.input[1]))
    name = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004 - max_output_boxes_per_class
    each = numpy_helper.to_array(analysis.constants[name]).item() if name in analysis.constants else _BOXES
    if scores is None:
        return _BOXES
    batch, classes, boxes = scores
    return max(1, min(_BOXES, batch * classes * min(int(each), boxes)))


def _axes(few: Sequence[Analysis], handed: Iterable[str]) -> dict[str, Place]:
    """Return where the rows of each tensor are that has any: the only axis whose size follows their number."""
    one, two = (analysis.types for analysis in few)
    sizes = {_sizes(one[name], two[name]) for name in handed if name in one and name in two} - {None}
    if len(sizes) > 1:
        raise _MixedError("what is handed over has different numbers of rows")
    rows = next(iter(sizes), None)
    axes = {}
    for name in one.keys() & two.keys():
        before, after = dimensions(one[name]), dimensions(two[name])
        if before is not None and after is not None and before != after:
            axes[name] = _place(before, after, rows)
    if unclear := next((name for name in handed if axes.get(name, Place(0, 1)).times != 1), None):
        raise _MixedError(f"the shape of {unclear}, which is handed over, does not follow the number of rows")
    return axes


def _place(before: tuple[int, ...], after: tuple[int, ...], rows: tuple[int, int] | None) -> Place:
    """Return where the rows are of a tensor that has one shape or the other where there are so many `rows`."""
    differ = [axis for axis, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]]
    if rows is None or len(before) != len(after) or len(differ) != 1:
        return UNCLEAR
    (axis,) = differ
    times = before[axis] // rows[0]
    return Place(axis, times) if (before[axis], after[axis]) == (times * rows[0], times * rows[1]) else UNCLEAR


def _sizes(one: Any, two: Any) -> tuple[int, int] | None:  # noqa: ANN401 - TypeProto
    """Return the two sizes of the first axis that differs."""
    before, after = dimensions(one) or (), dimensions(two) or ()
    return next((pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]), None)


def _count(analysis: Analysis, handed: Iterable[str], axes: Mapping[str, Place]) -> int:
    counts = set()
    for name in handed:
        shape = dimensions(analysis.types.get(name))
        if shape is None:
            raise _MixedError(f"the shape of {name}, which is handed over, does not follow from a number of boxes")
        if name in axes:
            counts.add(shape[axes[name].axis])
    if len(counts) > 1:
        raise _MixedError("what is handed over has different numbers of rows")
    return max(1, *counts) if counts else 1


def _nodes(analysis: Analysis, division: Division, outputs: Sequence[str]) -> tuple[NodeProto, ...]:
    """Return the nodes of `division.finish` that are not computed ahead once the number of rows is fixed."""
    wanted = {name for node in division.finish for name in node.output}
    if late := next((node for node in analysis.dynamic if not wanted.isdisjoint(node.output)), None):
        raise _MixedError(f"the shapes of {_named(late)} do not follow from the number of rows")
    nodes = tuple(node for node in analysis.static if not wanted.isdisjoint(node.output))
    made = {name for node in nodes for name in node.output}
    if constant := next((name for name in outputs if name not in made), None):
        raise _MixedError(f"the output {constant} follows from the number of rows alone")
    return nodes


def _check(nodes: Iterable[NodeProto], few: Sequence[Analysis], most: Analysis, axes: Mapping[str, Place]) -> None:
    """Raise _MixedError at the first node that brings rows together, loses them or counts them."""
    view = View(most, axes)
    for node in nodes:
        told = [name for name in node.input if name and name not in hosted(node)]
        given = [name for name in node.output if name]
        for name in told:
            _check_constant(node, name, [*few, most], axes)
        rows = [axes[name] for name in (*told, *given) if name in axes]
        if not rows or (node.op_type == "Expand" and axes.keys().isdisjoint(told)):
            continue
        lost = axes.keys().isdisjoint(told) or not axes.keys() >= set(given)
        torn = UNCLEAR in rows or (node.op_type not in RESHAPING and len({place.times for place in rows}) > 1)
        rule = RULES.get(node.op_type)
        if lost or torn or rule is None or not rule(node, view):
            raise _MixedError(f"{_named(node)} brings rows together, or is not known not to")


def _check_constant(node: NodeProto, name: str, analyses: Sequence[Analysis], axes: Mapping[str, Place]) -> None:
    """Refuse a constant that counts rows or tells one from another."""
    values = [_value(analysis, name) for analysis in analyses]
    if name in axes:
        alike = all(v is None or bool((v == v.take([0], axes[name].axis)).all()) for v in values)
    else:
        alike = all(a is None or b is None or bool((a == b).all()) for a, b in pairwise(values))
    if not alike:
        raise _MixedError(f"{_named(node)} is told how many rows there are")


def _value(analysis: Analysis, name: str) -> NDArray[Any] | None:
    """Return the constant `name` where it was computed from shapes, as no weight of the model was."""
    from onnx import numpy_helper  # noqa: PLC0415

    tensor = analysis.constants.get(name)
    return None if tensor is None or name not in analysis.folded else numpy_helper.to_array(tensor)


def _named(node: NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"
