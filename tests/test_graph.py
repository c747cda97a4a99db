"""What is read from a model file, and the sentences for files that are no model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from program import python
from rtmo_optuna.engine.graph import GraphFacts, hash_model, read_graph
from rtmo_optuna.errors import UsageError

_X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
_Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
_OPSET = helper.make_opsetid("", 17)


def _model(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    opsets: Sequence[onnx.OperatorSetIdProto] = (_OPSET,),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [_X], [_Y], initializers)
    return helper.make_model(graph, functions=functions, opset_imports=opsets)


def _write(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _weight(entries: Mapping[str, object], name: str = "w") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _switch(name: str, *, value: bool) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value), name)


def _body(nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto] = ()) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [4])
    return helper.make_graph(nodes, "body", [], [output], initializers)


def _function(name: str, nodes: Sequence[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function("local", name, ["x"], ["y"], nodes, [_OPSET, helper.make_opsetid("local", 1)])


def _call(name: str, source: str = "x", target: str = "y") -> onnx.NodeProto:
    return helper.make_node(name, [source], [target], domain="local")


def test_operators_are_counted_through_bodies(tmp_path: Path) -> None:
    """Nodes in the branches of an If, and in an If within it, are counted, and so is the If itself."""
    relu = helper.make_node("Relu", ["x"], ["r"])
    inner = helper.make_node("If", ["c"], ["i"], then_branch=_body([relu]), else_branch=_body([relu]))
    outer = helper.make_node("If", ["c"], ["y"], then_branch=_body([inner]), else_branch=_body([relu, relu]))
    condition = helper.make_node("Constant", [], ["c"], value=_switch("", value=True))
    facts = read_graph(_write(tmp_path, _model([condition, outer])))
    assert facts == GraphFacts(17, {"Constant": 1, "If": 2, "Relu": 4}, (), ())


def test_operators_are_counted_in_lists_of_bodies(tmp_path: Path) -> None:
    """A custom operator may hold several graphs in one attribute; their nodes count too."""
    bodies = [_body([helper.make_node(name, ["x"], ["r"])]) for name in ("Relu", "Abs")]
    custom = helper.make_node("Switch", ["x"], ["y"], domain="custom", bodies=bodies)
    assert read_graph(_write(tmp_path, _model([custom]))).operators == {"Abs": 1, "Relu": 1, "Switch": 1}


def test_a_function_counts_as_its_nodes_at_each_call(tmp_path: Path) -> None:
    """A function that is called twice, and calls another one twice, counts as the nodes that then run."""
    inner = _function("Inner", [helper.make_node("Exp", ["x"], ["y"])])
    outer = _function("Outer", [_call("Inner", "x", "a"), _call("Inner", "a", "y")])
    unused = _function("Unused", [helper.make_node("Sin", ["x"], ["y"])])
    nodes = [_call("Outer", "x", "a"), _call("Outer", "a", "y")]
    facts = read_graph(_write(tmp_path, _model(nodes, functions=[inner, outer, unused])))
    assert facts.operators == {"Exp": 4}


def test_functions_that_call_each_other_are_refused(tmp_path: Path) -> None:
    """A circle of functions is an error, not an endless loop."""
    functions = [_function("A", [_call("B")]), _function("B", [_call("A")])]
    with pytest.raises(UsageError, match="in a circle"):
        read_graph(_write(tmp_path, _model([_call("A")], functions=functions)))


def test_a_tower_of_functions_is_counted_without_running_through_it(tmp_path: Path) -> None:
    """Functions that each call the next one twice stand for 2^60 nodes, which are counted at once."""
    tower = [_function(f"F{n}", [_call(f"F{n + 1}", "x", "a"), _call(f"F{n + 1}", "a", "y")]) for n in range(60)]
    top = _function("F60", [helper.make_node("Exp", ["x"], ["y"])])
    assert read_graph(_write(tmp_path, _model([_call("F0")], functions=[*tower, top]))).operators == {"Exp": 2**60}


@pytest.mark.parametrize(("opsets", "opset"), [
    ([_OPSET], 17),
    ([helper.make_opsetid("com.microsoft", 1), _OPSET], 17),
    ([helper.make_opsetid("ai.onnx", 13)], 13),
    ([helper.make_opsetid("com.microsoft", 1)], 0),
])  # fmt: skip
def test_the_opset_is_that_of_the_onnx_operators(
    tmp_path: Path, opsets: Sequence[onnx.OperatorSetIdProto], opset: int
) -> None:
    """Other domains' versions are not taken for ONNX's own."""
    assert read_graph(_write(tmp_path, _model([helper.make_node("Relu", ["x"], ["y"])], opsets=opsets))).opset == opset


@pytest.mark.parametrize(("inputs", "initializers", "nodes", "random_"), [
    pytest.param(["x"], [], [], (), id="inference"),
    pytest.param(["x", "ratio", ""], [], [], (), id="left out"),
    pytest.param(["x", "", "t"], [_switch("t", value=False)], [], (), id="off"),
    pytest.param(["x", "", "t"], [_switch("t", value=True)], [], ("Dropout",), id="on"),
    pytest.param(
        ["x", "", "t"],
        [_switch("t", value=True)],
        [helper.make_node("Constant", [], ["t"], value=_switch("", value=False))],
        ("Dropout",),
        id="on here, off there",
    ),
    pytest.param(["x", "", "unknown"], [], [], ("Dropout",), id="unknown"),
    pytest.param(
        ["x", "", "t"],
        [],
        [helper.make_node("Constant", [], ["t"], value=_switch("", value=False))],
        (),
        id="off node",
    ),
    pytest.param(
        ["x", "", "t"],
        [],
        [helper.make_node("Constant", [], ["t"], value=_switch("", value=True))],
        ("Dropout",),
        id="on node",
    ),
])  # fmt: skip
def test_dropout_is_random_in_training_only(
    tmp_path: Path,
    inputs: Sequence[str],
    initializers: Sequence[onnx.TensorProto],
    nodes: Sequence[onnx.NodeProto],
    random_: tuple[str, ...],
) -> None:
    """Dropout counts as random unless its switch is left out or known to be off."""
    model = _model([*nodes, helper.make_node("Dropout", inputs, ["y"])], initializers)
    assert read_graph(_write(tmp_path, model)).random == random_


def test_random_operators_are_found_wherever_they_are(tmp_path: Path) -> None:
    """Random operators are named once each, also those in branches and functions."""
    condition = helper.make_node("Constant", [], ["c"], value=_switch("", value=True))
    branch = _body([helper.make_node("Bernoulli", ["x"], ["b"])])
    chosen = helper.make_node("If", ["c"], ["a"], then_branch=branch, else_branch=branch)
    noise = _function("Noise", [helper.make_node("RandomNormalLike", ["x"], ["y"])])
    facts = read_graph(_write(tmp_path, _model([condition, chosen, _call("Noise", "a")], functions=[noise])))
    assert facts.random == ("Bernoulli", "RandomNormalLike")


def test_external_files_come_in_order_and_are_not_read(tmp_path: Path) -> None:
    """Files of weights are listed once each, in order of first mention, wherever a tensor may be kept."""
    (tmp_path / "sub").mkdir()
    names = ("z.bin", "a.bin", "sub/m.bin", "sparse.bin", "f.bin")
    for name in names:
        (tmp_path / name).write_bytes(bytes(32))
    weights = [
        _weight({"location": "z.bin", "length": 16}, "w"),
        _weight({"location": "a.bin", "length": 16}, "v"),
        _weight({"location": "z.bin", "offset": 16, "length": 16}, "u"),
    ]
    constant = helper.make_node("Constant", [], ["k"], value=_weight({"location": "sub/m.bin"}))
    branch = _body([constant])
    function = _function("F", [helper.make_node("Constant", [], ["y"], value=_weight({"location": "f.bin"}))])
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = _model([chosen], weights, [function])
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(_weight({"location": "sparse.bin"}))
    path = _write(tmp_path, model)
    assert read_graph(path).external_files == ("z.bin", "a.bin", "sparse.bin", "sub/m.bin", "f.bin")


def test_a_file_has_to_hold_the_weight_that_ends_last(tmp_path: Path) -> None:
    """Of several weights in one file, the one that reaches furthest decides, wherever it is mentioned."""
    (tmp_path / "w.bin").write_bytes(bytes(16))
    weights = [_weight({"location": "w.bin", "offset": 16, "length": 16}), _weight({"location": "w.bin", "length": 16})]
    with pytest.raises(UsageError, match="up to byte 32"):
        read_graph(_write(tmp_path, _model([helper.make_node("Relu", ["x"], ["y"])], weights)))


def test_a_saved_model_with_external_data_is_read(tmp_path: Path) -> None:
    """What onnx itself writes with external data is understood, and a relative path is enough."""
    weight = numpy_helper.from_array(np.arange(4096, dtype=np.float32), "w")
    model = _model([helper.make_node("Relu", ["w"], ["y"])], [weight])
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    assert read_graph(os.path.relpath(path)).external_files == ("model.data",)


@pytest.mark.parametrize(("entries", "words"), [
    ({"location": "gone.bin"}, ["'gone.bin'", "not in {folder}"]),
    ({"location": "sub"}, ["'sub'", "not in {folder}"]),
    ({"location": "w.bin", "offset": 8, "length": 16}, ["up to byte 24", "{folder}/w.bin has 16"]),
    ({"location": "/etc/hostname"}, ["'w'", "'/etc/hostname'", "not a file within"]),
    ({"location": "../w.bin"}, ["'../w.bin'", "not a file within"]),
    ({"location": "sub/../../w.bin"}, ["not a file within"]),
    ({"location": "C:\\w.bin"}, ["not a file within"]),
    ({"location": "..\\w.bin"}, ["not a file within"]),
    ({}, ["''", "not a file within"]),
    ({"location": "w.bin", "offset": "many"}, ["does not say where", "'w.bin'"]),
    ({"location": "w.bin", "length": -4}, ["does not say where"]),
    ({"location": "w.bin", "length": "9" * 5000}, ["does not say where"]),
])  # fmt: skip
def test_unusable_external_data_is_refused(tmp_path: Path, entries: Mapping[str, object], words: Iterable[str]) -> None:
    """Missing, short, escaping or unplaced weights are told with the file and where it was looked for."""
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(bytes(16))
    (folder / "w.bin").write_bytes(bytes(16))
    path = _write(folder, _model([helper.make_node("Add", ["x", "w"], ["y"])], [_weight(entries)]))
    with pytest.raises(UsageError) as caught:
        read_graph(path)
    assert [word for word in words if word.format(folder=folder) not in str(caught.value)] == []


_GOOD = _model([helper.make_node("Relu", ["x"], ["y"])]).SerializeToString()
_TORN = _model([helper.make_node("Relu", ["x"], ["y"])] * 40).SerializeToString()


@pytest.mark.parametrize(("content", "words"), [
    pytest.param(b"", "is empty", id="empty"),
    pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "not an ONNX model", id="text"),
    pytest.param(np.random.default_rng(0).bytes(4096), "not an ONNX model", id="random bytes"),
    pytest.param(_TORN[: len(_TORN) // 2], "cut short", id="truncated"),
    pytest.param(_GOOD[: _GOOD.rindex(b"B\x04")], "it lacks its opset", id="truncated after the graph"),
    pytest.param(b"\x08\x07", "it lacks its opset", id="parses, but is empty"),
    pytest.param(_model([]).SerializeToString(), "it lacks its operators", id="no nodes"),
    pytest.param(_model([onnx.NodeProto()]).SerializeToString(), "it lacks its operators", id="a node of nothing"),
    pytest.param(_GOOD.replace(b"Relu", b"Re\xff\xfe"), "not an ONNX model", id="not UTF-8"),
])  # fmt: skip
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """Whatever is in the file, the sentence names it and says what is wrong with it."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        read_graph(path)
    assert str(path) in str(caught.value)


