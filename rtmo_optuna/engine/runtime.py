"""What an application needs to run exactly what was tuned: a session opened as config.yaml says."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.engine import cuts, ort
from rtmo_optuna.engine.cudart import page_locked
from rtmo_optuna.engine.feed import DTYPES, is_fixed, shown
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine import gpu, host
from rtmo_optuna.space import configfile
from rtmo_optuna.space.knobs import PROVIDERS, canonical, knob_table
from rtmo_optuna.wire import Scope, SessionSpec, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rtmo_optuna.wire import TensorSpec


@dataclass(frozen=True, slots=True)
class NodeArg:
    """An input or output as ONNX Runtime tells it: name, type (`tensor(float)`), shape (None or a name: any size)."""

    name: str
    type: str
    shape: list[int | str | None]


class Session:
    """A drop-in for `onnxruntime.InferenceSession`, opened with tuned settings; `open_session` returns one.

    Any number of threads may call `run` at once. Where the settings bind buffers (`io_binding`, CUDA graphs), calls
    wait for each other, since they share them; what they return is the caller's own. CUDA graphs are captured while the
    session is opened and never after; meanwhile calls of other sessions of ours wait. What cannot be captured runs
    without a graph, and a warning says so.
    """

    def __init__(self, spec: SessionSpec) -> None:
        """Open `spec`; see `open_session`."""
        self._spec = spec
        self._engine = OnnxRuntimeEngine(spec)
        for note in self._engine.notes:
            warnings.warn(note, stacklevel=3)

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from ONNX Runtime's defaults."""
        return self._spec.settings.to_plain()

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: Any = None,  # noqa: ANN401 - onnxruntime.RunOptions
    ) -> list[NDArray[Any]]:
        """Return the outputs `output_names` (None or empty: all) for `input_feed`, as arrays of the caller's own.

        Raises UsageError for a missing or unknown input, a wrong type or shape, or an unknown output. Arrays that are
        not contiguous or not in the machine's byte order are converted.
        """
        if isinstance(output_names, str) or not isinstance(input_feed, Mapping):
            message = 'Call run with a list of output names, or None, and the arrays by input, as {"input": image}.'
            raise UsageError(message)
        names = list(output_names or self._engine.output_names)
        if unknown := set(names) - set(self._engine.output_names):
            known = ", ".join(self._engine.output_names)
            message = f"The model has no output {', '.join(sorted(unknown))}: it has {known}."
            raise UsageError(message)
        return self._engine.run_some(names, input_feed, run_options)

    def get_inputs(self) -> list[NodeArg]:
        """Return the inputs, in the model's order."""
        return _nodes(self._engine.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Return the outputs, in the model's order."""
        return _nodes(self._engine.outputs)

    def get_providers(self) -> list[str]:
        """Return ONNX Runtime's names of the providers in use, the first one first."""
        return self._engine.providers()

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Return each provider's options as ONNX Runtime reads them back."""
        return {self._engine.runtime.provider.ort_name: dict(self._engine.provider_options)}

    def input_buffer(self, name: str, shape: Sequence[int] | None = None) -> NDArray[Any]:
        """Return an array for the input `name`, to be filled in place and fed: on a GPU it is page-locked.

        The copy to the GPU then takes a third of the time or less. It belongs to the caller, is zeroed, and outlives
        the session; ask once and use it again. `shape` is needed where the model leaves a dimension open. Where CUDA is
        not in use or gives no such memory, the array is an ordinary one. Raises UsageError for an unknown input or
        shape.
        """
        spec = next((spec for spec in self._engine.inputs if spec.name == name), None)
        if spec is None or spec.dtype not in DTYPES:
            known = ", ".join(spec.name for spec in self._engine.inputs)
            message = f"The model has no input {name!r} that NumPy has a type for: it has {known}."
            raise UsageError(message)
        wanted = spec.shape if shape is None else tuple(shape)
        if not is_fixed(wanted):
            message = f"The input {name!r} has the open shape {shown(wanted)}: say which one, as shape=(...)."
            raise UsageError(message)
        sizes, dtype = [size for size in wanted if isinstance(size, int)], DTYPES[spec.dtype]
        locked = page_locked(sizes, dtype, self._spec.device) if self._spec.provider == "cuda" else None
        return np.zeros(sizes, dtype) if locked is None else locked


def open_session(
    model: str | Path,
    config: str | Path = "config.yaml",
    *,
    config_path: str = "",
    provider: str = "auto",
    device: int = 0,
    strict: bool = True,
) -> Session:
    """Return a session of `model` with the settings that `config` holds: what was tuned is what runs.

    `config_path` names the place in the file, as `tune --config-path` does. `provider` is cuda or cpu; `auto` is the
    one that was tuned, else cuda where there is a GPU. `device` is the GPU's number.

    Raises UsageError where the file does not exist or holds unknown settings or none, and where GPU, ONNX Runtime,
    model or provider are not those that were tuned: with `strict=False` that is a warning. Raises SettingsRefusedError
    where ONNX Runtime does not take the settings.
    """
    held = _held(Path(config), config_path, provider)
    spec = SessionSpec(
        model=str(model),
        provider=held.provider,
        settings=held.settings,
        device=device,
        shapes=held.shapes,
        free_dimensions=held.free_dimensions,
    )
    if not Path(model).is_file():
        message = f"The model {model} does not exist or is no file; give the path of an ONNX file."
        raise UsageError(message)
    if told := _differences(held.info, spec):
        sentence = f"{config} was tuned for something else ({'; '.join(told)}): tune again here"
        if strict:
            message = f"{sentence}, or open the session with strict=False."
            raise UsageError(message)
        warnings.warn(f"{sentence}.", stacklevel=2)
    return Session(spec)


def provider_options(
    config: str | Path = "config.yaml", *, config_path: str = "", provider: str = "auto", device: int = 0
) -> list[tuple[str, dict[str, str]]]:
    """Return what to give to `InferenceSession(providers=...)` for the provider options that `config` holds.

    Session options are `session_options`; binding, CUDA graphs and cut models need `open_session`, and leave these
    options out. Raises UsageError as `open_session` does for the file.
    """
    held = _held(Path(config), config_path, provider)
    runtime = ort.load(held.provider)
    return [(runtime.provider.ort_name, runtime.options(_for_plain_calls(held), device=device)[1])]


def session_options(config: str | Path = "config.yaml", *, config_path: str = "", provider: str = "auto") -> Any:  # noqa: ANN401
    """Return `onnxruntime.SessionOptions` with the session's settings that `config` holds."""
    held = _held(Path(config), config_path, provider)
    options, _ = ort.load(held.provider).options(_for_plain_calls(held), free_dimensions=held.free_dimensions)
    return options


@dataclass(frozen=True, slots=True)
class _Held:
    """What a configuration file says of a session."""

    provider: str
    settings: Settings
    shapes: Mapping[str, tuple[int, ...]]
    free_dimensions: Mapping[str, int]
    info: Mapping[str, Any]


def _held(path: Path, config_path: str, provider: str) -> _Held:
    if path.is_dir():
        message = f"The configuration {path} is a folder: give the path of a YAML file."
        raise UsageError(message)
    if not path.is_file():
        message = f"The configuration {path} does not exist: tune first (rtmo-optuna tune MODEL --config {path})."
        raise UsageError(message)
    info = configfile.read_info(path, config_path)
    chosen = provider if provider != "auto" else info.get("provider") or ("cuda" if gpu.gpus() else "cpu")
    if chosen not in PROVIDERS:
        where = f"benchmark_info of {path} says" if provider == "auto" else "this call says"
        message = f"There is no provider {str(chosen)!r}, which {where}: it must be {' or '.join(PROVIDERS)}."
        raise UsageError(message)
    config = configfile.read(path, chosen, config_path)
    configfile.check_settings(config, config_path)
    fixed = info.get("free_dimensions") or {}
    return _Held(
        provider=chosen,
        settings=config.settings,
        shapes={name: tuple(map(int, shape.split("x"))) for name, shape in (info.get("shapes") or {}).items() if shape},
        free_dimensions={name: int(size) for name, size in fixed.items()},
        info=info,
    )


def _differences(info: Mapping[str, Any], spec: SessionSpec) -> list[str]:
    """Return what is not as it was tuned; nothing is asked of the machine that the file does not speak of."""
    ask: dict[str, Callable[[], str]] = {
        "provider": lambda: spec.provider,
        "gpu_name": lambda: getattr(dict(enumerate(gpu.gpus())).get(spec.device), "name", "no such GPU"),
        "cpu_name": lambda: host.host().cpu,
        "onnxruntime_version": lambda: ort.load(spec.provider).versions()["onnxruntime"],
        "model_sha256": lambda: cuts.content_hash(Path(spec.model), cuts.cache_folder()),
    }
    found = {name: (str(info[name]), str(tell())) for name, tell in ask.items() if info.get(name)}
    return [f"{name} was {was[:40]}, is {now[:40]}" for name, (was, now) in found.items() if was != now]


def _for_plain_calls(held: _Held) -> Settings:
    """Return the settings without those that need more than a session's options."""
    table = knob_table(held.provider)
    calls = {name for name, knob in table.items() if knob.scope is Scope.CALL}
    return canonical(held.provider, {name: value for name, value in held.settings if name not in calls})


def _nodes(specs: Sequence[TensorSpec]) -> list[NodeArg]:
    return [NodeArg(spec.name, spec.dtype, list(spec.shape)) for spec in specs]
