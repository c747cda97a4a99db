"""Cutting a model around what a CUDA graph cannot hold: same outputs to the last bit, files kept and made anew."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import models
from calling import assembled
from models import node, outside
from rtmo_optuna.engine.cutting.cut import Cut, cut
from rtmo_optuna.engine.cutting.static import OBSTACLES, forbidding
from rtmo_optuna.engine.device import Device
from rtmo_optuna.engine.fixed import FixedSession
from rtmo_optuna.engine.graph import read_graph
from rtmo_optuna.engine.split import FixedFinish
from rtmo_optuna.errors import SettingsRefusedError, UsageError

Arrays = dict[str, NDArray[Any]]
Values = dict[str, tuple[int, Sequence[int | str]]]
Styled = Callable[[str], tuple[Path, NDArray[np.float32]]]

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ON_HOST = {"Shape", "Size", "Range", "ConstantOfShape", "Constant"}
LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"]
COUNTING = {"Shape", "Concat"}  # in the tails below: what follows from the number of rows
STYLES = ["plain", "plain, dynamic"]
BATCHES = [("plain", 1), ("plain, dynamic", 2), ("exported", 2), ("opset17", 1)]
CPU = Device(onnxruntime, "cpu", 0)


def obstacles(path: str | Path) -> dict[str, int]:
    """Return which operators of a model forbid its capture, and how many there are."""
    return forbidding(read_graph(Path(path)).operators)


def floats(*values: float) -> NDArray[np.float32]:
    """Return a vector."""
    return np.array(values, np.float32)


def integers(*values: int) -> NDArray[np.int64]:
    """Return a vector."""
    return np.array(values, np.int64)


def integer(value: int) -> NDArray[np.int64]:
    """Return a scalar."""
    return np.array(value, np.int64)


def run(
    path: str | Path, feed: Mapping[str, Any], level: str = "ORT_ENABLE_ALL", free: Mapping[str, int] | None = None
) -> Arrays:
    """Return the outputs of the model at `path` by name; `feed` may hold more than its inputs."""
    session = open_session(path, level, free)
    names = [output.name for output in session.get_outputs()]
    taken = {given.name: feed[given.name] for given in session.get_inputs()}
    return dict(zip(names, session.run(None, taken), strict=True))


def open_session(path: str | Path, level: str = "ORT_ENABLE_ALL", free: Mapping[str, int] | None = None) -> Any:  # noqa: ANN401
    """Return a session of the model at `path` on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    for name, size in (free or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_cut(parts: Cut, feed: Mapping[str, Any], level: str = "ORT_ENABLE_ALL") -> Arrays:
    """Return the model's outputs by name: what the head gives, handed over as `parts` says, and what the tail makes.

    Where the tail is cut again, both halves are run too, and must give the same.
    """
    head = run(parts.head, feed, level)
    assert list(head) == list(dict.fromkeys([*parts.passed, *parts.direct]))
    handed = {name: head[name] for name in parts.passed} | {name: feed[name] for name in parts.fed}
    assert [value.name for value in load(parts.tail).graph.input] == list(handed)
    late = run(parts.tail, handed, level)
    assert bool(parts.finish) == bool(parts.select) == bool(parts.selected)
    if parts.finish:
        select = run(parts.select, handed, level)
        assert set(parts.selected) <= select.keys() <= {*parts.selected, *parts.outputs}
        inputs = [value.name for value in load(parts.finish).graph.input]
        assert inputs == [*parts.selected, *(name for name in handed if name in inputs)]
        finish = run_finish(parts, handed, select, level)
        assert_same(late, {name: (select | finish)[name] for name in late})
    return {name: head[name] for name in parts.direct} | late


def run_finish(parts: Cut, handed: Arrays, select: Arrays, level: str) -> Arrays:
    """Return what the last part gives, for as many rows as it is made for at a time."""
    if not parts.rows:
        return run(parts.finish, handed | {name: select[name] for name in parts.selected}, level)
    session = open_session(parts.finish, level)
    given = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in handed.items()}
    outputs = [output.name for output in session.get_outputs()]
    fixed = FixedSession(session, CPU, given, sent=parts.selected, brought=outputs)
    return FixedFinish(fixed, CPU, parts.rows, parts.axes).run(select)


