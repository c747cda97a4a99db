"""How a model that was cut is called: its head as a CUDA graph, a selection, and what follows it as a graph too.

How many rows the selection keeps changes from call to call, and the shapes of what follows with it. Where no row knows
of another (see `rows`), what follows is made for one number of rows: what is kept is filled up to it, and what is made
of the filling is cut off; where more is kept, it runs again. So one graph serves all numbers of rows, and all graphs
are captured when the session is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rtmo_optuna.engine.device import Device
from rtmo_optuna.engine.fixed import FixedSession, Inputs
from rtmo_optuna.providers.base import HOST_MEMORY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


class SplitCall:
    """A head and what follows it, on one stream; what is handed over stays on the device. One call at a time."""

    def __init__(
        self, device: Device, inputs: Inputs, head: FixedSession, selection: Selection, finish: Finish | None
    ) -> None:
        """Call `head`, which brings to the host the model's outputs that it gives; `inputs` are the model's buffers."""
        self._stream, self._inputs = device.stream, inputs
        self._head, self._selection, self._finish = head, selection, finish

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`; `options` hold for a selection on the device."""
        with self._inputs.holding(feed):
            self._head.run()
            made = self._selection.run(feed, options)
            if self._finish is not None:
                made |= self._finish.run(made)
            if missing := [name for name in names if name not in made]:
                self._stream.synchronize()
                made |= {name: self._head.brought[name].copy() for name in missing}
        return [made[name] for name in names]


class HostSelection:
    """A session on the host, which reads what the head brought there."""

    def __init__(self, session: Any, device: Device, head: FixedSession) -> None:  # noqa: ANN401
        """Run `session`, whose inputs are outputs of `head` or inputs of the model."""
        self._session, self._stream, self._head = session, device.stream, head
        self._takes = [end.name for end in session.get_inputs()]
        self._gives = [end.name for end in session.get_outputs()]

    def run(self, feed: Arrays, options: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401
        """Return the outputs by name, once the head is done."""
        del options  # they are the GPU's
        self._stream.synchronize()
        brought = self._head.brought
        taken = {name: brought[name] if name in brought else feed[name] for name in self._takes}
        return dict(zip(self._gives, self._session.run(self._gives, taken), strict=True))


class LooseSession:
    """A session on the device, on the head's stream, whose buffers it reads; how large its outputs are, calls tell.

    It is the selection, or what follows one where shapes change from call to call.
    """

    def __init__(self, session: Any, device: Device, values: Mapping[str, Any], options: Any = None) -> None:  # noqa: ANN401
        """Run `session`, which reads `values`, buffers by name, and else what it is given; `options` if no others."""
        self._session, self._device, self._binding, self._options = session, device, session.io_binding(), options
        takes, self._gives = ([end.name for end in ends] for ends in (session.get_inputs(), session.get_outputs()))
        self._given = [name for name in takes if name not in values]
        for name in takes:
            if name in values:
                self._binding.bind_ortvalue_input(name, values[name])

    def run(self, given: Arrays, options: Any = None) -> dict[str, NDArray[Any]]:  # noqa: ANN401
        """Return the outputs by name, brought to the host."""
        held = []
        for name in self._given:
            value = self._device.value(given[name].dtype.type, given[name].shape)
            self._device.stream.copy(value.data_ptr(), given[name].ctypes.data, given[name].nbytes)
            self._binding.bind_ortvalue_input(name, value)
            held.append(value)
        for name in self._gives:
            self._binding.bind_output(name, HOST_MEMORY)
        self._session.run_with_iobinding(self._binding, options or self._options)
        return dict(zip(self._gives, self._binding.copy_outputs_to_cpu(), strict=True))


class FixedFinish:
    """What follows, made for `rows` rows: `axes` tells which axis they are of each tensor that has any."""

    def __init__(self, fixed: FixedSession, device: Device, rows: int, axes: Mapping[str, int]) -> None:
        """Run `fixed`, which is sent what the selection hands over and brings its outputs."""
        self._fixed, self._stream, self._rows = fixed, device.stream, rows
        self._axes = axes
        self._sent = {name: _by_rows(array, axes.get(name)) for name, array in fixed.sent.items()}
        self._counted = next((name for name in fixed.sent if name in axes), "")

    def run(self, made: Arrays) -> dict[str, NDArray[Any]]:
        """Return the outputs by name."""
        given = {name: _by_rows(made[name], self._axes.get(name)) for name in self._sent}
        count = len(given[self._counted]) if self._counted else self._rows
        parts = [
            self._part(given, start, min(self._rows, count - start)) for start in range(0, max(count, 1), self._rows)
        ]
        if len(parts) == 1:
            return parts[0]
        axes, first = self._axes, parts[0]
        return {n: np.concatenate([p[n] for p in parts], axes[n]) if n in axes else first[n] for n in first}

    def _part(self, given: Arrays, start: int, count: int) -> dict[str, NDArray[Any]]:
        """Return the outputs for `count` rows from `start` on."""
        for name, target in self._sent.items():
            if name not in self._axes:
                target[...] = given[name]
            elif count:
                target[:count] = given[name][start : start + count]
                target[count:] = given[name][start + count - 1]
        self._fixed.run()
        self._stream.synchronize()
        return {name: self._kept(name, count).copy() for name in self._fixed.brought}

    def _kept(self, name: str, count: int) -> NDArray[Any]:
        """Return the first `count` rows of an output, all of one that has no rows."""
        array, axis = self._fixed.brought[name], self._axes.get(name)
        return array if axis is None else array[(slice(None),) * axis + (slice(count),)]


Selection: TypeAlias = HostSelection | LooseSession
"""What runs between the head and what follows: `run` returns its outputs by name, for the model's inputs."""
Finish: TypeAlias = FixedFinish | LooseSession
"""What follows the selection: `run` returns its outputs by name, for what the selection made or more."""


def _by_rows(array: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Return `array` with its rows in front, in place of what was there; a call of np.moveaxis takes longer."""
    return array.swapaxes(0, axis) if axis else array
