"""Which nodes a session leaves to the host, and what each would do alone: in an older opset, or in float32."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.graph import parse
from rtmo_optuna.errors import TunerError
from rtmo_optuna.providers.table import PROVIDERS, REFERENCE
from rtmo_optuna.types.placement import Alone, HostNode, Placement
from rtmo_optuna.types.request import SessionSpec, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

    Placed = Callable[[bytes], bool]

_ONNX = ("", "ai.onnx")
_INFO = 1
"""ONNX Runtime's level at which it logs why a node goes to the host, and where it copies."""
_MOST_TRIED = 40
"""So many kinds of nodes are tried alone, in some milliseconds each."""
_OLDER_TRIED = 3
_IR_VERSION = 8
_SMALL = 1024


def placement(spec: SessionSpec) -> Placement:
    """Open `spec` and return where its nodes went; ONNX Runtime's reasons go to this process's standard error.

    For a child process only: the file is parsed, and shapes are inferred. Raises UsageError where the model or the
    provider cannot be used, SettingsRefusedError where ONNX Runtime does not take the settings.
    """
    provider, settings = PROVIDERS[spec.provider].chosen(spec.settings)
    runtime = ort.load(provider.name)
    provider.start()
    runtime.ort.set_default_logger_severity(_INFO)
    session = runtime.open(
        spec.model,
        settings,
        device=spec.device,
        free_dimensions=spec.free_dimensions,
        record_nodes=True,
        log_level=_INFO,
    )
    parts = session.get_provider_graph_assignment_info()
    runtime.ort.set_default_logger_severity(_INFO + 2)  # what is tried below says nothing of the model
    counts: dict[str, int] = {}
    for part in parts:
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    host = PROVIDERS[REFERENCE].ort_name
    left = [node for part in parts if part.ep_name == host != runtime.provider.ort_name for node in part.get_nodes()]
    model = _inferred(Path(spec.model))
    opset = next((one.version for one in model.opset_import if one.domain in _ONNX), 0)
    told = _Nodes(model, opset, lambda content: _is_placed(runtime, content, spec.device))
    return Placement(counts, opset, tuple(told.of(node.name, node.op_type) for node in left))


def _inferred(path: Path) -> ModelProto:
    import onnx  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    model = parse(path)
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001 - then nothing is known of the tensors within, and the rest is as good
        return model


