"""The study's database fails in mid-run: what passes is waited for, what does not ends in one sentence and a report."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

import scripted
from rtmo_optuna.errors import LostError
from rtmo_optuna.machine.host import host
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin, TrialEnded
from rtmo_optuna.types.subject import StudyDefinition
from rtmo_optuna.verbs import tune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rtmo_optuna.types.study import Event
    from rtmo_optuna.verbs.tune import TuneResult

DEFINITION = StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None, "enable_mem_pattern": None})
SMALL = """
provider: cpu
knobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all, session.intra_op.allow_spinning: all}
sampler: exhaustive
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""


def tuned(folder: Path, accident: Callable[[], object], after: int = 3) -> TuneResult:
    """Tune eight settings in `folder`, without finals; `accident` happens after so many trials."""
    ended = 0

    def observer(told: Event) -> None:
        nonlocal ended
        if isinstance(told, TrialEnded):
            ended += 1
            if ended == after:
                accident()

    options = scripted.tune_options(folder, SMALL, script={}, study_name="s", search_only=True, timeout_s=60.0)
    return tune.tune(options, observer)


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
    study = scripted.opened(tmp_path, DEFINITION, host())
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
    study = scripted.opened(tmp_path, DEFINITION, host())
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
        tuned(tmp_path, lambda: optuna.delete_study(study_name="s", storage=url))
    assert ended.value.exit_code == 1
    assert "report.md" in str(ended.value)
    assert "The study was deleted" in (tmp_path / "results/report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.slow
def test_a_database_removed_in_mid_run_is_noticed(tmp_path: Path) -> None:
    """SQLite would go on writing to a file that has no name any more."""
    with pytest.raises(LostError, match="was removed or replaced"):
        tuned(tmp_path, (tmp_path / "studies.db").unlink)
    assert (tmp_path / "results/report.md").exists()


@pytest.mark.slow
def test_artifacts_cleared_away_in_mid_run_cost_nothing_but_them(tmp_path: Path) -> None:
    """The folder is made again, and the study goes on."""
    result = tuned(tmp_path, lambda: shutil.rmtree(tmp_path / "artifacts"))
    assert len(result.record.runs) == 8
    assert list((tmp_path / "artifacts").iterdir())


def test_artifacts_cleared_away_before_the_report_cost_nothing_but_them(tmp_path: Path) -> None:
    """The report is attached in a folder that is made again."""
    study = scripted.opened(tmp_path, DEFINITION, host())
    shutil.rmtree(tmp_path / "artifacts")
    report = tmp_path / "report.md"
    report.write_text("# Report", encoding="utf-8")
    study.attach([report])
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
        tuned(tmp_path, full, after=1)
