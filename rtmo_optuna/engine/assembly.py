"""From settings to what is called: one session, or those of a model that was cut, each with the options it can use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.calls import BoundCall, Call, GraphCall, PlainCall
from rtmo_optuna.engine.device import Device
from rtmo_optuna.engine.fixed import FixedSession, Inputs
from rtmo_optuna.engine.ort import Runtime
from rtmo_optuna.engine.split import Finish, FixedFinish, HostSelection, LooseSession, Selection, SplitCall
from rtmo_optuna.errors import SettingsRefusedError
from rtmo_optuna.providers.table import REFERENCE
from rtmo_optuna.types.request import SessionSpec, Settings, TensorSpec, Value

if TYPE_CHECKING:
    from rtmo_optuna.engine.cutting.cut import Cut

_CAPTURED = "enable_cuda_graph"
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_OF_CONVOLUTIONS = frozenset({"prefer_nhwc", "fuse_conv_bias"})
_PRODUCTS = "Attention Conv ConvTranspose DeformConv Einsum GRU Gemm LSTM MatMul MatMulInteger QLinearConv RNN"
"""Operators whose time grows faster than their data's: nothing for one core of the host."""
_ON_HOST = Settings.of({"intra_op_num_threads": 1})
"""What is left between captured parts is small: more threads would cost more than they bring."""
_NAMED = 3
"""So many nodes are named where some are in the way."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """What runs a model: `call` calls it, `session` is ONNX Runtime's own (that of the head where the model is cut).

    `plain` tells whether that is all there is. `notes` are sentences about what does not run as the settings ask.
    """

    call: Call
    session: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    plain: bool
    notes: tuple[str, ...] = ()


def assemble(runtime: Runtime, spec: SessionSpec, *, record_nodes: bool = False) -> Assembly:
    """Return what runs `spec`; all CUDA graphs are captured here.

    Raises SettingsRefusedError where the settings are not taken, or the model cannot have what they ask for.
    """
    if spec.settings.get("split_capture"):
        from rtmo_optuna.engine.cutting.cut import cut  # noqa: PLC0415 - onnx is slow to import, and hardly ever needed

        parts = cut(spec.model, spec.shapes)
        head = _computing(spec, parts.head)
        return _Parts(runtime, spec, _fed(spec, replace(parts, head=head))).assembly()
    model = _fronted(spec, _computing(spec, spec.model))
    if spec.settings.get(_CAPTURED):
        device = Device.captured(runtime.ort, runtime.provider, spec.device)
        session = _captured(runtime, spec, model, spec.settings, device, free_dimensions=spec.free_dimensions)
        graph = GraphCall(session, device)
        return _whole(session, graph, notes=_told("The model", graph.broken))
    session = runtime.open(
        model,
        spec.settings,
        device=spec.device,
        free_dimensions=spec.free_dimensions,
        record_nodes=record_nodes,
    )
    if spec.settings.get("io_binding"):
        return _whole(session, BoundCall(session, Device(runtime.ort, runtime.provider.memory, spec.device)))
    return _whole(session, PlainCall(session))


def _computing(spec: SessionSpec, model: str) -> str:
    """Return the file of `model`, the whole one or its head, that computes in the precision of the settings."""
    precision = spec.settings.get("precision")
    if precision in {None, "float32"}:
        return model
    from rtmo_optuna.engine.precision import half  # noqa: PLC0415 - onnx is slow to import, and hardly ever needed

    return half(model, precision=str(precision), whole=spec.model)


def _fronted(spec: SessionSpec, model: str) -> str:
    """Return the file of `model` that is fed as `spec` says: pixels are made into its input by nodes in front."""
    if spec.pixels is None:
        return model
    from rtmo_optuna.engine.front import fronted  # noqa: PLC0415 - onnx is slow to import, and hardly ever needed

    return fronted(model, spec.pixels)


def _fed(spec: SessionSpec, parts: Cut) -> Cut:
    """Return `parts` fed as `spec` says: the head, and what else takes the model's inputs."""
    parts = replace(parts, head=_fronted(spec, parts.head))
    if not parts.fed:
        return parts
    tail, select, finish = (path and _fronted(spec, path) for path in (parts.tail, parts.select, parts.finish))
    return replace(parts, tail=tail, select=select, finish=finish)


def _whole(session: Any, call: Call, notes: tuple[str, ...] = ()) -> Assembly:  # noqa: ANN401
    inputs, outputs = ort.specs(session.get_inputs()), ort.specs(session.get_outputs())
    return Assembly(call, session, inputs, outputs, isinstance(call, PlainCall), notes)