def assert_same(whole: Arrays, parts: Arrays) -> None:
    """Check that both have the same outputs, to the last bit."""
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        assert (array.dtype, array.shape) == (parts[name].dtype, parts[name].shape)
        assert array.tobytes() == parts[name].tobytes()


def load(path: str | Path) -> onnx.ModelProto:
    """Return the model at `path` without its external weights."""
    return onnx.load(path, load_external_data=False)


def operators(path: str | Path) -> list[str]:
    """Return the operators of the nodes at `path`, in order."""
    return [node.op_type for node in load(path).graph.node]


def optimized_operators(path: str, scratch: Path) -> set[str]:
    """Return the operators that ONNX Runtime's basic optimisation leaves."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(scratch / "optimized.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return set(operators(scratch / "optimized.onnx"))


def positives(path: Path, batch: int | str = 2) -> Path:
    """Write a model that gives the coordinates of what is positive in x @ w, and the values there."""
    nodes = [
        *(node("MatMul", "x w", "h"), node("Add", "h b", "y"), node("Relu", "y", "r"), node("NonZero", "r", "places")),
        node("Transpose", "places", "rows", perm=[1, 0]),
        *(node("GatherND", "y rows", "found"), node("Mul", "found scale", "values")),
    ]
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((8, 512)).astype(np.float32),
        "b": random.standard_normal(512).astype(np.float32),
        "scale": floats(3),
    }
    outputs = {"rows": (INT64, ("n", 2)), "values": (FLOAT, ("n",))}
    return models.save(path, nodes, {"x": (FLOAT, (batch, 8))}, outputs, weights)


def an_x(shape: Sequence[int] = (2, 8), seed: int = 1) -> Arrays:
    """Return an input for `positives`."""
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("style", "batch"), [*BATCHES, ("plain, dynamic", 1)])
def test_rtmo_is_the_same_in_two_parts(rtmo_t: Styled, tmp_path: Path, level: str, style: str, batch: int) -> None:
    """Images of many people and of none, one at a time or several, give equal outputs to the last bit."""
    path, image = rtmo_t(style)
    parts = cut(str(path), {"input": (batch, *image.shape[1:])}, str(tmp_path))
    blank = np.full_like(image, 114)
    half = blank.copy()
    half[..., image.shape[-1] // 2 :] = image[..., image.shape[-1] // 2 :]
    rows = set()
    for batches in ([image, blank], [half, image], [blank] * 2):
        feed = {"input": np.ascontiguousarray(np.concatenate(batches[:batch]))}
        whole = run(path, feed, level, {"batch": batch})
        assert_same(whole, run_cut(parts, feed, level))
        rows.add(whole["dets"].shape[1])
    assert len(rows) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("style", "batch"), BATCHES)
def test_rtmo_is_called_in_three_parts(rtmo_t: Styled, style: str, batch: int) -> None:
    """Eight pictures with fewer and fewer people, each three times, in buffers that stay: equal to the last bit."""
    path, image = rtmo_t(style)
    assembly = assembled(path, "split", {"input": (batch, *image.shape[1:])}, "ORT_DISABLE_ALL")
    assert assembly.notes == ()
    outputs = [output.name for output in assembly.outputs]
    width, rows = image.shape[-1], []
    for covered in range(0, width + 1, width // 8):
        sample = image.copy()
        sample[..., :covered] = 114
        feed = {"input": np.repeat(sample, batch, axis=0)}
        whole = run(path, feed, "ORT_DISABLE_ALL", {"batch": batch})
        for _ in range(3):
            found = dict(zip(outputs, assembly.call.run(outputs, feed), strict=True))
            assert_same(whole, found)
        rows.append(whole["dets"].shape[1])
    assert len(set(rows)) > 4
    assert rows[-1] == 1  # nobody, and the row that RTMO adds


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_rtmo_is_cut_just_before_suppression(rtmo_t: Styled, tmp_path: Path, style: str) -> None:
    """The head holds all up to the suppression and nothing for the host; the tail begins with it."""
    path, image = rtmo_t(style)
    assert obstacles(path) == {"NonMaxSuppression": 1}
    parts = cut(str(path), {"input": image.shape}, str(tmp_path))
    before = operators(path)
    place = before.index("NonMaxSuppression")
    assert operators(parts.tail)[0] == "NonMaxSuppression"
    assert operators(parts.head) == [*before[:place], "Concat"]  # of boxes and scores, which the model does later
    assert not optimized_operators(parts.head, tmp_path) & (OBSTACLES | ON_HOST)
    assert parts.direct == parts.fed == ()
    head = load(parts.head).graph
    shapes = {output.name: [d.dim_value for d in output.type.tensor_type.shape.dim] for output in head.output}
    assert shapes["pose"] == [1, 845, 192]
    assert min(size for shape in shapes.values() for size in shape) > 0
    assert not {tensor.name for tensor in load(parts.tail).graph.initializer} & {"backbone/stem/weight"}


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_rtmo_is_cut_again_where_rows_are_known(rtmo_t: Styled, tmp_path: Path, style: str) -> None:
    """Selection ends with the places that are kept, up to 50 numbers; all that gathers and decodes comes after."""
    path, image = rtmo_t(style)
    parts = cut(str(path), {"input": image.shape}, str(tmp_path))
    select, finish = operators(parts.select), operators(parts.finish)
    assert (select + finish, len(finish), select[0]) == (operators(parts.tail), 88, "NonMaxSuppression")
    assert select[-1] == "GatherND"
    (kept,) = load(parts.select).graph.output
    assert (kept.name, kept.type.tensor_type.elem_type) == (parts.selected[0], INT64)
    assert not set(finish) & (OBSTACLES | ON_HOST | {"TopK"})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("scale", [1.0, 0.0, -100.0])
def test_nonzero(tmp_path: Path, level: str, scale: float) -> None:
    """A tail of NonZero gives the same for many places, for few, and with a free batch that is fixed."""
    path = positives(tmp_path / "m.onnx", batch="n")
    parts = cut(str(path), {"x": (5, 8)}, str(tmp_path / "cuts"))
    feed = {"x": an_x((5, 8))["x"] * np.float32(scale)}
    assert_same(run(path, feed, level, {"n": 5}), run_cut(parts, feed, level))
    assert operators(parts.head) == ["MatMul", "Add", "Relu"]
    assert parts.passed == ("y", "r")


def test_shape_arithmetic_becomes_constants(tmp_path: Path) -> None:
    """What a dynamic export computes from shapes is neither handed over nor left to a head that runs on the GPU."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "batch"),
        node("Unsqueeze", "batch axis", "batch1"),
        node("Concat", "batch1 minus", "target", axis=0),
        node("Reshape", "x target", "flat"),
        node("Cast", "batch", "amount", to=FLOAT),
        node("Div", "flat amount", "mean"),
        node("Range", "zero batch one", "rows"),
        node("Unsqueeze", "rows last", "column"),
        node("NonZero", "mean", "places"),
        node("Mul", "places column", "scaled"),
        node("Reshape", "scaled target", "y"),
    ]
    weights = {
        "zero": integer(0), "one": integer(1), "axis": integers(0), "last": integers(1), "minus": integers(-1),
    }  # fmt: skip
    inputs: Values = {"x": (FLOAT, ("batch", 3, "side"))}
    path = models.save(tmp_path / "m.onnx", nodes, inputs, {"y": (INT64, ("a", "b"))}, weights)
    parts = cut(str(path), {"x": (2, 3, 4)}, str(tmp_path))
    assert operators(parts.head) == ["Reshape", "Div"]
    assert parts.passed == ("mean",)
    assert operators(parts.tail) == ["NonZero", "Mul", "Reshape"]
    feed = an_x((2, 3, 4))
    assert_same(run(path, feed, free={"batch": 2, "side": 4}), run_cut(parts, feed))


