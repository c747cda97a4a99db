"""Whatever the user gets wrong: one clear sentence, exit code 2, and nothing written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import models
import scripted
from program import Program, lacking
from rtmo_optuna.cli import main
from rtmo_optuna.errors import UsageError
from rtmo_optuna.study.storage import open_storage
from rtmo_optuna.types.request import EngineKind, Limits, SessionSpec
from rtmo_optuna.types.subject import StudyDefinition
from rtmo_optuna.verbs import first_look


def _write(name: str, content: str | bytes) -> None:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _npz(**arrays: np.ndarray) -> None:
    np.savez("in.npz", **arrays)  # type: ignore[arg-type]


def _folder() -> None:
    Path("m.onnx").unlink()
    Path("m.onnx").mkdir()


def _without_weights() -> None:
    models.external(Path("m.onnx"))
    Path("weights.bin").unlink()


def _study(more: str = "", knobs: str = "enable_mem_pattern: all") -> Callable[[], None]:
    return lambda: _write("s.yaml", f"provider: cpu\nknobs:\n  {knobs}\n{more}")


_KNOB = ["config.yaml", "line 2", "did you mean enable_mem_pattern"]
_LEVEL = "graph_optimization_level: [all, bassic]"
_S = ["--study", "s.yaml"]
_CASES: dict[str, tuple[Callable[[], object], list[str], list[str]]] = {
    "no such model": (lambda: Path("m.onnx").unlink(), [], ["m.onnx", "does not exist"]),
    "a folder": (_folder, [], ["is a folder"]),
    "an empty file": (lambda: _write("m.onnx", b""), [], ["is empty"]),
    "not ONNX": (lambda: _write("m.onnx", b"\x00\xffnonsense" * 50), [], ["m.onnx", "not", "ONNX"]),
    "text": (lambda: _write("m.onnx", "this is a text\n" * 20), [], ["m.onnx", "not", "ONNX"]),
    "missing external data": (_without_weights, [], ["weights.bin"]),
    "a string input": (lambda: models.text(Path("m.onnx")), [], ["tensor(string)", "'x'"]),
    "a refused shape": (lambda: models.dense(Path("m.onnx"), ("n", 8)), ["--shape", "x=2x9"], ["x", "8"]),
    "a shape of an unknown input": (lambda: None, ["--shape", "z=1x8"], ["'z'", "x"]),
    "a shape that is none": (lambda: None, ["--shape", "x=1xq"], ["1xq"]),
    "no such input file": (lambda: None, ["--input", "in.npz"], ["in.npz"]),
    "an input missing": (lambda: _npz(other=np.zeros((1, 8), np.float32)), ["--input", "in.npz"], ["'x'", "other"]),
    "a wrong dtype": (lambda: _npz(x=np.zeros((1, 8))), ["--input", "in.npz"], ["float64", "float32"]),
    "a wrong rank": (lambda: _npz(x=np.zeros(8, np.float32)), ["--input", "in.npz"], ["x", "8"]),
    "an image for no image input": (lambda: _write("in.png", b"x"), ["--input", "in.png"], ["in.png"]),
    "config.yaml is not YAML": (lambda: _write("config.yaml", "a: [1\nb: }"), [], ["config.yaml", "line"]),
    "config.yaml's target is a list": (lambda: _write("config.yaml", "onnx: [1, 2]\n"), [], ["config.yaml", "onnx"]),
    "config.yaml has a knob misspelt": (lambda: _write("config.yaml", "onnx:\n  enable_mem_patern: 0\n"), [], _KNOB),
    "a study's name that is a path": (lambda: None, ["--study-name", "../x"], ["../x", "no name for a study"]),
    "a study's name that is empty": (lambda: None, ["--study-name", ""], ["no name for a study"]),
    "an output below a file": (lambda: _write("out", "x"), ["--output", "out/report"], ["out", "--output"]),
    "an output folder that the kernel refuses": (lambda: None, ["--output", "/proc/here"], ["/proc", "--output"]),
    "an unknown knob": (_study(knobs="enable_mem_patern: all"), _S, ["s.yaml", "line 3", "enable_mem_pattern"]),
    "an unknown choice": (_study(knobs=_LEVEL), _S, ["s.yaml", "line 3", "BASIC"]),
    "an unknown key": (_study("objektive: latency\n"), _S, ["s.yaml", "line 4", "objective"]),
    "too few runs for the objective": (
        _study("objective: p99\n"), [*_S, "--runs", "661"],
        ["'p99'", "'s'", "662", "--runs gives 661", "leave it out"],
    ),
    "too few runs in the definition": (
        _study("objective: p99\nmeasuring: {runs: 20}\n"), _S, ["'p99'", "'s'", "662", "'measuring: runs' gives 20"],
    ),
    "a rate for an objective that has none": (
        _study("objective: throughput\n"), [*_S, "--rate", "30"],
        ["latency and p99", "--rate gives one", "'s'", "'throughput'", "leave out one"],
    ),
    "a rate in the definition of such an objective": (
        _study("objective: amortized\nmeasuring: {rate_hz: 30}\n"), _S,
        ["'measuring: rate_hz' gives one", "'amortized'"],
    ),
    "a rate below what the time allows": (
        _study("objective: p99\n"), [*_S, "--rate", "30", "--timeout", "20s"],
        ["At 30 calls a second each process takes 26 s at least", "20 s that all of the study may take"],
    ),
    "a rate that is none in the definition": (
        _study("measuring: {rate_hz: nan}\n"), _S,
        ["s.yaml", "line 4", "rate_hz must be a number above 0, or none, not 'nan'"],
    ),
    "no such study definition": (lambda: None, ["--study", "cpus"], ["cpus", "cpu"]),
    "a definition for another provider": (lambda: None, ["--study", "cuda", "--provider", "cpu"], ["cuda", "cpu"]),
    "a storage that is no URL": (lambda: None, ["--storage", "nonsense://x"], ["nonsense", "--storage"]),
    "a storage that is empty": (lambda: None, ["--storage", ""], ["'', which is no database URL: give one like"]),
    "a storage misspelt": (
        lambda: None, ["--storage", "sqllite:///x.db"],
        ["--storage cannot be 'sqllite:///x.db': 'sqllite' is no database. Did you mean 'sqlite'?"],
    ),
    "a storage's password": (lambda: None, ["--storage", "postgres://u:pw@h/x"], ["u:***@h", "mean 'postgresql'?"]),
    "a storage without slashes": (lambda: None, ["--storage", "sqlite:x.db"], ["'sqlite:x.db', which is no database"]),
    "a storage in memory": (lambda: None, ["--storage", "sqlite://"], ["'sqlite://', which names no file"]),
    "a storage that is a host": (
        lambda: None, ["--storage", "sqlite://x.db"], ["'sqlite://x.db', which names no file"],
    ),
    "a storage that does not open": (lambda: _write("db", "no database" * 99), ["--storage", "db"], ["db"]),
    **{
        f"an empty {option}": (lambda: None, [option, ""], [f"{option} is empty: give it a value, or leave it out."])
        for option in ("--config", "--config-path", "--input", "--output", "--study")
    },
}  # fmt: skip
_OPTIONS = {
    ("--trials", "0"): "must be a whole number of at least 1, not '0'.",
    ("--trials", "many"): "must be a whole number of at least 1, not 'many'.",
    ("--trials", "9" * 5000): f"must be a whole number of at least 1, not '{'9' * 5000}'.",
    ("--warmup", "-1"): "must be a whole number of at least 0, not '-1'.",
    ("--runs", "1.5"): "must be a whole number of at least 1, not '1.5'.",
    ("--timeout", "soon"): "must be a time above 0, in seconds or with s, m or h (such as 10m), not 'soon'.",
    ("--timeout", "0"): "must be a time above 0, in seconds or with s, m or h (such as 10m), not '0'.",
    ("--timeout", "9" * 400): f"must be a time above 0, in seconds or with s, m or h (such as 10m), not '{'9' * 400}'.",
    **{
        ("--rate", given): f"must be a number of calls a second, above 0, not '{given}'."
        for given in ("0", "-30", "nan", "inf", "fast", "")
    },
    ("--input-scale", "nan"): "must be a number above 0, not 'nan'.",
    ("--input-scale", "half"): "must be a number above 0, not 'half'.",
    ("--provider", "gpu-0"): "cannot be 'gpu-0'. Known: auto, cuda, cpu, openvino, host, tensorrt_rtx.",
    ("--gate", "elementwize"): "cannot be 'elementwize'. Did you mean 'elementwise'?",
    ("--gate", ""): "cannot be ''. Known: auto, elementwise, detections, off.",
}


@pytest.mark.parametrize("case", list(_CASES))
def test_bad_input(case: str, tmp_path: Path, program: Program) -> None:
    """Exit code 2, a sentence with the words that matter, no traceback, and no file that was not there before."""
    prepare, arguments, words = _CASES[case]
    models.dense(Path("m.onnx"))
    prepare()
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    assert program("tune", "m.onnx", "--provider", "cpu", *arguments) == 2, program.err
    assert not lacking(program.err, *words)
    assert "Traceback" not in program.err
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


@pytest.mark.parametrize(("option", "given"), list(_OPTIONS))
def test_options_are_told_in_one_sentence(program: Program, option: str, given: str) -> None:
    """By their names, with what was given and what may be; nothing of the library that reads the command line."""
    assert program("tune", "m.onnx", option, given) == 2
    assert program.err == f"error: {option} {_OPTIONS[option, given]}\n"


def test_options_of_the_other_verbs(program: Program) -> None:
    """As for `tune`."""
    for arguments, told in (
        (["bench", "m.onnx", "--pairs", "9"], "--pairs must be a whole number of at least 10, not '9'."),
        (["bench", "m.onnx", "--rate", "0"], "--rate must be a number of calls a second, above 0, not '0'."),
        (["dashboard", "--port", "65536"], "--port must be a whole number from 1 to 65535, not '65536'."),
        (["dashboard", "--host", " "], "--host is empty: give it a value, or leave it out."),
    ):
        assert (program(*arguments), program.err) == (2, f"error: {told}\n")


def test_without_onnxruntime_it_says_what_to_install(tmp_path: Path) -> None:
    """Neither package there: which one to install, by extra."""
    models.dense(tmp_path / "m.onnx")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')\n", encoding="utf-8")
    path = os.pathsep.join([str(blocked), str(Path(__file__).parents[1])])
    ended = subprocess.run(
        [sys.executable, "-m", "rtmo_optuna", "tune", "m.onnx", "--provider", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert not lacking(ended.stderr, "rtmo-optuna[gpu]", "rtmo-optuna[cpu]")
    assert not (tmp_path / "studies").exists()


def test_cuda_without_a_provider_is_refused(monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    """`--provider cuda` where CUDA does not load says why, and what to do."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    models.dense(Path("m.onnx"))
    assert program("tune", "m.onnx", "--provider", "cuda") == 2
    assert not lacking(program.err, "CUDA", "--provider cpu")


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["auto", "off"])
def test_outputs_that_are_texts_are_tuned_like_any_other(program: Program, gate: str) -> None:
    """They are compared by what they say, or not at all."""
    models.spelt(Path("m.onnx"))
    short = ("--provider", "cpu", "--quick", "--trials", "1", "--search-only", "--timeout", "300s")
    assert program("tune", "m.onnx", *short, "--gate", gate) == 0


def test_a_model_that_hangs_is_given_up(tmp_path: Path) -> None:
    """Looking at it takes no longer than the study may, not the minutes of the trials' own limits."""
    script = scripted.write_script(tmp_path, faults=[{"when": {}, "fault": "hang in build"}])
    session = SessionSpec(str(script), "cpu", engine=EngineKind.SCRIPTED)
    begun = time.monotonic()
    with pytest.raises(UsageError, match="took longer than"):
        first_look.describe(session, StudyDefinition("s", "cpu", {}, timeout_s=0.5), least_s=1.0)
    assert time.monotonic() - begun < Limits().build_s / 2


def test_ctrl_c_before_there_is_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    """One word, and the exit code of an interrupted program."""

    def interrupt(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        main.main(["tune", "m.onnx"], interrupt)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_port_in_use_is_named(program: Program) -> None:
    """The dashboard says which address it cannot have, and which options name another."""
    open_storage("sqlite:///s.db", create=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert program("dashboard", "--storage", "sqlite:///s.db", "--port", str(port)) == 2
    assert not lacking(program.err, f"127.0.0.1:{port}", "--port")
