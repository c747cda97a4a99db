"""What an execution provider is to the rest of the program: one frozen object; and what its knobs are.

Sources of the knobs: ONNX Runtime's pages "CUDA Execution Provider" and "Thread management", its header
onnxruntime_session_options_config_keys.h, and options read back from 1.31. `since` is the first release with the knob.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import Choice, Dimension, Scope, Settings, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rtmo_optuna.providers.cudart import HostStream
    from rtmo_optuna.types.subject import Gpu

Untyped: TypeAlias = Any
"""The module onnxruntime, or an object of it: it ships no types."""
HOST_MEMORY = "cpu"
"""ONNX Runtime's name for the host's memory."""


def text(value: Value, _device: int = 0) -> str:
    """Return a value as ONNX Runtime's options spell it."""
    return str(int(value)) if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting of ONNX Runtime under its own name, or the guide's.

    `ceiling` names the machine's amount that a choice may not exceed, `instructions` those of a processor of which a
    choice takes one. `needs` is the (knob, value) without which this one means nothing. `open` knobs take any positive
    number from a configuration file, not only the choices; `also` is what else they may hold there, and so is a text
    that fits the regular expression `pattern`. `spell` makes an option's text of a value and the GPU's number, and
    `option` is the option's name where it is not the knob's.
    """

    name: str
    scope: Scope
    choices: tuple[Value, ...]
    about: str
    since: tuple[int, int] = (1, 18)
    needs: tuple[str, Value] | None = None
    ceiling: str | None = None
    open: bool = False
    also: tuple[Value, ...] = ()
    pattern: str = ""
    option: str = ""
    spell: Callable[[Value, int], str] = text
    instructions: Mapping[Value, tuple[str, ...]] = field(default_factory=dict)

    @property
    def default(self) -> Value:
        """The value where nothing is said: the first choice."""
        return self.choices[0]


@dataclass(frozen=True, slots=True)
class Extra:
    """An option under ONNX Runtime's own name: where it goes, what it holds, and the only provider that has it.

    `kind` is "flag", "number", "text", or "any", of which only the words for true and false are more than a text.
    """

    name: str
    scope: Scope
    kind: str
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider; as it stands one that computes on the host and is part of every ONNX Runtime.

    `knobs` are its settings, `combined` dimensions that set several of them at once, `extras` its options that are no
    knobs, `entries` the prefix of the session's entries that it alone reads. `memory` is ONNX Runtime's name for where
    its tensors lie, `on_gpu` says whether a GPU's name, lock and memory are a study's, `named` whether
    InferenceSession knows it by its name, as it does none that a plugin brings.
    """

    name: str
    ort_name: str
    knobs: tuple[Knob, ...]
    combined: tuple[Dimension, ...] = ()
    extras: tuple[Extra, ...] = ()
    entries: str = ""
    memory: str = HOST_MEMORY
    on_gpu: bool = False
    named: bool = True

    def suits(self, gpu: Gpu | None) -> bool:
        """Return whether `--provider auto` may take it on a machine with `gpu`; nothing is loaded to know."""
        return gpu is None

    def chosen(self, settings: Settings) -> tuple[Provider, Settings]:
        """Return who runs `settings`, and with which ones."""
        return self, settings

    def lacks(self, name: str, value: Value) -> str:
        """Return why its knob `name` cannot have a value with what is installed; nothing where it can."""
        del name, value
        return ""

    def load(self, ort: Untyped) -> None:
        """Load its libraries, once; raise UsageError, which says what to install, where they are missing."""
        available = ort.get_available_providers()
        if self.ort_name not in available:
            raise UsageError(
                f"The installed ONNX Runtime {ort.__version__} has no {self.ort_name} (it has {', '.join(available)}): "
                "for an NVIDIA GPU uninstall onnxruntime and install rtmo-optuna[gpu], or choose --provider cpu."
            )

    def start(self) -> None:
        """Start its driver, where it has one, without a context on a device.

        Only for a process that is to open a session: after it, one that is forked off cannot use CUDA. Where there is
        no driver nothing happens: opening a session says what is missing.
        """

    def versions(self, ort: Untyped) -> dict[str, str]:
        """Return the versions of ONNX Runtime and of the libraries that were loaded, as far as they are known."""
        return {"onnxruntime": str(ort.__version__)}

    def libraries(self, ort: Untyped) -> dict[str, str]:
        """Return the libraries beside ONNX Runtime's own that it needs, and where each lies ("": nowhere)."""
        del ort
        return {}

    def given(self, device: int) -> dict[str, str]:
        """Return the options that every session has on the device of that number, whatever its settings."""
        del device
        return {}

    def chain(self, ort: Untyped, options: Untyped, given: Mapping[str, str], device: int) -> dict[str, Untyped]:
        """Return the arguments of an InferenceSession that put it on this provider with the options `given`.

        A plugin is named in the SessionOptions `options`, with the device of that number, and takes no arguments.
        """
        del ort, options, device
        return {"providers": [self.ort_name], "provider_options": [dict(given)]}

    def told(self, session: Untyped) -> dict[str, str] | None:
        """Return the provider's options as the session has them; None where it only repeats what it was given."""
        return dict(session.get_provider_options().get(self.ort_name, {}))

    def why_missing(self, ort: Untyped) -> str:
        """Return why a session was not put on this provider."""
        del ort
        return f"{self.ort_name} does not load: ONNX Runtime does not say why."

    def stream(self, device: int) -> HostStream:
        """Return a stream for captures on the device of that number."""
        del device
        from rtmo_optuna.providers.cudart import HostStream  # noqa: PLC0415 - NumPy is loaded with the engine only

        return HostStream()

    def array(self, shape: Sequence[int], dtype: np.dtype[Any], device: int) -> NDArray[Any]:
        """Return a zeroed array of the host's that the device of that number reads fast."""
        del device
        import numpy as np  # noqa: PLC0415

        return np.zeros(shape, dtype)


def flag(name: str, scope: Scope, about: str, **more: object) -> Knob:
    """Return a knob that is on or off, off by default unless `default` says otherwise."""
    default = bool(more.pop("default", False))
    return Knob(name, scope, (default, not default), about, **more)  # type: ignore[arg-type]


def combined(name: str, **choices: Mapping[str, Value]) -> Dimension:
    """Return a dimension that sets several knobs at once; an underscore in a choice's name stands for a plus."""
    return Dimension(name, tuple(Choice(label.replace("_", "+"), tuple(v.items())) for label, v in choices.items()))


def options(scope: Scope, kind: str, names: str, provider: str = "") -> tuple[Extra, ...]:
    """Return an Extra for each of `names`."""
    return tuple(Extra(name, scope, kind, provider) for name in names.split())


GRAPH = Knob(
    "graph_optimization_level",
    Scope.SESSION,
    ("ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_BASIC", "ORT_DISABLE_ALL"),
    "how far the graph is rewritten before it runs",
    also=("ORT_ENABLE_LAYOUT",),
)
PRECISION = Knob(
    "precision",
    Scope.CALL,
    ("float32", "float16", "mixed"),
    "type in which the model, or its head, computes",
    pattern=r"mixed( \d{1,2}(-\d{1,2})?)+",
)
MEM_PATTERN = flag("enable_mem_pattern", Scope.SESSION, "plan activations' memory ahead", default=True)
CPU_ARENA = flag("enable_cpu_mem_arena", Scope.SESSION, "keep freed memory for the next run", default=True)
EXECUTION = Knob(
    "execution_mode", Scope.SESSION, ("ORT_SEQUENTIAL", "ORT_PARALLEL"), "run branches of the graph at once"
)