def chain(first: str, last: str, length: int) -> list[onnx.NodeProto]:
    """Return `length` nodes from one tensor to another."""
    names = [first, *(f"{last}{step}" for step in range(1, length)), last]
    return [node("Add", f"{one} {one}", other) for one, other in itertools.pairwise(names)]


FOUND = [
    node("Relu", "x", "r"),
    node("NonZero", "r", "places"),
    node("Transpose", "places", "rows", perm=[1, 0]),
    node("GatherND", "r rows", "found"),
]
TARGETED = [
    node("Shape", "found", "shape"),
    node("Concat", "shape one", "target", axis=0),
    node("Reshape", "found target", "column"),
]
COUNTED = [node("Shape", "rows", "shape"), node("Slice", "shape zero one", "count"), node("Min", "count five", "few")]
AGAIN: Mapping[str, tuple[list[onnx.NodeProto], list[str], tuple[str, ...]]] = {
    "fewest tensors": ([*FOUND, *chain("found", "y", 12)], ["NonZero"], ("places",)),
    "too little": ([*FOUND, *chain("found", "y", 7)], [], ()),
    "just enough": ([*FOUND, *chain("found", "y", 8)], ["NonZero"], ("places",)),
    "shapes of what is handed over": ([*FOUND, *TARGETED, *chain("column", "y", 12)], ["NonZero"], ("places",)),
    "rows limited": (
        [*FOUND, *COUNTED, node("TopK", "found few", "best order", axis=0), *chain("best", "y", 20)],
        ["NonZero", "Transpose", "GatherND", "Shape", "Slice", "Min", "TopK"],
        ("best",),
    ),
    "numbers that become shapes": (
        [*FOUND, node("ReduceMax", "found", "top", keepdims=0), node("Cast", "top", "size", to=INT64),
         node("Unsqueeze", "size zero", "target"), node("Expand", "one target", "wide"),
         node("Cast", "wide", "y0", to=FLOAT), *chain("y0", "y", 12)],
        ["NonZero", "Transpose", "GatherND", "ReduceMax", "Cast", "Unsqueeze", "Expand"],
        ("wide",),
    ),
    "counted before, read on the host after": (
        [*FOUND, *COUNTED, node("TopK", "found few", "best order", axis=0), *chain("best", "u", 5),
         node("Expand", "u few", "v"), *chain("v", "y", 5)],
        [],
        (),
    ),
    "an obstacle at the end": ([*FOUND, *chain("found", "u", 12), node("NonZero", "u", "v"),
                                node("Cast", "v", "y", to=FLOAT)], [], ()),
    "sequences are not handed over": (
        [node("Relu", "x", "r"), node("NonZero", "r", "p"), node("SplitToSequence", "p", "s", axis=0, keepdims=0),
         node("SequenceAt", "s where", "u"), node("Cast", "u", "v", to=FLOAT), *chain("v", "y", 12)],
        ["NonZero", "SplitToSequence", "SequenceAt"],
        ("u",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AGAIN)
def test_where_the_tail_is_cut_again(tmp_path: Path, case: str) -> None:
    """Select has what cannot be captured, what limits rows, and what leads there; it hands over as little as it can."""
    nodes, select, selected = AGAIN[case]
    weights = {"zero": integers(0), "one": integers(1), "five": integers(5), "where": integer(0)}
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, (64,))}, {"y": (FLOAT, ("n",))}, weights)
    parts = cut(str(path), {}, str(tmp_path / "cuts"))
    assert parts.selected == selected
    if selected:
        assert operators(parts.select) == select
        left = operators(parts.tail)[len(select) :]
        assert operators(parts.finish) == [kind for kind in left if not parts.rows or kind not in COUNTING]
    for seed in range(3):
        feed = {"x": an_x((64,), seed)["x"] * np.float32(3)}
        assert_same(run(path, feed), run_cut(parts, feed))
        assert cut(str(path), {}, str(tmp_path / "cuts")) == parts


