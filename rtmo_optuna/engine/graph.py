"""What a model file says of itself, read without its weights. The only importer of `onnx`, where it is used."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from rtmo_optuna.cache import file_hash
from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

_PROTOBUF_LIMIT_BYTES = 2**31 - 1
_ONNX_DOMAINS = ("", "ai.onnx")
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_MATRIX = 2
_FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
"""ONNX's numbers of the types that are no integers (onnx.proto, TensorProto.DataType)."""
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Sampling"}
)


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a model file says of itself.

    `opset` is the version of ONNX's own operators (0 where the model imports none). `operators` counts nodes by
    operator, in order of name, whatever their domain; those in the bodies of If, Loop and Scan count once, and a call
    of a function of the model counts as the function's nodes. `random` names the operators that answer differently
    each time, in order of name. `external_files` are the files that hold weights, relative to the model's folder, in
    the order of first mention. `widths` are the sizes that matrix products with weights want of what they multiply, in
    the order of the nodes; `weights` the types of the initializers that are no
    integers.
    """

    opset: int
    operators: Mapping[str, int]
    random: tuple[str, ...]
    external_files: tuple[str, ...]
    widths: tuple[int, ...] = ()
    weights: tuple[str, ...] = ()


def read_graph(path: Path | str) -> GraphFacts:
    """Return the facts of the model at `path`; its external weights are looked for, but not read.

    Meant for a child process: a hostile file may exhaust the parser. Raises UsageError where there is no such file,
    where it is no ONNX model, or where its external weights are missing, too short, or outside the model's folder.
    """
    path = Path(path)
    model = parse(path)
    try:
        counts = _count(model)
    except RecursionError:
        message = f"{path} is not a valid ONNX model: its functions call each other in a circle. Export it again."
        raise UsageError(message) from None
    operators: Counter[str] = Counter()
    for (operator, _), count in counts.items():
        operators[operator] += count
    return GraphFacts(
        opset=next((o.version for o in model.opset_import if o.domain in _ONNX_DOMAINS), 0),
        operators=dict(sorted(operators.items())),
        random=tuple(sorted(operator for operator, random in counts if random)),
        external_files=_external_files(model, path),
        widths=_widths(model.graph),
        weights=_weights(model.graph),
    )


def hash_model(path: Path | str, external_files: Iterable[str] = ()) -> str:
    """Return the SHA-256, in hex, of the model file followed by `external_files` (relative to its folder), in order.

    Needs no `onnx`. Raises UsageError where one of them cannot be read.
    """
    path = Path(path)
    try:
        return file_hash(path, *(path.parent / name for name in external_files))
    except OSError as error:
        message = f"{error.filename} cannot be read ({error.strerror}): check --model, and the files beside it."
        raise UsageError(message) from error


def parse(path: Path) -> ModelProto:
    """Return the model at `path` without its external weights; raises UsageError where there is none."""
    import onnx  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    model, content = onnx.ModelProto(), _content(path)
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's error types differ between its parsers
        message = f"{path} is not an ONNX model, or it was cut short: {error}. Export or copy it again."
        raise UsageError(message) from error
    # Protobuf takes some garbage for a message of unknown fields, and hands over text that is not UTF-8 as bytes.
    operators = [node.op_type for scope in _scopes(model) for node in scope.node]
    if not (model.opset_import and model.graph.node and all(name and isinstance(name, str) for name in operators)):
        lacking = "operators" if model.opset_import else "opset"
        message = f"{path} is not an ONNX model, or it was cut short: it lacks its {lacking}. Export or copy it again."
        raise UsageError(message)
    return model


def _content(path: Path) -> bytes:
    if not path.exists():
        raise UsageError(f"There is no model {path}: check the path.")
    if not path.is_file():
        message = f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}: name the .onnx file itself."
        raise UsageError(message)
    size = path.stat().st_size
    if size == 0:
        raise UsageError(f"{path} is empty: export or copy the model again.")
    if size > _PROTOBUF_LIMIT_BYTES:
        raise UsageError(
            f"{path} has {size / 2**30:.1f} GB, and an ONNX file cannot hold more than 2 GB: "
            "export it again with its weights in an external data file."
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error


def _count(model: ModelProto) -> Counter[tuple[str, bool]]:
    """Return how many nodes there are by operator and by whether they are random."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    off = _off_switches(model)

    @functools.cache
    def called(function: tuple[str, str, str]) -> Counter[tuple[str, bool]]:
        return total(functions[function].node)

    def total(nodes: Iterable[NodeProto]) -> Counter[tuple[str, bool]]:
        counts: Counter[tuple[str, bool]] = Counter()
        for node in nodes:
            function = (node.domain, node.op_type, node.overload)
            if function in functions:
                counts.update(called(function))
            else:
                counts[node.op_type, node.op_type in _RANDOM or _drops(node, off)] += 1
            for body in bodies(node):
                counts.update(total(body.node))
        return counts

    return total(model.graph.node)


