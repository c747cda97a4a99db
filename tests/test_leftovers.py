"""What a kill leaves lying is swept by the next run, and what somebody still uses is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from rtmo_optuna.scratch import scratch, sweep_scratch
from rtmo_optuna.space import configfile
from rtmo_optuna.study.attributes import Attributes
from rtmo_optuna.study.drivers import Crew
from rtmo_optuna.study.storage import open_storage

if TYPE_CHECKING:
    import pytest

HOLDS = """
import sys, time
from rtmo_optuna.scratch import scratch
with scratch() as folder:
    (folder / "inputs.npz").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(600)
"""


def age(path: Path) -> None:
    """Make `path` an hour old."""
    then = path.stat().st_mtime - 3600
    os.utime(path, (then, then))


def test_a_scratch_folder_is_swept_once_its_owner_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, however old it is; one of this process neither."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True) as owner, scratch() as own:
        assert owner.stdout
        folder = Path(owner.stdout.readline().strip())
        for one in (folder, own):
            age(one)
        sweep_scratch()
        assert (folder / "inputs.npz").exists()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        sweep_scratch()
        assert not folder.exists()
        assert own.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_last_ten_backups_are_kept_and_halves_are_swept(tmp_path: Path) -> None:
    """Of this file only, and nothing that looks nearly like them."""
    path = tmp_path / "config.yaml"
    path.write_text("onnx: {intra_op_num_threads: 0}\n", encoding="utf-8")
    others = [
        tmp_path / name for name in ("config.yaml.bak-mine", ".config.yaml.swp", "other.yaml.bak-20200101-000000")
    ]
    half = tmp_path / ".config.yaml.0123abcd.tmp"
    for one in (*others, half):
        one.touch()
        age(one)
    for threads in range(1, 14):
        configfile.write(configfile.read(path, "cpu"), {"intra_op_num_threads": threads}, {"study": "s"})
    backups = sorted(tmp_path.glob("config.yaml.bak-2*"))
    assert len(backups) == 10
    assert any("intra_op_num_threads: 12" in one.read_text(encoding="utf-8") for one in backups)
    assert all(one.exists() for one in others)
    assert not half.exists()


def test_a_study_keeps_no_attribute_of_drivers_that_left_or_died(tmp_path: Path) -> None:
    """A hundred runs of a study leave it as one does."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened = open_storage(str(tmp_path / "studies.db"), create=True)
    study = Attributes(opened, optuna.create_study(storage=opened)._study_id)  # noqa: SLF001 - Optuna's name
    study.put("driver old", {"host": "elsewhere 1", "pid": 1, "started": "x", "until": 0.0, "parts": {}})
    study.put("driver older", None)
    other = Crew(study)
    other.join()
    for _ in range(5):
        crew = Crew(study)
        crew.join()
        crew.leave()
    assert len(study.all()) == 1
    other.leave()
    assert study.all() == {}
