"""Whether an operator keeps each row to itself: a table of operators, and where the rows of its tensors are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rtmo_optuna.engine.cutting.folding import dimensions
from rtmo_optuna.engine.cutting.static import Analysis

if TYPE_CHECKING:
    from onnx import NodeProto

_ELEMENTWISE = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr Cast CastLike Ceil Celu Clip Cos "
    "Cosh Div Elu Equal Erf Exp Expand Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf "
    "IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu "
    "Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor"
)
RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


class Place(NamedTuple):
    """Where the rows are: the axis, and how many times their number it is long.

    An axis of several times their number is that of rows and the axes before them in one: a batch, mostly. All that is
    asked of it is that it is taken apart again as it was put together. No other way of following the number is known:
    then the axis is -1.
    """

    axis: int
    times: int


UNCLEAR = Place(-1, 0)


@dataclass(frozen=True, slots=True)
class View:
    """What a rule looks at."""

    analysis: Analysis
    axes: Mapping[str, Place]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, for some number of rows."""
        return dimensions(self.analysis.types[name]) or ()

    def axis(self, name: str) -> int | None:
        """Return which axis the rows are, None where there are none."""
        return self.axes[name].axis if name in self.axes else None

    def from_end(self, name: str) -> int | None:
        """Return the same counted from the last axis, -1, on."""
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


def _aligned(node: NodeProto, view: View) -> bool:
    places = {view.from_end(name) for name in (*node.input, *node.output) if name in view.axes}
    return len(places) == 1


def _transposes(node: NodeProto, view: View) -> bool:
    rank = len(view.shape(node.input[0]))
    order = view.numbers(node, "perm", -1) or [*reversed(range(rank))]
    return order[view.axes[node.output[0]].axis] == view.axes[node.input[0]].axis


def _multiplies(node: NodeProto, view: View) -> bool:
    left, right = (view.from_end(name) for name in node.input[:2])
    if node.op_type == "Gemm":
        plain = not (view.numbers(node, "transA", -1) or [0])[0]
        bias = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004 - C
        return plain and left == -2 and right is None and view.from_end(bias) in (None, -2)  # noqa: PLR2004
    kept = view.from_end(node.output[0])
    if left is not None and right is not None:
        return left == right == kept and left < -2  # noqa: PLR2004 - a product of matrices, row by row
    return left == kept if right is None else right == kept


def _joins(node: NodeProto, view: View) -> bool:
    axis = (view.numbers(node, "axis", -1) or [0])[0] % len(view.shape(node.output[0]))
    places = {view.axis(name) for name in (*node.input, *node.output)}
    return len(places) == 1 and axis not in places


def _elsewhere(*, attribute: str, place: int, default: int | None) -> Callable[[NodeProto, View], bool]:
    """Return a rule for operators that act along axes, given as an attribute or an input: not along the rows."""

    def rule(node: NodeProto, view: View) -> bool:
        rank, row = len(view.shape(node.input[0])), view.axis(node.input[0])
        found = view.numbers(node, attribute, place)
        if found is None and default is None:
            return False
        along = {axis % rank for axis in (found if found is not None else [default or 0])}
        return row is not None and row not in along

    return rule


def _softens(node: NodeProto, view: View) -> bool:
    """Before opset 13 all axes from `axis` on are one; a rule that holds for both."""
    rank, row = len(view.shape(node.input[0])), view.axis(node.input[0])
    found = view.numbers(node, "axis", -1)
    return row is not None and row < (found[0] % rank if found else min(1, rank - 1))


def _gathers(node: NodeProto, view: View) -> bool:
    data, places = (view.axis(name) for name in node.input[:2])
    axis = (view.numbers(node, "axis", -1) or [0])[0] % len(view.shape(node.input[0]))
    if data is None:
        return view.axis(node.output[0]) == axis + (places or 0)
    return places is None and data != axis


def _gathers_tuples(node: NodeProto, view: View) -> bool:
    data, places = (view.axis(name) for name in node.input[:2])
    return data is None and places == view.axis(node.output[0])


RULES: Mapping[str, Callable[[NodeProto, View], bool]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _aligned),
    **dict.fromkeys(RESHAPING, lambda node, view: view.before(node.input[0]) == view.before(node.output[0])),
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
    "Tile": lambda node, view: view.axis(node.input[0]) == view.axis(node.output[0]),
    "Transpose": _transposes,
}
"""Whether a node, with rows in and out, keeps each to itself; an operator that is not here is not known to."""
