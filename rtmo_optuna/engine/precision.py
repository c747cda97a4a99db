"""A model that computes in half precision, between inputs and outputs of the types that it had.

The conversion is ONNX Runtime's own (`onnxruntime.transformers.float16`), with what it leaves undone: what float16
cannot hold stays float32, nodes have names of their own and come in order, and no tensor is cast twice.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna import cache
from rtmo_optuna.engine import ort, regions
from rtmo_optuna.engine.cutting import store
from rtmo_optuna.engine.cutting.pieces import save_piece
from rtmo_optuna.engine.cutting.static import reads
from rtmo_optuna.errors import SettingsRefusedError, UsageError
from rtmo_optuna.providers.table import REFERENCE
from rtmo_optuna.types.request import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_VERSION = 1
_FLOAT = 1
"""ONNX's number of float32 (onnx.proto, TensorProto.DataType)."""
_FILE = "half.onnx"
LARGEST = 65504.0
"""The largest finite number of float16 (IEEE 754, binary16)."""
_SUPPRESSION = "NonMaxSuppression"
_MADE = ("_cast_to_fp", "graph_input_cast", "graph_output_cast")
"""What the names of the casts hold that the conversion puts in."""


def half(model: str, folder: str | None = None, *, precision: str = "float16", whole: str = "") -> str:
    """Return the path of `model` in `precision`: of a copy that computes in it, with the same inputs and outputs.

    `precision` is float16, or what `regions.written` wrote: then the regions that it names stay float32, places in the
    `whole` model, of which `model` may be a piece. The copy lies in `folder`, or in the user's cache, by the content of
    the models and the version of ONNX Runtime; where it is there and whole, nothing is done but looking. Raises
    SettingsRefusedError where the model cannot be converted, UsageError where it or the cache is of no use.
    """
    import onnxruntime  # noqa: PLC0415 - its tool converts, and another version may do otherwise

    path, kept = Path(model), Path(folder) if folder else cache.folder("half")
    places = regions.read(precision)
    if not places and precision != "float16":
        message = f"precision {precision!r} names no regions, as {regions.written([3, 8, 9])!r} does: tune finds them."
        raise SettingsRefusedError(message)
    files = dict.fromkeys((model, whole or model))
    content = [store.content_hash(Path(file), Path(folder) if folder else None) for file in files]
    key = " ".join([content[0], onnxruntime.__version__, *([precision, *content[1:]] if places else [])])
    place = store.place_of(key, {}, _VERSION, kept)
    if store.load(place) is None:
        stays = kept_outputs(Path(whole or model), places) if places else frozenset[str]()
        converted = convert(path, stays)
        store.store(place, {}, lambda scratch: _save(converted, scratch / _FILE, path.name))
    return str(place / _FILE)


def _save(converted: ModelProto, target: Path, name: str) -> None:
    """Write a model and open it on the CPU; raise SettingsRefusedError where ONNX Runtime refuses it."""
    save_piece(converted, target, target.parent)
    try:
        ort.load(REFERENCE).open(str(target), Settings())
    except (UsageError, SettingsRefusedError, RuntimeError) as error:
        raise _refused(name, error) from error


def _refused(name: str, error: Exception) -> SettingsRefusedError:
    """Return why the model `name` cannot be converted: the checker and ONNX Runtime name the node."""
    text = " ".join(str(error).split()).rstrip(".")
    return SettingsRefusedError(f"{name} cannot be converted to float16: {text}. Leave precision at float32.")


def kept_outputs(whole: Path, places: Collection[int]) -> frozenset[str]:
    """Return what the nodes of the regions at `places` of the model `whole` write.

    Raises SettingsRefusedError where it has no such regions.
    """
    import onnx  # noqa: PLC0415 - takes 0.2 s, and most benchmarks never need it

    model = onnx.load(whole)
    found = regions.regions(model.graph, halved(model))
    if max(places) >= len(found):
        message = f"{whole.name} has {len(found)} regions, none at {max(places)}: this precision is another model's."
        raise SettingsRefusedError(message)
    return frozenset(name for place in places for node in found[place] for name in node.output)


def halved(model: ModelProto) -> frozenset[str]:
    """Return the tensors of float32 that nodes write and float16 would hold; nodes are given names in place."""
    from onnx import shape_inference  # noqa: PLC0415 - likewise

    name_nodes(model.graph.node)
    stays, floats = blocked(model), float_tensors(shape_inference.infer_shapes(model).graph)
    return frozenset(name for node in model.graph.node if node.name not in stays for name in node.output) & floats


