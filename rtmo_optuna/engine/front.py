"""Pixels made into what a model takes, by nodes in front of it: they run, and are captured, with the rest of it.

A picture is transposed as bytes, which are a quarter of its floats, and cast afterwards. Where nothing else is done to
it, who casts the input anyway casts the bytes: float16, too, holds 0 to 255 exactly. What scale, mean and deviation do
is done in float32 and rounded to the input's type last, so that half precision begins behind it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna import cache
from rtmo_optuna.codec import encode
from rtmo_optuna.engine.cutting import store
from rtmo_optuna.engine.cutting.pieces import save_piece
from rtmo_optuna.engine.graph import bodies, parse
from rtmo_optuna.engine.inputs.pixels import as_pictures
from rtmo_optuna.engine.whole import spec_of
from rtmo_optuna.types.study import key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnx import ModelProto, NodeProto

    from rtmo_optuna.types.request import Pixels

    Step = tuple[str, Sequence[float], int]

_VERSION = 1
_FILE = "front.onnx"
_TO_PLANES = (0, 3, 1, 2)
"""From batch, height, width, channels to batch, channels, height, width."""
_AXES_AS_INPUT = 13
"""The first opset in which Unsqueeze takes its axes as an input."""


def fronted(model: str, pixels: Pixels, folder: str | None = None) -> str:
    """Return the path of a copy of `model` that takes `pixels`.

    It lies in `folder`, or in the user's cache, by the content of the model; where it is there and whole, nothing is
    done but looking. A model without that input, as a part of one may be, is returned as it is. Raises UsageError where
    the model or the cache is of no use.
    """
    path, kept = Path(model), Path(folder) if folder else cache.folder("pixels")
    content = store.content_hash(path, Path(folder) if folder else None)
    place = store.place_of(f"{content} {key(encode(pixels))}", {}, _VERSION, kept)
    if store.load(place) is None:
        made = parse(path)
        if all(end.name != pixels.input for end in made.graph.input):
            return model
        _put_front(made, pixels)
        store.store(place, {}, lambda scratch: save_piece(made, scratch / _FILE, path.parent))
    return str(place / _FILE)


def _put_front(model: ModelProto, pixels: Pixels) -> None:
    """Have `model` take pixels, under the name of the input that they are made into."""
    from onnx import TensorProto, helper  # noqa: PLC0415 - takes 0.2 s, and most benchmarks never need it

    graph, name = model.graph, pixels.input
    end = next(value for value in graph.input if value.name == name)
    kind, picture = end.type.tensor_type.elem_type, as_pictures(spec_of(end)).shape[1:]
    planes, array, steps = f"{name}/planes", f"{name}/array", _steps(pixels)
    opset = next(one.version for one in model.opset_import if one.domain in {"", "ai.onnx"})
    batch = (pixels.batch,) if pixels.batch > 1 else ()
    front = [*_planes(name, planes, opset, one=not batch)]
    chain: list[Step] = [("Cast", (), kind)]
    if steps:
        chain = [("Cast", (), TensorProto.FLOAT), *steps, *(chain if kind != TensorProto.FLOAT else ())]
    else:
        _rename([node for node in graph.node if node.op_type == "Cast"], name, planes)
    if _rename(graph.node, name, array):
        front += _chained(planes, array, chain)
    end.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, (*batch, *picture)))
    rest = [*graph.node]
    del graph.node[:]
    graph.node.extend([*front, *rest])


def _steps(pixels: Pixels) -> list[Step]:
    """Return what is done to the numbers of pixels, in order: operator, constant by channel, and no type to cast to."""
    steps = (("Mul", (pixels.scale,), 1.0), ("Sub", pixels.mean, 0.0), ("Div", pixels.std, 1.0))
    return [(operator, values, 0) for operator, values, idle in steps if set(values) != {idle}]


def _planes(name: str, target: str, opset: int, *, one: bool) -> list[NodeProto]:
    """Return the nodes that bring channels before height and width, and a batch of `one` picture to the front."""
    from onnx import helper  # noqa: PLC0415

    if not one:
        return [helper.make_node("Transpose", [name], [target], target, perm=_TO_PLANES)]
    batch, axes = f"{name}/batch", f"{name}/axes"
    transpose = helper.make_node("Transpose", [batch], [target], target, perm=_TO_PLANES)
    if opset < _AXES_AS_INPUT:
        return [helper.make_node("Unsqueeze", [name], [batch], batch, axes=[0]), transpose]
    unsqueeze = helper.make_node("Unsqueeze", [name, axes], [batch], batch)
    return [helper.make_node("Constant", [], [axes], axes, value_ints=[0]), unsqueeze, transpose]


def _chained(source: str, target: str, chain: Sequence[Step]) -> list[NodeProto]:
    """Return the nodes that make `target` of `source`, one after the other."""
    import numpy as np  # noqa: PLC0415
    from onnx import helper, numpy_helper  # noqa: PLC0415

    nodes: list[NodeProto] = []
    for place, (operator, values, to) in enumerate(chain, 1):
        given = [source]
        source = target if place == len(chain) else f"{target}/{place}"
        if values:
            constant = numpy_helper.from_array(np.array(values, np.float32).reshape(-1, 1, 1))
            nodes.append(helper.make_node("Constant", [], [f"{source}/{operator}"], value=constant))
            given.append(f"{source}/{operator}")
        nodes.append(helper.make_node(operator, given, [source], source))
        if to:
            nodes[-1].attribute.append(helper.make_attribute("to", to))
    return nodes


def _rename(nodes: Iterable[NodeProto], old: str, new: str) -> bool:
    """Have who reads `old` in `nodes`, and in the bodies of If, Loop and Scan, read `new`; return whether any does."""
    found = False
    for node in nodes:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place], found = new, True
        for body in bodies(node):
            found |= _rename(body.node, old, new)
    return found