def _constants(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield what Constant nodes hold, under the names of their outputs: a session makes weights of it."""
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.HasField("t"):
                attribute.t.name = node.output[0]
                yield attribute.t


def _is_placed(runtime: ort.Runtime, content: bytes, device: int) -> bool:
    """Return whether all nodes of a model, those that are left of it, go to the provider; False where it is refused."""
    try:
        session = runtime.open(content, Settings(), device=device, record_nodes=True)
    except (TunerError, RuntimeError):
        return False
    parts = session.get_provider_graph_assignment_info()
    return all(part.ep_name == runtime.provider.ort_name for part in parts)


class _Nodes:
    """The nodes of a model by name, and what each kind of them does alone, found once."""

    def __init__(self, model: ModelProto, opset: int, placed: Placed) -> None:
        graph = model.graph
        self._opset, self._placed = opset, placed
        self._nodes = {node.name: node for node in graph.node if node.name}
        self._values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
        self._weights = {tensor.name: tensor for tensor in (*graph.initializer, *_constants(graph))}
        self._found: dict[Any, tuple[Alone, int]] = {}

    def of(self, name: str, operator: str) -> HostNode:
        """Return what is to be known of the node `name`."""
        node = self._nodes.get(name)
        if node is None or node.op_type != operator:
            return HostNode(name, operator)
        sizes = {
            tensor: _bytes(self._values[tensor]) for tensor in (*node.input, *node.output) if tensor in self._values
        }
        types = tuple(self._type(tensor) for tensor in node.input if tensor)
        version = _versions(operator, node.domain, self._opset)[-1:]
        kind = (operator, node.domain, types, tuple(a.SerializeToString() for a in node.attribute))
        if kind not in self._found and len(self._found) < _MOST_TRIED:
            self._found[kind] = alone(node, self._opset, self._values, self._weights, self._placed)
        said, opset = self._found.get(kind, (Alone.UNKNOWN, 0))
        known = {tensor: size for tensor, size in sizes.items() if size is not None}
        return HostNode(name, operator, version[0] if version else 0, types, said, opset, known)

    def _type(self, tensor: str) -> str:
        import onnx  # noqa: PLC0415

        number = _element(self._values.get(tensor), self._weights.get(tensor))
        return onnx.TensorProto.DataType.Name(number).lower() if number else "?"


def alone(
    node: NodeProto,
    opset: int,
    values: Mapping[str, ValueInfoProto],
    weights: Mapping[str, TensorProto],
    placed: Placed,
) -> tuple[Alone, int]:
    """Return what keeps `node` from where `placed` says that a model goes, and the newest opset that would not.

    It is tried as all of a model: as it is, in older versions of its operator (the three latest), and with float32 in
    place of the type of its first input. `values` are the types of tensors by name, `weights` those that are constant.
    """
    import onnx  # noqa: PLC0415

    inputs = [tensor for tensor in dict.fromkeys(node.input) if tensor]
    domain = node.domain if node.domain not in _ONNX else ""
    types = {tensor: _element(values.get(tensor), weights.get(tensor)) for tensor in inputs}
    if not all(types.values()) or any(a.HasField("g") or a.graphs for a in node.attribute):
        return Alone.UNKNOWN, 0

    def fits(version: int, other: int = 0) -> bool:
        instead = types[inputs[0]] if other else 0
        constant = [t for t in inputs if t in weights and _is_small(weights[t]) and types[t] != instead]
        given = [
            onnx.helper.make_tensor_value_info(
                t, other if types[t] == instead else types[t], _shape(values, weights, t)
            )
            for t in inputs
            if t not in constant
        ]
        outputs = [onnx.ValueInfoProto(name=tensor) for tensor in node.output if tensor]
        graph = onnx.helper.make_graph([node], "alone", given, outputs, [weights[t] for t in constant])
        imports = [onnx.helper.make_opsetid(domain, version)]
        if domain:
            imports.append(onnx.helper.make_opsetid("", opset))
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=_IR_VERSION)
        return placed(model.SerializeToString())

    if domain:
        return (Alone.PLACED if fits(1) else Alone.NEVER), 0
    if fits(opset):
        return Alone.PLACED, 0
    versions = _versions(node.op_type, domain, opset)
    for older, newer in itertools.islice(reversed(list(itertools.pairwise(versions))), _OLDER_TRIED):
        if fits(older):
            return Alone.OLDER, newer - 1
    floats = onnx.TensorProto.FLOAT
    if inputs and types[inputs[0]] != floats and fits(opset, floats):
        return Alone.FLOAT, 0
    return Alone.NEVER, 0


def _versions(operator: str, domain: str, opset: int) -> list[int]:
    """Return the versions of an operator of ONNX's own up to `opset`, in order; none of another domain."""
    import onnx  # noqa: PLC0415

    if domain not in _ONNX:
        return []
    schemas = onnx.defs.get_all_schemas_with_history()
    return sorted(
        {one.since_version for one in schemas if one.name == operator and not one.domain and one.since_version <= opset}
    )


def _element(value: ValueInfoProto | None, weight: TensorProto | None) -> int:
    """Return ONNX's number of a tensor's type, 0 where it is not known."""
    return int(weight.data_type) if weight is not None else int(value.type.tensor_type.elem_type) if value else 0


def _shape(values: Mapping[str, ValueInfoProto], weights: Mapping[str, TensorProto], name: str) -> list[Any] | None:
    if name in weights:
        return list(weights[name].dims)
    kind = values[name].type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [dim.dim_value or dim.dim_param or None for dim in kind.shape.dim]


def _is_small(weight: TensorProto) -> bool:
    return math.prod(weight.dims) <= _SMALL and not weight.external_data


def _bytes(value: ValueInfoProto) -> int | None:
    """Return the size of a tensor, None where its type or shape is open."""
    import onnx  # noqa: PLC0415

    kind = value.type.tensor_type
    sizes: list[int] = [dim.dim_value for dim in kind.shape.dim]
    if not kind.elem_type or not kind.HasField("shape") or any(not dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return math.prod(sizes) * int(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)
