"""How sessions are called, on the CPU, where all is as on a GPU but for the graphs: right answers, the caller's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

import models
from calling import CALLED, assembled, at_once
from models import node
from rtmo_optuna.engine import turns
from rtmo_optuna.engine.calls import BoundCall, Call, GraphCall, PlainCall
from rtmo_optuna.engine.cutting.cut import Cut, cut
from rtmo_optuna.engine.device import Device
from rtmo_optuna.engine.feed import Signature
from rtmo_optuna.engine.fixed import FixedSession
from rtmo_optuna.errors import SettingsRefusedError, UsageError
from rtmo_optuna.providers.cudart import HostStream
from rtmo_optuna.types.request import TensorSpec

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
NAMES = ["early", "places", "sums", "values"]


def session(path: str | Path) -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
    """Return a session of the model at `path`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def selective(path: Path, *, mixed: bool = False) -> Path:
    """Write a model that computes with the positive ones of 150 numbers, and gives an output from each of its parts.

    Each is computed with alone, unless they are `mixed`: then one sum is of all.
    """
    nodes = [
        node("Mul", "x two", "early"),
        node("Relu", "early", "flags"),
        node("NonZero", "flags", "places"),
        node("Transpose", "places", "rows", perm=[1, 0]),
        node("GatherND", "early rows", "c0"),
        *(node("Add" if step % 2 else "Mul", f"c{step} two", f"c{step + 1}") for step in range(11)),
        node("Mul", "c11 shift", "values"),
        node("Unsqueeze", "values one", "column"),
        node("ReduceSum", "column" if mixed else "column one", "sums", keepdims=1),
    ]
    outputs = {
        "early": (FLOAT, (150,)), "places": (INT64, (1, "n")), "sums": (FLOAT, (1, 1) if mixed else ("n", 1)),
        "values": (FLOAT, ("n",)),
    }  # fmt: skip
    inputs = {"x": (FLOAT, (150,)), "shift": (FLOAT, (1,))}
    weights = {"two": np.array([2], np.float32), "one": np.array([1])}
    return models.save(path, nodes, inputs, outputs, weights)


