"""The engine that trials benchmark: a session opened from Settings, numpy in, numpy out.

The only importer of ONNX Runtime, and only where a session is opened: the parent never does.
"""

from __future__ import annotations

import ctypes
import os
import re
import time
from typing import TYPE_CHECKING, Any, Protocol

from rtmo_optuna.errors import SettingsRefusedError, UsageError
from rtmo_optuna.space.knobs import FREE_SHARE, PROVIDERS, Knob, knob_table
from rtmo_optuna.wire import EngineKind, Scope, TensorSpec, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rtmo_optuna.wire import SessionSpec

_RECORD_NODES = "session.record_ep_graph_assignment_info"
_NO_FALLBACK = 0
_BAD_INPUT = {"InvalidArgument", "InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel"}
_INSTALL = (
    "install one of them: pip install 'rtmo-optuna[gpu]' on a machine with an NVIDIA GPU, 'rtmo-optuna[cpu]' elsewhere"
)


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
    """One ONNX Runtime session, on exactly the provider and settings that were asked for.

    Raises UsageError where ONNX Runtime, the provider's libraries or the model cannot be used, SettingsRefusedError
    where the settings are not taken or are read back otherwise.
    """

    def __init__(self, spec: SessionSpec, *, record_nodes: bool = False) -> None:
        """Import ONNX Runtime, preload the CUDA libraries, build the session; each is timed apart."""
        start = time.perf_counter_ns()
        self._ort = _import()
        imported = time.perf_counter_ns()
        self._provider = PROVIDERS[spec.provider]
        _require_provider(self._ort, self._provider.ort_name)
        if spec.provider == "cuda" and hasattr(self._ort, "preload_dlls"):
            self._ort.preload_dlls()
        preloaded = time.perf_counter_ns()
        self._build(spec, record_nodes=record_nodes)
        self.import_ns = imported - start
        self.preload_ns = preloaded - imported
        self.build_ns = time.perf_counter_ns() - preloaded
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())
        self.output_names = [spec.name for spec in self.outputs]

    def _build(self, spec: SessionSpec, *, record_nodes: bool) -> None:
        table = knob_table(spec.provider)
        options = self._ort.SessionOptions()
        given: dict[str, str] = {"device_id": str(spec.device)} if spec.provider == "cuda" else {}
        for name, value in spec.settings:
            _APPLY[table[name].scope](self._ort, options, given, table[name], _resolved(value, spec.device))
        if record_nodes:
            options.add_session_config_entry(_RECORD_NODES, "1")
        try:
            self._session = self._ort.InferenceSession(
                spec.model,
                options,
                providers=[self._provider.ort_name],
                provider_options=[given],
                enable_fallback=_NO_FALLBACK,
            )
        except Exception as error:
            raise _translated(error) from error
        if self._provider.ort_name not in self._session.get_providers():
            raise UsageError(_why_not_loaded(self._ort, self._provider.ort_name))
        self.provider_options: Mapping[str, str] = self._session.get_provider_options().get(self._provider.ort_name, {})
        for option, value in given.items():
            if _spelled(self.provider_options.get(option, "absent")) != _spelled(value):
                message = f"ONNX Runtime was given {option}={value} and reads back {self.provider_options.get(option)}."
                raise SettingsRefusedError(message)

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs for `feed`; raises UsageError where the model refuses these arrays."""
        try:
            outputs: list[NDArray[np.generic]] = self._session.run(None, feed)
        except Exception as error:
            raise _translated(error) from error
        return outputs

    def nodes_by_provider(self) -> dict[str, int]:
        """Return how many nodes each provider runs, where the session was opened to record that."""
        tell = getattr(self._session, "get_provider_graph_assignment_info", None)
        if tell is None:
            return {}
        counts: dict[str, int] = {}
        for part in tell():
            counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
        return counts

    def versions(self) -> dict[str, str]:
        """Return the versions of ONNX Runtime and, on `cuda`, of the CUDA and cuDNN libraries that it loaded."""
        found = {"onnxruntime": str(self._ort.__version__)}
        if self._provider.name == "cuda":
            found["cuda"] = str(getattr(self._ort, "cuda_version", "") or "")
            found["cudnn"] = _cudnn_version()
        return {name: version for name, version in found.items() if version}


def open_engine(spec: SessionSpec) -> Engine:
    """Return the engine that `spec` names, its session built."""
    if spec.engine is EngineKind.SCRIPTED:
        from rtmo_optuna.engine.scripted import ScriptedEngine  # noqa: PLC0415 - tests only; children start faster

        return ScriptedEngine(spec)
    return OnnxRuntimeEngine(spec)


def _import() -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
    try:
        import onnxruntime  # noqa: PLC0415 - the parent imports this module without ONNX Runtime
    except ImportError as error:
        message = f"Neither onnxruntime nor onnxruntime-gpu can be imported ({error}); {_INSTALL}."
        raise UsageError(message) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        message = (
            "The installed onnxruntime is broken, as it is after onnxruntime and onnxruntime-gpu were installed into "
            f"one environment: uninstall both, then {_INSTALL}."
        )
        raise UsageError(message)
    return onnxruntime


def _require_provider(ort: Any, name: str) -> None:  # noqa: ANN401
    available = ort.get_available_providers()
    if name not in available:
        message = (
            f"The installed ONNX Runtime {ort.__version__} has no {name} (it has {', '.join(available)}): for an "
            "NVIDIA GPU uninstall onnxruntime and install rtmo-optuna[gpu], or choose --provider cpu."
        )
        raise UsageError(message)


def _set_provider_option(_ort: Any, _options: Any, given: dict[str, str], knob: Knob, value: Value) -> None:  # noqa: ANN401
    if knob.name == "gpu_mem_limit_gb":
        given["gpu_mem_limit"] = str(int(float(value or 0) * 2**30))
    else:
        given[knob.name] = _text(value)


def _set_attribute(ort: Any, options: Any, _: dict[str, str], knob: Knob, value: Value) -> None:  # noqa: ANN401
    enums = {"graph_optimization_level": ort.GraphOptimizationLevel, "execution_mode": ort.ExecutionMode}
    setattr(options, knob.name, getattr(enums[knob.name], str(value)) if knob.name in enums else value)


def _set_entry(_ort: Any, options: Any, _given: dict[str, str], knob: Knob, value: Value) -> None:  # noqa: ANN401
    options.add_session_config_entry(knob.name, _text(value))


_APPLY: Mapping[Scope, Callable[[Any, Any, dict[str, str], Knob, Value], None]] = {
    Scope.PROVIDER: _set_provider_option,
    Scope.SESSION: _set_attribute,
    Scope.ENTRY: _set_entry,
}


def _text(value: Value) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _spelled(text: str) -> str:
    return {"true": "1", "false": "0"}.get(text.lower(), text.lower())


def _resolved(value: Value, device: int) -> Value:
    if value != FREE_SHARE:
        return value
    from rtmo_optuna.machine.gpu import free_bytes  # noqa: PLC0415 - NVML is needed for this one choice only

    return 0.9 * free_bytes(device) / 2**30


def _specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(node.name, node.type, tuple(node.shape)) for node in nodes)


def _translated(error: Exception) -> Exception:
    text = " ".join(str(error).split())
    if type(error).__name__ in _BAD_INPUT or isinstance(error, ValueError):
        return UsageError(re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text))
    return RuntimeError(f"{type(error).__name__}: {text}")


def _why_not_loaded(ort: Any, provider: str) -> str:  # noqa: ANN401
    folder = os.path.join(os.path.dirname(ort.__file__), "capi")  # noqa: PTH118, PTH120 - pathlib costs a child 3 ms
    missing = "ONNX Runtime does not say why"
    try:
        ctypes.CDLL(f"{folder}/libonnxruntime_providers_shared.so", mode=os.RTLD_GLOBAL)
        ctypes.CDLL(f"{folder}/libonnxruntime_providers_cuda.so")
    except OSError as error:
        missing = str(error)
    return (
        f"{provider} does not load: {missing}. Install the CUDA and cuDNN libraries that this ONNX Runtime was built "
        "for (pip install 'rtmo-optuna[gpu]' brings them), or choose --provider cpu."
    )


def _cudnn_version() -> str:
    try:
        number = ctypes.CDLL("libcudnn.so.9", mode=os.RTLD_NOLOAD | os.RTLD_NOW).cudnnGetVersion()
    except (OSError, AttributeError):
        return ""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
