"""The verb `bench`: what it ran on, for how long, and what its JSON tells to machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import models
from rtmo_optuna.cli import main
from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import configfile
from rtmo_optuna.verbs import first_look, prepare
from rtmo_optuna.verbs.prepare import TuneOptions
from scripted import write_script


def _bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", "--provider", "cpu", "--set", "enable_mem_pattern=off", *arguments])
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_json_tells_what_was_run_on_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Schema, date, shapes, input, machine, versions, and the latency of every process."""
    write_script(tmp_path, base_ms=1.0)
    found = json.loads(_bench(capsys, "script.json", "--engine", "scripted", "--timeout", "6s", "--json"))
    assert found["schema"] == 1
    made_of = found["made_of"]
    assert made_of["shapes"] == {"input": [1]}
    assert made_of["input"].startswith("made from the signature")
    assert made_of["machine"]["cores"] >= 1
    assert "onnxruntime" in made_of["versions"]
    assert made_of["date"].endswith("+00:00")
    for side in (found["first"], found["second"]):
        assert len(side["processes_ms"]) == side["processes"]


@pytest.mark.slow
def test_a_time_limit_ends_it_without_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No pair begins past the limit; what cannot be said is not said; the made input is told to people too."""
    write_script(tmp_path, base_ms=20.0)
    told = _bench(capsys, "script.json", "--engine", "scripted", "--timeout", "8s")
    assert "not confirmed" in told
    assert "The time was up" in told
    assert "input:    made from the signature" in told
    assert "note:     The input is made from the signature" in told


@pytest.mark.parametrize(
    ("info", "shapes", "expected"),
    [
        ("shapes: {x: 3x8}", (), (3, 8)),
        ("shapes: {x: 3x8}", ("x=2x8",), (2, 8)),
        ("shapes: {x: 3x8}\n    model_sha256: '00'", (), (1, 8)),
    ],
)
def test_the_shapes_that_were_tuned_are_taken(
    tmp_path: Path, info: str, shapes: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    """Those of config.yaml, unless --shape says otherwise or the file was tuned for another model."""
    config = tmp_path / "config.yaml"
    config.write_text(f"onnx:\n  enable_mem_pattern: false\n  benchmark_info:\n    {info}\n", encoding="utf-8")
    models.dense(tmp_path / "m.onnx", ("n", 8))
    options = TuneOptions(model=tmp_path / "m.onnx", config=config, shapes=shapes, provider="cpu")
    found = prepare.plan(options, tmp_path, exports=False).about.inputs.shapes
    assert found == {"x": expected}


@pytest.mark.parametrize("input_", ["photos", "x.npz"])
def test_arrays_have_shapes_of_their_own(tmp_path: Path, input_: str) -> None:
    """What was tuned for replaces those of pictures only."""
    config = tmp_path / "config.yaml"
    config.write_text("onnx:\n  benchmark_info: {shapes: {x: 3x8}}\n  enable_mem_pattern: false\n", encoding="utf-8")
    found = first_look.tuned_shapes(configfile.read(config, "cpu"), Path(input_), "ab")
    assert found == (() if input_ == "x.npz" else ("x=3x8",))


def test_what_is_only_read_may_be_laid_out_oddly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison writes nothing into the configuration; and this process does not parse the model."""
    config = tmp_path / "config.yaml"
    config.write_text("? onnx\n: ? enable_mem_pattern\n  : false\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "onnx", None)
    models.dense(tmp_path / "m.onnx", (1, 8))
    options = TuneOptions(model=tmp_path / "m.onnx", config=config, provider="cpu")
    with pytest.raises(UsageError, match="too unusually"):
        prepare.plan(options, tmp_path)
    assert dict(prepare.plan(options, tmp_path, exports=False).config.settings) == {"enable_mem_pattern": False}


def test_a_time_limit_that_is_over_before_any_process_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no fault of the settings, and what to do is said."""
    write_script(tmp_path, base_ms=1.0)
    with pytest.raises(SystemExit) as ended:
        main.main(
            ["bench", "script.json", "--engine", "scripted", "--timeout", "0.01s", "--set", "enable_mem_pattern=0"]
        )
    assert ended.value.code == 1
    assert "The time was up before the outputs were compared" in capsys.readouterr().err
