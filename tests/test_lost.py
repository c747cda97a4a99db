"""What a run needs fails in mid-run: its database, the folder for temporary files, the model itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

import models
import scripted
from program import Program, lacking
from rtmo_optuna.engine.graph import hash_model
from rtmo_optuna.engine.watch import ModelWatch
from rtmo_optuna.errors import LostError
from rtmo_optuna.search.runner import recorded
from rtmo_optuna.study.library import load_study
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import EngineKind, Settings
from rtmo_optuna.types.study import Event, Note, Origin, TrialEnded
from rtmo_optuna.types.subject import StudyDefinition
from rtmo_optuna.verbs import tune
from rtmo_optuna.verbs.bench import compare
from rtmo_optuna.verbs.prepare import Plan, TuneOptions, plan, runner_of
from rtmo_optuna.verbs.tune import TuneResult
from test_killed_children import OTHER

DEFINITION = StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None, "enable_mem_pattern": None})
SMALL = scripted.defined("enable_cpu_mem_arena", "enable_mem_pattern", "session.intra_op.allow_spinning")


def options(folder: Path) -> TuneOptions:
    """Return options for a tune of eight settings in `folder`, without finals, and with time enough on any machine."""
    return scripted.tune_options(folder, SMALL, script={}, study_name="s", search_only=True, timeout_s=600.0)


def tuned(wanted: TuneOptions, accident: Callable[[], object], after: int = 3) -> TuneResult:
    """Tune; `accident` happens after so many trials."""
    ended = itertools.count(1)

    def observer(told: Event) -> None:
        if isinstance(told, TrialEnded) and next(ended) == after:
            accident()

    return tune.tune(wanted, observer)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Have SQLite itself wait for a moment only."""

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")

    event.listen(Engine, "begin", begin)
    yield
    event.remove(Engine, "begin", begin)


@pytest.mark.usefixtures("impatient")
def test_a_database_that_is_locked_for_a_while_is_waited_for(tmp_path: Path) -> None:
    """A database browser holds it for a second: nothing is lost, and it is said once."""
    study = scripted.opened(tmp_path, DEFINITION)
    told: list[str] = []
    study.patience.tell = told.append
    browser = sqlite3.connect(tmp_path / "studies.db", isolation_level=None, check_same_thread=False)
    browser.execute("BEGIN IMMEDIATE")
    threading.Timer(1.0, lambda: browser.execute("COMMIT")).start()
    study.enqueue(Settings(), Origin.DEFAULT)
    assert study.ask()
    assert len(told) == 1
    assert "locked" in told[0]


@pytest.mark.usefixtures("impatient")
def test_a_database_that_stays_locked_ends_in_one_sentence(tmp_path: Path) -> None:
    """Once the time is over."""
    study = scripted.opened(tmp_path, DEFINITION)
    browser = sqlite3.connect(tmp_path / "studies.db", isolation_level=None)
    browser.execute("BEGIN IMMEDIATE")
    study.patience.until = time.monotonic() + 0.5
    with pytest.raises(LostError, match=r"studies\.db did not come back in time: .*locked\.$"):
        study.enqueue(Settings(), Origin.DEFAULT)


