"""How a model that was cut is called: its head as a CUDA graph, what follows as it is or as a graph for each shape."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtmo_optuna.engine.calls import Buffers
from rtmo_optuna.engine.feed import DTYPES, is_fixed
from rtmo_optuna.engine.ort import specs
from rtmo_optuna.errors import SettingsRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence  # noqa: TC004 - no codec reads _Variant

    from numpy.typing import NDArray

    from rtmo_optuna.engine.calls import Device

    Arrays = Mapping[str, NDArray[Any]]
    Shapes = tuple[tuple[int, ...], ...]

VARIANTS = 64
"""A model that keeps up to 50 rows needs no more; each holds its outputs, and a graph in each thread, on the GPU."""
_GRAPH_ID = "gpu_graph_id"  # ONNX Runtime's: one graph for each, 0 where none is given
_NO_GRAPH = -1


class SplitCall:
    """The head of a cut model as a CUDA graph, what follows as an ordinary session; what is handed over stays put.

    With a third session, `finish`, the second one only selects: how much it keeps decides which graph of `finish` runs.
    With `on_host` the second one runs on the host, and what it reads is copied there. `order` names the model's
    outputs. One call at a time, as in `BoundCall`.
    """

    def __init__(
        self,
        head: Any,  # noqa: ANN401 - ONNX Runtime ships no types
        tail: Any,  # noqa: ANN401
        device: Device,
        order: Sequence[str],
        finish: Any = None,  # noqa: ANN401
        *,
        on_host: bool = False,
        limit: int = VARIANTS,
    ) -> None:
        """Bind what the head computes to where the others read it; `limit` is the number of graphs of `finish`.

        Raises SettingsRefusedError where an output of the head has no fixed shape.
        """
        self._lock = threading.Lock()
        self._device = device
        self._head, self._binding = head, head.io_binding()
        self._takes = {spec.name for spec in specs(head.get_inputs())}
        self._tail = _HostTail(tail) if on_host else _BoundTail(tail)
        self._inputs = Buffers(device)
        self._finish = None if finish is None else Variants(finish, device, self._tail.gives, limit=limit)
        self._direct: dict[str, Any] = {}
        for spec in specs(head.get_outputs()):
            if not is_fixed(spec.shape):
                message = f"The model cannot be cut: {spec.name}, which its first part hands over, has no fixed shape."
                raise SettingsRefusedError(message)
            value = device.value(DTYPES[spec.dtype], spec.shape)
            self._binding.bind_ortvalue_output(spec.name, value)
            self._hold(spec.name, value)
            if spec.name in order:
                self._direct[spec.name] = value

    def run(self, names: Sequence[str], feed: Arrays, options: Any = None) -> list[NDArray[Any]]:  # noqa: ANN401
        """Return the outputs `names` for `feed`.

        `options` hold for the head and for a tail on the device; on the host what they ask for may not be had, and
        `finish` runs with those that name its graphs.
        """
        with self._lock:
            self._inputs.fill(feed, self._bind)
            self._head.run_with_iobinding(self._binding, options)
            made = self._tail.run(options)
            if self._finish is not None:
                made |= self._finish.run(made)
            made |= {name: self._device.array(value) for name, value in self._direct.items()}
        return [made[name] for name in names]

    def _bind(self, name: str, value: Any, *, again: bool) -> None:  # noqa: ANN401
        del again  # the head's file fixes the shapes
        if name in self._takes:
            self._binding.bind_ortvalue_input(name, value)
        self._hold(name, value)

    def _hold(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Have those that follow the head read `name` from the buffer `value` from now on, where they take it."""
        self._tail.hold(name, value)
        if self._finish is not None:
            self._finish.hold(name, value)


class _BoundTail:
    """A session that reads buffers where they lie; how large its outputs are, each call tells anew."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        self._session, self._binding = session, session.io_binding()
        self._takes = {spec.name for spec in specs(session.get_inputs())}
        self.gives = [spec.name for spec in specs(session.get_outputs())]

    def hold(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Read the input `name`, if there is one, from the buffer `value`."""
        if name in self._takes:
            self._binding.bind_ortvalue_input(name, value)

    def run(self, options: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401
        """Return the outputs by name."""
        for name in self.gives:
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding, options)
        return dict(zip(self.gives, self._binding.copy_outputs_to_cpu(), strict=True))


