"""Cutting a model around what a CUDA graph cannot hold: a static head to capture, and a dynamic tail.

The tail is cut once more where its shapes follow from those of what it is handed: see `finish`.

The head takes every node that can be captured. What it hands over stays on the GPU and is not copied, so its size costs
memory only, while each node left to the tail costs the host a launch in every call. This also tears no fusion that a
smaller head would keep: ONNX Runtime fuses nodes whose tensors nobody else needs, and between two static nodes nothing
is handed over that a dynamic one does not need as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.codec import decode
from rtmo_optuna.engine.cutting import store
from rtmo_optuna.engine.cutting.pieces import INLINE_BYTES, Piece, make_piece, save_piece
from rtmo_optuna.engine.cutting.rows import fix_rows
from rtmo_optuna.engine.cutting.static import Analysis, analyse, needed, reads
from rtmo_optuna.engine.cutting.store import Parts
from rtmo_optuna.engine.cutting.tail import divide
from rtmo_optuna.errors import SettingsRefusedError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TypeProto

_VERSION = 4
"""Weights of more bytes go to a file beside the piece: an ONNX file cannot hold more than 2 GB."""
_HEAD, _TAIL, _SELECT, _FINISH = "head.onnx", "tail.onnx", "select.onnx", "finish.onnx"


@dataclass(frozen=True, slots=True)
class Cut:
    """A model in two files, which together give what it gives, or in three.

    `head` and `tail` are the paths. `passed` names the tensors handed from head to tail: outputs of the one, inputs of
    the other. `direct` names the model's outputs that the head gives; all others are the tail's. A tensor may be both.
    The head's outputs are `passed`, then what else is `direct`. `fed` names the model's inputs that the tail takes as
    well, after `passed`; the head takes those that it needs. Everything but the tail's outputs has a fixed shape.
    `inputs` and `outputs` are the model's, in its order.

    `select` and `finish` are paths too, and do together what the tail does: `selected` are the tensors handed from the
    one to the other, few and small, outputs of `select` besides those of the model's that it gives, inputs of `finish`
    besides those of `passed` and `fed` that it needs. Where that is not worth it, all three are empty. The tail is
    there in any case. `rows` is the number of rows that `finish` is made for, with all shapes fixed, and `axes` tells
    which axis they are of each tensor that it is handed or gives; 0 where its shapes change with what it is handed, and
    then `why` says what stands in the way.

    `operators` are the kinds of nodes in each file, by its name without the suffix.
    """

    head: str
    tail: str
    passed: tuple[str, ...]
    direct: tuple[str, ...]
    fed: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    select: str = ""
    finish: str = ""
    selected: tuple[str, ...] = ()
    rows: int = 0
    axes: Mapping[str, int] = field(default_factory=dict)
    why: str = ""
    operators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def cut(
    model: str, shapes: Mapping[str, tuple[int, ...]], folder: str | None = None, *, inline_bytes: int = INLINE_BYTES
) -> Cut:
    """Return `model` cut at `shapes`, which fix the inputs that have free dimensions.

    The files lie in `folder` or, by default, in the user's cache folder, by the content of the model and by the shapes;
    where they are there and whole, nothing is done but looking: the model's content is not hashed again as long as
    its files' sizes, times and inodes stay. Raises SettingsRefusedError where there is nothing to cut, UsageError where
    the model, a shape or the cache folder is of no use.
    """
    path, cache = Path(model), Path(folder) if folder else store.usual_folder()
    place = store.place_of(store.content_hash(path, cache), shapes, _VERSION, cache)
    parts = store.load(place)
    if parts is None:
        whole = _read(path)
        analysis = analyse(whole, shapes, path.parent)
        head, tail, parts = _divided(path, analysis, [output.name for output in whole.graph.output])
        pieces = {_HEAD: make_piece(whole, analysis, head), _TAIL: make_piece(whole, analysis, tail)}
        suppose = partial(analyse, whole, shapes, path.parent)
        again, ends = _divided_again(whole, analysis, tail, pieces[_TAIL], suppose)
        pieces |= ends
        kinds = {Path(name).stem: sorted({node.op_type for node in piece.graph.node}) for name, piece in pieces.items()}
        parts = {**parts, **again, "operators": kinds}

        def write(scratch: Path) -> None:
            for name, piece in pieces.items():
                save_piece(piece, scratch / name, path.parent, inline_bytes)

        store.store(place, parts, write)
    return _told(place, parts)


def _told(place: Path, parts: Parts) -> Cut:
    """Return the cut whose files lie at `place`; `parts` is what was kept of it."""
    paths = {"head": _HEAD, "tail": _TAIL, **({"select": _SELECT, "finish": _FINISH} if parts["selected"] else {})}
    return decode(Cut, {**parts, **{part: str(place / name) for part, name in paths.items()}})


def _read(path: Path) -> ModelProto:
    """Return the model at `path`, which was read before, without its external weights, its functions resolved."""
    import onnx  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    model: ModelProto = onnx.load(path, load_external_data=False)
    if model.functions:
        from onnx import inliner  # noqa: PLC0415 - needed here only

        model = inliner.inline_local_functions(model)
    return model


def _divided(path: Path, analysis: Analysis, outputs: Sequence[str]) -> tuple[Piece, Piece, Parts]:
    """Return head and tail, and what is handed over."""
    made = {name for node in analysis.static for name in node.output}
    late = [name for name in outputs if name not in made]
    tail = needed(analysis.dynamic, late)
    if not tail:
        message = f"There is nothing to cut in {path}: at these shapes, nothing forbids capturing it as a whole."
        raise SettingsRefusedError(message)
    used = dict.fromkeys(name for node in tail for name in reads(node))
    used.update(dict.fromkeys(late))
    used.update(_uses(needed(analysis.constant, used)))
    passed = [name for node in analysis.static for name in node.output if name in used]
    direct = [name for name in outputs if name in made]
    given = list(dict.fromkeys([*passed, *direct]))
    head = needed(analysis.static, given)
    if not head:
        first = tail[0]
        raise SettingsRefusedError(
            f"There is nothing to capture in {path}: everything depends on {first.op_type} "
            f"{first.name or first.output[0]!r}, which a CUDA graph cannot hold."
        )
    wanted = _uses(head)
    fed = [name for name in analysis.inputs if name in used]
    taken = [name for name in analysis.inputs if name in wanted]
    return (
        Piece(head, tuple(taken), tuple(given)),
        Piece(tail, (*passed, *fed), tuple(late)),
        {"passed": passed, "direct": direct, "fed": fed, "inputs": list(analysis.inputs), "outputs": list(outputs)},
    )


def _divided_again(
    whole: ModelProto,
    analysis: Analysis,
    tail: Piece,
    made: ModelProto,
    suppose: Callable[[Mapping[str, Sequence[int]]], Analysis],
) -> tuple[Parts, dict[str, ModelProto]]:
    """Return what is kept of select and finish, and the two by file name; no files where that is not worth it.

    `made` is the tail as a model; `suppose` analyses the whole again, with shapes that some tensors are supposed to
    have.
    """
    types = {**_inferred(made), **analysis.types}
    known = {*analysis.constants, *(name for node in analysis.constant for name in node.output)}
    division = divide(tail.nodes, known, types)
    if division is None:
        return {"selected": [], "rows": 0, "axes": {}, "why": ""}, {}
    given = {name for node in division.select for name in node.output}
    late = [name for name in tail.outputs if name in given]
    outputs = tuple(name for name in tail.outputs if name not in given)
    free = replace(analysis, types=types)
    select = Piece(division.select, tail.inputs, (*dict.fromkeys([*division.handed, *late]),))
    finish = Piece(division.finish, tail.inputs, outputs)
    kept: Parts = {"selected": division.handed, "rows": 0, "axes": {}, "why": ""}
    fixed = fix_rows(analysis, suppose, division, outputs)
    if isinstance(fixed, str):
        kept, last = {**kept, "why": fixed}, _end(whole, free, finish, division.handed)
    else:
        kept = {**kept, "rows": fixed.count, "axes": fixed.axes}
        last = _end(whole, fixed.analysis, replace(finish, nodes=fixed.nodes), division.handed)
    return kept, {_SELECT: _end(whole, free, select, ()), _FINISH: last}


def _end(whole: ModelProto, analysis: Analysis, piece: Piece, handed: tuple[str, ...]) -> ModelProto:
    """Return `piece` as a model that takes what it is `handed`, and those of its inputs that it needs."""
    used = _uses(piece.nodes) | _uses(needed(analysis.constant, _uses(piece.nodes)))
    taken = (*handed, *(name for name in piece.inputs if name in used))
    return make_piece(whole, analysis, replace(piece, inputs=taken))


def _inferred(model: ModelProto) -> dict[str, TypeProto]:
    """Return the types of what the nodes of `model` give, as far as they follow from its inputs."""
    from onnx import shape_inference  # noqa: PLC0415 - takes 0.2 s, and benchmarks never need it

    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    return {value.name: value.type for value in (*graph.value_info, *graph.output)}


def _uses(nodes: Iterable[NodeProto]) -> dict[str, None]:
    return dict.fromkeys(name for node in nodes for name in reads(node))