def body(only: onnx.NodeProto, **weights: NDArray[Any]) -> onnx.GraphProto:
    """Return the body of an If that consists of one node."""
    made = helper.make_tensor_value_info(only.output[0], FLOAT, None)
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    return helper.make_graph([only], only.output[0], [], [made], kept)


def conditional(path: Path) -> Path:
    """Write a model with an If whose bodies use tensors, a weight and an input of their surroundings."""
    larger, smaller = body(node("Add", "h bias", "sum")), body(node("Mul", "x two", "double"), two=floats(2))
    nodes = [
        node("Add", "x bias", "h"),
        node("ReduceSum", "h", "total", keepdims=0),
        node("Greater", "total limit", "flag"),
        node("If", "flag", "y", then_branch=larger, else_branch=smaller),
        node("Relu", "h", "z"),
    ]
    weights = {"bias": np.arange(4, dtype=np.float32), "limit": np.array(10, np.float32)}
    return models.save(path, nodes, {"x": (FLOAT, (1, 4))}, {"y": (FLOAT, (1, "n")), "z": (FLOAT, (1, 4))}, weights)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_if_and_what_its_bodies_use(tmp_path: Path, value: float) -> None:
    """Tensors, weights and inputs that only a body names reach the tail; an output of the head is not the tail's."""
    path = conditional(tmp_path / "m.onnx")
    assert obstacles(path) == {"If": 1}
    parts = cut(str(path), {}, str(tmp_path))
    assert (set(parts.passed), parts.direct, parts.fed) == ({"flag", "h"}, ("z",), ("x",))
    feed = {"x": np.full((1, 4), value, np.float32)}
    assert_same(run(path, feed), run_cut(parts, feed))


