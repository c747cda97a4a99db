"""A part of a model as a model of its own, its weights with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.engine.cutting.static import Analysis, needed, reads
from rtmo_optuna.engine.cutting.store import copy_bytes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

INLINE_BYTES = 2**30  # a file of protobuf holds at most twice as many
_SMALL_BYTES = 1024  # such tensors stay in the model, since shapes are computed from them
_ALIGNMENT = 4096  # of a weight in its file, so that it can be mapped into memory
_OLDEST_IR = 4  # the first in which initializers need not be inputs


@dataclass(frozen=True, slots=True)
class Piece:
    """Nodes in order, and the names that they take from outside, besides constants, and give."""

    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def make_piece(model: ModelProto, analysis: Analysis, piece: Piece) -> ModelProto:
    """Return `piece` of `model` with the constants it needs; weights that lie outside of the model still do."""
    from onnx import helper  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    declared = {value.name: value for value in model.graph.output}
    used = {name for node in piece.nodes for name in reads(node)}.union(piece.outputs)
    nodes = (*needed(analysis.constant, used), *piece.nodes)
    used.update(name for node in nodes for name in reads(node))
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        [helper.make_value_info(name, analysis.types[name]) for name in piece.inputs],
        [
            helper.make_value_info(name, analysis.types[name]) if name in analysis.types else declared[name]
            for name in piece.outputs
        ],
        [tensor for name, tensor in analysis.constants.items() if name in used],
        sparse_initializer=[sparse for sparse in model.graph.sparse_initializer if sparse.values.name in used],
    )
    result: ModelProto = helper.make_model(
        graph, ir_version=max(model.ir_version, _OLDEST_IR), opset_imports=model.opset_import
    )
    return result


def save_piece(piece: ModelProto, path: Path, base: Path, inline_bytes: int = INLINE_BYTES) -> None:
    """Write `piece` to `path`; its external weights are read from the folder `base`, a piece at a time.

    Weights of up to `inline_bytes` go into the file, else all but the small ones to one beside it.
    """
    tensors = piece.graph.initializer
    if sum(_size(tensor) for tensor in tensors) <= inline_bytes:
        for tensor in tensors:
            _embed(tensor, base)
    else:
        data = path.with_suffix(".data")
        for tensor in tensors:
            _move(tensor, base, data)
    path.write_bytes(piece.SerializeToString(deterministic=True))


def _size(tensor: TensorProto) -> int:
    from onnx import helper  # noqa: PLC0415

    if tensor.data_location != tensor.EXTERNAL:
        return int(tensor.ByteSize())
    size: int = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return size


def _embed(tensor: TensorProto, base: Path) -> None:
    if tensor.data_location == tensor.EXTERNAL:
        source, offset, length = _source(tensor, base)
        with source.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]


def _move(tensor: TensorProto, base: Path, data: Path) -> None:
    """Put the weights of `tensor` into the file `data`, unless they are small or cannot lie outside."""
    if tensor.data_type == tensor.STRING or _size(tensor) < _SMALL_BYTES:
        _embed(tensor, base)
        return
    with data.open("ab") as stream:
        stream.write(bytes(-stream.tell() % _ALIGNMENT))
        start = stream.tell()
    if tensor.data_location == tensor.EXTERNAL:
        source, offset, length = _source(tensor, base)
        copy_bytes(source, offset, length, data)
    else:
        from onnx import numpy_helper  # noqa: PLC0415

        raw = tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        length = len(raw)
        with data.open("ab") as stream:
            stream.write(raw)
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.data_location = tensor.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", data.name), ("offset", start), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _source(tensor: TensorProto, base: Path) -> tuple[Path, int, int]:
    """Return the file that holds the weights of `tensor`, where they begin there, and how many bytes they are."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return base / entries["location"], int(entries.get("offset", 0)), int(entries.get("length", 0)) or _size(tensor)
