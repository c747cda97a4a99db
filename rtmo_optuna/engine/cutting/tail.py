"""Where the tail of a model ends whose shapes depend on values: what follows can be captured once for each shape.

A tail begins with what a CUDA graph cannot hold, such as a suppression that keeps any number of boxes, and mostly goes
on with nodes that only need to know how many there are. Given the shapes of what is handed to these, all their shapes
are fixed, so that they fit into one CUDA graph for each number of boxes.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtmo_optuna.engine.cutting.static import OBSTACLES, has_bodies, hosted, needed, reads

if TYPE_CHECKING:
    from onnx import NodeProto, TypeProto

_FEWEST = 10
"""Fewer nodes are not worth a session, nor the copies of what is handed over, which cost the time of some nodes."""
_MEASURES = frozenset({"Shape", "Size"})
_LIMITERS = frozenset({"Slice", "TopK"})
"""They mostly bring any number of rows to few numbers, as the best 50 do: behind them there are fewer shapes."""
_COPIED = "BOOL FLOAT FLOAT16 DOUBLE INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64"


@dataclass(frozen=True, slots=True)
class Division:
    """A tail in two: `select` and `finish` in the model's order, and the tensors `handed` from the one to the other."""

    select: tuple[NodeProto, ...]
    finish: tuple[NodeProto, ...]
    handed: tuple[str, ...]


def divide(tail: Sequence[NodeProto], known: Container[str], types: Mapping[str, TypeProto]) -> Division | None:
    """Return `tail` divided where the fewest tensors are handed over and, among such places, the earliest.

    `known` holds the constants, `types` what is known of the tensors that the nodes give. None where what could be
    captured is not worth it, or needs a number on the host that is computed before. At least half of the nodes that
    could be captured are: a place with few tensors at the very end is of no use.
    """
    counted = _counted(tail, known)
    staying = {name for node in tail if _must_stay(node, known, counted) for name in node.output}
    before = {id(node) for node in needed(tail, staying)}
    first = {place for place, node in enumerate(tail) if id(node) in before}
    rest = [place for place in range(len(tail)) if place not in first]
    best: Division | None = None
    for taken in range(min(len(rest) - _FEWEST, len(rest) // 2) + 1):
        chosen = first.union(rest[:taken])
        select = tuple(node for place, node in enumerate(tail) if place in chosen)
        finish = tuple(node for place, node in enumerate(tail) if place not in chosen)
        used = {name for node in finish for name in reads(node)}
        handed = tuple(name for node in select for name in node.output if name in used)
        if (best is None or len(handed) < len(best.handed)) and all(
            name not in counted and _is_copied(types.get(name)) for name in handed
        ):
            best = Division(select, finish, handed)
    return best


def _must_stay(node: NodeProto, known: Container[str], counted: Container[str]) -> bool:
    """Whether no CUDA graph can hold `node`, or fewer graphs are needed if none does."""
    asked = [name for name in hosted(node) if name not in known]
    return (
        node.op_type in OBSTACLES
        or has_bodies(node)
        or any(name not in counted for name in asked)
        or bool(asked and node.op_type in _LIMITERS)
    )


def _counted(tail: Sequence[NodeProto], known: Container[str]) -> set[str]:
    """Return the tensors that follow from shapes and constants alone, which ONNX Runtime computes on the host."""
    counted: set[str] = set()
    for node in tail:
        asked = [name for name in reads(node) if name not in known]
        if node.op_type in _MEASURES or (asked and counted.issuperset(asked)):
            counted.update(node.output)
    return counted


def _is_copied(kind: TypeProto | None) -> bool:
    """Whether NumPy has the type, through which tensors are handed over."""
    if kind is None or not kind.HasField("tensor_type"):
        return False
    from onnx import TensorProto  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    return TensorProto.DataType.Name(kind.tensor_type.elem_type) in _COPIED.split()
