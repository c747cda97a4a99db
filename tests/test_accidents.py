"""Accidents: drivers that die between two commits or in an upload, trials that nobody can run, and what they leave."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import upload_artifact
from optuna.trial import TrialState

import scripted
from program import Program, there
from rtmo_optuna.errors import IdentityError, UsageError
from rtmo_optuna.scratch import scratch, sweep_scratch
from rtmo_optuna.space import configfile
from rtmo_optuna.study import transaction
from rtmo_optuna.study.attributes import Attributes
from rtmo_optuna.study.drivers import Crew
from rtmo_optuna.study.library import foresee, has_study, load_study, open_study
from rtmo_optuna.study.storage import open_storage
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.request import Pixels, Settings
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition

DEFINITION = StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None, "enable_mem_pattern": None})
DEFAULT = Settings()
DIES = """
import os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from typing import Any
from sqlalchemy.orm import Session
import test_accidents

left, commit = int(sys.argv[1]), Session.commit

def dying(*arguments, **more):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return commit(*arguments, **more)

Session.commit = dying
study = test_accidents.again(Path({folder!r}))
study.enqueue(test_accidents.DEFAULT, test_accidents.Origin.DEFAULT)
study.interrupt(study.ask())
study.ask()
print("done")
"""


def again(folder: Path) -> Study:
    """Return the study of this folder as the next run has it."""
    return scripted.opened(folder, DEFINITION)


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
    return scripted.finish(study, study.ask(), folder)


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
    optuna.create_study(study_name="s", storage=open_storage(url, create=True))
    assert not has_study(url, "s")
    study = again(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    assert finish(study, tmp_path) == DEFAULT
    assert transaction.attributes(open_storage(url, create=False), 1).keys() >= {"identity", "about"}


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


def gone() -> int:
    """Return the id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        return ended.pid