def feed_of(count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return an input of which `count` numbers are positive."""
    random = np.random.default_rng(seed)
    x = -random.random(150).astype(np.float32)
    chosen = random.permutation(150)[:count]
    x[chosen] *= -1
    return {"x": x, "shift": np.array([seed + 3], np.float32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the model in both kinds."""
    folder = tmp_path_factory.mktemp("cuts")
    selective(folder / "apart.onnx")
    selective(folder / "mixed.onnx", mixed=True)
    return folder


def parts(folder: Path, kind: str = "apart") -> Cut:
    """Return the parts of the model."""
    return cut(str(folder / f"{kind}.onnx"), {}, str(folder))


def host(provider_stream: HostStream | None = None) -> Device:
    """Return the host as a device, on a stream that may be another one than its own."""
    return Device(onnxruntime, "cpu", 0, provider_stream or HostStream())


def opened(path: Path, how: str) -> Call:
    """Return what calls the model at `path`."""
    return assembled(path, how).call


def assert_equal(wanted: list[NDArray[Any]], found: list[NDArray[Any]]) -> None:
    """Check that both are the same to the last bit."""
    assert [(array.dtype, array.shape) for array in wanted] == [(array.dtype, array.shape) for array in found]
    assert [array.tobytes() for array in wanted] == [array.tobytes() for array in found]


@pytest.mark.parametrize(
    ("kind", "rows", "why"), [("apart", 64, ""), ("mixed", 0, "ReduceSum 'sums' brings rows together")]
)
def test_every_part_gives_an_output(folder: Path, kind: str, rows: int, why: str) -> None:
    """The model for these tests has all that can be handed over: tensors, an input, outputs of each part."""
    found = parts(folder, kind)
    gives = [[end.name for end in session(path).get_outputs()] for path in (found.select, found.finish)]
    assert gives == [["places"], ["sums", "values"]]
    assert (found.direct, found.fed, found.selected, found.rows) == (("early",), ("shift",), ("places",), rows)
    assert found.why.startswith(why)
    assert bool(found.why) == (kind == "mixed")


@pytest.mark.parametrize("kind", ["apart", "mixed"])
@pytest.mark.parametrize("how", ["split", "split+host"])
def test_split_calls_give_what_the_whole_gives(folder: Path, kind: str, how: str) -> None:
    """Counts that come once and often, fewer and more than one graph takes, and none at all: all to the last bit."""
    path = folder / f"{kind}.onnx"
    plain, call = opened(path, "plain"), opened(path, how)
    random = np.random.default_rng(1)
    counts = [0, 0, 150, 150, 1, *random.integers(0, 8, 40).tolist(), *range(55, 75), 128, 129, 0, 40]
    for seed, count in enumerate(counts):
        feed = feed_of(count, seed)
        assert_equal(plain.run(NAMES, feed), call.run(NAMES, feed))
    assert_equal(plain.run(["values", "early"], feed_of(5)), call.run(["values", "early"], feed_of(5)))


@pytest.mark.parametrize("how", CALLED)
def test_outputs_are_the_callers_own(folder: Path, how: str) -> None:
    """What a call returned does not change with later calls, whichever way it was computed."""
    call = opened(folder / "apart.onnx", how)
    results = [call.run(NAMES, feed_of(6, seed)) for seed in range(5)]
    copies = [[array.copy() for array in result] for result in results]
    for seed in range(5, 9):
        for array in call.run(NAMES, feed_of(6, seed)):
            array[...] = 7
    for result, copy in zip(results, copies, strict=True):
        assert_equal(copy, result)
    assert_equal(copies[0], call.run(NAMES, feed_of(6, 0)))


@pytest.mark.parametrize("how", ["bound", "split", "split+host"])
def test_eight_threads_on_one_call(folder: Path, how: str) -> None:
    """Threads that call at once each get the answer to their own input."""
    path = folder / "apart.onnx"
    plain, call = opened(path, "plain"), opened(path, how)
    feeds = [feed_of(seed % 9, seed) for seed in range(24)]
    wanted = [plain.run(NAMES, feed) for feed in feeds]
    wrong: list[int] = []

    def work(first: int) -> None:
        for number in range(first, first + 150):
            found = call.run(NAMES, feeds[number % 24])
            if not all(map(np.array_equal, found, wanted[number % 24])):
                wrong.append(number)

    at_once(work, range(0, 24, 3))
    assert wrong == []


def test_the_number_of_rows_is_open_in_the_outputs(folder: Path) -> None:
    """A session tells the shapes of the model, not of its parts."""
    shapes = {end.name: end.shape for end in assembled(folder / "apart.onnx", "split+host").outputs}
    assert (shapes["early"], shapes["values"], shapes["sums"]) == ((150,), (None,), (None, 1))


@pytest.mark.parametrize("how", ["plain", "split"])
def test_options_are_passed_on(folder: Path, how: str) -> None:
    """A user's RunOptions hold for what no graph holds: a call that is told to terminate does not run."""
    options = onnxruntime.RunOptions()
    call = opened(folder / "apart.onnx", how)
    assert len(call.run(NAMES, feed_of(3), options)) == 4
    options.terminate = True
    with pytest.raises(Exception, match="terminate"):
        call.run(NAMES, feed_of(3), options)


def test_products_are_not_moved_to_the_host(tmp_path: Path) -> None:
    """A tail of matrix products that cannot be told from the selection stays on the device, and it is said."""
    nodes = [node("Relu", "x", "r"), node("NonZero", "r", "places")]
    nodes += [node("Cast", "places", "p", to=FLOAT), node("MatMul", "p w", "y")]
    weights = {"w": np.ones((5, 4), np.float32)}
    path = models.save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, (8,))}, {"y": (FLOAT, (1, 4))}, weights)
    assert opened(path, "split")
    with pytest.raises(SettingsRefusedError, match="split_on_host would run MatMul on the host"):
        opened(path, "split+host")


def test_bound_calls_follow_the_shapes_of_a_dynamic_model(tmp_path: Path) -> None:
    """Buffers change with the shape, there and back again."""
    path = models.dense(tmp_path / "m.onnx", ("n", 8))
    plain, call = PlainCall(session(path)), BoundCall(session(path), host())
    for rows in (2, 5, 5, 1, 2):
        feed = {"x": np.random.default_rng(rows).random((rows, 8), np.float32)}
        assert_equal(plain.run(["y"], feed), call.run(["y"], feed))


def test_a_graph_needs_fixed_shapes(tmp_path: Path) -> None:
    """A whole model is called on buffers that stay; a free dimension is refused by the name of its tensor."""
    fixed, free = (models.dense(tmp_path / f"{n}.onnx", (n, 8)) for n in (2, "n"))
    plain, call = PlainCall(session(fixed)), GraphCall(session(fixed), host())
    for seed in range(3):
        feed = {"x": np.random.default_rng(seed).random((2, 8), np.float32)}
        assert_equal(plain.run(["y"], feed), call.run(["y"], feed))
    with pytest.raises(SettingsRefusedError, match=r"cannot be captured: x \(tensor\(float\)\) has no fixed shape"):
        GraphCall(session(free), host())


