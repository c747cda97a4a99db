"""A graph under construction: every operator is written down as an ONNX node and, where it can be, computed at once."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .kernels import KERNELS, Array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

IR_VERSION = 8
CONSTANT_PREFIX = "constant/"
"""Begins the name of each constant that nobody trains."""
_INPUTS_SINCE_13 = {"ReduceSum": "axes", "Split": "split", "Squeeze": "axes", "Unsqueeze": "axes"}
"""Attributes that opset 13 made inputs, by operator."""

Attribute: TypeAlias = "int | float | str | Sequence[int] | TensorProto"
Dimension: TypeAlias = "int | str"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a graph is written down."""

    opset: int
    constant_nodes: bool = False
    """Constants stand as nodes rather than as initializers."""
    folds: bool = False
    """What depends on constants and known shapes alone is not written down but computed."""


PLAIN = Dialect(opset=12)
"""The first opset in which GatherND knows batches; the public exports of RTMO are of opset 11."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An edge of the graph."""

    name: str
    value: Array | None
    """What flows there for the graph's example input; None downstream of an operator without kernel."""
    constant: bool = False
    """Whether that flows there for every input."""

    @property
    def example(self) -> Array:
        """The value, where there has to be one. Raises ValueError otherwise."""
        if self.value is None:
            message = f"{self.name} has no value: an operator upstream of it is not among the kernels"
            raise ValueError(message)
        return self.value


class Graph:
    """Nodes and initializers in the order in which they were added, named after the scopes they were added in."""

    def __init__(self, rng: np.random.Generator, dialect: Dialect = PLAIN) -> None:
        """Start an empty graph that draws its weights from `rng`."""
        self.rng = rng
        self.dialect = dialect
        self.initializers: dict[str, Array] = {}
        self._shared: dict[str, Tensor] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._scopes: list[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name` before the name of everything added inside."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def input(self, name: str, value: Array, shape: Sequence[Dimension]) -> Tensor:
        """Add a float32 input to the graph, of which `value` is an example."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return Tensor(name, value)

    def weight(self, name: str, value: Array, *, computed: bool = False) -> Tensor:
        """Add a float32 initializer that training would have made, or a constant where it was `computed` from one."""
        name, value = "/".join([*self._scopes, name]), value.astype(np.float32)
        return self._constant(name, value) if computed else self._initializer(name, value)

    def constant(self, value: Array | float) -> Tensor:
        """Add a constant that is no parameter of the model: integers as int64, all else as float32."""
        return self._constant(f"{CONSTANT_PREFIX}{self._unused_number()}", _typed(value))

    def table(self, value: Array) -> Tensor:
        """Add a constant that is an initializer in every dialect."""
        return self._initializer(f"{CONSTANT_PREFIX}{self._unused_number()}", _typed(value))

    def shared(self, name: str, value: Array | float) -> Tensor:
        """Return the constant of that name, which is added the first time that it is asked for."""
        if name not in self._shared:
            self._shared[name] = self.constant(value)
        return self._shared[name]

    def op(
        self,
        kind: str,
        *inputs: Tensor | Array | float,
        name: str | None = None,
        example: Array | None = None,
        **attributes: Attribute,
    ) -> Tensor:
        """Add a node with one output: a tensor called `name`, of which the value is computed or is `example`."""
        operands = self._operands(inputs)
        value = self._compute(kind, operands, 1, attributes)[0] if example is None else example
        if value is not None and self._folds(kind, operands):
            return self.constant(value)
        name = name or self._node_name(kind)
        self._add(kind, name, operands, [name], attributes)
        return Tensor(name, value)

    def ops(
        self, kind: str, *inputs: Tensor | Array | float, outputs: int, **attributes: Attribute
    ) -> tuple[Tensor, ...]:
        """Add a node with several outputs."""
        operands = self._operands(inputs)
        values = self._compute(kind, operands, outputs, attributes)
        name = self._node_name(kind)
        names = [f"{name}:{index}" for index in range(outputs)]
        self._add(kind, name, operands, names, attributes)
        return tuple(Tensor(*edge) for edge in zip(names, values, strict=True))

    def model(self, outputs: Sequence[tuple[Tensor, Sequence[Dimension]]]) -> onnx.ModelProto:
        """Finish the model, with these float32 tensors, of these shapes, as its outputs."""
        used = {name for node in self._nodes for name in node.input}
        graph = helper.make_graph(
            [node for node in self._nodes if node.op_type != "Constant" or node.output[0] in used],
            "rtmo",
            self._inputs,
            [helper.make_tensor_value_info(x.name, TensorProto.FLOAT, shape) for x, shape in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.initializers.items()],
        )
        opsets = [helper.make_opsetid("", self.dialect.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="build_rtmo")

    def _initializer(self, name: str, value: Array) -> Tensor:
        self.initializers[name] = value
        return Tensor(name, value)

    def _constant(self, name: str, value: Array) -> Tensor:
        if self.dialect.constant_nodes:
            self._nodes.append(helper.make_node("Constant", [], [name], name, value=numpy_helper.from_array(value)))
        else:
            self.initializers[name] = value
        return Tensor(name, value, constant=True)

    def _unused_number(self) -> int:
        """Return a number that no constant before had."""
        return len(self.initializers) + (len(self._nodes) if self.dialect.constant_nodes else 0)

    def _folds(self, kind: str, operands: Sequence[Tensor]) -> bool:
        return self.dialect.folds and (kind == "Shape" or all(x.constant for x in operands))

    def _add(
        self,
        kind: str,
        name: str,
        operands: Sequence[Tensor],
        outputs: Sequence[str],
        attributes: Mapping[str, Attribute],
    ) -> None:
        moved = _INPUTS_SINCE_13.get(kind) if self.dialect.opset >= 13 else None  # noqa: PLR2004 - see above
        names = [x.name for x in operands]
        if moved is not None:
            names.append(self.constant(np.array(attributes[moved])).name)
        node = helper.make_node(kind, names, outputs, name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items() if key != moved)
        self._nodes.append(node)

    def _operands(self, inputs: Sequence[Tensor | Array | float]) -> list[Tensor]:
        return [x if isinstance(x, Tensor) else self.constant(x) for x in inputs]

    def _node_name(self, kind: str) -> str:
        return "/".join([*self._scopes, f"{kind}_{len(self._nodes)}"])

    @staticmethod
    def _compute(
        kind: str, operands: Sequence[Tensor], outputs: int, attributes: Mapping[str, Attribute]
    ) -> Sequence[Array | None]:
        values = [x.value for x in operands if x.value is not None]
        if kind not in KERNELS or len(values) < len(operands):
            return [None] * outputs
        result = KERNELS[kind](*values, **attributes)
        return result if isinstance(result, list) else [result]


def _typed(value: Array | float) -> Array:
    array = np.asarray(value)
    return array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
