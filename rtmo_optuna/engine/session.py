"""The engine that trials benchmark and that applications run: opened from Settings, numpy in, numpy out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.calls import BoundCall, Call, Device, PlainCall
from rtmo_optuna.engine.feed import Signature
from rtmo_optuna.engine.split import SplitCall
from rtmo_optuna.errors import SettingsRefusedError, TunerError
from rtmo_optuna.wire import EngineKind, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rtmo_optuna.wire import SessionSpec

_ONLY_HEAD = ("enable_cuda_graph",)
_ON_HOST = Settings.of({"intra_op_num_threads": 1})
"""What is left between captured parts is small: more threads would cost more than they bring. (Where the whole tail is
left, it may not be: trials tell.)"""


class Engine(Protocol):
    """Who runs a model: ONNX Runtime, or a script that only takes its time."""

    import_ns: int
    preload_ns: int
    build_ns: int
    provider_options: Mapping[str, str]
    output_names: list[str]

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs for `feed`, in the model's order."""
        ...


class OnnxRuntimeEngine:
    """A model on ONNX Runtime, on exactly the provider and settings that were asked for, called as they say.

    Raises UsageError where ONNX Runtime, the provider's libraries or the model cannot be used, SettingsRefusedError
    where the settings are not taken or are read back otherwise.
    """

    def __init__(self, spec: SessionSpec, *, record_nodes: bool = False) -> None:
        """Import ONNX Runtime, load what CUDA needs, build the session; each is timed apart."""
        self.runtime = ort.load(spec.provider)
        begun = time.perf_counter_ns()
        ort.start_driver(spec.provider)
        started = time.perf_counter_ns()
        self.import_ns, self.preload_ns = self.runtime.import_ns, self.runtime.preload_ns + started - begun
        self._build(spec, record_nodes=record_nodes)
        self.build_ns = time.perf_counter_ns() - started
        self.output_names = [output.name for output in self.outputs]

    def _build(self, spec: SessionSpec, *, record_nodes: bool) -> None:
        device = Device(self.runtime.ort, "cuda" if spec.provider == "cuda" else "cpu", spec.device)
        how = dict(spec.settings)
        if how.get("split_capture"):
            self._build_split(spec, device)
            return
        self._session = self.runtime.open(
            spec.model,
            spec.settings,
            device=spec.device,
            free_dimensions=spec.free_dimensions,
            record_nodes=record_nodes,
        )
        self.inputs, self.outputs = ort.specs(self._session.get_inputs()), ort.specs(self._session.get_outputs())
        self._take(plain=not how.get("io_binding"))
        self._call: Call = (
            BoundCall(self._session, device, captured=bool(how.get("enable_cuda_graph")))
            if how.get("io_binding")
            else PlainCall(self._session)
        )

    def _build_split(self, spec: SessionSpec, device: Device) -> None:
        from rtmo_optuna.engine.capture import cut  # noqa: PLC0415 - onnx is slow to import, and hardly ever needed

        parts = cut(spec.model, spec.shapes)
        on_host = bool(dict(spec.settings).get("split_on_host"))
        self._session = self.runtime.open(parts.head, spec.settings, device=spec.device)
        finish = self._open_finish(spec, parts.finish)
        path = parts.tail if finish is None else parts.select
        if on_host:
            tail = ort.load("cpu").open(path, _ON_HOST)
        else:
            rest = Settings.of({name: value for name, value in spec.settings if name not in _ONLY_HEAD})
            tail = self.runtime.open(path, rest, device=spec.device)
        ends = [end for end in (self._session, tail, finish) if end is not None]
        takes = {spec.name: spec for end in ends for spec in ort.specs(end.get_inputs())}
        gives = {spec.name: spec for end in ends for spec in ort.specs(end.get_outputs())}
        self.inputs = tuple(takes[name] for name in parts.inputs if name in takes)
        self.outputs = tuple(gives[name] for name in parts.outputs)
        self._take()
        self._call = SplitCall(self._session, tail, device, parts.outputs, finish, on_host=on_host)

    def _open_finish(self, spec: SessionSpec, path: str) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        """Return the session of what can be captured for each shape, None where there is none.

        Whether ONNX Runtime puts all of it on the GPU, as a graph needs, only opening it tells: without, the tail stays
        whole.
        """
        if not path:
            return None
        try:
            return self.runtime.open(path, spec.settings, device=spec.device)
        except SettingsRefusedError:
            return None

    def _take(self, *, plain: bool = False) -> None:
        self.provider_options: Mapping[str, str] = self.runtime.read_back(self._session)
        self.overridable = ort.specs(self._session.get_overridable_initializers()) if plain else ()
        self._signature = Signature(self.inputs, self.overridable, plain=plain)

    @property
    def session(self) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        """The InferenceSession of the model, or of the first part of one that was cut."""
        return self._session

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
        return list(self._session.get_providers())

    def versions(self) -> dict[str, str]:
        """Return the versions of ONNX Runtime and, on `cuda`, of the CUDA and cuDNN libraries that it loaded."""
        return self.runtime.versions()

    def nodes_by_provider(self) -> dict[str, int]:
        """Return how many nodes each provider runs, where the session was opened to record that."""
        tell = getattr(self._session, "get_provider_graph_assignment_info", None)
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
