"""A container that was killed and started again: what it was before is another driver, of which nobody can know."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import optuna
import pytest

import scripted
from rtmo_optuna.machine.host import host, process_space
from rtmo_optuna.study.drivers import LEASE_S, Crew
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Origin
from rtmo_optuna.types.subject import StudyDefinition
from scripted import Board
from test_finals import Planted

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = Settings()
BEFORE = {"host": f"{os.uname().nodename} 4026530000", "pid": 2, "started": "this boot 100"}
DEFINITION = StudyDefinition(
    "s",
    "cpu",
    {"enable_cpu_mem_arena": None, "enable_mem_pattern": None},
    sampler="exhaustive",
    trials=4,
    timeout_s=30.0,
)


def entry(silent_s: float, **parts: str) -> dict[str, Any]:
    """Return what the container left in the study, which was last heard of so many seconds ago."""
    return {**BEFORE, "until": time.time() + LEASE_S - silent_s, "parts": parts}


@pytest.fixture
def study() -> Board:
    """Return the attributes of a study that nobody works on."""
    return Board()


@pytest.mark.skipif(" " not in process_space(), reason="process ids have no namespaces here")
def test_who_was_here_before_is_gone_after_two_minutes(study: Board) -> None:
    """On another host it would be there for a quarter of an hour."""
    study.put("driver old", entry(110.0))
    crew = Crew(study)
    assert crew.others() == crew.doubtful() == (f"process 2 on {os.uname().nodename}",)
    assert not crew.has_gone(BEFORE)
    study.put("driver old", entry(130.0))
    assert (crew.others(), crew.has_gone(BEFORE)) == ((), True)
    study.put("driver old", {**entry(130.0), "host": "elsewhere 1"})
    assert crew.others() == ("process 2 on elsewhere",)
    assert not crew.has_gone({**BEFORE, "host": "elsewhere 1"})


@pytest.mark.skipif(" " not in process_space(), reason="process ids have no namespaces here")
def test_who_is_heard_of_is_in_no_doubt(study: Board) -> None:
    """Another container of the same host's name, at work."""
    study.put("driver old", entry(20.0))
    crew = Crew(study)
    study.put("driver old", entry(0.0))
    assert (len(crew.others()), crew.doubtful()) == (1, ())


def test_a_rival_that_died_while_it_wanted_to_lead_is_not_waited_for(study: Board) -> None:
    """That wait has an end as well."""
    study.put("driver zzz", {**entry(0.0, preflight="wants"), "host": "elsewhere 1"})
    crew = Crew(study)
    crew.wanting_s, crew.poll_s = 0.2, 0.01
    crew.join()
    assert crew.leads("preflight")


@pytest.mark.slow
@pytest.mark.skipif(" " not in process_space(), reason="process ids have no namespaces here")
def test_a_container_that_is_started_again_finishes_the_study(tmp_path: Path) -> None:
    """It led the preflight and had the default under way: both are done now, and nothing waits past its deadline."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    planted = Planted()
    killed = scripted.opened(tmp_path, replace(DEFINITION, trials=1), host())
    planted.search(killed)
    killed.enqueue(Settings.of({"enable_mem_pattern": False}), Origin.SAMPLER)
    proposal = killed.ask()
    assert proposal
    scripted.die(proposal, **BEFORE)
    killed.put("pin", None)
    killed.put("driver old", entry(0.0, preflight="leads", finals="leads"))
    told: list[str] = []
    begun = time.monotonic()
    again = scripted.opened(tmp_path, DEFINITION, host())
    again.crew.doubt_s = 4.0
    planted.search(again, observer=lambda event: told.append(event.text) if isinstance(event, Note) else None)
    assert time.monotonic() - begun < 60
    assert len({trial.settings for trial in again.trials if trial.run}) == 4
    assert not any("goes on in" in text for text in told)


def test_the_default_left_by_a_dead_driver_is_run(tmp_path: Path) -> None:
    """It was found dead only after this driver had begun: before its next trial it looks again."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    definition = StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None})
    study = scripted.opened(tmp_path, definition, host())
    study.enqueue(DEFAULT, Origin.DEFAULT)
    proposal = study.ask()
    assert proposal
    scripted.die(proposal)
    study.catch_up()
    again = study.ask()
    assert again
    assert (again.settings, again.origin) == (DEFAULT, Origin.DEFAULT)
