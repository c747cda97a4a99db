"""The folder for temporary files fails in mid-run: one sentence, exit code 1, and a report of what was measured."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import scripted
from rtmo_optuna.cli import main
from rtmo_optuna.errors import LostError
from rtmo_optuna.study.library import load_study
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import EngineKind
from rtmo_optuna.types.study import Event, Note, TrialEnded
from rtmo_optuna.verbs import tune
from rtmo_optuna.verbs.bench import compare
from test_killed_children import OTHER

SMALL = """
provider: cpu
knobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all, session.intra_op.allow_spinning: all}
sampler: exhaustive
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""
Accident = Callable[[Path], object]


def _mounted(*options: str) -> Accident:
    """Return what mounts a small file system over a folder, or skips the test where that is not allowed."""

    def mount(folder: Path) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=64k", *options)), "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("nothing may be mounted here")

    return mount


def _full(folder: Path) -> None:
    _mounted()(folder)
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1024))


def _emptied(folder: Path) -> None:
    for left in folder.iterdir():
        shutil.rmtree(left)


ACCIDENTS: dict[str, tuple[Accident, str]] = {
    "gone": (shutil.rmtree, "No such file or directory"),
    "emptied": (_emptied, "No such file or directory"),
    "read-only": (_mounted("ro"), "Read-only file system|No such file or directory"),
    "full": (_full, "No space left on device|No such file or directory"),
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder that temporary files go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", ACCIDENTS)
def test_a_tune_ends_with_a_report_and_goes_on_later(case: str, temporary: Path, tmp_path: Path) -> None:
    """No trial is failed by it, none is lost, and the same command ends the study."""
    accident, why = ACCIDENTS[case]
    ended = 0

    def observer(told: Event) -> None:
        nonlocal ended
        if isinstance(told, TrialEnded):
            ended += 1
            if ended == 3:
                accident(temporary)

    options = scripted.tune_options(tmp_path, SMALL, script={}, study_name="s", search_only=True, timeout_s=60.0)
    with pytest.raises(LostError, match=why) as lost:
        tune.tune(options, observer)
    assert lost.value.exit_code == 1
    assert "TMPDIR" in str(lost.value)
    assert "report.md" in str(lost.value)
    assert "The run ended early" in (tmp_path / "results/report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "config.yaml").exists()
    subprocess.run(["umount", "--lazy", str(temporary)], capture_output=True, check=False)
    temporary.mkdir(exist_ok=True)
    result = tune.tune(options, lambda _: None)
    assert len(result.record.runs) == 8
    assert "failed" not in {trial.measurement.outcome for trial in load_study(options.storage, "s").trials}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gone", "read-only"])
def test_a_bench_says_what_the_pairs_said(case: str, temporary: Path, tmp_path: Path) -> None:
    """Those that were done."""
    accident, _ = ACCIDENTS[case]

    def observer(told: Event) -> None:
        if isinstance(told, Note) and told.text.startswith("pair 2:"):
            accident(temporary)

    options = scripted.tune_options(tmp_path, SMALL, script={})
    with pytest.raises(LostError, match=r"Until then, .*: Not confirmed against default: 2 sound pairs of 10"):
        compare(options, ["enable_mem_pattern=off"], [], 20, observer)


def test_a_trial_that_fails_by_itself_is_no_accident_of_files(tmp_path: Path) -> None:
    """Where outputs are not compared there need be no reference."""
    failing, rules = scripted.runner(tmp_path, faults=[{"when": {}, "fault": "raise"}])
    rules = replace(rules, gate=replace(rules.gate, reference=str(tmp_path / "gone.npz")))
    assert failing.run(OTHER, rules, tmp_path / "log.txt").outcome is Outcome.FAILED


@pytest.mark.parametrize("verb", [["tune", "--dry-run"], ["tune"], ["bench", "--set", "enable_mem_pattern=off"]])
def test_before_anything_runs_it_is_one_sentence(
    verb: list[str],
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder that is gone when the program starts to use it."""
    monkeypatch.chdir(tmp_path)
    scripted.write_script(tmp_path)
    temporary.rmdir()
    with pytest.raises(SystemExit) as ended:
        main.main([*verb, "script.json", "--engine", EngineKind.SCRIPTED.value, "--provider", "cpu"])
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.count("\n") == 1
    assert str(temporary) in told
    assert "TMPDIR" in told
