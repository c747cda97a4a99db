"""What a model's file says of the whole model, where the sessions behind it cannot: signature and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.engine.graph import parse
from rtmo_optuna.types.request import TensorSpec

if TYPE_CHECKING:
    from onnx import ValueInfoProto

_NO_VERSION = 2**63 - 1  # what ONNX Runtime tells of a model without a version


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What `onnxruntime.ModelMetadata` tells."""

    custom_metadata_map: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    domain: str = ""
    graph_description: str = ""
    graph_name: str = ""
    producer_name: str = ""
    version: int = _NO_VERSION


def read_metadata(path: Path) -> ModelMetadata:
    """Return the metadata of the model at `path`; weights beside it are not read. Raises UsageError as `parse` does."""
    model = parse(path)
    return ModelMetadata(
        custom_metadata_map={entry.key: entry.value for entry in model.metadata_props},
        description=model.doc_string,
        domain=model.domain,
        graph_description=model.graph.doc_string,
        graph_name=model.graph.name,
        producer_name=model.producer_name,
        version=model.model_version if model.HasField("model_version") else _NO_VERSION,
    )


def read_signature(path: Path) -> tuple[TensorSpec, ...]:
    """Return the tensors that the model at `path` must be fed, as ONNX Runtime tells them, dimensions' names included.

    Raises UsageError as `parse` does.
    """
    graph = parse(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    weights.update(sparse.values.name for sparse in graph.sparse_initializer)
    return tuple(
        spec_of(value) for value in graph.input if value.name not in weights and value.type.HasField("tensor_type")
    )


def spec_of(value: ValueInfoProto) -> TensorSpec:
    """Return the tensor `value` as ONNX Runtime tells it: dimensions that are open by their names, None without one."""
    from onnx import TensorProto  # noqa: PLC0415 - `parse` has imported it

    tensor = value.type.tensor_type
    dims = (size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in tensor.shape.dim)
    shape = tuple(None if isinstance(dim, int) and dim < 0 else dim for dim in dims)
    return TensorSpec(value.name, f"tensor({TensorProto.DataType.Name(tensor.elem_type).lower()})", shape)
