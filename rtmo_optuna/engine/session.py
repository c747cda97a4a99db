"""The engine that trials benchmark and that applications run: opened from Settings, numpy in, numpy out."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.assembly import assemble
from rtmo_optuna.engine.feed import Signature
from rtmo_optuna.errors import TunerError
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.types.request import EngineKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rtmo_optuna.types.request import SessionSpec


class Engine(Protocol):
    """Who runs a model: ONNX Runtime, or a script that only takes its time."""

    import_ns: int
    preload_ns: int
    build_ns: int
    provider_options: Mapping[str, str]
    output_names: list[str]
    notes: tuple[str, ...]
    """What does not run as the settings ask, in sentences."""

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs for `feed`, in the model's order."""
        ...


class OnnxRuntimeEngine:
    """A model on ONNX Runtime, on exactly the provider and settings that were asked for, called as they say.

    Raises UsageError where ONNX Runtime, the provider's libraries or the model cannot be used, SettingsRefusedError
    where the settings are not taken or are read back otherwise.
    """

    def __init__(self, spec: SessionSpec, *, record_nodes: bool = False) -> None:
        """Import ONNX Runtime, load what the provider needs, build the session; each is timed apart."""
        self._asked = PROVIDERS[spec.provider]
        provider, settings = self._asked.chosen(spec.settings)
        spec = replace(spec, provider=provider.name, settings=settings)
        self.runtime = replace(ort.load(spec.provider), extras=spec.extras)
        begun = time.perf_counter_ns()
        provider.start()
        started = time.perf_counter_ns()
        self.import_ns, self.preload_ns = self.runtime.import_ns, self.runtime.preload_ns + started - begun
        self._assembly = assemble(self.runtime, spec, record_nodes=record_nodes)
        self.build_ns = time.perf_counter_ns() - started
        self.plain = self._assembly.plain
        self.session, self._call = self._assembly.session, self._assembly.call
        self.inputs, self.outputs, self.notes = self._assembly.inputs, self._assembly.outputs, self._assembly.notes
        self.provider_options: Mapping[str, str] = self.runtime.read_back(self.session)
        self.overridable = ort.specs(self.session.get_overridable_initializers()) if self.plain else ()
        pixels = spec.pixels.input if spec.pixels else ""
        self._signature = Signature(self.inputs, self.overridable, plain=self.plain, pixels=pixels)
        self.output_names = [output.name for output in self.outputs]

    def run(self, feed: Mapping[str, Any]) -> list[NDArray[Any]]:
        """Return the outputs for `feed`, in the model's order; raises UsageError where the model refuses the arrays."""
        return self.run_some(self.output_names, feed)

    def run_some(self, names: Sequence[str], feed: Mapping[str, Any], options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`; `options` are ONNX Runtime's RunOptions."""
        arrays = self._signature.checked(feed)
        try:
            return self._call.run(names, arrays, options)
        except TunerError:
            raise
        except Exception as error:
            raise ort.translated(error) from error

    def providers(self) -> list[str]:
        """Return ONNX Runtime's names of the providers in use, the first one first."""
        return list(self.session.get_providers())

    def versions(self) -> dict[str, str]:
        """Return the versions of ONNX Runtime and of what the provider that was asked for consists of."""
        return self._asked.versions(self.runtime.ort)

    def nodes_by_provider(self) -> dict[str, int]:
        """Return how many nodes each provider runs, where the session was opened to record that."""
        tell = getattr(self.session, "get_provider_graph_assignment_info", None)
        if tell is None:
            return {}
        counts: dict[str, int] = {}
        for part in tell():
            counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
        return counts


def open_engine(spec: SessionSpec) -> Engine:
    """Return the engine that `spec` names, its session built."""
    if spec.engine is EngineKind.SCRIPTED:
        from rtmo_optuna.engine.scripted import ScriptedEngine  # noqa: PLC0415 - tests only; children start faster

        return ScriptedEngine(spec)
    return OnnxRuntimeEngine(spec)
