"""Outputs that are no arrays of numbers, and outputs with nothing in them: compared, or told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from rtmo_optuna.engine.gate.flat import even, flat
from rtmo_optuna.engine.gate.outputs import judge
from rtmo_optuna.search.runner import recorded
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import GateMode, GateRules, Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.verbs.bench import apart
from rtmo_optuna.verbs.prepare import TuneOptions, plan, runner_of

_FLOAT, _STRING = TensorProto.FLOAT, TensorProto.STRING


def _zip_map(path: Path) -> None:
    """Write a classifier as scikit-learn's converter does: a sequence of maps beside the labels."""
    nodes = [
        helper.make_node("LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
                         coefficients=[0.1, 0.2, -0.3, 0.5, 0.1, -0.2], intercepts=[0.0, 0.1, 0.2],
                         classlabels_strings=["cat", "dog", "eel"], multi_class=1, post_transform="SOFTMAX"),
        helper.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml",
                         classlabels_strings=["cat", "dog", "eel"]),
    ]  # fmt: skip
    maps = helper.make_map_type_proto(_STRING, helper.make_tensor_type_proto(_FLOAT, []))
    outputs = [
        helper.make_tensor_value_info("label", _STRING, [None]),
        helper.make_value_info("probabilities", helper.make_sequence_type_proto(maps)),
    ]
    _save(path, nodes, [helper.make_tensor_value_info("x", _FLOAT, [3, 2])], outputs)


def _sequence(path: Path) -> None:
    nodes = [helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0)]
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(_FLOAT, [None, 2]))
    _save(path, nodes, [helper.make_tensor_value_info("x", _FLOAT, [3, 2])], [helper.make_value_info("parts", kind)])


def _optional(path: Path) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(_FLOAT, [3, 2]))
    nodes = [helper.make_node("Optional", ["x"], ["perhaps"])]
    _save(path, nodes, [helper.make_tensor_value_info("x", _FLOAT, [3, 2])], [helper.make_value_info("perhaps", kind)])


def _save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> None:
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph(nodes, "kinds", inputs, outputs)
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def _measured(folder: Path, gate: GateMode) -> Measurement:
    options = TuneOptions(
        model=folder / "m.onnx", config=folder / "c.yaml", provider="cpu", gate=gate, warmup=0, runs=3, output=folder
    )
    planned = plan(options, folder)
    with contextlib.closing(runner_of(planned, lambda _: None)) as runner:
        _, measurement = recorded(runner, planned.rules, Purpose.CONFIRMATION, 0, Settings())
    return measurement


@pytest.mark.parametrize(("make", "gate"), [
    (_zip_map, GateMode.AUTO), (_zip_map, GateMode.OFF), (_sequence, GateMode.AUTO), (_optional, GateMode.AUTO),
])  # fmt: skip
def test_outputs_that_are_no_arrays_are_run(tmp_path: Path, make: Callable[[Path], None], gate: GateMode) -> None:
    """The first look and a benchmark go through, and the outputs are compared where they are to be."""
    make(tmp_path / "m.onnx")
    found = _measured(tmp_path, gate)
    assert found.outcome is Outcome.MEASURED
    assert (found.gate is not None and found.gate.passed) is (gate is GateMode.AUTO)


@pytest.mark.parametrize(("value", "expected"), [
    ([{1: 0.5, 2: 0.5}, {1: 0.1, 2: 0.9}], {"o keys": [1, 2], "o": [[0.5, 0.5], [0.1, 0.9]]}),
    ([{"a": 0.5}, {"b": 0.5}], {"o length": [2], "o[0] keys": ["a"], "o[0]": [0.5], "o[1] keys": ["b"], "o[1]": [0.5]}),
    ([np.zeros((1, 2)), np.ones(3)], {"o length": [2], "o[0]": [[0, 0]], "o[1]": [1, 1, 1]}),
    ([], {"o length": [0]}),
    (["a", "bc"], {"o": ["a", "bc"]}),
    (np.array(["a", "bc"], object), {"o": ["a", "bc"]}),
    (None, {"o (none)": [False]}),
    ({"k": 2.0}, {"o keys": ["k"], "o": [2.0]}),
])  # fmt: skip
def test_every_kind_becomes_arrays(value: Any, expected: dict[str, list[Any]]) -> None:  # noqa: ANN401
    """Names, elements and lengths are all there, so that any difference shows."""
    found = flat(["o"], [value])
    assert {name: array.tolist() for name, array in found.items()} == expected
    assert all(array.dtype.kind in "biufU" for array in found.values())


def test_samples_with_sequences_of_several_lengths_are_compared_as_one() -> None:
    """Names that are in one sample only are compared too, and one that is missing is told."""
    reference = even([{"o[0]": np.ones(2)}, {"o[0]": np.ones(2), "o[1]": np.ones(2)}])
    assert [*reference[0]] == ["0/o[0]", "1/o[0]", "1/o[1]"]
    assert judge(reference, reference, GateRules()).passed
    shorter = [{name: array for name, array in reference[0].items() if name != "1/o[1]"}]
    assert "1/o[1]" in judge(reference, shorter, GateRules()).reason


@pytest.mark.parametrize(
    ("other", "passed"), [(["cat", "dog"], True), (["cat", "eel"], False), (["cat", "doge"], False)]
)
def test_texts_are_compared_by_what_they_say(other: list[str], passed: bool) -> None:  # noqa: FBT001
    """Texts of the same words are equal wherever they lie in memory; others are not."""
    reference = [flat(["o"], [np.array(["cat", "dog"], object)])]
    assert judge(reference, [flat(["o"], [np.array(other, object)])], GateRules()).passed is passed


def test_texts_hash_alike_in_two_processes(tmp_path: Path) -> None:
    """A model that answers with texts has equal outputs in every process, whatever the addresses."""
    _zip_map(tmp_path / "m.onnx")
    first, second = (_measured(tmp_path, GateMode.OFF).outputs_sha256 for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("arrays", "vacuous", "words"), [
    ({"boxes": np.zeros((0, 4), np.float32)}, True, "nothing to compare in boxes"),
    ({"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}, True, "in boxes, labels"),
    ({"boxes": np.zeros((0, 4), np.float32), "whole": np.ones(3)}, False, "nothing to compare in boxes"),
])  # fmt: skip
def test_empty_outputs_are_told(arrays: dict[str, Any], vacuous: bool, words: str) -> None:  # noqa: FBT001
    """Where nothing is compared the gate does not say that all is equal."""
    found = judge([arrays], [arrays], GateRules())
    assert (found.passed, found.vacuous) == (True, vacuous)
    assert words in " ".join(found.warnings)


def test_bench_does_not_call_empty_outputs_equal() -> None:
    """A detector that finds nothing leaves nothing to compare, and `bench` says so."""
    nothing, something = {"n": np.zeros((1, 0))}, {"n": np.zeros((1, 0)), "m": np.ones(2)}
    assert apart(judge([nothing], [nothing], GateRules())) == "nothing to compare in n, which is empty"
    assert apart(judge([something], [something], GateRules())) == "equal, but nothing to compare in n, which is empty"
