"""The session that an application gets: what `onnxruntime.InferenceSession` has, on the engine that was tuned."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from rtmo_optuna.display import visible
from rtmo_optuna.engine.ahead import Ahead
from rtmo_optuna.engine.feed import DTYPES, OPTIONAL, Signature, is_fixed, shape_of, shown, takes
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from rtmo_optuna.engine.monitor import Monitor
    from rtmo_optuna.types.request import Pixels, SessionSpec, TensorSpec

_BEHIND = {
    "split_capture": "cuts the model into several sessions",
    "enable_cuda_graph": "captures it as a CUDA graph",
    "io_binding": "binds buffers of its own",
}
"""What stands behind a session that is no plain one, by the setting that says so."""
_NEVER = {
    "set_providers": "the provider is the one that was tuned: open another session, with another provider=",
    "enable_fallback": "what was tuned runs or raises, and never falls back to another provider: catch the error",
}
"""Why, of `InferenceSession`'s methods, a tuned session never has these."""


@dataclass(frozen=True, slots=True)
class NodeArg:
    """An input or output as ONNX Runtime tells it: name, type (`tensor(float)`), shape (None or a name: any size)."""

    name: str
    type: str
    shape: list[int | str | None]


class Session:
    """A drop-in for `onnxruntime.InferenceSession`, opened with tuned settings; `open_session` returns one.

    `profile` is the name of the profile that these settings are in the configuration, empty where they are in none;
    `monitor` keeps what calls of the tuned shapes take, None where nobody asked for it.

    Any number of threads may call `run` at once. Where the settings bind buffers (`io_binding`, CUDA graphs), calls
    wait for each other, since they share them; what they return is the caller's own. CUDA graphs are captured while the
    session is opened and never after; meanwhile calls of other sessions of ours wait. What cannot be captured runs
    without a graph, and a warning says so.

    Where shapes were fixed for tuning, inputs of those shapes run exactly what was tuned. Without a CUDA graph others
    are taken as the model takes them: the first one opens a second session, with the same settings and open shapes. A
    session that takes pixels takes those of the one shape.

    All else that `InferenceSession` has (`io_binding`, `run_async`, `run_with_ort_values`, ...) is that of the one
    session behind this one; where the settings bind, capture or cut, these methods raise UsageError.
    """

    def __init__(
        self,
        spec: SessionSpec,
        opening: Callable[[SessionSpec], OnnxRuntimeEngine] = OnnxRuntimeEngine,
        *,
        profile: str = "",
        monitor: Monitor | None = None,
    ) -> None:
        """Open `spec`, see `open_session`, by means of `opening`."""
        self._spec, self._opening = spec, opening
        self.profile, self.monitor = profile, monitor
        self._model_path = spec.model  # as InferenceSession names it
        self._engine = opening(spec)
        for note in self._engine.notes:
            warnings.warn(visible(note), stacklevel=3)
        self._behind = next((name for name in _BEHIND if spec.settings.get(name)), "")
        self._captured = bool(spec.settings.get("enable_cuda_graph"))
        fixes = self._captured or spec.free_dimensions
        self._fixed = {node.name: node.shape for node in self._engine.inputs if node.dtype in DTYPES} if fixes else {}
        self._open: OnnxRuntimeEngine | None = None
        self._open_lock = threading.Lock()
        self._metadata: Any = None
        self._ahead: Ahead[list[NDArray[Any]]] | None = None

    @property
    def pixels(self) -> Pixels | None:
        """How pictures are fed as uint8, height x width x 3; None where the session takes the model's arrays."""
        return self._spec.pixels

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

        Inputs are arrays, lists or OrtValues. Raises UsageError for a missing or unknown input, a wrong type or shape,
        or an unknown output. Arrays that are not contiguous or not in the machine's byte order are converted.
        """
        if isinstance(output_names, str) or not isinstance(input_feed, (dict, Mapping)):
            message = 'Call run with a list of output names, or None, and the arrays by input, as {"input": image}.'
            raise UsageError(message)
        if not (run_options is None or isinstance(run_options, self._engine.runtime.ort.RunOptions)):
            message = f"The run options must be onnxruntime.RunOptions or None, not {type(run_options).__name__}."
            raise UsageError(message)
        names = list(output_names or self._engine.output_names)
        if output_names and (unknown := [name for name in names if name not in self._engine.output_names]):
            known = ", ".join(self._engine.output_names)
            message = f"The model has no output {', '.join(map(str, unknown))}: it has {known}."
            raise UsageError(message)
        engine = self._engine_for(input_feed)
        if self.monitor is None or engine is not self._engine:
            return engine.run_some(names, input_feed, run_options)
        begun = time.perf_counter_ns()
        outputs = engine.run_some(names, input_feed, run_options)
        self.monitor.add(time.perf_counter_ns() - begun)
        return outputs

    def submit(
        self,
        frame: Any,  # noqa: ANN401 - whatever `run` takes
        output_names: Sequence[str] | None = None,
    ) -> Future[list[NDArray[Any]]]:
        """Return at once, with a future of what `run` returns for `frame`: an array for the first input, or a feed.

        Two frames are under way at most; before a third one this waits. Their order is that of their calls, mostly; a
        frame belongs to the session until its future is done, so fill two buffers in turn. What `run` raises, the
        future does.
        """
        feed = frame if isinstance(frame, Mapping) else {self._engine.inputs[0].name: frame}
        with self._open_lock:
            self._ahead = ahead = self._ahead or Ahead()
        return ahead.submit(partial(self.run, output_names, feed))

    def close(self) -> None:
        """Wait for the frames that were submitted; the session can be used afterwards."""
        with self._open_lock:
            ahead, self._ahead = self._ahead, None
        if ahead:
            ahead.close()

    def warm_up(self, feed: Mapping[str, Any] | None = None) -> None:
        """Run once on `feed`, so that nothing is left to be chosen or allocated when it matters.

        CUDA graphs are captured already. Without `feed` the inputs are zeros of the shapes that are fixed. In a model
        with NonMaxSuppression what is prepared follows from how many boxes it finds, so feed a real image. Raises
        UsageError where shapes are open and nothing is fed, and as `run` does.
        """
        if feed is None:
            feed = {spec.name: self._zeros(spec) for spec in self._engine.inputs if not spec.dtype.startswith(OPTIONAL)}
        self.run(None, feed)

    def get_inputs(self) -> list[NodeArg]:
        """Return the inputs, in the model's order, with the shapes that were tuned where these were fixed."""
        return _nodes(self._engine.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Return the outputs, in the model's order."""
        return _nodes(self._engine.outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Return the weights that may be fed as well; none where buffers are bound."""
        return _nodes(self._engine.overridable)

    def get_modelmeta(self) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        """Return the model's metadata: an `onnxruntime.ModelMetadata`, or one alike, where the model was cut."""
        if self._metadata is None:
            if self._behind == "split_capture":
                from rtmo_optuna.engine.whole import read_metadata  # noqa: PLC0415 - hardly ever needed

                self._metadata = read_metadata(Path(self._spec.model))
            else:
                self._metadata = self._engine.session.get_modelmeta()
        return self._metadata

    def get_providers(self) -> list[str]:
        """Return ONNX Runtime's names of the providers in use, the first one first."""
        return self._engine.providers()

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Return each provider's options as ONNX Runtime reads them back."""
        return {name: dict(options) for name, options in self._engine.session.get_provider_options().items()}

    def get_session_options(self) -> Any:  # noqa: ANN401
        """Return the `onnxruntime.SessionOptions` in force, of a cut model those of its first part."""
        return self._engine.session.get_session_options()

    def end_profiling(self) -> str:
        """Return the file with the profile; its name is empty where none was asked for, as in every tuned session."""
        return str(self._engine.session.end_profiling())

    def disable_fallback(self) -> None:
        """Do nothing: a tuned session never falls back to another provider."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return what else the installed `InferenceSession` has: that of the one session behind, or a refusal."""
        if name.startswith("_") or not hasattr(self._engine.runtime.ort.InferenceSession, name):
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message)
        if name in _NEVER:
            return _refusing(f"A tuned session has no {name}, since {_NEVER[name]}.")
        if self._behind:
            return _refusing(
                f"{name} needs a plain session, but {self._behind} in the configuration {_BEHIND[self._behind]}: call "
                "run, or set io_binding: false there, which opens a plain one."
            )
        return getattr(self._engine.session, name)

    def __dir__(self) -> list[str]:
        """Return the names of the attributes, those of `InferenceSession` included."""
        return sorted({*super().__dir__(), *dir(self._engine.runtime.ort.InferenceSession)})

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
        if not takes(spec.shape, sizes):
            message = f"The input {name!r} has the shape {shown(spec.shape)}, and shape= says {shown(wanted)}."
            raise UsageError(message)
        return self._engine.runtime.provider.array(sizes, dtype, self._spec.device)

    def _engine_for(self, feed: Mapping[str, Any]) -> OnnxRuntimeEngine:
        """Return who runs `feed`: the engine that was tuned, or for other shapes one that leaves them open."""
        if all(getattr(feed.get(name), "shape", None) == shape for name, shape in self._fixed.items()):
            return self._engine
        if self._spec.pixels:
            return self._engine
        fed = self._fixed.keys() & feed.keys()
        other = {name for name in fed if not takes(self._fixed[name], shape_of(feed[name]))}
        if not other:
            return self._engine
        with self._open_lock:
            if self._open is None:
                self._check_others(other, feed)
                self._open = self._opening(replace(self._spec, shapes={}, free_dimensions={}))
            return self._open

    def _check_others(self, names: set[str], feed: Mapping[str, Any]) -> None:
        """Raise UsageError where the model does not take these inputs, or where a graph was captured without them."""
        from rtmo_optuna.engine.whole import read_signature  # noqa: PLC0415 - hardly ever needed

        specs = [spec for spec in read_signature(Path(self._spec.model)) if spec.name in names]
        for name, value in Signature(specs, plain=True).checked({name: feed[name] for name in names}).items():
            if self._captured:
                message = (
                    f"The input {name!r} must have the shape {shown(self._fixed[name])}, which the configuration "
                    f"fixed, not {shown(shape_of(value))}: a CUDA graph is of one shape, so open a session for each, "
                    f"with open_session(..., shapes={{{name!r}: (...)}})."
                )
                raise UsageError(message)

    def _zeros(self, spec: TensorSpec) -> NDArray[Any]:
        if spec.dtype not in DTYPES or not is_fixed(spec.shape):
            message = (
                f"The input {spec.name!r} ({spec.dtype}, {shown(spec.shape)}) does not say what to warm up with: call "
                f"warm_up({{{spec.name!r}: ...}})."
            )
            raise UsageError(message)
        return np.zeros([size for size in spec.shape if isinstance(size, int)], DTYPES[spec.dtype])


def _nodes(specs: Sequence[TensorSpec]) -> list[NodeArg]:
    return [NodeArg(spec.name, spec.dtype, list(spec.shape)) for spec in specs]


def _refusing(message: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise UsageError(message)

    return refuse