def squeezing(path: Path) -> Path:
    """Write a model as PyTorch exports `squeeze(1)`: with an If that asks for the shape, before a NonZero."""
    squeezed, kept = body(node("Squeeze", "r one", "less")), body(node("Add", "r two", "less"), two=floats(2))
    nodes = [
        node("Relu", "x", "r"),
        node("Shape", "r", "shape"),
        node("Gather", "shape one", "width"),
        node("Equal", "width one", "flag"),
        node("If", "flag", "s", then_branch=squeezed, else_branch=kept),
        node("Neg", "s", "n"),
        node("NonZero", "n", "y"),
    ]
    x: Values = {"x": (FLOAT, ("batch", "width", 4))}
    return models.save(path, nodes, x, {"y": (INT64, ("rank", "n"))}, {"one": integers(1)})


@pytest.mark.parametrize(("width", "inside"), [(1, ["Squeeze"]), (3, ["Add"])])
def test_an_if_that_asks_for_shapes_is_no_obstacle(tmp_path: Path, width: int, inside: list[str]) -> None:
    """Where the shapes tell which body is taken, the head has its nodes, and goes on behind them."""
    path = squeezing(tmp_path / "m.onnx")
    parts = cut(str(path), {"x": (2, width, 4)}, str(tmp_path))
    assert operators(parts.head) == ["Relu", *inside, "Identity", "Neg"]
    feed = an_x((2, width, 4))
    assert_same(run(path, feed), run_cut(parts, feed))


