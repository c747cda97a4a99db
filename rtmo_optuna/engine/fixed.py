"""A session of which every shape is fixed, on buffers that stay: a CUDA graph can hold it, and it runs without one."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from rtmo_optuna.engine import turns
from rtmo_optuna.engine.device import Device
from rtmo_optuna.engine.feed import DTYPES, is_fixed
from rtmo_optuna.engine.ort import specs
from rtmo_optuna.errors import SettingsRefusedError
from rtmo_optuna.types.request import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WARM_RUNS = 2
"""Before a capture: the first run allocates and chooses algorithms, which a capture would not survive."""
_TRIES = 5
_SPARES = 2
_PAUSE_S = 0.05
"""Between tries, longer each time: others of the process wait for the whole device now and then, not for ever."""


class Inputs:
    """Buffers for inputs on the device: `values` by name. One call at a time holds them.

    While one does, the next one's inputs are copied to spare buffers, from where the device fetches them in no time: so
    threads that share a session do not wait for each other's copies. Spare buffers are made when they are first needed.
    """

    def __init__(self, device: Device, inputs: Sequence[TensorSpec]) -> None:
        """Allocate them; raise SettingsRefusedError where a shape is open, or a type is none that NumPy has."""
        self._device, self._specs = device, inputs
        self._lock = threading.Lock()
        self._free: SimpleQueue[_Buffers | None] = SimpleQueue()
        for _ in range(_SPARES):
            self._free.put(None)
        self._main = _Buffers(device, inputs)
        self.values = self._main.values

    @contextmanager
    def holding(self, feed: Mapping[str, NDArray[Any]]) -> Iterator[None]:
        """Hold the buffers, filled with those arrays of `feed` that there are buffers for, until a call is over."""
        if self._lock.acquire(blocking=False):
            try:
                with turns.calls:
                    self._main.fill(feed)
                    yield
            finally:
                self._lock.release()
            return
        spare = self._free.get()
        try:
            with turns.calls:
                spare = spare or _Buffers(self._device.beside(), self._specs)
                spare.fill(feed)
                spare.synchronize()
            with self._lock, turns.calls:
                self._main.fetch(spare)
                yield
        finally:
            self._free.put(spare)


class _Buffers:
    """One buffer for each input, on one stream."""

    def __init__(self, device: Device, inputs: Iterable[TensorSpec]) -> None:
        self._stream = device.stream
        self.values = {spec.name: _buffer(spec, device) for spec in inputs}
        self._places = {name: (value.data_ptr(), value.tensor_size_in_bytes()) for name, value in self.values.items()}
        self.synchronize = self._stream.synchronize

    def fill(self, feed: Mapping[str, NDArray[Any]]) -> None:
        for name, (address, size) in self._places.items():
            self._stream.copy(address, feed[name].ctypes.data, size)

    def fetch(self, other: _Buffers) -> None:
        for name, (address, size) in self._places.items():
            self._stream.copy(address, other._places[name][0], size)


class FixedSession:
    """Runs `session` on buffers of its own: `values` by name, on the device; `sent` and `brought` on the host.

    `sent` are the arrays that are copied to inputs before each run, `brought` those that outputs are copied to behind
    it. A run is put on the device's stream and not waited for. Needs one run at a time.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - ONNX Runtime ships no types
        device: Device,
        given: Mapping[str, Any],
        *,
        sent: Collection[str] = (),
        brought: Collection[str] = (),
    ) -> None:
        """Allocate buffers; those `given`, by name, are taken where the session has such an input.

        Raises SettingsRefusedError where a shape is open, or a type is none that NumPy has.
        """
        self._session, self._device = session, device
        self._binding = session.io_binding()
        takes = {spec.name: given.get(spec.name) or _buffer(spec, device) for spec in specs(session.get_inputs())}
        gives = {spec.name: _buffer(spec, device) for spec in specs(session.get_outputs())}
        for name, value in takes.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in gives.items():
            self._binding.bind_ortvalue_output(name, value)
        self.values = {**takes, **gives}
        self.sent = {name: self._array(name) for name in sent}
        self.brought = {name: self._array(name) for name in brought}
        self._copies_in = [(self._address(name), array.ctypes.data, array.nbytes) for name, array in self.sent.items()]
        self._copies_out = [
            (array.ctypes.data, self._address(name), array.nbytes) for name, array in self.brought.items()
        ]
        self._eager = device.run_options(synchronize=False)
        self._launch = self._work

    def _array(self, name: str) -> NDArray[Any]:
        value = self.values[name]
        return self._device.stream.array(value.shape(), DTYPES[value.data_type()])

    def _address(self, name: str) -> int:
        address: int = self.values[name].data_ptr()
        return address

    def run(self) -> None:
        """Put one run on the stream, copies included: as a graph once `capture` has made one."""
        self._launch()

    def _work(self) -> None:
        for copy in self._copies_in:
            self._device.stream.copy(*copy)
        self._session.run_with_iobinding(self._binding, self._eager)
        for copy in self._copies_out:
            self._device.stream.copy(*copy)

    def capture(self) -> str:
        """Make a graph of `run`, whatever the buffers hold now; return why there is none, empty where there is.

        What others in this process do may break a capture: it is tried again, and given up at last.
        """
        stream, broken = self._device.stream, ""
        for _ in range(_WARM_RUNS):
            with turns.calls:
                self._work()
                stream.synchronize()
        for attempt in range(_TRIES):
            time.sleep(attempt * _PAUSE_S)
            try:
                with turns.capture():
                    launch = stream.capture(self._work)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime raises what it was told of, in types of its own
                broken = " ".join(str(error).split())
            else:
                self._launch = launch or self._work
                return ""
        return broken


def _buffer(spec: TensorSpec, device: Device) -> Any:  # noqa: ANN401 - an OrtValue
    if not is_fixed(spec.shape) or spec.dtype not in DTYPES:
        message = f"The model cannot be captured: {spec.name} ({spec.dtype}) has no fixed shape of numbers."
        raise SettingsRefusedError(message)
    return device.value(DTYPES[spec.dtype], spec.shape)
