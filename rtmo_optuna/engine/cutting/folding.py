"""What a node gives, computed ahead where it needs nothing but constants and shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto

FOLDED_BYTES = 2**20
"""No tensor is folded, or computed with, that is larger."""
_EXACT = (  # they move values or round correctly: NumPy's result is ONNX Runtime's to the last bit
    "Abs Add And Cast Ceil Concat ConstantOfShape Div Equal Expand Flatten Floor Gather GatherElements GatherND "
    "Greater GreaterOrEqual Identity Less LessOrEqual Max Min Mul Neg Not Or Reshape Slice Split Sqrt Squeeze Sub Tile "
    "Transpose Unsqueeze Where"
)
_EXACT_OF_INTEGERS = "CumSum Mod Range ReduceMax ReduceMin ReduceProd ReduceSum"  # of floats, the order matters
_OPERATORS = {False: frozenset(_EXACT.split()), True: frozenset(f"{_EXACT} {_EXACT_OF_INTEGERS}".split())}
"""What is computed ahead, by whether all inputs are integers."""
_TYPES = frozenset({"bool", "int32", "int64", "float32", "float64"})
_NOT_ON_GPU = (0, 8)  # undefined, string


def dimensions(kind: TypeProto | None) -> tuple[int, ...] | None:
    """Return the shape of `kind`, or None where it is not a tensor of numbers, or a dimension of it is not known."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    shape = sizes(kind)
    if kind.tensor_type.elem_type in _NOT_ON_GPU or None in shape:
        return None
    return tuple(size for size in shape if size is not None)


def sizes(kind: TypeProto) -> tuple[int | None, ...]:
    """Return the dimensions of a tensor, None for each that is free: named, not given, or, as some write it, -1."""
    return tuple(
        dimension.dim_value if dimension.HasField("dim_value") and dimension.dim_value >= 0 else None
        for dimension in kind.tensor_type.shape.dim
    )


def fold(
    node: NodeProto,
    types: Mapping[str, TypeProto],
    values: Mapping[str, NDArray[Any] | None],
    opsets: Sequence[OperatorSetIdProto],
) -> list[TensorProto] | None:
    """Return the outputs of `node` that have a name, in order, or None where they cannot be computed ahead exactly.

    `types` holds its inputs and outputs, as far as they are known; `values` its inputs, None where not constant.
    """
    if node.op_type == "Constant":
        return _constant(node)
    if node.op_type in ("Shape", "Size"):
        return _measured(node, dimensions(types.get(node.input[0])))
    return _evaluated(node, types, values, opsets)


def unwrapped(body: GraphProto, outputs: Sequence[str]) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes and the initializers of `body`, which has no bodies inside, to stand in its surroundings.

    They get names of their own, and what the body gives gets the names `outputs`.
    """
    from onnx import NodeProto, TensorProto, helper  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    inner = [*(tensor.name for tensor in body.initializer), *(name for node in body.node for name in node.output)]
    names = {name: f"{outputs[0]}/{name}" for name in inner if name}
    nodes, tensors = [], []
    for tensor in body.initializer:
        tensors.append(TensorProto())
        tensors[-1].CopyFrom(tensor)
        tensors[-1].name = names[tensor.name]
    for node in body.node:
        nodes.append(NodeProto())
        nodes[-1].CopyFrom(node)
        nodes[-1].input[:] = [names.get(name, name) for name in node.input]
        nodes[-1].output[:] = [names.get(name, name) for name in node.output]
    ends = zip((names.get(value.name, value.name) for value in body.output), outputs, strict=True)
    return [*nodes, *(helper.make_node("Identity", [given], [wanted]) for given, wanted in ends)], tensors


def _constant(node: NodeProto) -> list[TensorProto] | None:
    import numpy as np  # noqa: PLC0415 - needed here only
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    kinds: Mapping[str, type[np.generic]] = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    (attribute,) = node.attribute
    if attribute.name == "value" and attribute.t.data_type != TensorProto.STRING:
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return [tensor]
    if attribute.name not in kinds:
        return None
    value = np.asarray(helper.get_attribute_value(attribute), kinds[attribute.name])
    return [numpy_helper.from_array(value, node.output[0])]


def _measured(node: NodeProto, shape: tuple[int, ...] | None) -> list[TensorProto] | None:
    import numpy as np  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    if shape is None:
        return None
    ends = {attribute.name: attribute.i for attribute in node.attribute}
    value = math.prod(shape) if node.op_type == "Size" else shape[ends.get("start", 0) : ends.get("end")]
    return [numpy_helper.from_array(np.asarray(value, np.int64), node.output[0])]


def _evaluated(
    node: NodeProto,
    types: Mapping[str, TypeProto],
    values: Mapping[str, NDArray[Any] | None],
    opsets: Sequence[OperatorSetIdProto],
) -> list[TensorProto] | None:
    arrays = [value for value in values.values() if value is not None]
    shapes = [dimensions(types.get(name)) for name in node.output if name]
    integers = all(array.dtype.kind in "bi" for array in arrays)
    if (
        len(arrays) < len(values)
        or node.op_type not in _OPERATORS[integers]
        or any(array.dtype.name not in _TYPES for array in arrays)
        or any(shape is None or math.prod(shape) * 8 > FOLDED_BYTES for shape in shapes)
    ):
        return None

    import numpy as np  # noqa: PLC0415
    from onnx import TypeProto, helper, numpy_helper  # noqa: PLC0415
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

    names = [name for name in node.output if name]
    inputs, outputs = ([helper.make_value_info(name, TypeProto()) for name in ends] for ends in (values, names))
    model = helper.make_model(helper.make_graph([node], "folded", inputs, outputs), opset_imports=opsets)
    results = [np.asarray(result) for result in ReferenceEvaluator(model).run(None, dict(values))]
    if any(result.dtype.name not in _TYPES for result in results):
        return None
    return [numpy_helper.from_array(result, name) for name, result in zip(names, results, strict=True)]