@pytest.mark.parametrize("uploads", [1, 2])
def test_files_of_a_trial_whose_driver_died_are_removed(tmp_path: Path, uploads: int) -> None:
    """Its log, or its samples too: the trial runs again and has files of its own; those of others stay."""
    study = again(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    for name in ("log.txt", "samples.json"):
        (tmp_path / name).write_text("half", encoding="utf-8")
    study.attach(tmp_path / "log.txt", "text/plain")
    proposal = there(study.ask())
    for name in ("log.txt", "samples.json")[:uploads]:
        upload_artifact(artifact_store=study._store, file_path=str(tmp_path / name), study_or_trial=proposal.trial)  # noqa: SLF001
    scripted.die(proposal, pid=gone())
    assert len(list((tmp_path / "artifacts").iterdir())) == 1 + uploads
    later = again(tmp_path)
    assert later.claims.recover() == 1
    assert len(list((tmp_path / "artifacts").iterdir())) == 1
    failed, waiting = later._study.get_trials()  # noqa: SLF001
    assert (failed.state, waiting.state) == (TrialState.FAIL, TrialState.WAITING)
    assert not [name for name in failed.system_attrs if name.startswith("artifacts:")]
    assert finish(later, tmp_path) == DEFAULT
    assert len(list((tmp_path / "artifacts").iterdir())) == 3


@pytest.mark.parametrize("about", ["me", {}])
def test_a_study_of_somebody_else_s_is_no_study_to_report(tmp_path: Path, about: object) -> None:
    """It may lie in the same database: those that are ours are named."""
    url = f"sqlite:///{tmp_path}/studies.db"
    again(tmp_path)
    optuna.create_study(study_name="theirs", storage=url).set_user_attr("about", about)
    with pytest.raises(UsageError, match=r"There is no study 'theirs' in .*; there are: s\.$"):
        load_study(url, "theirs")


def test_a_study_that_0_2_0_kept_for_all_to_see_goes_on(tmp_path: Path) -> None:
    """It is read as it lies, and hidden by who goes on with it; trials, and what runs beside them, are the same."""
    study, url = again(tmp_path), f"sqlite:///{tmp_path}/studies.db"
    study.enqueue(DEFAULT, Origin.DEFAULT)
    finish(study, tmp_path)
    study.put("pin", value=True)
    trials = load_study(url, "s").trials
    with sqlite3.connect(tmp_path / "studies.db") as opened:
        for of in ("study", "trial"):
            rows = f"FROM {of}_system_attributes WHERE key LIKE 'rtmo_optuna:%'"
            columns = f"INSERT INTO {of}_user_attributes ({of}_id, key, value_json)"
            opened.execute(f"{columns} SELECT {of}_id, substr(key, 13), value_json {rows}")
            opened.execute(f"DELETE {rows}")
    assert (load_study(url, "s").trials, load_study(url, "s").get("pin")) == (trials, True)
    later = again(tmp_path)
    assert (later.trials, later.get("pin")) == (trials, True)
    told = optuna.load_study(study_name="s", storage=url)
    shown = (*told.trials[0].user_attrs.values(), *told.user_attrs.values())
    assert all(isinstance(value, str | float) for value in shown)


def test_a_report_is_attached_once(tmp_path: Path) -> None:
    """A later one takes its place, under the same address."""
    study = again(tmp_path)
    page = tmp_path / "report.html"
    addresses = set()
    for text in ("first", "second"):
        page.write_text(text, encoding="utf-8")
        addresses.add(study.attach(page, "text/html"))
    (only,) = (tmp_path / "artifacts").iterdir()
    assert (only.read_text(encoding="utf-8"), addresses) == ("second", {f"/artifacts/1/{only.name}"})


def test_a_study_that_another_version_kept_otherwise_says_so(tmp_path: Path) -> None:
    """What its record holds means nothing here."""
    study, url = again(tmp_path), f"sqlite:///{tmp_path}/studies.db"
    study.put("about", {**study.get("about"), "colour": "blue"})
    with pytest.raises(
        UsageError, match="'s' was kept by a version of rtmo-optuna that is newer, or much older, than this one"
    ):
        load_study(url, "s")


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
    names = ("config.yaml.bak-mine", ".config.yaml.swp", "other.yaml.bak-20200101-000000")
    others = [tmp_path / name for name in names]
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


@pytest.mark.parametrize(("kept", "differing", "told"), [
    ({"source": "models/t.npz", "real": True}, {"input": "aa"}, "give --input models/t.npz, as it was, or --new"),
    ({"source": "photos (all 3 pictures)", "real": True}, {"input": "aa"}, "give --input photos, as it was"),
    ({"source": "made"}, {"calls a second": "30"}, "give no --rate, as it was, or --new, which starts one beside it."),
    ({"source": "made", "free_dimensions": {"n": 2}, "shapes": {"x": (2, 8)}},
     {"input": "aa", "input shapes": "b"}, "give --shape x=2x8, as it was"),
    ({"source": "here.npz", "real": True}, {"input": "aa"}, "for something else: --new starts one beside it."),
    ({"source": "made"}, {"pixels": "{}"}, "give no --pixels, as it was"),
    ({"source": "made", "pixels": Pixels("x", scale=0.5)}, {"pixels": "{}"},
     "give --pixels --input-scale 0.5 --mean 0.0,0.0,0.0 --std 1.0,1.0,1.0, as it was"),
    ({"source": "made"}, {"driver": "570"}, "for something else: --new starts one beside it."),
])  # fmt: skip
def test_what_a_study_was_made_for_is_said_as_options(
    tmp_path: Path, kept: dict[str, Any], differing: dict[str, str], told: str
) -> None:
    """Where options bring it back; those that are given already would not."""
    about = again(tmp_path).about
    url = about.storage
    before = replace(about, name="before", inputs=replace(about.inputs, **{"real": False, **kept}))
    open_study(url, before, {}, new=False)
    now = replace(before, inputs=replace(about.inputs, source="here.npz", real=kept.get("real", False)))
    with pytest.raises(IdentityError, match=re.escape(told)):
        foresee(url, now, differing, new=False)


def test_an_empty_study_has_no_report(tmp_path: Path, program: Program) -> None:
    """It is said to be empty, and no folder is made."""
    url = again(tmp_path).about.storage
    assert program("report", "s", "--storage", url) == 2
    assert (
        program.err == "error: The study 's' is empty: there is nothing to report before its tune has run a process.\n"
    )
    assert not (tmp_path / "results").exists()