def _captured(
    runtime: Runtime,
    spec: SessionSpec,
    path: str,
    settings: Settings,
    device: Device,
    **more: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Return a session that a graph can hold; raise SettingsRefusedError with the nodes that stand in the way."""
    try:
        return runtime.open(path, settings, device=spec.device, stream=device.stream.handle, **more)
    except SettingsRefusedError as error:
        told = _in_the_way(runtime, spec, path, settings, **more)
        raise SettingsRefusedError(f"{error} {told}" if told else str(error)) from error


def _in_the_way(runtime: Runtime, spec: SessionSpec, path: str, settings: Settings, **more: Any) -> str:  # noqa: ANN401
    """Return which nodes ONNX Runtime runs on the CPU, though all others are on the GPU; empty where none are."""
    session = runtime.open(path, _without(settings, {_CAPTURED}), device=spec.device, record_nodes=True, **more)
    nodes = ort.nodes_on_host(session)
    if not nodes:
        return ""
    named = ", ".join(nodes[:_NAMED]) + (f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else "")
    return f"ONNX Runtime runs {named} on the CPU, for want of a kernel for the GPU or as arithmetic with shapes."


def open_on_host(path: str, extras: Mapping[str, Value]) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
    """Return the session of what runs between captured parts, with those of the session's other options that it has."""
    return replace(ort.load(REFERENCE), extras=extras).open(path, _ON_HOST)


def _without(settings: Settings, names: Collection[str]) -> Settings:
    return Settings.of({name: value for name, value in settings if name not in names})


def _told(part: str, why: str) -> tuple[str, ...]:
    return (f"{part} runs without a CUDA graph: {why.removesuffix('.')}.",) if why else ()


class _Parts:
    """The sessions of a model that was cut, on one stream."""

    def __init__(self, runtime: Runtime, spec: SessionSpec, parts: Cut) -> None:
        """Look at `parts`; raise SettingsRefusedError where matrix products would run on the host."""
        self._runtime, self._spec, self._cut = runtime, spec, parts
        self._middle = "select" if parts.finish else "tail"
        self._on_host = bool(spec.settings.get("split_on_host"))
        self._device = Device.captured(runtime.ort, runtime.provider, spec.device)
        self._notes: tuple[str, ...] = ()
        products = sorted(set(_PRODUCTS.split()).intersection(parts.operators[self._middle]))
        if self._on_host and products:
            raise SettingsRefusedError(
                f"split_on_host would run {', '.join(products)} on the host: what follows the operator that no graph "
                "can hold cannot be told from it in this model. Take split_capture without it."
            )

    def assembly(self) -> Assembly:
        """Open everything and capture it."""
        parts, device = self._cut, self._device
        head = _captured(self._runtime, self._spec, parts.head, self._settings("head", captured=True), device)
        middle = self._open_middle()
        finish, graph = self._open_finish() if parts.finish else (None, False)
        gpu = [session for session in (head, finish, None if self._on_host else middle) if session is not None]
        takes = {end.name: end for session in (*gpu, middle) for end in ort.specs(session.get_inputs())}
        on_gpu = {end.name for session in gpu for end in session.get_inputs()}
        inputs = Inputs(device, [takes[name] for name in parts.inputs if name in on_gpu])
        brought = dict.fromkeys(parts.direct)
        if self._on_host:
            brought |= dict.fromkeys(end.name for end in middle.get_inputs() if end.name in parts.passed)
        first = FixedSession(head, device, inputs.values, brought=brought)
        self._notes += _told("The head", first.capture())
        values = {**inputs.values, **first.values}
        selection: Selection = (
            HostSelection(middle, device, first) if self._on_host else LooseSession(middle, device, values)
        )
        last = self._finish(finish, values, graph=graph) if parts.finish else None
        gives = {end.name: end for end in (*self._ends(finish), *self._ends(middle), *self._ends(head))}
        return Assembly(
            SplitCall(device, inputs, first, selection, last),
            head,
            tuple(takes[name] for name in parts.inputs if name in takes),
            tuple(gives[name] for name in parts.outputs),
            plain=False,
            notes=self._notes,
        )

    def _settings(self, part: str, *, captured: bool) -> Settings:
        """Return the settings that mean something for a part."""
        moot = set() if _CONVOLUTIONS.intersection(self._cut.operators[part]) else set(_OF_CONVOLUTIONS)
        return _without(self._spec.settings, moot if captured else {*moot, _CAPTURED})

    def _open_middle(self) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
        path = getattr(self._cut, self._middle)
        if self._on_host:
            return open_on_host(path, self._spec.extras)
        settings = self._settings(self._middle, captured=False)
        return self._runtime.open(path, settings, device=self._spec.device, stream=self._device.stream.handle)

    def _open_finish(self) -> tuple[Any, bool]:
        """Return the session of what follows the selection, and whether a graph can hold it."""
        parts, stream = self._cut, self._device.stream.handle
        eager = self._settings("finish", captured=False)
        why = parts.why
        if parts.rows:
            try:
                settings = self._settings("finish", captured=True)
                return _captured(self._runtime, self._spec, parts.finish, settings, self._device), True
            except SettingsRefusedError as error:
                why = str(error)
        self._notes += _told("What follows the selection", why)
        return self._runtime.open(parts.finish, eager, device=self._spec.device, stream=stream), False

    def _finish(self, session: Any, values: Mapping[str, Any], *, graph: bool) -> Finish:  # noqa: ANN401
        parts, device = self._cut, self._device
        if not parts.rows:
            return LooseSession(session, device, values, device.run_options(synchronize=True))
        outputs = [end.name for end in session.get_outputs()]
        handed = [end.name for end in session.get_inputs() if end.name in parts.selected]
        fixed = FixedSession(session, device, values, sent=handed, brought=outputs)
        if graph:
            self._notes += _told("What follows the selection", fixed.capture())
        return FixedFinish(fixed, device, parts.rows, parts.axes)

    def _ends(self, session: Any) -> list[TensorSpec]:  # noqa: ANN401
        """Return the outputs of a session, with as many rows as there will be."""
        axes = self._cut.axes
        return [
            replace(end, shape=tuple(None if axes.get(end.name) == n else size for n, size in enumerate(end.shape)))
            for end in ort.specs(session.get_outputs() if session is not None else ())
        ]