def float_tensors(graph: GraphProto) -> frozenset[str]:
    """Return the tensors of `graph` that are known to be float32."""
    ends = (*graph.input, *graph.output, *graph.value_info)
    known = {end.name for end in ends if end.type.tensor_type.elem_type == _FLOAT}
    return frozenset(known | {tensor.name for tensor in graph.initializer if tensor.data_type == _FLOAT})


def blocked(model: ModelProto) -> frozenset[str]:
    """Return the nodes that stay float32 in any model: by operator, by what they hold, and after a suppression."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST  # noqa: PLC0415 - likewise

    operators = {node.name for node in model.graph.node if node.op_type in DEFAULT_OP_BLOCK_LIST}
    return frozenset(operators | _too_large(model.graph) | _after_suppression(model.graph))


def convert(path: Path, stays: Collection[str] = ()) -> ModelProto:
    """Return the model at `path`, its weights with it, in float16, but for the nodes that write what `stays`.

    Raises SettingsRefusedError, which says where, if it cannot be converted.
    """
    import onnx  # noqa: PLC0415 - likewise
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - likewise

    model: ModelProto = onnx.load(path)
    name_nodes(model.graph.node)
    kept = blocked(model) | {node.name for node in model.graph.node if not set(stays).isdisjoint(node.output)}
    try:
        model = convert_float_to_float16(model, keep_io_types=True, node_block_list=sorted(kept))
        name_nodes(model.graph.node)
        _order(model.graph)
        _share_casts(model.graph)
        onnx.checker.check_model(model)
    except Exception as error:
        raise _refused(path.name, error) from error
    return model


def name_nodes(nodes: Iterable[NodeProto]) -> None:
    """Give each node a name that no other one has."""
    taken: set[str] = set()
    for node in nodes:
        name, count = node.name or node.op_type, 0
        node.name = name
        while node.name in taken:
            count += 1
            node.name = f"{name}_{count}"
        taken.add(node.name)


def _too_large(graph: GraphProto) -> set[str]:
    """Return the nodes that hold, or take, a constant of float32 that float16 has no finite number for."""
    large = {tensor.name for tensor in graph.initializer if _overflows(tensor)}
    makers = {
        node.name: node.output for node in graph.node if any(_overflows(attribute.t) for attribute in node.attribute)
    }
    large.update(name for outputs in makers.values() for name in outputs)
    return {node.name for node in graph.node if node.name in makers or large.intersection(node.input)}


def _overflows(tensor: TensorProto) -> bool:
    import numpy as np  # noqa: PLC0415 - likewise
    from onnx import numpy_helper  # noqa: PLC0415

    if tensor.data_type != tensor.FLOAT:
        return False
    values = np.abs(numpy_helper.to_array(tensor))
    return bool(((values > LARGEST) & np.isfinite(values)).any())


def _after_suppression(graph: GraphProto) -> set[str]:
    """Return the nodes that a suppression of boxes decides about: which rows are kept is no matter of rounding."""
    late: set[str] = set()
    found: set[str] = set()
    for node in graph.node:
        if node.op_type == _SUPPRESSION or late.intersection(node.input):
            late.update(node.output)
            found.add(node.name)
    return found


def _share_casts(graph: GraphProto) -> None:
    """Cast each tensor to a type once, and none there and back; `graph` is in order."""
    instead: dict[str, str] = {}
    known: dict[tuple[str, int], str] = {}
    source_of: dict[str, str] = {}
    outputs, nodes = {output.name for output in graph.output}, []
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        if node.op_type != "Cast" or not any(sign in node.name for sign in _MADE):
            nodes.append(node)
            continue
        (source,), (made,), to = node.input, node.output, node.attribute[0].i
        whence = source_of.get(source)
        if made in outputs:
            if whence:
                node.op_type, node.input[0] = "Identity", whence
                del node.attribute[:]
            nodes.append(node)
        elif same := whence or known.get((source, to)):
            instead[made] = same
        else:
            known[source, to], source_of[made] = made, source
            nodes.append(node)
    read = outputs.union(*map(reads, nodes))
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.output[0] not in source_of or node.output[0] in read)


def _order(graph: GraphProto) -> None:
    """Bring the nodes into an order in which each comes after what it reads."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output}
    sorter = TopologicalSorter(
        {place: {makers[name] for name in reads(node) if name in makers} for place, node in enumerate(graph.node)}
    )
    nodes = [graph.node[place] for place in sorter.static_order()]
    del graph.node[:]
    graph.node.extend(nodes)
