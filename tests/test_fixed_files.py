"""config.yaml that cannot be replaced by renaming, or whose layout or name is too odd: known before the tune."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import configfile, inplace

HELD = "# mine\nonnx:\n  intra_op_num_threads: 2  # two\n"


def did(*command: str) -> bool:
    """Run a program of the system; return whether it did what it was asked."""
    return bool(shutil.which(command[0])) and subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Return a configuration that is mounted by itself, as a container has it."""
    source, path = tmp_path / "source.yaml", tmp_path / "in a container" / "config.yaml"
    path.parent.mkdir()
    source.write_text(HELD, encoding="utf-8")
    path.touch()
    if not did("mount", "--bind", str(source), str(path)):
        pytest.skip("nothing can be mounted here")
    yield path
    did("umount", str(path))


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Path]:
    """Return a configuration that may not be changed."""
    path = tmp_path / "config.yaml"
    path.write_text(HELD, encoding="utf-8")
    if not did("chattr", "+a", str(path)):
        pytest.skip("files cannot be made immutable here")
    yield path
    did("chattr", "-a", str(path))


def test_a_mounted_file_is_written_in_place(mounted: Path) -> None:
    """It is known before the tune that it can be, the old one is kept, and nothing else is left."""
    configfile.check_writable(mounted)
    config = configfile.read(mounted, "cpu")
    backup = configfile.write(config, {"intra_op_num_threads": 1}, {"study": "s"})
    assert "intra_op_num_threads: 1  # two" in mounted.read_text(encoding="utf-8")
    assert (mounted.parents[1] / "source.yaml").read_text(encoding="utf-8") == mounted.read_text(encoding="utf-8")
    assert backup
    assert backup.read_text(encoding="utf-8") == HELD
    assert sorted(mounted.parent.iterdir()) == sorted([mounted, backup])


def test_a_file_that_may_not_be_replaced_is_refused_before_the_tune(immutable: Path) -> None:
    """Here it may only be added to; renaming onto it fails."""
    with pytest.raises(UsageError, match="cannot be written"):
        configfile.check_writable(immutable)
    assert immutable.read_text(encoding="utf-8") == HELD


@pytest.mark.parametrize("new", [b"short\n", b"longer than what it held before\n"])
def test_what_is_broken_off_in_place_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bytes) -> None:
    """The disk is full, or Ctrl-C comes: the file holds what it held."""
    path, old = tmp_path / "config.yaml", b"what it held before\n"
    path.write_bytes(old)
    write = os.pwrite

    def half(descriptor: int, data: bytes, place: int) -> int:
        monkeypatch.setattr(os, "pwrite", write)
        write(descriptor, data[:3], place)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(KeyboardInterrupt):
        inplace.rewrite(path, old, new)
    assert path.read_bytes() == old
    inplace.rewrite(path, old, new)
    assert path.read_bytes() == new


@pytest.mark.parametrize("text", ["onnx:\n  ? intra_op_num_threads\n  : 2\n", "? a\n: 1\n", "? onnx\n"])
def test_an_odd_layout_is_found_before_the_tune(tmp_path: Path, text: str) -> None:
    """Settings are written to nowhere first."""
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(UsageError, match="config-path"):
        configfile.check_layout(configfile.read(path, "cpu"), "cpu")
    assert path.read_bytes() == text.encode()


def test_the_usual_layouts_may_be_written(tmp_path: Path) -> None:
    """Nothing is refused that could be written."""
    path = tmp_path / "config.yaml"
    for text in (HELD, "", "a: 1\n", "{}\n", "onnx: {}\n", "onnx:\n", "a: 1\ronnx:\r  intra_op_num_threads: 2\r"):
        path.write_bytes(text.encode())
        configfile.check_layout(configfile.read(path, "cpu"), "cpu")
        assert path.read_bytes() == text.encode()


def test_a_name_without_room_for_a_backup_is_refused(tmp_path: Path) -> None:
    """The file itself could be made, what is written beside it could not."""
    path = tmp_path / f"{'c' * 245}.yaml"
    path.write_text(HELD, encoding="utf-8")
    with pytest.raises(UsageError, match="too long"):
        configfile.check_writable(path)
    with pytest.raises(UsageError, match="too long"):
        configfile.check_writable(tmp_path / f"{'ü' * 120}.yaml")
    configfile.check_writable(tmp_path / f"{'c' * 200}.yaml")
