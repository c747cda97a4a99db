"""Which nodes of a model a provider leaves to the host, and what an older opset or another type would change."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Alone(enum.StrEnum):
    """Where a node runs that is all of a model: what keeps it from the provider, or that nothing of its own does."""

    PLACED = "on the provider"
    OLDER = "on the provider in an older opset"
    FLOAT = "on the provider in float32"
    NEVER = "on the host"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class HostNode:
    """A node that the session runs on the host.

    `version` is that of its operator, `types` are its inputs'; neither is known of what ONNX Runtime made itself. Where
    it is to be `OLDER`, `opset` is the newest one that will do. `tensors` are the bytes of its inputs and outputs by
    name, where they are known.
    """

    name: str
    operator: str
    version: int = 0
    types: tuple[str, ...] = ()
    alone: Alone = Alone.UNKNOWN
    opset: int = 0
    tensors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    """How many nodes each provider runs, the model's opset, and the nodes on the host beside another provider's."""

    nodes_by_provider: Mapping[str, int]
    opset: int
    on_host: tuple[HostNode, ...] = ()
