"""How sessions are called, on the CPU, where all is as on a GPU but for the graphs: right answers, the caller's own."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import models
from rtmo_optuna.engine.calls import BoundCall, Call, Device, PlainCall
from rtmo_optuna.engine.capture import Cut, cut
from rtmo_optuna.engine.feed import Signature
from rtmo_optuna.engine.split import SplitCall, Variants
from rtmo_optuna.errors import SettingsRefusedError, UsageError
from rtmo_optuna.wire import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
CPU = Device(onnxruntime, "cpu", 0)
NAMES = ["early", "places", "sums", "values"]


def session(path: str | Path) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
    """Return a session of the model at `path`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:  # noqa: ANN401
    """Return a node; the names of its inputs and outputs are separated by blanks."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def selective(path: Path) -> Path:
    """Write a model that computes with the positive ones of 40 numbers, and gives an output from each of its parts."""
    nodes = [
        node("Mul", "x two", "early"),
        node("NonZero", "flags", "places"),
        node("Transpose", "places", "rows", perm=[1, 0]),
        node("GatherND", "early rows", "c0"),
        *(node("Add" if step % 2 else "Mul", f"c{step} two", f"c{step + 1}") for step in range(11)),
        node("Mul", "c11 shift", "values"),
        node("ReduceSum", "values", "sums", keepdims=1),
    ]
    nodes.insert(1, node("Relu", "early", "flags"))
    outputs = {
        "early": (FLOAT, (40,)), "places": (INT64, (1, "n")), "sums": (FLOAT, (1,)), "values": (FLOAT, ("n",)),
    }  # fmt: skip
    inputs = {"x": (FLOAT, (40,)), "shift": (FLOAT, (1,))}
    return models.save(path, nodes, inputs, outputs, {"two": np.array([2], np.float32)})


def feed_of(count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return an input of which `count` numbers are positive."""
    random = np.random.default_rng(seed)
    x = -random.random(40).astype(np.float32)
    chosen = random.permutation(40)[:count]
    x[chosen] *= -1
    return {"x": x, "shift": np.array([seed + 3], np.float32)}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cut]:
    """Return the model and its parts."""
    folder = tmp_path_factory.mktemp("cuts")
    path = selective(folder / "m.onnx")
    return path, cut(str(path), {}, str(folder))


def split_call(parts: Cut, limit: int, *, on_host: bool = False) -> SplitCall:
    """Return what calls all three."""
    ends = (session(parts.head), session(parts.select), CPU, NAMES, session(parts.finish))
    return SplitCall(*ends, on_host=on_host, limit=limit)


def assert_equal(wanted: list[NDArray[Any]], found: list[NDArray[Any]]) -> None:
    """Check that both are the same to the last bit."""
    assert [(array.dtype, array.shape) for array in wanted] == [(array.dtype, array.shape) for array in found]
    assert [array.tobytes() for array in wanted] == [array.tobytes() for array in found]


def test_every_part_gives_an_output(parts: tuple[Path, Cut]) -> None:
    """The model for these tests has all that can be handed over: tensors, an input, outputs of each part."""
    found = parts[1]
    gives = [[end.name for end in session(path).get_outputs()] for path in (found.select, found.finish)]
    assert gives == [["places"], ["sums", "values"]]
    assert (found.direct, found.fed, found.selected) == (("early",), ("shift",), ("places",))


@pytest.mark.parametrize("limit", [0, 3, 64])
@pytest.mark.parametrize("whole_tail", [False, True])
@pytest.mark.parametrize("on_host", [False, True])
def test_split_calls_give_what_the_whole_gives(
    parts: tuple[Path, Cut], limit: int, *, whole_tail: bool, on_host: bool
) -> None:
    """Counts that come once, twice and often, more than there are graphs for, and none at all: all to the last bit."""
    path, found = parts
    plain = PlainCall(session(path))
    call = split_call(found, limit, on_host=on_host)
    if whole_tail:
        call = SplitCall(session(found.head), session(found.tail), CPU, NAMES, on_host=on_host)
    random = np.random.default_rng(1)
    counts = [0, 0, 0, 40, 40, 40, 1, *random.integers(0, 8, 60).tolist(), *range(9, 30), 0, 40]
    for seed, count in enumerate(counts):
        feed = feed_of(count, seed)
        assert_equal(plain.run(NAMES, feed), call.run(NAMES, feed))
    assert_equal(plain.run(["values", "early"], feed_of(5)), call.run(["values", "early"], feed_of(5)))


