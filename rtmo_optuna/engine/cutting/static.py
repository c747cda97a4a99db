"""Which nodes of a model a CUDA graph can hold, once the shapes of the inputs are fixed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rtmo_optuna.engine.cutting.folding import FOLDED_BYTES, dimensions, fold, sizes, unwrapped
from rtmo_optuna.engine.graph import bodies
from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

_DATA_DEPENDENT = "NonMaxSuppression NonZero Unique Compress TfIdfVectorizer StringSplit"
_CONTROL_FLOW = "If Loop Scan SequenceMap"
_CONTAINERS = (
    "SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SequenceAt SequenceLength SplitToSequence "
    "ConcatFromSequence Optional OptionalHasElement OptionalGetElement"
)
_RANDOM = "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"  # repeat when replayed
_CPU_ONLY = (  # have no CUDA kernel, by ONNX Runtime's docs/OperatorKernels.md
    "Acos Acosh AffineGrid Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow "
    "Col2Im ConvInteger Cosh DFT Det DynamicQuantizeLinear GlobalLpPool HammingWindow HannWindow Hardmax ImageDecoder "
    "LabelEncoder LpPool MaxRoiPool MaxUnpool Mean MelWeightMatrix QLinearConv QLinearMatMul RegexFullMatch STFT Sinh "
    "StringConcat StringNormalizer Tan"
)
OBSTACLES = frozenset(f"{_DATA_DEPENDENT} {_CONTROL_FLOW} {_CONTAINERS} {_RANDOM} {_CPU_ONLY}".split())
"""Operators that a CUDA graph cannot hold, or would hold wrongly."""

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
_HOST_INPUTS: Mapping[str, Sequence[int]] = {  # what ONNX Runtime's CUDA kernels read on the host
    "CenterCropPad": (1,),
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Dropout": (1, 2),
    "Expand": (1,),
    "OneHot": (1, 2),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **{f"Reduce{reduction}": (1,) for reduction in _REDUCTIONS},
}


@dataclass(frozen=True, slots=True)
class Analysis:
    """A model with fixed input shapes, in which whatever follows from shapes and constants alone is computed.

    `static` nodes can run in a CUDA graph: their outputs have known shapes, and nothing they need is computed on the
    host. `dynamic` nodes cannot, or need something of a node that cannot. `constant` nodes depend on no input, but are
    too large or too inexact to be computed ahead. All are in the model's order. `inputs` are the model's, in order;
    `types` holds the type and the full shape of everything that is not dynamic, `constants` the initializers and what
    was computed, whose names are in `folded`.
    """

    static: tuple[NodeProto, ...]
    dynamic: tuple[NodeProto, ...]
    constant: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    types: Mapping[str, TypeProto]
    constants: Mapping[str, TensorProto]
    folded: frozenset[str]


def analyse(
    model: ModelProto,
    shapes: Mapping[str, Sequence[int]],
    base: Path,
    supposed: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Analysis:
    """Return which nodes of `model`, which has no functions and its external weights in the folder `base`, are static.

    Reads no weights but the small ones that shapes are computed from. `shapes` fixes the inputs that have free
    dimensions. `supposed` are shapes that outputs of dynamic nodes are supposed to have, by name: what follows from
    these is static then. Raises UsageError where a shape does not fit its input, or is missing.
    """
    walk = _Walk(model, base, supposed)
    inputs = {value.name: value.type for value in model.graph.input if value.name not in walk.constants}
    for name in shapes:
        if name not in inputs:
            raise UsageError(f"A shape is given for {name!r}, but the model's inputs are {', '.join(inputs)}.")
    walk.types.update({name: _fixed(name, kind, shapes.get(name)) for name, kind in inputs.items()})
    kinds: dict[str, list[NodeProto]] = {"static": [], "dynamic": [], "constant": [], "folded": []}
    waiting = [*reversed(model.graph.node)]
    while waiting:
        node = waiting.pop()
        taken = walk.branch(node)
        if taken is None:
            kinds[walk.visit(node)].append(node)
        else:
            waiting += reversed(taken)
    static, dynamic, constant = (tuple(kinds[kind]) for kind in ("static", "dynamic", "constant"))
    folded = frozenset(name for node in kinds["folded"] for name in node.output)
    return Analysis(static, dynamic, constant, tuple(inputs), walk.types, walk.constants, folded)


def forbidding(operators: Mapping[str, int]) -> dict[str, int]:
    """Return those of `operators`, which map names to counts, that a CUDA graph cannot hold."""
    return {name: count for name, count in operators.items() if name in OBSTACLES}


def reads(node: NodeProto) -> tuple[str, ...]:
    """Return the names that `node` needs from its graph, those inside its bodies included."""
    names = dict.fromkeys(name for name in node.input if name)
    for body in bodies(node):
        names.update(dict.fromkeys(_free(body)))
    return tuple(names)


def needed(nodes: Sequence[NodeProto], names: Iterable[str]) -> tuple[NodeProto, ...]:
    """Return those of `nodes` that `names` are computed with, in order."""
    wanted, kept = set(names), []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(reads(node))
    return tuple(reversed(kept))


def hosted(node: NodeProto) -> list[str]:
    """Return the inputs of `node` that ONNX Runtime reads on the host."""
    return [node.input[i] for i in _HOST_INPUTS.get(node.op_type, ()) if i < len(node.input) and node.input[i]]


def has_bodies(node: NodeProto) -> bool:
    """Whether `node` runs graphs of its own."""
    return next(bodies(node), None) is not None


class _Walk:
    """One pass over the nodes, in their order; keeps what is known of the tensors so far."""

    def __init__(self, model: ModelProto, base: Path, supposed: Mapping[str, Sequence[int]]) -> None:
        self._base, self._supposed = base, supposed
        self._opsets = list(model.opset_import)
        self._ir_version = model.ir_version
        self._declared = {value.name: value.type for value in (*model.graph.value_info, *model.graph.output)}
        self._without_inputs: set[str] = set()
        self.types: dict[str, TypeProto] = {}
        self.constants: dict[str, TensorProto] = {}
        for tensor in model.graph.initializer:
            self._add(tensor)

    def visit(self, node: NodeProto) -> str:
        """Return which of the kinds of Analysis `node` is, or "folded" where its outputs have become constants."""
        read = reads(node)
        obstacle = node.op_type in OBSTACLES or has_bodies(node)
        if obstacle or any(dimensions(self.types.get(name)) is None for name in read):
            self._suppose(node)
            return "dynamic"
        inferred = self._inferred(node)
        values = {name: self._value(name) for name in read}
        folded = fold(node, {**self.types, **inferred}, values, self._opsets)
        if folded is not None:
            for tensor in folded:
                self._add(tensor)
            return "folded"
        outputs = [name for name in node.output if name]
        if not self._without_inputs.issuperset(hosted(node)) or any(
            dimensions(inferred.get(n)) is None for n in outputs
        ):
            return "dynamic"
        self.types.update(inferred)
        if not self._without_inputs.issuperset(read):
            return "static"
        self._without_inputs.update(outputs)
        return "constant"

    def branch(self, node: NodeProto) -> list[NodeProto] | None:
        """Return the nodes that `node` stands for where it is an If of which one body is always taken."""
        taken = self._value(node.input[0]) if node.op_type == "If" else None
        if taken is None:
            return None
        name = "then_branch" if taken.item() else "else_branch"
        (body,) = (attribute.g for attribute in node.attribute if attribute.name == name)
        if any(has_bodies(inner) for inner in body.node):
            return None
        nodes, tensors = unwrapped(body, node.output)
        for tensor in tensors:
            self._add(tensor)
        return nodes

    def _suppose(self, node: NodeProto) -> None:
        from onnx import TensorProto, helper  # noqa: PLC0415

        for name in self._supposed.keys() & {*node.output}:  # of the operators for which shapes are supposed
            self.types[name] = helper.make_tensor_type_proto(TensorProto.INT64, self._supposed[name])

    def _add(self, tensor: TensorProto) -> None:
        from onnx import helper  # noqa: PLC0415

        self.constants[tensor.name] = tensor
        self.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        self._without_inputs.add(tensor.name)

    def _inferred(self, node: NodeProto) -> Mapping[str, TypeProto]:
        """Return the types of what `node` gives, as they follow from its inputs, else as the model declares them."""
        import onnx  # noqa: PLC0415

        version = next((o.version for o in self._opsets if _domain(o.domain) == _domain(node.domain)), 1)
        try:
            return onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, version, node.domain),
                node,
                {name: self.types[name] for name in node.input if name},
                {name: self.constants[name] for name in node.input if self._value(name) is not None},
                opset_imports=self._opsets,
                ir_version=self._ir_version,
            )
        except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, RuntimeError):
            return {name: self._declared[name] for name in node.output if name in self._declared}

    def _value(self, name: str) -> NDArray[Any] | None:
        """Return the constant `name`, read from its file where need be, if there is one and it is small."""
        from onnx import TensorProto, external_data_helper, numpy_helper  # noqa: PLC0415

        stored = self.constants.get(name)
        if stored is None or math.prod(stored.dims) * 8 > FOLDED_BYTES or stored.data_type == TensorProto.STRING:
            return None
        if stored.data_location == TensorProto.EXTERNAL:
            tensor = TensorProto()
            tensor.CopyFrom(stored)
            external_data_helper.load_external_data_for_tensor(tensor, str(self._base))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
            self.constants[name] = tensor
        return numpy_helper.to_array(self.constants[name])


def _domain(name: str) -> str:
    return name or "ai.onnx"


def _fixed(name: str, kind: TypeProto, shape: Sequence[int] | None) -> TypeProto:
    """Return `kind` with its free dimensions taken from `shape`; what is no tensor stays as it is."""
    from onnx import helper  # noqa: PLC0415

    if not kind.HasField("tensor_type"):
        return kind
    free = not kind.tensor_type.HasField("shape")
    declared = sizes(kind)
    if shape is None and not free and None not in declared:
        return kind
    if shape is None or not (free or _agree(declared, shape)):
        given = "but no shape is given" if shape is None else f"but the shape {tuple(shape)} is given"
        wanted = (
            "any shape"
            if free
            else "the shape (" + ", ".join("free" if size is None else str(size) for size in declared) + ")"
        )
        raise UsageError(f"The model's input {name!r} takes {wanted}, {given}: give one number for each dimension.")
    fixed: TypeProto = helper.make_tensor_type_proto(kind.tensor_type.elem_type, shape)
    return fixed


def _agree(declared: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(declared) == len(shape) and all(
        size >= 0 and known in (None, size) for known, size in zip(declared, shape, strict=True)
    )


def _free(body: GraphProto) -> Iterator[str]:
    """Yield the names that `body` uses and its surroundings define."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own.update(name for node in body.node for name in node.output)
    used = [*(name for node in body.node for name in reads(node)), *(value.name for value in body.output)]
    yield from (name for name in used if name not in own)
