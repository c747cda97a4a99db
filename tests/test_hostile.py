"""A child that a hostile model has taken over: whatever it says, its trial fails, and the parent goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rtmo_optuna.child import protocol
from rtmo_optuna.child.measure import Decision, measure
from rtmo_optuna.codec import encode
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.measurement import Found, GateMode, GateResult, Outcome, OutputError, Picture, Window
from rtmo_optuna.types.request import Stage
from rtmo_optuna.verbs import prepare
from scripted import request, tune_options

_TIMED = protocol.Timed((10, 11))
_GOOD: dict[str, protocol.Answer] = {
    "hello": protocol.Hello(1),
    "opened": protocol.Opened(1, 1, 1, {}),
    "ran": protocol.Ran(1),
    "gated": protocol.Gated(encode(GateResult(passed=True, mode=GateMode.ELEMENTWISE))),
    "warm": protocol.Warm(1, (1,), "ab"),
    "timed": _TIMED,
}


def _line(kind: str, body: object) -> bytes:
    return json.dumps({"protocol": protocol.VERSION, "kind": kind, "body": body}).encode()


def _figure(name: str) -> object:
    return encode(
        GateResult(passed=True, mode=GateMode.ELEMENTWISE, errors=(OutputError("out", "elementwise", {name: (1.0,)}),))
    )


def _found(worst: int, outlines: tuple[tuple[float, ...], ...]) -> object:
    found = Found("OKS", 1.0, None, None, (Picture(1, 0, 0),), worst, outlines)
    return encode(GateResult(passed=True, mode=GateMode.AUTO, found=found))


_DEEP = b'{"protocol":2,"kind":"gated","body":{"result":' + b'{"a":' * 940 + b"1" + b"}" * 940 + b"}}"
_CASES: dict[str, tuple[str, bytes]] = {
    "lists in lists": ("hello", b"[" * 500_000),
    "mappings in mappings": ("opened", b'{"a":' * 500_000),
    "a deep result of the gate": ("gated", _DEEP),
    "a result of the gate that is none": ("gated", _line("gated", {"result": {"passed": "yes"}})),
    "a figure without a name": ("gated", _line("gated", {"result": _figure(" ")})),
    "a picture out of the album": ("gated", _line("gated", {"result": _found(1, ())})),
    "an outline of three numbers": ("gated", _line("gated", {"result": _found(0, ((1.0, 2.0, 3.0),))})),
    "an empty window": ("timed", _line("timed", {"samples_ns": []})),
    "a window of nothing": ("timed", _line("timed", {"samples_ns": {}})),
    "calls that took no time": ("timed", _line("timed", {"samples_ns": [0, 5]})),
    "calls that took less": ("timed", _line("timed", {"samples_ns": [-5, 5]})),
    "more nanoseconds than there are": ("timed", _line("timed", {"samples_ns": [10**30]})),
    "digits without end": ("timed", b'{"protocol":2,"kind":"timed","body":{"samples_ns":[' + b"9" * 5000 + b"]}}"),
    "no number": ("timed", b'{"protocol":2,"kind":"timed","body":{"samples_ns":[NaN]}}'),
    "truth for a number": ("timed", _line("timed", {"samples_ns": [True]})),
    "slots missed before they came": ("timed", _line("timed", {"samples_ns": [5], "missed": -1})),
    "a text for a list": ("opened", _line("opened", {**encode(_GOOD["opened"]), "notes": "abc"})),
    "half a character": ("opened", _line("opened", {**encode(_GOOD["opened"]), "notes": ["\ud800"]})),
    "a build that ended before it began": ("opened", _line("opened", {**encode(_GOOD["opened"]), "build_ns": -1})),
    "a warm-up backwards": ("warm", _line("warm", {**encode(_GOOD["warm"]), "samples_ns": [-1]})),
    "a kind that is a list": ("ran", b'{"protocol":2,"kind":[],"body":{}}'),
    "another's answer": ("ran", _line("timed", {"samples_ns": [1]})),
    "a protocol of 4,000 digits": ("ran", b'{"protocol":"' + b"9" * 4000 + b'","kind":"ran","body":{}}'),
    "a sentence of a megabyte": ("ran", _line("failed", {"stage": "window", "blame": "input", "text": "x" * 10**6})),
}
_CHILD = """#!{python} -SE
import os, sys
if "rtmo_optuna.child.worker" not in sys.argv:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with os.fdopen(int(sys.argv[sys.argv.index("-m") + 2]), "wb") as answers:
    answers.write(open({said!r}, "rb").read())
    answers.flush()
    sys.stdin.read()
"""


def _taken_over(folder: Path, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every child say `said`."""
    (folder / "said").write_bytes(said)
    program = folder / "python"
    program.write_text(_CHILD.format(python=sys.executable, said=str(folder / "said")), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def three(windows: Sequence[Window]) -> Decision:
    """Stop after the third."""
    return Decision.ENOUGH if len(windows) == 3 else Decision.GO_ON


def _said(at: str = "", line: bytes = b"") -> bytes:
    lines = {kind: line if kind == at else protocol.dump(answer).rstrip() for kind, answer in _GOOD.items()}
    return b"\n".join([*lines.values(), protocol.dump(_TIMED).rstrip(), protocol.dump(_TIMED)])


@pytest.mark.parametrize("case", list(_CASES))
def test_the_trial_fails_and_the_parent_does_not(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in a sentence that is not endless, and what is kept of it can be read again."""
    wanted = replace(request(tmp_path), gate={"baseline": True})
    _taken_over(tmp_path, _said(*_CASES[case]), monkeypatch)
    found = measure(wanted, log=tmp_path / "log.txt", decide=three)
    assert found.outcome is Outcome.FAILED
    assert found.stage in set(Stage)
    assert 0 < len(found.why) < 5000
    found.why.encode()


def test_a_child_that_says_what_is_due_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases above fail by what is wrong in them."""
    wanted = replace(request(tmp_path), gate={"baseline": True})
    _taken_over(tmp_path, _said(), monkeypatch)
    found = measure(wanted, log=tmp_path / "log.txt", decide=three)
    assert found.outcome is Outcome.MEASURED, found.why


@pytest.mark.parametrize(
    "facts", [{}, {"versions": {}}, {"versions": {"onnxruntime": "1"}, "inputs": [[]]}, "x" * 10**6]
)
def test_what_a_child_says_of_the_model_is_believed_no_further(
    facts: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tune ends before anything is written, in one sentence."""
    study = "provider: cpu\nknobs: {enable_mem_pattern: all}\n"
    options = tune_options(tmp_path, study, script={})
    hello = protocol.dump(_GOOD["hello"])
    _taken_over(tmp_path, hello + _line("described", {"facts": facts}) + b"\n", monkeypatch)
    with pytest.raises(UsageError, match=r"no answer that a child can give|no line of protocol") as told:
        prepare.plan(options, tmp_path)
    assert len(str(told.value)) < 5000