def test_graphs_are_for_what_comes_again(parts: tuple[Path, Cut]) -> None:
    """The second call with a count makes the graph, up to the limit; none is made for no rows."""
    _, found = parts
    finish = session(found.finish)
    variants = Variants(finish, CPU, ["places"], limit=2)
    for name, values in (("early", np.ones(40, np.float32)), ("shift", np.ones(1, np.float32))):
        buffer = CPU.value(np.float32, values.shape)
        buffer.update_inplace(values)
        variants.hold(name, buffer)
    made = []
    for count in (3, 0, 0, 3, 3, 5, 7, 7, 5, 7):
        variants.run({"places": np.arange(count)[None]})
        made.append(variants.captured)
    assert made == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]


def test_outputs_are_the_callers_own(parts: tuple[Path, Cut]) -> None:
    """What a call returned does not change with later calls, whichever way it was computed."""
    path, found = parts
    splits = [split_call(found, 64, on_host=on_host) for on_host in (False, True)]
    calls: list[Call] = [PlainCall(session(path)), BoundCall(session(path), CPU, captured=False), *splits]
    for call in calls:
        results = [call.run(NAMES, feed_of(6, seed)) for seed in range(5)]
        copies = [[array.copy() for array in result] for result in results]
        for seed in range(5, 9):
            for array in call.run(NAMES, feed_of(6, seed)):
                array[...] = 7
        for result, copy in zip(results, copies, strict=True):
            assert_equal(copy, result)
        assert_equal(copies[0], call.run(NAMES, feed_of(6, 0)))