class _HostTail:
    """A session on the host: it reads copies of the buffers."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        self._session = session
        self._held: dict[str, Any] = {spec.name: None for spec in specs(session.get_inputs())}
        self.gives = [spec.name for spec in specs(session.get_outputs())]

    def hold(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Read the input `name`, if there is one, from the buffer `value`."""
        if name in self._held:
            self._held[name] = value

    def run(self, _options: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401
        """Return the outputs by name."""
        outputs = self._session.run(self.gives, {name: value.numpy() for name, value in self._held.items()})
        return dict(zip(self.gives, outputs, strict=True))


@dataclass(frozen=True, slots=True)
class _Variant:
    """Buffers for one choice of shapes, bound; `options` name the graph that is captured with them."""

    inputs: Sequence[Any]
    binding: Any
    options: Any


class Variants:
    """A session of which the shapes of some inputs change: a CUDA graph for each choice of shapes that comes again.

    The first call with a choice runs without a graph, and tells the shapes of the outputs, so that a rare choice costs
    no capture. The second gets buffers of its own, on which ONNX Runtime captures, and the others replay that; each
    thread captures for itself. Where tensors are empty or hold no numbers, or more than `limit` choices were seen, no
    graph is made. Needs one call at a time. On a device without CUDA graphs all is the same, but nothing is captured.
    """

    def __init__(self, session: Any, device: Device, given: Sequence[str], *, limit: int) -> None:  # noqa: ANN401
        """Run `session`, which takes those of `given` it has as inputs anew in each call."""
        self._session, self._device, self._limit = session, device, limit
        taken = {spec.name: DTYPES.get(spec.dtype) for spec in specs(session.get_inputs())}
        self._given = {name: taken[name] for name in given if name in taken}
        self._held: dict[str, Any] = dict.fromkeys(name for name in taken if name not in self._given)
        self._outputs = {spec.name: DTYPES.get(spec.dtype) for spec in specs(session.get_outputs())}
        self._shapes: dict[Shapes, Shapes] = {}
        self._variants: dict[Shapes, _Variant] = {}
        self._loose = session.io_binding()
        self._no_graph = self._options(_NO_GRAPH)

    @property
    def captured(self) -> int:
        """How many choices of shapes have buffers, and a graph."""
        return len(self._variants)

    def hold(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Read the input `name`, if there is one, from the buffer `value` in every call from now on."""
        if name in self._held:
            self._held[name] = value
            self._loose.bind_ortvalue_input(name, value)

    def run(self, given: Arrays) -> dict[str, NDArray[Any]]:
        """Return all outputs by name, as arrays of the caller's own; `given` may hold more than the inputs."""
        arrays = [given[name] for name in self._given]
        chosen = tuple(array.shape for array in arrays)
        variant = self._variants.get(chosen)
        if variant is None and chosen in self._shapes:
            variant = self._variants[chosen] = self._variant(chosen, self._shapes[chosen])
        if variant is None:
            return self._run_loose(arrays, chosen)
        for value, array in zip(variant.inputs, arrays, strict=True):
            value.update_inplace(array)
        self._session.run_with_iobinding(variant.binding, variant.options)
        return dict(zip(self._outputs, variant.binding.copy_outputs_to_cpu(), strict=True))

    def _run_loose(self, arrays: Sequence[NDArray[Any]], chosen: Shapes) -> dict[str, NDArray[Any]]:
        """Return the outputs, computed without a graph; remember their shapes where a graph may follow."""
        for name, array in zip(self._given, arrays, strict=True):
            value = self._device.value(array.dtype.type, array.shape)
            value.update_inplace(array)
            self._loose.bind_ortvalue_input(name, value)
        for name in self._outputs:
            self._loose.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._loose, self._no_graph)
        made = dict(zip(self._outputs, self._loose.copy_outputs_to_cpu(), strict=True))
        shapes = tuple(array.shape for array in made.values())
        fits = None not in self._outputs.values() and all(all(shape) for shape in (*chosen, *shapes))
        if fits and len(self._shapes) < self._limit:
            self._shapes[chosen] = shapes
        return made

    def _variant(self, chosen: Shapes, shapes: Shapes) -> _Variant:
        binding = self._session.io_binding()
        inputs = [self._device.value(dtype, shape) for dtype, shape in zip(self._given.values(), chosen, strict=True)]
        for name, value in (self._held | dict(zip(self._given, inputs, strict=True))).items():
            binding.bind_ortvalue_input(name, value)
        for (name, dtype), shape in zip(self._outputs.items(), shapes, strict=True):
            binding.bind_ortvalue_output(name, self._device.value(dtype, shape))
        return _Variant(inputs, binding, self._options(len(self._variants) + 1))

    def _options(self, graph: int) -> Any:  # noqa: ANN401
        options = self._device.ort.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, str(graph))
        return options
