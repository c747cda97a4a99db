"""The verb `bench`: two settings against each other, in real children of the scripted engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtmo_optuna.cli import main
from scripted import write_script

COMMON = ["script.json", "--engine", "scripted", "--provider", "cpu", "--pairs", "10"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bench(*more: str) -> int:
    """Run `bench` and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", *COMMON, *more])
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_a_planted_difference_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half the latency: faster, with an interval around two; equal outputs; the file that is not there stays away."""
    write_script(tmp_path, base_ms=4.0, effects={"enable_mem_pattern=False": 0.5})
    assert bench("--set", "enable_mem_pattern=off", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "faster"
    assert found["low"] <= found["ratio"] <= found["high"]
    assert 1.6 < found["ratio"] < 2.5
    assert found["outputs"] == "equal"
    assert found["first"]["settings"] == {"enable_mem_pattern": False}
    assert found["second"]["settings"] == {}
    assert found["first"]["processes"] == found["pairs"] == 10
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.slow
def test_no_difference_is_no_proof_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 whatever the verdict, and a table for people."""
    write_script(tmp_path, base_ms=2.0, between=0.05)
    assert bench("--set", "enable_mem_pattern=off", "--pairs", "10") == 0
    told = capsys.readouterr().out
    assert "verdict:" in told
    assert "session build, ms" in told
    assert "GPU memory" not in told  # no side has any


@pytest.mark.parametrize(("arguments", "words"), [
    ([], ["the same settings"]),
    (["--set", "enable_mem_pattern=off", "--config", "nowhere.yaml"], ["nowhere.yaml does not exist"]),
    (["--set", "enable_mem_patern=off"], ["enable_mem_patern", "enable_mem_pattern"]),
    (["--set", "enable_mem_pattern"], ["knob=value"]),
    (["--set", "enable_mem_pattern=perhaps"], ["perhaps"]),
    (["--set", "enable_mem_pattern=off", "--against", "enable_mem_pattern=off"], ["same"]),
    (["--set", "enable_mem_pattern=off", "--set", "enable_mem_pattern=on"], ["given already, so leave out one"]),
    (["--against", "enable_mem_pattern=off", "--against", "enable_mem_pattern=off"], ["given already"]),
    (["--set", "enable_mem_pattern=off", "--against", "config"], ["config.yaml does not exist"]),
])  # fmt: skip
def test_bad_sides_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    """Equal sides, an unknown knob or value: exit code 2 and the words that help."""
    write_script(tmp_path)
    assert bench(*arguments) == 2
    told = capsys.readouterr().err
    for word in words:
        assert word in told


@pytest.mark.parametrize("text", ["", "app: {threads: 4}\n"])
def test_a_file_without_settings_is_no_side(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Named, it is refused: its side would be the default. What merely lies there is not asked."""
    write_script(tmp_path)
    Path("config.yaml").write_text(text, encoding="utf-8")
    for named in (["--config", "config.yaml"], ["--against", "config"]):
        assert bench("--set", "enable_mem_pattern=off", *named) == 2
        assert "config.yaml holds no settings: name another file, or tune first" in capsys.readouterr().err
    assert bench("--set", "enable_mem_pattern=on") == 2
    assert "Both sides are the same settings (default)" in capsys.readouterr().err


def test_what_the_file_holds_is_either_side(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The first by default, the second by its name."""
    write_script(tmp_path)
    Path("config.yaml").write_text("onnx: {enable_mem_pattern: false}\n", encoding="utf-8")
    assert bench("--config", "config.yaml", "--against", "config") == 2
    assert "Both sides are the same settings (enable_mem_pattern=0)" in capsys.readouterr().err


def test_settings_that_fail_are_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can be compared with a crash: exit code 1 and where it happened."""
    write_script(tmp_path, faults=[{"when": {"enable_mem_pattern": False}, "fault": "crash"}])
    assert bench("--set", "enable_mem_pattern=off") == 1
    assert "SIGSEGV" in capsys.readouterr().err
