"""How a session is called: as it is, with bound buffers, or as a CUDA graph."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rtmo_optuna.engine.feed import DTYPES, is_fixed, shown
from rtmo_optuna.engine.ort import specs
from rtmo_optuna.errors import SettingsRefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_NOTHING: tuple[None, Any] = (None, None)


@dataclass(frozen=True, slots=True)
class Device:
    """Where buffers lie: `kind` is cuda or cpu, `ort` the module onnxruntime."""

    ort: Any
    kind: str
    index: int

    def value(self, dtype: Any, shape: Sequence[Any]) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        """Return a new OrtValue of that type and fixed shape."""
        return self.ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self.kind, self.index)

    def array(self, value: Any) -> NDArray[Any]:  # noqa: ANN401
        """Return a copy of what `value` holds."""
        array: NDArray[Any] = value.numpy()  # a view of it where it lies in host memory
        return array.copy() if self.kind == "cpu" else array


class Call(Protocol):
    """Runs a model on arrays that were checked."""

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`; `options` are ONNX Runtime's RunOptions."""
        ...


class PlainCall:
    """`InferenceSession.run`: ONNX Runtime allocates and copies. Any number of threads at once."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        """Call `session`."""
        self._session = session

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`."""
        outputs: list[NDArray[Any]] = self._session.run(names, feed, options)
        return outputs


class BoundCall:
    """Inputs copied into buffers that stay on the device, outputs of fixed shape left in such and copied once.

    That is also what a CUDA graph needs, which replays on the same addresses: with `captured`, shapes cannot change
    after the first call. One call at a time: the buffers are shared, so that threads wait for each other.
    """

    def __init__(self, session: Any, device: Device, *, captured: bool) -> None:  # noqa: ANN401
        """Call `session`; raise SettingsRefusedError where it is to be captured and an output has no fixed shape."""
        self._session = session
        self._captured = captured
        self._lock = threading.Lock()
        self._binding = session.io_binding()
        self._inputs = Buffers(device)
        outputs = specs(session.get_outputs())
        self._dynamic = [spec.name for spec in outputs if not is_fixed(spec.shape)]
        if captured and self._dynamic:
            message = f"The model cannot be captured: its output {self._dynamic[0]} has no fixed shape."
            raise SettingsRefusedError(message)
        for spec in outputs:
            if spec.name in self._dynamic:
                self._binding.bind_output(spec.name, "cpu")
            else:
                self._binding.bind_ortvalue_output(spec.name, device.value(DTYPES[spec.dtype], spec.shape))
        self._names = [spec.name for spec in outputs]

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`."""
        with self._lock:
            self._inputs.fill(feed, self._bind)
            for name in self._dynamic:
                self._binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(self._binding, options)
            outputs = self._binding.copy_outputs_to_cpu()
        return _picked(names, self._names, outputs)

    def _bind(self, name: str, value: Any, *, again: bool) -> None:  # noqa: ANN401
        if again and self._captured:
            message = (
                f"The session was captured with another shape of the input {name!r} than {shown(value.shape())}: open "
                "one for each shape."
            )
            raise UsageError(message)
        self._binding.bind_ortvalue_input(name, value)


class Buffers:
    """A buffer on the device for each input, allocated anew only when a shape changes."""

    def __init__(self, device: Device) -> None:
        """Allocate on `device`."""
        self._device = device
        self._values: dict[str, tuple[tuple[int, ...] | None, Any]] = {}

    def fill(self, feed: Arrays, bind: Any) -> None:  # noqa: ANN401
        """Copy `feed` to the device; `bind(name, value, again=)` is told of each new buffer."""
        for name, array in feed.items():
            shape, value = self._values.get(name, _NOTHING)
            if shape != array.shape:
                value = self._device.value(array.dtype.type, array.shape)
                bind(name, value, again=shape is not None)
                self._values[name] = (array.shape, value)
            value.update_inplace(array)


def _picked(names: Sequence[str], order: Sequence[str], outputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    found = dict(zip(order, outputs, strict=True))
    return [found[name] for name in names]
