"""Several drivers on one study: who is at work, who leads what, and two of them at once for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.exc import IntegrityError

from rtmo_optuna.errors import UsageError
from rtmo_optuna.records import Outcome, Purpose
from rtmo_optuna.search import crew as module
from rtmo_optuna.search.crew import LEASE_S, Crew
from rtmo_optuna.search.library import load_study
from rtmo_optuna.search.storage import open_storage

ROOT = Path(__file__).parents[1]
STUDY = """
provider: cpu
knobs: {graph_optimization_level: all, enable_cpu_mem_arena: all, enable_mem_pattern: all,
        session.intra_op.allow_spinning: all, session.set_denormal_as_zero: all}
sampler: random
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""
DRIVER = """
import json, sys
sys.path[:0] = {paths!r}
from dataclasses import replace
from pathlib import Path
import scripted
from rtmo_optuna import workflow
folder = Path({folder!r})
script = {{"base_ms": 2.0, "build_ms": 30.0}}
wanted = scripted.tune_options(
    folder / sys.argv[1], {study!r}, script=script, study_name="s", trials=16, timeout_s=20.0
)
shared = replace(wanted, storage=f"sqlite:///{{folder}}/studies.db", config=folder / "config.yaml")
told = []
result = workflow.tune(shared, lambda event: told.append(str(event)))
print(json.dumps({{"left": any("The study goes on in" in text for text in told), "exported": bool(result.config)}}))
"""


@pytest.fixture
def study() -> optuna.Study:
    """Return a study that nobody works on."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=optuna.storages.InMemoryStorage())


def test_each_sees_the_others_while_they_work(study: optuna.Study) -> None:
    """From joining to leaving; one does not see itself."""
    one, other = Crew(study), Crew(study)
    one.join()
    assert (one.others(), other.others()) == ((), (f"process {os.getpid()} on {os.uname().nodename}",))
    other.join()
    assert len(one.others()) == len(other.others()) == 1
    one.leave()
    assert other.others() == ()


def test_who_died_or_fell_silent_is_not_at_work(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this host a process that is no more is known at once; elsewhere silence tells, which renewing breaks."""
    Crew(study).join()
    (name,) = (key for key in study.user_attrs if key.startswith("driver "))
    entry = study.user_attrs[name]
    one = Crew(study)
    assert one.others()
    study.set_user_attr(name, {**entry, "started": "another boot 1"})
    assert not one.others()
    study.set_user_attr(name, {**entry, "host": "elsewhere 1", "started": "another boot 1"})
    assert one.others() == (f"process {os.getpid()} on elsewhere",)
    one.join()
    now = time.time() + 0.6 * LEASE_S
    monkeypatch.setattr(time, "time", lambda: now)
    one.renew()
    now += 0.6 * LEASE_S
    assert not one.others()
    assert Crew(study).others()


def test_one_leads_a_part_until_it_leaves(study: optuna.Study) -> None:
    """Asked again it still does; then the next one may."""
    one, other = Crew(study), Crew(study)
    one.join()
    assert one.leads("screening")
    other.join()
    assert not other.leads("screening")
    assert one.leads("screening")
    one.leave()
    assert other.leads("screening")


def test_two_that_want_to_lead_at_once(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """However their writes fall, exactly one does."""
    monkeypatch.setattr(module, "_SETTLED_S", 0.2)
    for _ in range(5):
        pair = [Crew(study), Crew(study)]
        for crew in pair:
            crew.join()
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(lambda crew: crew.leads("part"), pair)) == [False, True]
        for crew in pair:
            crew.leave()


def test_the_last_one_ends_the_study(study: optuna.Study) -> None:
    """Who finds another at work leaves the end to it; who is alone has it, and is at work until it leaves."""
    one, other = Crew(study), Crew(study)
    one.join()
    other.join()
    assert not one.is_last()
    assert other.is_last()
    assert len(one.others()) == 1


def test_two_drivers_share_a_study(tmp_path: Path) -> None:
    """On a device each they try nothing twice, flip each knob once, and the one that stays races and confirms."""
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]
    code = DRIVER.format(paths=paths, folder=str(tmp_path), study=STUDY)
    running = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / name)}
        command = [sys.executable, "-c", code, name]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    told: list[dict[str, Any]] = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    kept = load_study(f"sqlite:///{tmp_path}/studies.db", "s")
    ran = Counter(trial.settings for trial in kept.trials if trial.measurement.outcome is Outcome.MEASURED)
    assert set(ran.values()) == {1}
    assert len(ran) >= 8
    drivers = {trial.user_attrs["driver"]["pid"] for trial in kept._study.trials if "driver" in trial.user_attrs}  # noqa: SLF001
    assert drivers == {process.pid for process in running}
    baseline = [process.index for process in kept.processes if process.purpose is Purpose.BASELINE]
    assert baseline == list(range(len(baseline)))
    assert 2 <= len(baseline) <= 6
    pairs = Counter(p.index for p in kept.processes if p.purpose is Purpose.CONFIRMATION)
    assert set(pairs.values()) <= {2}
    assert sorted(one["left"] for one in told) == [False, True]
    assert not any(one["left"] and one["exported"] for one in told)
    assert kept.get("finals")


def test_a_database_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence names it, and not the password."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError) as told:
        open_storage("postgresql://tuner:hush@host/studies", create=True)
    assert "postgresql://tuner:***@host/studies needs the Python package psycopg" in str(told.value)
    assert "hush" not in str(told.value)


def test_a_database_that_another_driver_makes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tables appear under one's hands: the second try finds them."""
    made, tries = optuna.storages.RDBStorage, [0]
    clash = IntegrityError("INSERT", None, Exception("UNIQUE constraint failed: alembic_version.version_num"))

    def disturbed(*arguments: Any, **more: Any) -> optuna.storages.RDBStorage:  # noqa: ANN401 - whatever is given
        tries[0] += 1
        if tries[0] == 1:
            raise clash
        return made(*arguments, **more)

    monkeypatch.setattr(optuna.storages, "RDBStorage", disturbed)
    assert open_storage(str(tmp_path / "studies.db"), create=True).get_all_studies() == []
    assert tries == [2]