def _widths(graph: GraphProto) -> tuple[int, ...]:
    """Return the inner sizes of products with a weight on the right, each once."""
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    found: list[int] = []
    for node in graph.node:
        shape = weights.get(node.input[1], ()) if node.op_type in _PRODUCTS and len(node.input) > 1 else ()
        if len(shape) == _MATRIX:
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            found.append(shape[1 if transposed else 0])
    return tuple(dict.fromkeys(found))


def _weights(graph: GraphProto) -> tuple[str, ...]:
    kinds = {tensor.data_type for tensor in graph.initializer}
    return tuple(name for number, name in _FLOATS.items() if number in kinds)


def _drops(node: NodeProto, off: set[str]) -> bool:
    """Whether `node` is a Dropout that may run in training mode: its third input is there, and not known to be off."""
    return node.op_type == "Dropout" and any(name and name not in off for name in node.input[2:3])


def _off_switches(model: ModelProto) -> set[str]:
    """Return the names that stand for the constant `false` wherever the model defines them as a constant."""
    values: dict[str, bool] = {}
    for scope in _scopes(model):
        constants = [(tensor.name, tensor) for tensor in getattr(scope, "initializer", ())]
        for node in scope.node:
            if node.op_type == "Constant":
                constants += [(name, attribute.t) for name in node.output for attribute in node.attribute]
        for name, tensor in constants:
            values[name] = values.get(name, True) and _is_false(tensor)
    return {name for name, off in values.items() if off}


def _is_false(tensor: TensorProto) -> bool:
    stored = not tensor.external_data and tensor.data_type == tensor.BOOL
    return stored and not any(tensor.raw_data) and not any(tensor.int32_data)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that `node` runs, those of If, Loop and Scan."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _scopes(model: ModelProto) -> Iterator[GraphProto | FunctionProto]:
    """Yield the model's graph, its functions, and every graph inside them."""
    waiting: list[GraphProto | FunctionProto] = [*reversed(model.functions), model.graph]
    while waiting:
        scope = waiting.pop()
        yield scope
        waiting += [body for node in scope.node for body in bodies(node)]


def _tensors(scope: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    sparse = [*getattr(scope, "sparse_initializer", ())]
    yield from getattr(scope, "initializer", ())
    for node in scope.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _external_files(model: ModelProto, path: Path) -> tuple[str, ...]:
    ends: dict[str, int] = {}
    for scope in _scopes(model):
        for tensor in _tensors(scope):
            if tensor.data_location == tensor.EXTERNAL:
                location, end = _place(tensor, path)
                ends[location] = max(end, ends.get(location, 0))
    for location, end in ends.items():
        file = path.parent / location
        if not file.is_file():
            raise UsageError(
                f"{path} keeps weights in {location!r}, which is not in {file.parent.absolute()}: "
                "put that file there, or export the model again as one file."
            )
        if (size := file.stat().st_size) < end:
            raise UsageError(
                f"{path} keeps weights up to byte {end} of {location!r}, but {file.absolute()} has {size}: "
                "copy that file again."
            )
    return tuple(ends)


def _place(tensor: TensorProto, path: Path) -> tuple[str, int]:
    """Return the file that holds `tensor`, relative to the model's folder, and the byte where it ends there."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = str(entries.get("location", ""))
    parts = PureWindowsPath(location)  # takes both kinds of slashes and drive letters
    if parts.anchor or ".." in parts.parts or not parts.parts:
        raise UsageError(
            f"{path} keeps the weight {tensor.name!r} in {location!r}, which is not a file within the model's own "
            "folder: export the model again with its weights beside it."
        )
    try:
        offset, length = (int(entries.get(key, "0")) for key in ("offset", "length"))
    except ValueError:
        offset = length = -1
    if min(offset, length) < 0:
        message = f"{path} does not say where in {location!r} the weight {tensor.name!r} lies: export the model again."
        raise UsageError(message)
    return location, offset + length
