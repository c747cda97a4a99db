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

OPSET = 12
"""The first opset in which GatherND knows batches; the public exports of RTMO are of opset 11."""
IR_VERSION = 8
CONSTANT_PREFIX = "constant/"
"""Begins the name of each initializer that nobody trains."""

Attribute: TypeAlias = "int | str | Sequence[int]"
Dimension: TypeAlias = "int | str"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An edge of the graph."""

    name: str
    value: Array | None
    """What flows there for the graph's example input; None downstream of an operator without kernel."""

    @property
    def example(self) -> Array:
        """The value, where there has to be one. Raises ValueError otherwise."""
        if self.value is None:
            message = f"{self.name} has no value: an operator upstream of it is not among the kernels"
            raise ValueError(message)
        return self.value


class Graph:
    """Nodes and initializers in the order in which they were added, named after the scopes they were added in."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Start an empty graph that draws its weights from `rng`."""
        self.rng = rng
        self.initializers: dict[str, Array] = {}
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

    def weight(self, name: str, value: Array) -> Tensor:
        """Add an initializer that training would have made, as float32."""
        return self._initializer("/".join([*self._scopes, name]), value.astype(np.float32))

    def constant(self, value: Array | float) -> Tensor:
        """Add an initializer that is no parameter of the model: integers as int64, all else as float32."""
        array = np.asarray(value)
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        return self._initializer(f"{CONSTANT_PREFIX}{len(self.initializers)}", array.astype(kind))

    def op(
        self,
        kind: str,
        *inputs: Tensor | Array | float,
        name: str | None = None,
        value: Array | None = None,
        **attributes: Attribute,
    ) -> Tensor:
        """Add a node with one output: a tensor called `name`, whose value need not be computed if it is given."""
        operands = self._operands(inputs)
        if value is None:
            (value,) = self._compute(kind, operands, 1, attributes)
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
        graph = helper.make_graph(
            self._nodes,
            "rtmo",
            self._inputs,
            [helper.make_tensor_value_info(x.name, TensorProto.FLOAT, shape) for x, shape in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.initializers.items()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="build_rtmo")

    def _initializer(self, name: str, value: Array) -> Tensor:
        self.initializers[name] = value
        return Tensor(name, value)

    def _add(
        self,
        kind: str,
        name: str,
        operands: Sequence[Tensor],
        outputs: Sequence[str],
        attributes: Mapping[str, Attribute],
    ) -> None:
        node = helper.make_node(kind, [x.name for x in operands], outputs, name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
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
