"""One `config.yaml` for several devices: each has its profile, and a session takes that of the device at hand."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

import models
import rtmo_optuna
from rtmo_optuna.cli import main
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine.host import host
from rtmo_optuna.space import configfile

if TYPE_CHECKING:
    from pathlib import Path

HERE = host().cpu
FILE = """\
models:
  onnx:            # mine
    intra_op_num_threads: 2   # by hand
    profiles:
      NVIDIA T4:
        prefer_nhwc: true
      # the last of them
other: 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a configuration with a profile, for a GPU."""
    (tmp_path / "config.yaml").write_text(FILE, encoding="utf-8")
    return tmp_path / "config.yaml"


def test_a_profile_is_written_beside_the_others(path: Path) -> None:
    """A name with dots in it is one key; comments and other settings stay; the next run reads it, and changes it."""
    name = "AMD EPYC @ 2.70GHz"
    found = configfile.read(path, "cpu", profile="auto", device=name)
    assert (found.profile, found.profiles, found.empty) == (name, ("NVIDIA T4",), True)
    configfile.check_layout(found, "cpu")
    configfile.write(found, {"intra_op_num_threads": 4}, {"latency_ms": 1.5})
    indent = "\n" + 6 * " "
    new = indent.join(
        (f"{name}:", "  intra_op_num_threads: 4", "  benchmark_info:", "    latency_ms: 1.5", "# the last")
    )
    assert path.read_text(encoding="utf-8") == FILE.replace("# the last", new)
    again = configfile.read(path, "cpu", device=name)
    assert again.held == {"intra_op_num_threads": 4}
    configfile.write(again, {"intra_op_num_threads": 8}, {"latency_ms": 1.25})
    assert configfile.read_info(path, device=name) == {"latency_ms": "1.25"}
    assert configfile.read(path, "cpu", again.target).held == {"intra_op_num_threads": 8}


def test_without_a_profile_for_the_device_the_settings_beside_them_count(path: Path) -> None:
    """A profile is taken by the device's name or by its own; without either it is what stands beside them."""
    assert configfile.read(path, "cuda", device="NVIDIA T4").held == {"prefer_nhwc": True}
    assert configfile.read(path, "cuda", profile="NVIDIA T4", device="NVIDIA L4").held == {"prefer_nhwc": True}
    beside = configfile.read(path, "cpu", device="NVIDIA L4")
    assert (beside.target, beside.profile, beside.held) == ("models.onnx", "", {"intra_op_num_threads": 2})


def test_a_file_of_profiles_alone_has_them_where_the_settings_would_be(path: Path) -> None:
    """The first profile with a knob does not become the place of the settings; a misspelt knob in one is told."""
    path.write_text("profiles:\n  NVIDIA T4: {prefer_nhwc: 1}\n", encoding="utf-8")
    assert configfile.read(path, "cuda", device="NVIDIA L4").target == ""
    assert configfile.read(path, "cuda", device="NVIDIA T4").target == "profiles.NVIDIA T4"
    path.write_text("onnx:\n  profiles:\n    NVIDIA T4: {prefer_nhcw: 1}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"line 3.*did you mean prefer_nhwc"):
        configfile.read(path, "cuda", "onnx", device="NVIDIA T4")


def test_a_key_of_another_meaning_is_left_alone(path: Path) -> None:
    """`profiles` that are no mappings of settings are the user's own."""
    path.write_text("onnx:\n  intra_op_num_threads: 2\n  profiles: [dev, live]\n", encoding="utf-8")
    assert configfile.read(path, "cpu", device="dev").held == {"intra_op_num_threads": 2}
    path.write_text("profiles:\n  dev:\n    onnx:\n      intra_op_num_threads: 3\n", encoding="utf-8")
    assert configfile.read(path, "cpu", device="dev").target == "profiles.dev.onnx"


def test_a_session_says_which_profile_it_took(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By an attribute and in the log."""
    model = models.dense(path.parent / "m.onnx", (1, 64))
    path.write_text(FILE.replace("NVIDIA T4:\n        prefer_nhwc: true", f"{HERE!r}: {{enable_mem_pattern: 0}}"))
    with caplog.at_level(logging.INFO, "rtmo_optuna"):
        session = rtmo_optuna.open_session(model, path, provider="cpu")
    assert (session.profile, session.settings) == (HERE, {"enable_mem_pattern": False})
    assert f"profile {HERE!r}" in caplog.text
    path.write_text(FILE, encoding="utf-8")
    plain = rtmo_optuna.open_session(model, path, provider="cpu")
    assert (plain.profile, plain.settings) == ("", {"intra_op_num_threads": 2})


def test_what_has_no_profile_is_one_sentence(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A session without a match names those that are there; a tune for a device that is not here is refused."""
    model = models.dense(path.parent / "m.onnx", (1, 64))
    before = path.read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main.main(["tune", str(model), "--config", str(path), "--provider", "cpu", "--profile", "NVIDIA T4"])
    assert ended.value.code == 2
    assert f"The profile 'NVIDIA T4' is for another device than the one at hand, {HERE}:" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == before
    path.write_text("onnx:\n  profiles:\n    NVIDIA T4: {prefer_nhwc: 1}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"settings for NVIDIA T4, none for this machine, and none beside them"):
        rtmo_optuna.open_session(model, path, config_path="onnx")
    with pytest.raises(UsageError, match=r"settings for NVIDIA T4, no profile 'NVIDIA L4'"):
        rtmo_optuna.open_session(model, path, config_path="onnx", profile="NVIDIA L4")
