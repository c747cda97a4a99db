"""ONNX Runtime itself: imported, its libraries loaded, sessions opened on exactly what was asked for.

Its only importer, and only where a session is opened: the parent never does.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rtmo_optuna.errors import SettingsRefusedError, UsageError
from rtmo_optuna.providers.base import Extra, Provider, text
from rtmo_optuna.providers.table import PROVIDERS, REFERENCE
from rtmo_optuna.types.request import Scope, Settings, TensorSpec, Value

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
        model: str | bytes,
        settings: Settings,
        *,
        device: int = 0,
        free_dimensions: Mapping[str, int] | None = None,
        stream: int = 0,
        record_nodes: bool = False,
        log_level: int | None = None,
    ) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        """Return an InferenceSession of `model`, a file or its content, on this provider alone.

        `free_dimensions` fixes symbolic dimensions of its inputs by name. `stream` is the CUDA stream that it runs on
        (0: one of its own). What is at ONNX Runtime's `log_level` or above it is logged. Raises UsageError where the
        provider or the model cannot be used, SettingsRefusedError where the settings are not taken or are read back
        otherwise.
        """
        options, given = self.options(settings, device=device, free_dimensions=free_dimensions)
        if record_nodes:
            options.add_session_config_entry(_RECORD_NODES, "1")
        if log_level is not None:
            options.log_severity_level = log_level
        stream_option = {_STREAM: str(stream)} if stream else {}
        try:
            chain = self.provider.chain(self.ort, options, given | stream_option, device)
            session = self.ort.InferenceSession(model, options, **chain, enable_fallback=_NO_FALLBACK)
        except Exception as error:
            raise translated(error) from error
        if self.provider.ort_name not in session.get_providers():
            raise UsageError(self.provider.why_missing(self.ort))
        told = self.provider.told(session)
        for option, value in given.items():
            if told is not None and _spelled(told.get(option, "absent")) != _spelled(value):
                message = f"ONNX Runtime was given {option}={value} and reads back {told.get(option)}."
                raise SettingsRefusedError(message)
        return session

    def options(
        self, settings: Settings, *, device: int = 0, free_dimensions: Mapping[str, int] | None = None
    ) -> tuple[Any, dict[str, str]]:
        """Return the SessionOptions and the provider options for `settings`, as `open` gives them."""
        table = {knob.name: knob for knob in self.provider.knobs}
        options = self.ort.SessionOptions()
        given = self.provider.given(device)
        for name, value in settings:
            knob = table[name]
            self._apply(options, given, knob.scope, (knob.option or name, knob.spell(value, device)), value)
        for extra, value in self._extras():
            self._apply(options, given, extra.scope, (extra.name, text(value)), value)
        for name, size in (free_dimensions or {}).items():
            options.add_free_dimension_override_by_name(name, size)
        return options, given

    def _apply(self, options: Any, given: dict[str, str], scope: Scope, spelt: tuple[str, str], value: Value) -> None:  # noqa: ANN401
        """Put an option, `spelt` as a name and a text, where `scope` says; those of calls go nowhere here."""
        name, text = spelt
        if scope is Scope.PROVIDER:
            given[name] = text
        elif scope is Scope.ENTRY:
            options.add_session_config_entry(name, text)
        elif scope is Scope.SESSION:
            enums = {
                "graph_optimization_level": self.ort.GraphOptimizationLevel,
                "execution_mode": self.ort.ExecutionMode,
            }
            setattr(options, name, getattr(enums[name], str(value)) if name in enums else value)

    def _extras(self) -> list[tuple[Extra, Value]]:
        """Return the options that are no knobs, without those of another provider."""
        if not self.extras:
            return []
        from rtmo_optuna.space.extras import extra_of  # noqa: PLC0415 - hardly ever needed, and knows every provider

        known = ((extra_of(name), value) for name, value in self.extras.items())
        return [(extra, value) for extra, value in known if extra.provider in {"", self.provider.name}]

    def read_back(self, session: Any) -> dict[str, str]:  # noqa: ANN401
        """Return the provider's options as the session has them, none where it cannot be asked."""
        told = self.provider.told(session) or {}
        return {name: value for name, value in told.items() if not name.endswith(_STREAM)}

    def versions(self) -> dict[str, str]:
        """Return the versions of ONNX Runtime and of what the provider loaded, `cuda` and `cudnn` for instance."""
        return self.provider.versions(self.ort)


def load(provider: str) -> Runtime:
    """Import ONNX Runtime and load the libraries that `provider` needs.

    What was loaded before takes next to no time. Raises UsageError, which says what to install, where ONNX Runtime or
    the provider is missing.
    """
    start = time.perf_counter_ns()
    ort = _import()
    imported = time.perf_counter_ns()
    table = PROVIDERS[provider]
    table.load(ort)
    return Runtime(ort, table, imported - start, time.perf_counter_ns() - imported)


def specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Return ONNX Runtime's inputs or outputs as ours."""
    return tuple(TensorSpec(node.name, node.type, tuple(node.shape)) for node in nodes)


def nodes_on_host(session: Any) -> list[str]:  # noqa: ANN401
    """Return the nodes, by operator and name, that a session that recorded its nodes runs on the CPU."""
    tell = getattr(session, "get_provider_graph_assignment_info", list)
    return [
        f"{node.op_type} {node.name!r}"
        for part in tell()
        if part.ep_name == PROVIDERS[REFERENCE].ort_name
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
        raise UsageError(f"Neither onnxruntime nor onnxruntime-gpu can be imported ({error}); {_INSTALL}.") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise UsageError(
            "The installed onnxruntime is broken, as it is after onnxruntime and onnxruntime-gpu were installed into "
            f"one environment: uninstall both, then {_INSTALL}."
        )
    return onnxruntime


def _spelled(text: str) -> str:
    return {"true": "1", "false": "0"}.get(text.lower(), text.lower())
