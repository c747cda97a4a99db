"""Which axis of a tensor are its rows, and whether no row knows of another.

What a suppression keeps is a number of rows that changes from call to call. The shapes of everything behind it follow
from that number: supposing several numbers tells how. Where each row is computed from itself alone, rows may be added
behind the others and what becomes of them left away: then one number of rows serves for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from rtmo_optuna.engine.folding import dimensions
from rtmo_optuna.engine.static import Analysis, hosted, reads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence  # noqa: TC004 - no codec reads Rows

    from numpy.typing import NDArray
    from onnx import NodeProto  # noqa: TC004 - as above

    from rtmo_optuna.engine.finish import Division

_MOST = 64
"""Rows of one graph: more are done in several turns. As many fit into the small kernels of a tail at no cost."""
_BOXES = 10_000
"""No more are supposed to be kept by one suppression: what follows is limited, or in turns anyway."""
_FEW = (1, 2)
_UNLIKE = 3
"""By which the numbers that are supposed for two suppressions of a model differ: they keep different numbers."""
_ELEMENTWISE = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr Cast CastLike Ceil Celu Clip Cos "
    "Cosh Div Elu Equal Erf Exp Expand Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf "
    "IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu "
    "Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor"
)
_RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


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


class _Place(NamedTuple):
    """Where the rows are: the axis, and how many times their number it is long.

    An axis of several times their number is that of rows and the axes before them in one: a batch, mostly. All that is
    asked of it is that it is taken apart again as it was put together. No other way of following the number is known:
    then the axis is -1.
    """

    axis: int
    times: int


_UNCLEAR = _Place(-1, 0)


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


def _axes(few: Sequence[Analysis], handed: Iterable[str]) -> dict[str, _Place]:
    """Return where the rows of each tensor are that has any: the only axis whose size follows their number."""
    one, two = (analysis.types for analysis in few)
    sizes = {_sizes(one[name], two[name]) for name in handed if name in one and name in two} - {None}
    if len(sizes) > 1:
        message = "what is handed over has different numbers of rows"
        raise _MixedError(message)
    rows = next(iter(sizes), None)
    axes = {}
    for name in one.keys() & two.keys():
        before, after = dimensions(one[name]), dimensions(two[name])
        if before is not None and after is not None and before != after:
            axes[name] = _place(before, after, rows)
    if unclear := next((name for name in handed if axes.get(name, _Place(0, 1)).times != 1), None):
        message = f"the shape of {unclear}, which is handed over, does not follow the number of rows"
        raise _MixedError(message)
    return axes


def _place(before: tuple[int, ...], after: tuple[int, ...], rows: tuple[int, int] | None) -> _Place:
    """Return where the rows are of a tensor that has one shape or the other where there are so many `rows`."""
    differ = [axis for axis, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]]
    if rows is None or len(before) != len(after) or len(differ) != 1:
        return _UNCLEAR
    (axis,) = differ
    times = before[axis] // rows[0]
    return _Place(axis, times) if (before[axis], after[axis]) == (times * rows[0], times * rows[1]) else _UNCLEAR


def _sizes(one: Any, two: Any) -> tuple[int, int] | None:  # noqa: ANN401 - TypeProto
    """Return the two sizes of the first axis that differs."""
    before, after = dimensions(one) or (), dimensions(two) or ()
    return next((pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]), None)


def _count(analysis: Analysis, handed: Iterable[str], axes: Mapping[str, _Place]) -> int:
    counts = set()
    for name in handed:
        shape = dimensions(analysis.types.get(name))
        if shape is None:
            message = f"the shape of {name}, which is handed over, does not follow from a number of boxes"
            raise _MixedError(message)
        if name in axes:
            counts.add(shape[axes[name].axis])
    if len(counts) > 1:
        message = "what is handed over has different numbers of rows"
        raise _MixedError(message)
    return max(1, *counts) if counts else 1


def _nodes(analysis: Analysis, division: Division, outputs: Sequence[str]) -> tuple[NodeProto, ...]:
    """Return the nodes of `division.finish` that are not computed ahead once the number of rows is fixed."""
    wanted = {name for node in division.finish for name in node.output}
    if late := next((node for node in analysis.dynamic if not wanted.isdisjoint(node.output)), None):
        message = f"the shapes of {_named(late)} do not follow from the number of rows"
        raise _MixedError(message)
    nodes = tuple(node for node in analysis.static if not wanted.isdisjoint(node.output))
    made = {name for node in nodes for name in node.output}
    if constant := next((name for name in outputs if name not in made), None):
        message = f"the output {constant} follows from the number of rows alone"
        raise _MixedError(message)
    return nodes


def _check(nodes: Iterable[NodeProto], few: Sequence[Analysis], most: Analysis, axes: Mapping[str, _Place]) -> None:
    """Raise _MixedError at the first node that brings rows together, loses them or counts them."""
    view = _View(most, axes)
    for node in nodes:
        told = [name for name in node.input if name and name not in hosted(node)]
        given = [name for name in node.output if name]
        for name in told:
            _check_constant(node, name, [*few, most], axes)
        rows = [axes[name] for name in (*told, *given) if name in axes]
        if not rows or (node.op_type == "Expand" and axes.keys().isdisjoint(told)):
            continue
        lost = axes.keys().isdisjoint(told) or not axes.keys() >= set(given)
        torn = _UNCLEAR in rows or (node.op_type not in _RESHAPING and len({place.times for place in rows}) > 1)
        rule = _RULES.get(node.op_type)
        if lost or torn or rule is None or not rule(node, view):
            message = f"{_named(node)} brings rows together, or is not known not to"
            raise _MixedError(message)


def _check_constant(node: NodeProto, name: str, analyses: Sequence[Analysis], axes: Mapping[str, _Place]) -> None:
    """Refuse a constant that counts rows or tells one from another."""
    values = [_value(analysis, name) for analysis in analyses]
    if name in axes:
        alike = all(v is None or bool((v == v.take([0], axes[name].axis)).all()) for v in values)
    else:
        alike = all(a is None or b is None or bool((a == b).all()) for a, b in pairwise(values))
    if not alike:
        message = f"{_named(node)} is told how many rows there are"
        raise _MixedError(message)


def _value(analysis: Analysis, name: str) -> NDArray[Any] | None:
    """Return the constant `name` where it was computed from shapes, as no weight of the model was."""
    from onnx import numpy_helper  # noqa: PLC0415

    tensor = analysis.constants.get(name)
    return None if tensor is None or name not in analysis.folded else numpy_helper.to_array(tensor)


@dataclass(frozen=True, slots=True)
class _View:
    """What a rule looks at."""

    analysis: Analysis
    axes: Mapping[str, _Place]

    def shape(self, name: str) -> tuple[int, ...]:
        return dimensions(self.analysis.types[name]) or ()

    def axis(self, name: str) -> int | None:
        return self.axes[name].axis if name in self.axes else None

    def from_end(self, name: str) -> int | None:
        return self.axes[name].axis - len(self.shape(name)) if name in self.axes else None

    def before(self, name: str) -> int:
        """Return how many times all rows follow one another: once for each of what the axes before them count."""
        return math.prod(self.shape(name)[: self.axes[name].axis]) * self.axes[name].times

    def numbers(self, node: NodeProto, attribute: str, place: int) -> list[int] | None:
        """Return what is an attribute in old versions of an operator, and an input in new ones; None where missing."""
        from onnx import helper, numpy_helper  # noqa: PLC0415

        for held in node.attribute:
            if held.name == attribute:
                value = helper.get_attribute_value(held)
                return [int(v) for v in (value if isinstance(value, list | tuple) else [value])]
        name = node.input[place] if 0 <= place < len(node.input) else ""
        if name not in self.analysis.constants:
            return None
        return [int(v) for v in numpy_helper.to_array(self.analysis.constants[name]).reshape(-1)]


def _aligned(node: NodeProto, view: _View) -> bool:
    places = {view.from_end(name) for name in (*node.input, *node.output) if name in view.axes}
    return len(places) == 1


def _reshapes(node: NodeProto, view: _View) -> bool:
    return view.before(node.input[0]) == view.before(node.output[0])


def _transposes(node: NodeProto, view: _View) -> bool:
    rank = len(view.shape(node.input[0]))
    order = view.numbers(node, "perm", -1) or [*reversed(range(rank))]
    return order[view.axes[node.output[0]].axis] == view.axes[node.input[0]].axis


def _multiplies(node: NodeProto, view: _View) -> bool:
    left, right = (view.from_end(name) for name in node.input[:2])
    if node.op_type == "Gemm":
        plain = not (view.numbers(node, "transA", -1) or [0])[0]
        bias = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004 - C
        return plain and left == -2 and right is None and view.from_end(bias) in (None, -2)  # noqa: PLR2004
    kept = view.from_end(node.output[0])
    if left is not None and right is not None:
        return left == right == kept and left < -2  # noqa: PLR2004 - a product of matrices, row by row
    return left == kept if right is None else right == kept


def _joins(node: NodeProto, view: _View) -> bool:
    axis = (view.numbers(node, "axis", -1) or [0])[0] % len(view.shape(node.output[0]))
    places = {view.axis(name) for name in (*node.input, *node.output)}
    return len(places) == 1 and axis not in places


def _elsewhere(*, attribute: str, place: int, default: int | None) -> Callable[[NodeProto, _View], bool]:
    """Return a rule for operators that act along axes, given as an attribute or an input: not along the rows."""

    def rule(node: NodeProto, view: _View) -> bool:
        rank, row = len(view.shape(node.input[0])), view.axis(node.input[0])
        found = view.numbers(node, attribute, place)
        if found is None and default is None:
            return False
        along = {axis % rank for axis in (found if found is not None else [default or 0])}
        return row is not None and row not in along

    return rule


def _softens(node: NodeProto, view: _View) -> bool:
    """Before opset 13 all axes from `axis` on are one; a rule that holds for both."""
    rank, row = len(view.shape(node.input[0])), view.axis(node.input[0])
    found = view.numbers(node, "axis", -1)
    return row is not None and row < (found[0] % rank if found else min(1, rank - 1))


def _gathers(node: NodeProto, view: _View) -> bool:
    data, places = (view.axis(name) for name in node.input[:2])
    axis = (view.numbers(node, "axis", -1) or [0])[0] % len(view.shape(node.input[0]))
    if data is None:
        return view.axis(node.output[0]) == axis + (places or 0)
    return places is None and data != axis


def _gathers_tuples(node: NodeProto, view: _View) -> bool:
    data, places = (view.axis(name) for name in node.input[:2])
    return data is None and places == view.axis(node.output[0])


def _tiles(node: NodeProto, view: _View) -> bool:
    return view.axis(node.input[0]) == view.axis(node.output[0])


_RULES: Mapping[str, Callable[[NodeProto, _View], bool]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _aligned),
    **dict.fromkeys(_RESHAPING, _reshapes),
    **{
        f"Reduce{kind}": _elsewhere(attribute="axes", place=1, default=None)
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    **dict.fromkeys(("ArgMax", "ArgMin"), _elsewhere(attribute="axis", place=-1, default=0)),
    **dict.fromkeys(("TopK", "LpNormalization"), _elsewhere(attribute="axis", place=-1, default=-1)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization"), _softens),
    "Concat": _joins,
    "CumSum": _elsewhere(attribute="", place=1, default=None),
    "Gather": _gathers,
    "GatherND": _gathers_tuples,
    "Gemm": _multiplies,
    "MatMul": _multiplies,
    "Slice": _elsewhere(attribute="axes", place=3, default=None),
    "Split": _elsewhere(attribute="axis", place=-1, default=0),
    "Tile": _tiles,
    "Transpose": _transposes,
}
"""Whether a node, with rows in and out, keeps each to itself; an operator that is not here is not known to."""


def _named(node: NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"