def test_damaged_models_raise_nothing_but_usage_errors(tmp_path: Path) -> None:
    """Models with bytes changed at random are either read or refused with a sentence."""
    chance, path, refused = np.random.default_rng(0), tmp_path / "model.onnx", 0
    for _ in range(300):
        damaged = bytearray(_TORN)
        for place in chance.integers(len(damaged), size=4):
            damaged[place] = chance.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_graph(path).operators
        except UsageError:
            refused += 1
    assert 0 < refused < 300


def test_paths_that_are_no_model_file_are_refused(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe and a file beyond protobuf's limit each have their sentence."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge.onnx").open("wb") as huge:
        huge.truncate(2**31)
    cases = {"gone.onnx": "There is no model", "": "is a folder", "pipe": "not a regular file", "huge.onnx": "2.0 GB"}
    for name, words in cases.items():
        with pytest.raises(UsageError, match=words):
            read_graph(tmp_path / name)


def test_the_hash_is_that_of_the_files_in_order(tmp_path: Path) -> None:
    """The hash is SHA-256 of the model and its external files, chunk by chunk, and depends on their order."""
    contents = {"model.onnx": bytes(range(256)) * 5000, "b.bin": b"b" * 10, "a.bin": b"a" * 10}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    model = tmp_path / "model.onnx"
    assert hash_model(model) == hashlib.sha256(contents["model.onnx"]).hexdigest()
    assert hash_model(str(model), ("b.bin", "a.bin")) == hashlib.sha256(b"".join(contents.values())).hexdigest()
    assert hash_model(model, ("a.bin", "b.bin")) != hash_model(model, ("b.bin", "a.bin"))


@pytest.mark.parametrize(("model", "external"), [("gone.onnx", ()), ("model.onnx", ("gone.bin",)), ("", ())])
def test_hashing_what_cannot_be_read_is_a_usage_error(tmp_path: Path, model: str, external: tuple[str, ...]) -> None:
    """A file that is gone, or is a folder, is named."""
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match=str(tmp_path / (external[0] if external else model))):
        hash_model(tmp_path / model, external)


def test_hashing_does_not_import_onnx() -> None:
    """The parent hashes a model without loading onnx."""
    code = (
        "import sys; from rtmo_optuna.engine.graph import hash_model; hash_model(sys.executable); print(*sys.modules)"
    )
    assert "onnx" not in python(code).split()