@pytest.mark.parametrize("kind", ["bound", "split", "split+host"])
def test_eight_threads_on_one_call(parts: tuple[Path, Cut], kind: str) -> None:
    """Threads that call at once each get the answer to their own input."""
    path, found = parts
    call: Call = split_call(found, 4, on_host=kind == "split+host")
    if kind == "bound":
        call = BoundCall(session(path), CPU, captured=False)
    plain = PlainCall(session(path))
    feeds = [feed_of(seed % 9, seed) for seed in range(24)]
    wanted = [plain.run(NAMES, feed) for feed in feeds]
    wrong: list[int] = []

    def work(first: int) -> None:
        for number in range(first, first + 150):
            found = call.run(NAMES, feeds[number % 24])
            if not all(map(np.array_equal, found, wanted[number % 24])):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(3 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_options_are_passed_on(parts: tuple[Path, Cut]) -> None:
    """A user's RunOptions hold: a call that is told to terminate does not run."""
    options = onnxruntime.RunOptions()
    call = split_call(parts[1], 64)
    assert len(call.run(NAMES, feed_of(3), options)) == 4
    options.terminate = True
    with pytest.raises(Exception, match="terminate"):
        call.run(NAMES, feed_of(3), options)


def test_bound_calls_follow_the_shapes_of_a_dynamic_model(tmp_path: Path) -> None:
    """Buffers change with the shape, there and back again."""
    path = models.dense(tmp_path / "m.onnx", ("n", 8))
    plain, call = PlainCall(session(path)), BoundCall(session(path), CPU, captured=False)
    for rows in (2, 5, 5, 1, 2):
        feed = {"x": np.random.default_rng(rows).random((rows, 8), np.float32)}
        assert_equal(plain.run(["y"], feed), call.run(["y"], feed))


def test_a_captured_call_keeps_its_shape(tmp_path: Path) -> None:
    """A captured model refuses another shape than the first, and goes on with that; a free output is refused."""
    path = models.save(
        tmp_path / "m.onnx", [node("ReduceSum", "x", "y")], {"x": (FLOAT, ("n", 8))}, {"y": (FLOAT, (1, 1))}
    )
    call = BoundCall(session(path), CPU, captured=True)
    (first,) = call.run(["y"], {"x": np.ones((2, 8), np.float32)})
    with pytest.raises(UsageError, match="captured with another shape of the input 'x' than 3x8"):
        call.run(["y"], {"x": np.ones((3, 8), np.float32)})
    assert_equal([first], call.run(["y"], {"x": np.ones((2, 8), np.float32)}))
    with pytest.raises(SettingsRefusedError, match="its output y has no fixed shape"):
        BoundCall(session(models.dense(tmp_path / "d.onnx", ("n", 8))), CPU, captured=True)


def test_a_head_of_no_fixed_shape_is_refused(tmp_path: Path, parts: tuple[Path, Cut]) -> None:
    """A file that was cut otherwise cannot be bound."""
    head = session(models.dense(tmp_path / "d.onnx", ("n", 8)))
    with pytest.raises(SettingsRefusedError, match="cannot be cut: y, which its first part hands over"):
        SplitCall(head, session(parts[1].tail), CPU, NAMES)


SIGNATURE = Signature([TensorSpec("x", "tensor(float)", ("n", 4)), TensorSpec("k", "tensor(int64)", (2,))])
X, K = np.arange(8, dtype=np.float32).reshape(2, 4), np.array([1, 2])
WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "missing": ({"x": X}, r"lacks k: give exactly x, k"),
    "extra": ({"x": X, "k": K, "z": K}, r"has z, which the model does not take"),
    "both": ({"x": X, "z": K}, r"lacks k and has z"),
    "misshapen": ({"x": X[:, :3], "k": K}, r"'x' must have the shape nx4, not 2x3"),
    "wrong rank": ({"x": X, "k": K[None]}, r"'k' must have the shape 2, not 1x2"),
    "scalar": ({"x": X, "k": np.array(1)}, r"'k' must have the shape 2, not scalar"),
    "number": (
        {"x": X, "k": 1},
        r"'k' must be an array, a list or an OrtValue, not int: .*asarray\(..., numpy.int64\)",
    ),
    "wrong type": ({"x": X.astype(np.float64), "k": K}, r"'x' must be float32, not float64: .*astype\(numpy.float32"),
    "list of no numbers": ({"x": [["a"] * 4], "k": K}, r"'x' must be float32, and the list .* makes no such array"),
    "ragged list": ({"x": [[1.0], [1.0, 2.0]], "k": K}, r"'x' must be float32, and the list .* makes no such array"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_feeds_are_named(case: str) -> None:
    """What is missing, too much, misshapen or of another type is one sentence that names it."""
    feed, sentence = WRONG[case]
    with pytest.raises(UsageError, match=sentence):
        SIGNATURE.checked(feed)


ODD: Mapping[str, Callable[[], NDArray[Any]]] = {
    "big-endian": lambda: X.astype(">f4"),
    "transposed": lambda: np.asfortranarray(X),
    "strided": lambda: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": lambda: X[::-1].copy()[::-1],
    "big-endian and strided": lambda: np.repeat(X.astype(">f4"), 2, axis=0)[::2],
    "list": lambda: np.array(X).view(np.ndarray),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_layouts_are_brought_in_order(case: str) -> None:
    """The values stay, the order of bytes and of elements is the machine's; inputs come in the model's order."""
    checked = SIGNATURE.checked({"k": [1, 2], "x": ODD[case]()})
    assert list(checked) == ["x", "k"]
    assert checked["x"].dtype == np.float32
    assert checked["x"].dtype.isnative
    assert checked["x"].flags.c_contiguous
    assert np.array_equal(checked["x"], X)


def test_arrays_in_order_are_not_copied() -> None:
    """What can be used as it is comes back itself."""
    assert SIGNATURE.checked({"x": X, "k": K})["x"] is X


def test_odd_layouts_through_calls(parts: tuple[Path, Cut]) -> None:
    """A call on checked arrays gives the same for whatever layout they had."""
    path, found = parts
    taken = Signature([TensorSpec("x", "tensor(float)", (40,)), TensorSpec("shift", "tensor(float)", (1,))])
    feed = feed_of(9)
    odd = {"shift": feed["shift"].astype(">f4"), "x": np.repeat(feed["x"], 3)[::3]}
    wanted = PlainCall(session(path)).run(NAMES, feed)
    calls: list[Call] = [BoundCall(session(path), CPU, captured=False), split_call(found, 64)]
    for run in [partial(call.run, NAMES) for call in calls for _ in range(3)]:
        assert_equal(wanted, run(taken.checked(odd)))
