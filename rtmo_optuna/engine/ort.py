"""ONNX Runtime itself: imported, its libraries loaded, sessions opened on exactly what was asked for.

Its only importer, and only where a session is opened: the parent never does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rtmo_optuna.errors import SettingsRefusedError, UsageError
from rtmo_optuna.space.extras import Extra, extra_of
from rtmo_optuna.space.knobs import FREE_SHARE, PROVIDERS, Knob, Provider
from rtmo_optuna.types.request import Scope, Settings, TensorSpec, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_RECORD_NODES = "session.record_ep_graph_assignment_info"
_STREAM = "user_compute_stream"
_NO_FALLBACK = 0
_BAD_INPUT = {"InvalidArgument", "InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel"}
_REFUSED = re.compile("graph capture|cuda ?graph", re.IGNORECASE)
_INSTALL = (
    "install one of them: pip install 'rtmo-optuna[gpu]' on a machine with an NVIDIA GPU, 'rtmo-optuna[cpu]' elsewhere"
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """ONNX Runtime with the libraries of one provider in memory, and how long each took to load."""

    ort: Any
    provider: Provider
    import_ns: int
    preload_ns: int
    extras: Mapping[str, Value] = field(default_factory=dict)
    """Options that are no knobs, given to every session on top of its settings."""

    def open(
        self,
        model: str,
        settings: Settings,
        *,
        device: int = 0,
        free_dimensions: Mapping[str, int] | None = None,
        stream: int = 0,
        record_nodes: bool = False,
    ) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        """Return an InferenceSession of the file `model` on this provider alone.

        `free_dimensions` fixes symbolic dimensions of its inputs by name. `stream` is the CUDA stream that it runs on
        (0: one of its own). Raises UsageError where the provider or the
        model cannot be used, SettingsRefusedError where the settings are not taken or are read back otherwise.
        """
        options, given = self.options(settings, device=device, free_dimensions=free_dimensions)
        if record_nodes:
            options.add_session_config_entry(_RECORD_NODES, "1")
        try:
            session = self.ort.InferenceSession(
                model,
                options,
                providers=[self.provider.ort_name],
                provider_options=[given | ({_STREAM: str(stream)} if stream else {})],
                enable_fallback=_NO_FALLBACK,
            )
        except Exception as error:
            raise translated(error) from error
        if self.provider.ort_name not in session.get_providers():
            raise UsageError(_why_not_loaded(self.ort, self.provider.ort_name))
        told = self.read_back(session)
        for option, value in given.items():
            if _spelled(told.get(option, "absent")) != _spelled(value):
                message = f"ONNX Runtime was given {option}={value} and reads back {told.get(option)}."
                raise SettingsRefusedError(message)
        return session

    def options(
        self, settings: Settings, *, device: int = 0, free_dimensions: Mapping[str, int] | None = None
    ) -> tuple[Any, dict[str, str]]:
        """Return the SessionOptions and the provider options for `settings`, as `open` gives them."""
        table = {knob.name: knob for knob in self.provider.knobs}
        options = self.ort.SessionOptions()
        given: dict[str, str] = {"device_id": str(device)} if self.provider.name == "cuda" else {}
        for name, value in settings:
            _APPLY[table[name].scope](self.ort, options, given, table[name], _resolved(value, device))
        for name, value in self.extras.items():
            extra = extra_of(name)
            if extra.provider in {"", self.provider.name}:
                _APPLY[extra.scope](self.ort, options, given, extra, value)
        for name, size in (free_dimensions or {}).items():
            options.add_free_dimension_override_by_name(name, size)
        return options, given

    def read_back(self, session: Any) -> dict[str, str]:  # noqa: ANN401
        """Return the provider's options as the session reads them back."""
        told = session.get_provider_options().get(self.provider.ort_name, {})
        return {name: value for name, value in told.items() if not name.endswith(_STREAM)}

    def versions(self) -> dict[str, str]:
        """Return the versions of ONNX Runtime and, on `cuda`, of the CUDA and cuDNN libraries that it loaded."""
        found = {"onnxruntime": str(self.ort.__version__)}
        if self.provider.name == "cuda":
            found["cuda"] = str(getattr(self.ort, "cuda_version", "") or "")
            found["cudnn"] = _cudnn_version()
        return {name: version for name, version in found.items() if version}


def load(provider: str) -> Runtime:
    """Import ONNX Runtime and preload the CUDA libraries where `provider` needs them.

    What was loaded before takes next to no time. Raises UsageError, which says what to install, where ONNX Runtime or
    the provider is missing.
    """
    start = time.perf_counter_ns()
    ort = _import()
    imported = time.perf_counter_ns()
    table = PROVIDERS[provider]
    _require_provider(ort, table.ort_name)
    if provider == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    return Runtime(ort, table, imported - start, time.perf_counter_ns() - imported)


def start_driver(provider: str) -> None:
    """Start the CUDA driver where `provider` needs it; no context is made on a GPU.

    Only for a process that is to open a session: after it, one that is forked off cannot use CUDA. Where there is no
    driver nothing happens: opening a session says what is missing.
    """
    if provider == "cuda":
        with contextlib.suppress(OSError):
            ctypes.CDLL("libcuda.so.1").cuInit(0)


def specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Return ONNX Runtime's inputs or outputs as ours."""
    return tuple(TensorSpec(node.name, node.type, tuple(node.shape)) for node in nodes)


def nodes_on_host(session: Any) -> list[str]:  # noqa: ANN401
    """Return the nodes, by operator and name, that a session that recorded its nodes runs on the CPU."""
    tell = getattr(session, "get_provider_graph_assignment_info", list)
    return [
        f"{node.op_type} {node.name!r}"
        for part in tell()
        if part.ep_name == PROVIDERS["cpu"].ort_name
        for node in part.get_nodes()
    ]


def translated(error: Exception) -> Exception:
    """Return ONNX Runtime's error as one of ours where the user or the settings can do something about it."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    if type(error).__name__ in _BAD_INPUT or isinstance(error, ValueError):
        return UsageError(text)
    if _REFUSED.search(text):
        return SettingsRefusedError(text)
    return RuntimeError(f"{type(error).__name__}: {text}")


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


def _set_provider_option(_ort: Any, _options: Any, given: dict[str, str], knob: Knob | Extra, value: Value) -> None:  # noqa: ANN401
    if knob.name == "gpu_mem_limit_gb":
        given["gpu_mem_limit"] = str(int(float(value or 0) * 2**30))
    else:
        given[knob.name] = _text(value)


def _set_attribute(ort: Any, options: Any, _: dict[str, str], knob: Knob | Extra, value: Value) -> None:  # noqa: ANN401
    enums = {"graph_optimization_level": ort.GraphOptimizationLevel, "execution_mode": ort.ExecutionMode}
    setattr(options, knob.name, getattr(enums[knob.name], str(value)) if knob.name in enums else value)


def _set_entry(_ort: Any, options: Any, _given: dict[str, str], knob: Knob | Extra, value: Value) -> None:  # noqa: ANN401
    options.add_session_config_entry(knob.name, _text(value))


_APPLY: Mapping[Scope, Callable[[Any, Any, dict[str, str], Knob | Extra, Value], None]] = {
    Scope.PROVIDER: _set_provider_option,
    Scope.SESSION: _set_attribute,
    Scope.ENTRY: _set_entry,
    Scope.CALL: lambda *_: None,
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