def test_values_that_become_shapes(tmp_path: Path) -> None:
    """Without any operator that is an obstacle by name, a shape that is computed from values is one."""
    nodes = [
        node("Relu", "x", "r"),
        node("ReduceMax", "r", "top", keepdims=0),
        node("Cast", "top", "count", to=INT64),
        node("Unsqueeze", "count axis", "k"),
        node("TopK", "r k", "best order", axis=1),
        node("Identity", "best", "y"),
    ]
    inputs: Values = {"x": (FLOAT, (1, 8))}
    path = models.save(tmp_path / "m.onnx", nodes, inputs, {"y": (FLOAT, (1, "k"))}, {"axis": integers(0)})
    assert obstacles(path) == {}
    parts = cut(str(path), {}, str(tmp_path))
    assert operators(parts.tail) == ["TopK", "Identity"]
    feed = {"x": floats(1, 2, 3, 4, 5, 0, 1, 2).reshape(1, 8)}
    assert_same(run(path, feed), run_cut(parts, feed))


def test_outputs_of_every_kind(tmp_path: Path) -> None:
    """An output that the tail needs too, one that is a constant, and a large table that is computed on both sides."""
    nodes = [
        node("ConstantOfShape", "size", "table", value=helper.make_tensor("v", FLOAT, [1], [0.5])),
        node("Exp", "table", "grid"),
        node("Add", "x grid", "h"),
        node("NonZero", "h", "places"),
        node("Gather", "grid places", "y", axis=0),
        node("Identity", "size", "constant"),
        node("Neg", "h", "unused"),
    ]
    outputs: Values = {"h": (FLOAT, (2**18,)), "constant": (INT64, (1,)), "y": (FLOAT, (1, "n"))}
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, (2**18,))}, outputs, {"size": integers(2**18)})
    parts = cut(str(path), {}, str(tmp_path))
    assert parts.passed == parts.direct == ("h",)
    assert operators(parts.head) == ["ConstantOfShape", "Exp", "Add"]
    feed = an_x((2**18,))
    assert_same(run(path, feed), run_cut(parts, feed))


