"""How a session is called: as it is, with bound buffers, or as a CUDA graph."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rtmo_optuna.engine import turns
from rtmo_optuna.engine.device import Device
from rtmo_optuna.engine.feed import DTYPES, is_fixed
from rtmo_optuna.engine.fixed import FixedSession, Inputs
from rtmo_optuna.engine.ort import specs
from rtmo_optuna.errors import SettingsRefusedError
from rtmo_optuna.providers.base import HOST_MEMORY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_NOTHING: tuple[None, Any] = (None, None)


class Call(Protocol):
    """Runs a model on arrays that were checked."""

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`; `options` are ONNX Runtime's RunOptions, moot where graphs run."""
        ...


class PlainCall:
    """`InferenceSession.run`: ONNX Runtime allocates and copies. Any number of threads at once."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        """Call `session`."""
        self._session = session

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`."""
        with turns.calls:
            outputs: list[NDArray[Any]] = self._session.run(names, feed, options)
        return outputs


class BoundCall:
    """Inputs copied into buffers that stay on the device, outputs of fixed shape left in such and copied once.

    One call at a time: the buffers are shared, so that threads wait for each other.
    """

    def __init__(self, session: Any, device: Device) -> None:  # noqa: ANN401
        """Call `session`; raise SettingsRefusedError where a tensor cannot be bound, as one of strings cannot."""
        outputs = specs(session.get_outputs())
        if odd := next((s for s in (*specs(session.get_inputs()), *outputs) if s.dtype not in DTYPES), None):
            raise SettingsRefusedError(f"The model cannot have bound buffers: {odd.name} is a {odd.dtype}.")
        self._session, self._device = session, device
        self._lock = threading.Lock()
        self._binding = session.io_binding()
        self._inputs: dict[str, tuple[tuple[int, ...] | None, Any]] = {}
        # ONNX Runtime tells a shape of unknown rank as that of a scalar.
        self._dynamic = [s.name for s in outputs if not s.shape or not is_fixed(s.shape)]
        for spec in outputs:
            if spec.name in self._dynamic:
                self._binding.bind_output(spec.name, HOST_MEMORY)
            else:
                self._binding.bind_ortvalue_output(spec.name, device.value(DTYPES[spec.dtype], spec.shape))
        self._names = [spec.name for spec in outputs]

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`."""
        with self._lock, turns.calls:
            for name, array in feed.items():
                self._fill(name, array)
            for name in self._dynamic:
                self._binding.bind_output(name, HOST_MEMORY)
            self._session.run_with_iobinding(self._binding, options)
            made = dict(zip(self._names, self._binding.copy_outputs_to_cpu(), strict=True))
        return [made[name] for name in names]

    def _fill(self, name: str, array: NDArray[Any]) -> None:
        """Copy `array` into its buffer, which is allocated anew only when the shape changes."""
        shape, value = self._inputs.get(name, _NOTHING)
        if shape != array.shape:
            value = self._device.value(array.dtype.type, array.shape)
            self._binding.bind_ortvalue_input(name, value)
            self._inputs[name] = (array.shape, value)
        value.update_inplace(array)


class GraphCall:
    """All of a model as one CUDA graph, captured here and never again. One call at a time, as in `BoundCall`."""

    def __init__(self, session: Any, device: Device) -> None:  # noqa: ANN401
        """Capture `session`; raise SettingsRefusedError where a shape is open. `broken` says why there is no graph."""
        self._stream = device.stream
        self._inputs = Inputs(device, specs(session.get_inputs()))
        outputs = [end.name for end in session.get_outputs()]
        self._fixed = FixedSession(session, device, self._inputs.values, brought=outputs)
        self.broken = self._fixed.capture()

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`."""
        del options
        with self._inputs.holding(feed):
            self._fixed.run()
            self._stream.synchronize()
            return [self._fixed.brought[name].copy() for name in names]