class BrokenStream(HostStream):
    """One on which the first captures are broken, as others in the process break them."""

    def __init__(self, times: int) -> None:
        """Break so many."""
        self.left, self.tried, self.launched = times, 0, 0

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Raise, or return what runs `work`."""
        self.tried += 1
        if self.tried <= self.left:
            message = "operation not permitted when stream is capturing"
            raise RuntimeError(message)

        def launch() -> None:
            self.launched += 1
            work()

        return launch


@pytest.mark.parametrize(("times", "tried", "launched"), [(0, 1, 3), (2, 3, 3), (99, 5, 0)])
def test_a_broken_capture_is_tried_again(tmp_path: Path, times: int, tried: int, launched: int) -> None:
    """What others break is captured at last, or runs without a graph: the answers are right, and it is said."""
    path, stream = models.dense(tmp_path / "m.onnx", (2, 8)), BrokenStream(times)
    plain, call = PlainCall(session(path)), GraphCall(session(path), host(stream))
    assert bool(call.broken) == (launched == 0)
    for seed in range(3):
        feed = {"x": np.random.default_rng(seed).random((2, 8), np.float32)}
        assert_equal(plain.run(["y"], feed), call.run(["y"], feed))
    assert (stream.tried, stream.launched) == (tried, launched)


def test_captures_and_calls_take_turns() -> None:
    """A capture waits for the calls under way and for other captures; calls wait for it, and run side by side."""
    events: list[str] = []
    inside, go = threading.Event(), threading.Event()

    def call() -> None:
        with turns.calls:
            events.append("call")
            inside.set()
            go.wait(60)
            events.append("called")

    def capture() -> None:
        with turns.capture():
            events.append("capture")
            time.sleep(0.2)
            events.append("captured")

    def late() -> None:
        with turns.calls:
            events.append("late")

    first = threading.Thread(target=call)
    first.start()
    inside.wait(60)
    captures = [threading.Thread(target=capture) for _ in range(2)]
    for thread in captures:
        thread.start()
    time.sleep(0.2)
    last = threading.Thread(target=late)
    last.start()
    go.set()
    for thread in (first, *captures, last):
        thread.join(60)
    assert events[:2] == ["call", "called"]
    told = [event for event in events if event.startswith("capture")]
    assert told == ["capture", "captured"] * 2
    assert events.index("late") > events.index("captured")


def test_a_head_of_no_fixed_shape_is_refused(tmp_path: Path) -> None:
    """A file that was cut otherwise cannot be bound."""
    head = session(models.dense(tmp_path / "d.onnx", ("n", 8)))
    with pytest.raises(SettingsRefusedError, match="cannot be captured: x"):
        FixedSession(head, host(), {})


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
    assert (checked["x"].dtype, checked["x"].dtype.isnative) == (np.float32, True)
    assert checked["x"].flags.c_contiguous
    assert np.array_equal(checked["x"], X)


def test_arrays_in_order_are_not_copied() -> None:
    """What can be used as it is comes back itself."""
    assert SIGNATURE.checked({"x": X, "k": K})["x"] is X


@pytest.mark.parametrize("how", CALLED)
def test_odd_layouts_through_calls(folder: Path, how: str) -> None:
    """A call on checked arrays gives the same for whatever layout they had."""
    taken = Signature([TensorSpec("x", "tensor(float)", (150,)), TensorSpec("shift", "tensor(float)", (1,))])
    feed = feed_of(9)
    odd = {"shift": feed["shift"].astype(">f4"), "x": np.repeat(feed["x"], 3)[::3]}
    path = folder / "apart.onnx"
    wanted = opened(path, "plain").run(NAMES, feed)
    call = opened(path, how)
    for _ in range(3):
        assert_equal(wanted, call.run(NAMES, taken.checked(odd)))


def test_bound_calls_take_what_is_no_number(tmp_path: Path) -> None:
    """Not strings, which ONNX Runtime cannot bind, but a tensor of unknown rank, which it tells as a scalar's."""
    for path, name in ((models.text(tmp_path / "in.onnx"), "x"), (models.spelt(tmp_path / "out.onnx"), "words")):
        with pytest.raises(SettingsRefusedError, match=rf"bound buffers: {name} is a tensor\(string\)"):
            BoundCall(session(path), host())
    shaped = models.save(
        tmp_path / "shaped.onnx",
        [node("Reshape", "x shape", "y")],
        {"x": (FLOAT, (6,)), "shape": (INT64, ("rank",))},
        {"y": (FLOAT, None)},  # type: ignore[dict-item]
    )
    call = BoundCall(session(shaped), host())
    for shape in ([2, 3], [6], [1, 6, 1], [2, 3]):
        (found,) = call.run(["y"], {"x": np.arange(6, dtype=np.float32), "shape": np.array(shape)})
        assert found.tolist() == np.arange(6).reshape(shape).tolist()