def test_functions_of_the_model(tmp_path: Path) -> None:
    """Obstacles inside functions of the model are seen, and the cut goes through the function."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [node("Relu", "a", "r"), node("NonZero", "r", "b")]
    function = helper.make_function("own", "Find", ["a"], ["b"], body, opsets[:1])
    graph = helper.make_graph(
        [helper.make_node("Find", ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", INT64, [2, None])],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8), path)
    assert obstacles(path) == {"NonZero": 1}
    parts = cut(str(path), {}, str(tmp_path))
    assert operators(parts.head) == ["Relu"]
    assert_same(run(path, an_x((4, 4))), run_cut(parts, an_x((4, 4))))


@pytest.mark.parametrize("where", ["inside", "beside"])
@pytest.mark.parametrize("inline_bytes", [2**30, 4096])
def test_weights_outside(tmp_path: Path, inline_bytes: int, where: str) -> None:
    """Weights in or beside the model go into the parts or, where they are too many for one file, beside these."""
    path = positives(tmp_path / "m.onnx")
    feed, whole = an_x(), run(path, an_x())
    if where == "beside":
        outside(path)
    parts = cut(str(path), {}, str(tmp_path / "cuts"), inline_bytes=inline_bytes)
    assert_same(whole, run_cut(parts, feed))
    beside = {file.name for file in Path(parts.head).parent.iterdir()}
    data = {"head.data"} if inline_bytes == 4096 else set()
    assert beside == {"head.onnx", "tail.onnx", "cut.json"} | data
    in_file = Path(parts.head).stat().st_size
    assert in_file > 8 * 512 * 4 if inline_bytes > 4096 else in_file < 4096


def test_weights_outside_that_changed_are_another_model(tmp_path: Path) -> None:
    """A weight that changed in the file beside the model leads to another cut."""
    path = outside(positives(tmp_path / "m.onnx"))
    before = cut(str(path), {}, str(tmp_path / "cuts"))
    weights = tmp_path / "weights.bin"
    weights.write_bytes(bytes(100) + weights.read_bytes()[100:])
    after = cut(str(path), {}, str(tmp_path / "cuts"))
    assert before != after
    assert_same(run(path, an_x()), run_cut(after, an_x()))


def times(parts: Cut) -> dict[str, int]:
    """Return when each file of a cut was written."""
    return {file.name: file.stat().st_mtime_ns for file in Path(parts.head).parent.iterdir()}


def test_a_cut_is_made_once(tmp_path: Path) -> None:
    """The second call writes nothing and gives the same; another shape is another cut, and a copy of the model none."""
    path = positives(tmp_path / "m.onnx", batch="n")
    first = cut(str(path), {"x": (2, 8)}, str(tmp_path / "cuts"))
    made = times(first)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())
    assert cut(str(path), {"x": (2, 8)}, str(tmp_path / "cuts")) == first
    assert cut(str(copy), {"x": (2, 8)}, str(tmp_path / "cuts")) == first
    assert times(first) == made
    assert cut(str(path), {"x": (3, 8)}, str(tmp_path / "cuts")).head != first.head


def _damage_content(place: Path) -> None:
    """Change a byte and keep the size."""
    content = bytearray((place / "tail.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (place / "tail.onnx").write_bytes(content)


DAMAGE: Mapping[str, Callable[[Path], object]] = {
    "content": _damage_content,
    "cut short": lambda place: os.truncate(place / "head.onnx", 10),
    "gone": lambda place: (place / "tail.onnx").unlink(),
    "no description": lambda place: (place / "cut.json").unlink(),
    "garbled description": lambda place: (place / "cut.json").write_text('{"files": 3}'),
    "not a description": lambda place: (place / "cut.json").write_text("[1]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_cut_is_made_anew(tmp_path: Path, damage: str) -> None:
    """Whatever happened to the files, the next call makes them again, and they are right."""
    path = positives(tmp_path / "m.onnx")
    parts = cut(str(path), {}, str(tmp_path / "cuts"))
    DAMAGE[damage](Path(parts.head).parent)
    assert cut(str(path), {}, str(tmp_path / "cuts")) == parts
    assert_same(run(path, an_x()), run_cut(parts, an_x()))


def test_touched_files_are_still_good(tmp_path: Path) -> None:
    """A cache that was copied, so that all times differ, is used as it is."""
    path = positives(tmp_path / "m.onnx")
    parts = cut(str(path), {}, str(tmp_path / "cuts"))
    for file in Path(parts.head).parent.iterdir():
        os.utime(file, (1, 1))
    cut(str(path), {}, str(tmp_path / "cuts"))
    assert set(times(parts).values()) == {10**9}


def test_the_hash_of_a_settled_model_is_kept(tmp_path: Path) -> None:
    """A model that has not changed for a while is not read again, nor `onnx` imported; a changed one is read."""
    path, cuts = positives(tmp_path / "m.onnx"), tmp_path / "cuts"
    first = cut(str(path), {}, str(cuts))
    assert not (cuts / "hashes").exists()  # changed just now: may change again within the clock's resolution
    time.sleep(2.1)
    assert cut(str(path), {}, str(cuts)) == first
    script = (
        "import sys; from rtmo_optuna.engine.cutting.cut import cut; cut(sys.argv[1], {}, sys.argv[2])\n"
        "assert not {'onnx', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(path), str(cuts)], check=True)
    (note,) = (cuts / "hashes").iterdir()
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sha256": "0" * 64}))
    assert cut(str(path), {}, str(cuts)).head != first.head  # the note was believed
    path.write_bytes(path.read_bytes().replace(b"scale", b"SCALE"))
    assert_same(run(path, an_x()), run_cut(cut(str(path), {}, str(cuts)), an_x()))


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Several processes that cut the same model at the same time all get a whole cut."""
    path = positives(tmp_path / "m.onnx")
    script = (
        "import sys; from rtmo_optuna.engine.cutting.cut import cut; import onnx\n"
        "for i in range(5): parts = cut(sys.argv[1], {}, sys.argv[2] + str(i)); onnx.load(parts.head)"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "cuts")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(600) for process in processes] == [0, 0, 0]
    assert_same(run(path, an_x()), run_cut(cut(str(path), {}, str(tmp_path / "cuts0")), an_x()))
    assert not list(tmp_path.rglob(".new-*"))


