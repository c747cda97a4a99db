"""Accidents: drivers that die between two commits, trials that nobody can run, half-made studies."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.trial import TrialState

import scripted
from rtmo_optuna.errors import IdentityError
from rtmo_optuna.machine.host import host
from rtmo_optuna.study.library import has_study, open_study
from rtmo_optuna.study.storage import open_storage
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition

if TYPE_CHECKING:
    from pathlib import Path

    from rtmo_optuna.study.study import Study

DEFINITION = StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None, "enable_mem_pattern": None})
DEFAULT = Settings()
DIES = """
import os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
import optuna
from rtmo_optuna.machine.host import host
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition
import scripted
from optuna.storages import RDBStorage

left = int(sys.argv[1])

def dying(call):
    def held(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return call(*arguments, **more)
    return held

from sqlalchemy.orm import Session
Session.commit = dying(Session.commit)
definition = StudyDefinition("s", "cpu", {{"enable_cpu_mem_arena": None, "enable_mem_pattern": None}})
study = scripted.opened(Path({folder!r}), definition, host())
study.enqueue(Settings(), Origin.DEFAULT)
proposal = study.ask()
study.interrupt(proposal)
study.ask()
print("done")
"""


def again(folder: Path) -> Study:
    """Return the study of this folder as the next run has it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return scripted.opened(folder, DEFINITION, host())


def states(study: Study) -> list[TrialState]:
    """Return the states of all trials."""
    return [trial.state for trial in study._study.get_trials()]  # noqa: SLF001


def died(folder: Path, commits: int) -> bool:
    """Have a driver create a study, take the default and put it back; return whether it died after `commits`."""
    script = DIES.format(paths=sys.path, folder=str(folder))
    command = [sys.executable, "-c", script, str(commits)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -9 or "done" in ended.stdout, ended.stderr
    return ended.returncode == -9


def finish(study: Study, folder: Path) -> Settings:
    """Ask, and tell that it took 5 ms; return the settings."""
    proposal = study.ask()
    assert proposal
    study.tell(proposal, Measurement(Outcome.MEASURED, latency_ns=5e6, windows_ns=(5e6,) * 4, calls=40), folder)
    return proposal.settings


@pytest.mark.slow
def test_a_driver_killed_before_any_commit_of_creating_taking_or_putting_back(tmp_path: Path) -> None:
    """Before some of its commits, and never: the next run has the default once, and nothing is left running."""
    for commits in (9, 14, 19, 24, 99):
        folder = tmp_path / str(commits)
        folder.mkdir()
        killed = died(folder, commits)
        study = again(folder)
        study.claims.recover()
        study.enqueue(DEFAULT, Origin.DEFAULT)
        assert TrialState.RUNNING not in states(study)
        assert states(study).count(TrialState.WAITING) == 1
        assert finish(study, folder) == DEFAULT
        if not killed:
            break
    assert not killed


@pytest.mark.slow
def test_a_study_without_an_identity_is_made_now(tmp_path: Path) -> None:
    """Whoever made it was killed: it counts as new, also for whoever asks whether there is one."""
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name="s", storage=open_storage(url, create=True))
    assert not has_study(url, "s")
    study = again(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    assert finish(study, tmp_path) == DEFAULT
    assert open_storage(url, create=False).get_study_user_attrs(1).keys() >= {"identity", "about"}


@pytest.mark.slow
def test_a_study_of_somebody_else_is_not_taken_over(tmp_path: Path) -> None:
    """One of the same name with trials but without an identity is not ours."""
    study = optuna.create_study(study_name="s", storage=open_storage(f"sqlite:///{tmp_path}/studies.db", create=True))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    (tmp_path / "elsewhere").mkdir()
    mine = again(tmp_path / "elsewhere").about
    with pytest.raises(IdentityError, match="made for something else"):
        open_study(f"sqlite:///{tmp_path}/studies.db", mine, {"model": "x"}, new=False)


def test_an_enqueued_value_that_is_no_choice_fails_its_trial_alone(tmp_path: Path) -> None:
    """The dashboard lets one enqueue anything: that trial fails with a reason, and the next one runs."""
    study = again(tmp_path)
    study._study.enqueue_trial({"enable_cpu_mem_arena": "sometimes"})  # noqa: SLF001
    study._study.enqueue_trial({"enable_cpu_mem_arena": 17, "enable_mem_pattern": None})  # noqa: SLF001
    study.enqueue(DEFAULT, Origin.DEFAULT)
    assert finish(study, tmp_path) == DEFAULT
    assert states(study) == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    assert "no choice" in study._study.trials[0].user_attrs["reason"]  # noqa: SLF001


def test_whatever_this_driver_has_running_is_put_back(tmp_path: Path) -> None:
    """Ctrl-C may come between taking a trial and running it: nothing stays RUNNING, and it is tried again."""
    study = again(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    assert study.ask()
    study.claims.release()
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]
    assert finish(study, tmp_path) == DEFAULT