@pytest.mark.slow
def test_a_study_deleted_in_mid_run_leaves_a_report(tmp_path: Path) -> None:
    """One deletes it in the dashboard: one sentence, exit code 1, and what was measured."""
    url = f"sqlite:///{tmp_path}/studies.db"
    with pytest.raises(LostError, match="The study was deleted from") as ended:
        tuned(options(tmp_path), lambda: optuna.delete_study(study_name="s", storage=url))
    assert ended.value.exit_code == 1
    assert "report.md" in str(ended.value)
    assert "The study was deleted" in (tmp_path / "results/report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.slow
def test_a_database_removed_in_mid_run_is_noticed(tmp_path: Path) -> None:
    """SQLite would go on writing to a file that has no name any more."""
    with pytest.raises(LostError, match="was removed or replaced"):
        tuned(options(tmp_path), (tmp_path / "studies.db").unlink)
    assert (tmp_path / "results/report.md").exists()


@pytest.mark.slow
def test_artifacts_cleared_away_in_mid_run_cost_nothing_but_them(tmp_path: Path) -> None:
    """The folder is made again, and the study goes on."""
    result = tuned(options(tmp_path), lambda: shutil.rmtree(tmp_path / "artifacts"))
    assert len(result.record.runs) == 8
    assert list((tmp_path / "artifacts").iterdir())


def test_artifacts_cleared_away_before_the_report_cost_nothing_but_them(tmp_path: Path) -> None:
    """The report is attached in a folder that is made again."""
    study = scripted.opened(tmp_path, DEFINITION)
    shutil.rmtree(tmp_path / "artifacts")
    report = tmp_path / "report.md"
    report.write_text("# Report", encoding="utf-8")
    study.attach(report, "text/markdown")
    (kept,) = (tmp_path / "artifacts").iterdir()
    assert kept.read_text(encoding="utf-8") == "# Report"


@pytest.fixture
def full() -> Iterator[Callable[[], None]]:
    """Return what fills the disk, as far as SQLite can see."""

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=1")

    yield lambda: event.listen(Engine, "begin", limit)
    if event.contains(Engine, "begin", limit):
        event.remove(Engine, "begin", limit)


@pytest.mark.slow
def test_a_full_disk_ends_in_one_sentence(tmp_path: Path, full: Callable[[], None]) -> None:
    """SQLite says that it is full, which does not pass by waiting."""
    with pytest.raises(LostError, match="cannot be used any more: database or disk is full"):
        tuned(options(tmp_path), full, after=1)


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
    with pytest.raises(LostError, match=why) as lost:
        tuned(options(tmp_path), lambda: accident(temporary))
    assert lost.value.exit_code == 1
    assert not lacking(str(lost.value), "TMPDIR", "report.md")
    assert "The run ended early" in (tmp_path / "results/report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "config.yaml").exists()
    subprocess.run(["umount", "--lazy", str(temporary)], capture_output=True, check=False)
    temporary.mkdir(exist_ok=True)
    assert len(tune.tune(options(tmp_path), lambda _: None).record.runs) == 8
    trials = load_study(options(tmp_path).storage, "s").trials
    assert "failed" not in {trial.measurement.outcome for trial in trials}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gone", "read-only"])
def test_a_bench_says_what_the_pairs_said(case: str, temporary: Path, tmp_path: Path) -> None:
    """Those that were done."""
    accident, _ = ACCIDENTS[case]

    def observer(told: Event) -> None:
        if isinstance(told, Note) and told.text.startswith("pair 2:"):
            accident(temporary)

    wanted = scripted.tune_options(tmp_path, SMALL, script={})
    with pytest.raises(LostError, match=r"Until then, .*: Not confirmed against default: 2 sound pairs of 10"):
        compare(wanted, ["enable_mem_pattern=off"], [], 20, observer)


def test_a_trial_that_fails_by_itself_is_no_accident_of_files(tmp_path: Path) -> None:
    """Where outputs are not compared there need be no reference."""
    failing, rules = scripted.runner(tmp_path, faults=[{"when": {}, "fault": "raise"}])
    rules = replace(rules, gate=replace(rules.gate, reference=str(tmp_path / "gone.npz")))
    assert failing.run(OTHER, rules, tmp_path / "log.txt").outcome is Outcome.FAILED


@pytest.mark.parametrize("verb", [["tune", "--dry-run"], ["tune"], ["bench", "--set", "enable_mem_pattern=off"]])
def test_before_anything_runs_it_is_one_sentence(
    verb: list[str], temporary: Path, tmp_path: Path, program: Program
) -> None:
    """A folder that is gone when the program starts to use it."""
    scripted.write_script(tmp_path)
    temporary.rmdir()
    assert program(*verb, "script.json", "--engine", "scripted", "--provider", "cpu") == 1
    assert program.err.count("\n") == 1
    assert not lacking(program.err, str(temporary), "TMPDIR")


def _swap(model: Path) -> None:
    models.dense(model, (1, 16))


def planned_for(folder: Path) -> Plan:
    """Return the plan for a small model in `folder`."""
    model, config = models.dense(folder / "m.onnx"), folder / "c.yaml"
    return plan(TuneOptions(model=model, config=config, output=folder, provider="cpu", warmup=0, runs=3), folder)


def test_a_swapped_model_stops_the_study_and_one_put_back_goes_on(tmp_path: Path) -> None:
    """No process of another model counts; with the model back the same study goes on."""
    planned, model = planned_for(tmp_path), tmp_path / "m.onnx"
    shutil.copy2(model, tmp_path / "kept")
    with contextlib.closing(runner_of(planned, lambda _: None)) as runner:
        _swap(model)
        with pytest.raises(LostError, match=r"m\.onnx changed while the study ran.*what was measured before is kept"):
            recorded(runner, planned.rules, Purpose.CONFIRMATION, 0, Settings())
        shutil.copy2(tmp_path / "kept", model)
        _, measurement = recorded(runner, planned.rules, Purpose.CONFIRMATION, 1, Settings())
    assert measurement.outcome is Outcome.MEASURED


def test_a_swap_during_a_process_is_seen_after_it(tmp_path: Path) -> None:
    """What ran while the model changed is not told as wrong output."""
    planned = planned_for(tmp_path)
    told_of_a_window = runner_of(planned, lambda _: _swap(tmp_path / "m.onnx"))
    with contextlib.closing(told_of_a_window) as runner, pytest.raises(LostError, match="changed while the study ran"):
        recorded(runner, planned.rules, Purpose.CONFIRMATION, 0, Settings())


@pytest.mark.slow
@pytest.mark.parametrize("accident", [_swap, Path.unlink])
def test_what_was_measured_before_is_reported(accident: Callable[[Path], object], tmp_path: Path) -> None:
    """A study whose model is swapped or gone after three trials: the report, exit code 1, and the study goes on."""
    model = models.dense(tmp_path / "m.onnx")
    kept = model.read_bytes()
    small = "provider: cpu\nknobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all}\n"
    wanted = scripted.tune_options(tmp_path, small, script={}, study_name="s", warmup=0, runs=3, search_only=True)
    wanted = replace(wanted, model=model, engine=EngineKind.ONNXRUNTIME)
    told = r"while the study ran.*What was measured until then is in .*report\.md"
    with pytest.raises(LostError, match=told) as lost:
        tuned(wanted, lambda: accident(model))
    assert lost.value.exit_code == 1
    report = (tmp_path / "results/report.md").read_text(encoding="utf-8")
    assert "The run ended early. The model" in report
    assert not wanted.config.exists()
    model.write_bytes(kept)
    assert len(tune.tune(wanted, lambda _: None).record.runs) == 4


@pytest.mark.parametrize("external", [False, True])
def test_what_is_only_touched_is_the_same(tmp_path: Path, external: bool) -> None:  # noqa: FBT001
    """A new time or a copy of the same content stops nothing; files of weights are watched as well."""
    (models.external if external else models.dense)(tmp_path / "m.onnx")
    files = ("weights.bin",) if external else ()
    watch = ModelWatch(tmp_path / "m.onnx", files, hash_model(tmp_path / "m.onnx", files))
    os.utime(tmp_path / "m.onnx", ns=(1, 1))
    watch()
    (tmp_path / (files[0] if files else "m.onnx")).unlink()
    with pytest.raises(LostError, match="is gone"):
        watch()
