"""Where a session's buffers lie, and the stream that its work is put on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rtmo_optuna.providers.base import Provider
from rtmo_optuna.providers.cudart import HostStream

_NO_GRAPH = ("gpu_graph_id", "-1")  # ONNX Runtime captures nothing in a run with this number
_NO_WAIT = ("disable_synchronize_execution_providers", "1")


@dataclass(frozen=True, slots=True)
class Device:
    """Where buffers lie: `kind` is ONNX Runtime's name for it; `stream` is what sessions run on."""

    ort: Any
    kind: str
    index: int
    stream: HostStream = field(default_factory=HostStream)

    @classmethod
    def captured(cls, ort: Any, provider: Provider, index: int) -> Device:  # noqa: ANN401 - ONNX Runtime ships no types
        """Return a device of the provider's with a stream of its own, for what is captured."""
        return cls(ort, provider.memory, index, provider.stream(index))

    def beside(self) -> Device:
        """Return the same with another stream, for work that goes on beside that on this one."""
        return replace(self, stream=self.stream.another())

    def value(self, dtype: Any, shape: Sequence[Any]) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        """Return a new OrtValue of that type and fixed shape."""
        return self.ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self.kind, self.index)

    def run_options(self, *, synchronize: bool) -> Any:  # noqa: ANN401
        """Return RunOptions for a run that ONNX Runtime does not capture, and waits for or does not."""
        options = self.ort.RunOptions()
        for entry in (_NO_GRAPH, _NO_WAIT)[: 1 if synchronize else 2]:
            options.add_run_config_entry(*entry)
        return options
