"""What a kill leaves in the store of artifacts, and what older versions left in the database, goes at the next run."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.artifacts import upload_artifact
from optuna.trial import TrialState

import scripted
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine.host import host
from rtmo_optuna.study.library import load_study
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition

if TYPE_CHECKING:
    from pathlib import Path

    from rtmo_optuna.study.study import Study

DEFINITION = StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None, "enable_mem_pattern": None})


def opened(folder: Path) -> Study:
    """Return the study of this folder as the next run has it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return scripted.opened(folder, DEFINITION, host())


def gone() -> int:
    """Return the id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        return ended.pid


@pytest.mark.parametrize("uploads", [1, 2])
def test_files_of_a_trial_whose_driver_died_are_removed(tmp_path: Path, uploads: int) -> None:
    """Its log, or its samples too: the trial runs again and has files of its own; those of others stay."""
    study = opened(tmp_path)
    study.enqueue(Settings(), Origin.DEFAULT)
    for name in ("log.txt", "samples.json"):
        (tmp_path / name).write_text("half", encoding="utf-8")
    study.attach([tmp_path / "log.txt"])
    proposal = study.ask()
    assert proposal
    for name in ("log.txt", "samples.json")[:uploads]:
        upload_artifact(artifact_store=study._store, file_path=str(tmp_path / name), study_or_trial=proposal.trial)  # noqa: SLF001
    proposal.trial.set_user_attr("driver", {**proposal.trial.user_attrs["driver"], "pid": gone()})
    assert len(list((tmp_path / "artifacts").iterdir())) == 1 + uploads
    again = opened(tmp_path)
    assert again.claims.recover() == 1
    assert len(list((tmp_path / "artifacts").iterdir())) == 1
    failed, waiting = again._study.get_trials()  # noqa: SLF001
    assert (failed.state, waiting.state) == (TrialState.FAIL, TrialState.WAITING)
    assert not [name for name in failed.system_attrs if name.startswith("artifacts:")]
    proposal = again.ask()
    assert proposal
    assert proposal.settings == Settings()
    again.tell(proposal, Measurement(Outcome.MEASURED, latency_ns=5e6, windows_ns=(5e6,) * 4, calls=40), tmp_path)
    assert len(list((tmp_path / "artifacts").iterdir())) == 3


@pytest.mark.parametrize(("about", "why"), [("me", "There is no study 'theirs'"), ({}, "There is no study 'theirs'")])
def test_a_study_of_somebody_else_s_is_no_study_to_report(tmp_path: Path, about: object, why: str) -> None:
    """It may lie in the same database: those that are ours are named."""
    url = f"sqlite:///{tmp_path}/studies.db"
    opened(tmp_path)
    optuna.create_study(study_name="theirs", storage=url).set_user_attr("about", about)
    with pytest.raises(UsageError, match=why):
        load_study(url, "theirs")


def test_a_study_that_another_version_kept_otherwise_says_so(tmp_path: Path) -> None:
    """What its record holds means nothing here."""
    study, url = opened(tmp_path), f"sqlite:///{tmp_path}/studies.db"
    study._study.set_user_attr("about", {**study._study.user_attrs["about"], "colour": "blue"})  # noqa: SLF001
    with pytest.raises(UsageError, match="'s' was kept by another version of this program"):
        load_study(url, "s")