@pytest.mark.parametrize(("cache", "home"), [("{}/cache", "{}"), ("", "{}"), ("relative", "{}")])
def test_cuts_lie_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, home: str) -> None:
    """By XDG_CACHE_HOME or, where that is not given or not absolute, below the home folder; never beside the model."""
    (tmp_path / "models").mkdir()
    path = positives(tmp_path / "models" / "m.onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", cache.format(tmp_path))
    monkeypatch.setenv("HOME", home.format(tmp_path))
    parts = cut(str(path), {})
    folder = tmp_path / ("cache" if cache.startswith("{}") else ".cache") / "rtmo_optuna" / "cuts"
    assert Path(parts.head).parent.parent == folder
    assert [file.name for file in path.parent.iterdir()] == ["m.onnx"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """A cache folder that cannot be made is one sentence that says what to do."""
    path = positives(tmp_path / "m.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be kept in .*file/cuts \(Not a directory\): .*XDG_CACHE_HOME"):
        cut(str(path), {}, str(tmp_path / "file" / "cuts"))


def test_nothing_to_cut(tmp_path: Path) -> None:
    """A model that can be captured whole, even if its batch was free, is refused."""
    path = models.dense(tmp_path / "m.onnx", ("n", 8))
    assert obstacles(path) == {}
    with pytest.raises(SettingsRefusedError, match="nothing forbids capturing it as a whole"):
        cut(str(path), {"x": (1, 8)}, str(tmp_path))


def test_nothing_before_the_obstacle(tmp_path: Path) -> None:
    """A model that begins with its obstacle has no head."""
    nodes = [node("NonZero", "x", "places"), node("Relu", "x", "unused"), node("Identity", "places", "y")]
    inputs: Values = {"x": (FLOAT, (4,))}
    path = models.save(tmp_path / "m.onnx", nodes, inputs, {"y": (INT64, (1, "n"))})
    with pytest.raises(SettingsRefusedError, match="everything depends on NonZero 'places'"):
        cut(str(path), {}, str(tmp_path))


@pytest.mark.parametrize(("shapes", "sentence"), [
    ({}, r"input 'x' takes the shape \(free, 8\), but no shape is given"),
    ({"x": (2, 9)}, r"input 'x' takes the shape \(free, 8\), but the shape \(2, 9\) is given"),
    ({"x": (2,)}, r"but the shape \(2,\) is given"),
    ({"x": (-1, 8)}, r"but the shape \(-1, 8\) is given"),
    ({"x": (2, 8), "z": (1,)}, r"A shape is given for 'z', but the model's inputs are x"),
])  # fmt: skip
def test_shapes_that_do_not_fit(tmp_path: Path, shapes: Mapping[str, tuple[int, ...]], sentence: str) -> None:
    """A shape that is missing, wrong or for no input is named."""
    path = positives(tmp_path / "m.onnx", batch="n")
    with pytest.raises(UsageError, match=sentence):
        cut(str(path), shapes, str(tmp_path))


def test_files_that_are_no_model(tmp_path: Path) -> None:
    """A file that is missing, is a folder or holds something else is named, by `read_graph` as by `cut`."""
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    for path, sentence in ((tmp_path / "none.onnx", "no model"), (tmp_path, "folder"), (tmp_path / "garbage.onnx", "")):
        with pytest.raises(UsageError, match=f"{path}.*{sentence}|{sentence}.*{path}"):
            obstacles(path)
        with pytest.raises(UsageError, match=f"{path}.*{sentence}|{sentence}.*{path}"):
            cut(str(path), {}, str(tmp_path / "cuts"))
