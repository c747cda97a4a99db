"""Several drivers on one study: who is at work, who leads what, containers started again, and two for real."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

import scripted
import simulated
from program import python, there
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine.host import process_space
from rtmo_optuna.samplers import attributes
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.study.drivers import LEASE_S, Crew, lease_s
from rtmo_optuna.study.library import load_study
from rtmo_optuna.study.storage import open_storage
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome, Window
from rtmo_optuna.types.request import Limits, Measuring, SessionSpec, Settings
from rtmo_optuna.types.study import Note, Origin
from rtmo_optuna.types.subject import StudyDefinition
from scripted import Board
from test_finals import Planted

STUDY = scripted.defined(
    *("graph_optimization_level", "enable_cpu_mem_arena", "enable_mem_pattern", "session.intra_op.allow_spinning"),
    "session.set_denormal_as_zero",
    more="sampler: random\n",
)
DRIVER = """
import json, sys
sys.path[:0] = {paths!r}
from dataclasses import replace
from pathlib import Path
import scripted
from rtmo_optuna.verbs import tune as verb
folder = Path({folder!r})
script = {{"base_ms": 2.0, "build_ms": 30.0}}
wanted = scripted.tune_options(
    folder / sys.argv[1], {study!r}, script=script, study_name="s", trials=24, timeout_s=30.0
)
shared = replace(wanted, storage=f"sqlite:///{{folder}}/studies.db", config=folder / "config.yaml")
told = []
result = verb.tune(shared, lambda event: told.append(str(event)))
print(json.dumps({{"left": any("The study goes on in" in text for text in told), "exported": bool(result.config)}}))
"""
OTHER = "import sys; from rtmo_optuna.study.storage import open_storage; open_storage(sys.argv[1], create=True)"


@pytest.fixture
def study() -> Board:
    """Return the attributes of a study that nobody works on."""
    return Board()


def test_each_sees_the_others_while_they_work(study: Board) -> None:
    """From joining to leaving; one does not see itself."""
    one, other = Crew(study), Crew(study)
    one.join()
    assert (one.others(), other.others()) == ((), (f"process {os.getpid()} on {os.uname().nodename}",))
    other.join()
    assert len(one.others()) == len(other.others()) == 1
    one.leave()
    assert other.others() == ()


def test_who_died_or_fell_silent_is_not_at_work(study: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this host a process that is no more is known at once; elsewhere silence tells, which renewing breaks."""
    Crew(study).join()
    (name,) = (key for key in study.all() if key.startswith("driver "))
    entry = study.all()[name]
    one = Crew(study)
    assert one.others()
    study.put(name, {**entry, "started": "another boot 1"})
    assert not one.others()
    study.put(name, {**entry, "host": "elsewhere 1", "started": "another boot 1"})
    assert one.others() == (f"process {os.getpid()} on elsewhere",)
    one.join()
    now = time.time() + 0.6 * LEASE_S
    monkeypatch.setattr(time, "time", lambda: now)
    one.renew()
    now += 0.6 * LEASE_S
    assert not one.others()
    assert Crew(study).others()


def test_one_leads_a_part_until_it_leaves(study: Board) -> None:
    """Asked again it still does; then the next one may."""
    one, other = Crew(study), Crew(study)
    one.join()
    assert one.leads("screening")
    other.join()
    assert not other.leads("screening")
    assert one.leads("screening")
    one.leave()
    assert other.leads("screening")


class Turns:
    """In which order two drivers, by name, come to their study; when the order is over they come as they like."""

    def __init__(self, order: str) -> None:
        """Let the driver `order[0]` come first."""
        self._order = order
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait until it is this one's turn, which is over at the end."""
        with self._moved:
            assert self._moved.wait_for(lambda: self._order[:1] in {"", name}, 60)
            yield
            self._order = self._order[1:]
            self._moved.notify_all()

    def end(self, name: str) -> None:
        """Leave out the turns that are left to this one."""
        with self._moved:
            self._order = self._order.replace(name, "")
            self._moved.notify_all()


class InTurns(Board):
    """The attributes of a study, to which a driver comes in its turns."""

    def __init__(self, study: Board, turns: Turns, name: str) -> None:
        """Come to `study` as `name`."""
        self._board, self._turns, self._name = study, turns, name

    def all(self) -> dict[str, Any]:
        """Return what the study has."""
        with self._turns.turn(self._name):
            return self._board.all()

    def put(self, name: str, value: object) -> None:
        """Set an attribute."""
        with self._turns.turn(self._name):
            self._board.put(name, value)

    def remove(self, names: Iterable[str]) -> None:
        """Remove attributes."""
        with self._turns.turn(self._name):
            self._board.remove(names)


@pytest.mark.parametrize("named", ["ab", "ba"])
def test_two_that_want_to_lead_at_once(named: str) -> None:
    """In whatever order they read and write, from joining on, exactly one does."""
    for places in itertools.combinations(range(10), 5):
        turns = Turns("".join("a" if place in places else "b" for place in range(10)))
        study = Board()

        def leads(name: str, study: Board = study, turns: Turns = turns) -> bool:
            crew = Crew(InTurns(study, turns, name))
            crew.poll_s = 0.0
            crew._id = name if named == "ab" else {"a": "b", "b": "a"}[name]  # noqa: SLF001 - else by lot
            crew.join()
            led = crew.leads("part")
            turns.end(name)
            return led

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(leads, "ab")) == [False, True], places


@pytest.mark.parametrize("limits", [Limits(), Limits(build_s=3600.0)])
def test_nobody_is_taken_for_gone_while_a_process_may_be_silent(
    study: Board, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    """After a sign that was just too young to be renewed the longest silence of a process passes."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    one = Crew(study, lease_s(StudyDefinition("s", "cpu", {}, limits=limits)))
    one.join()
    now += 29.0
    one.renew()
    dropped = Measuring().windows_max // 2
    now += limits.exit_s + limits.start_s + limits.build_s + 2 * limits.first_run_s + (2 + dropped) * limits.window_s
    assert Crew(study).others()
    one.renew()
    now += LEASE_S
    assert Crew(study).others()


def test_each_window_is_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of processes beside the trials too, like those of the preflight, and after many of them."""
    definition = StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None})
    study, seen = (scripted.opened(tmp_path, definition) for _ in range(2))
    now, told = time.time(), list[bool]()
    monkeypatch.setattr(time, "time", lambda: now)

    def slow(*_request: object, on_window: Callable[[Window], None], **_more: object) -> NoReturn:
        nonlocal now
        for _window in range(3):
            now += 0.7 * lease_s(definition)
            on_window(Window((5_000_000,)))
            told.append(bool(seen.crew.others()))
        raise KeyboardInterrupt

    runner = ChildRunner(SessionSpec("", "cpu"), "", simulated.silent, measure=slow)
    with pytest.raises(KeyboardInterrupt):
        simulated.tune(study, runner).run()
    assert told == [True, True, True]
    assert not seen.crew.others()


def test_who_was_taken_for_gone_leads_no_more(study: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that was silent for too long finds that another one leads."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    one, other = Crew(study), Crew(study)
    one.join()
    assert one.leads("part")
    now += LEASE_S + 1
    other.join()
    assert other.leads("part")
    assert not one.leads("part")


def test_the_last_one_ends_the_study(study: Board) -> None:
    """Who finds another at work leaves the end to it; who is alone has it, and is at work until it leaves."""
    one, other = Crew(study), Crew(study)
    one.join()
    other.join()
    assert not one.is_last()
    assert other.is_last()
    assert len(one.others()) == 1


@pytest.mark.slow
def test_two_drivers_share_a_study(tmp_path: Path) -> None:
    """On a device each they try nothing twice, flip each knob once, and the one that stays races and confirms."""
    code = DRIVER.format(paths=sys.path, folder=str(tmp_path), study=STUDY)
    running = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / name)}
        command = [sys.executable, "-c", code, name]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    told: list[dict[str, Any]] = [json.loads(process.communicate(timeout=600)[0]) for process in running]
    kept = load_study(f"sqlite:///{tmp_path}/studies.db", "s")
    ran = Counter(trial.settings for trial in kept.trials if trial.measurement.outcome is Outcome.MEASURED)
    assert set(ran.values()) == {1}
    assert len(ran) >= 8
    drivers = {driver["pid"] for one in kept._study.trials if (driver := attributes.kept(one, "driver"))}  # noqa: SLF001
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


@contextmanager
def _before_statements(act: Callable[[str], None]) -> Iterator[list[str]]:
    """Have `act` see each statement before any database does; yield what databases refuse meanwhile."""
    refused: list[str] = []

    def seen(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        act(statement)

    def note(context: ExceptionContext) -> None:
        refused.append(str(context.original_exception))

    event.listen(Engine, "before_cursor_execute", seen)
    event.listen(Engine, "handle_error", note)
    try:
        yield refused
    finally:
        event.remove(Engine, "before_cursor_execute", seen)
        event.remove(Engine, "handle_error", note)


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["CREATE TABLE", "INSERT INTO alembic_version"])
def test_a_database_that_another_driver_makes_meanwhile(tmp_path: Path, statement: str) -> None:
    """Its tables, or its version, appear under one's hands: the second try finds them."""
    file, others = str(tmp_path / "studies.db"), list[int]()

    def other(about: str) -> None:
        if statement in about and not others:
            others.append(1)
            python(OTHER, file)

    with _before_statements(other) as refused:
        assert open_storage(file, create=True).get_all_studies() == []
    assert others
    assert any("already exists" in why or "UNIQUE" in why for why in refused), refused


DEFAULT = Settings()
BEFORE = {"host": f"{os.uname().nodename} 4026530000", "pid": 2, "started": "this boot 100"}
FOUR = {"enable_cpu_mem_arena": None, "enable_mem_pattern": None}
DEFINITION = StudyDefinition("s", "cpu", FOUR, sampler="exhaustive", trials=4, timeout_s=30.0)
contained = pytest.mark.skipif(" " not in process_space(), reason="process ids have no namespaces here")


def entry(silent_s: float, **parts: str) -> dict[str, Any]:
    """Return what the container left in the study, which was last heard of so many seconds ago."""
    return {**BEFORE, "until": time.time() + LEASE_S - silent_s, "parts": parts}


@contained
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


@contained
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
@contained
def test_a_container_that_is_started_again_finishes_the_study(tmp_path: Path) -> None:
    """It led the preflight and had the default under way: both are done now, and nothing waits past its deadline."""
    planted = Planted()
    killed = scripted.opened(tmp_path, replace(DEFINITION, trials=1))
    planted.search(killed)
    killed.enqueue(Settings.of({"enable_mem_pattern": False}), Origin.SAMPLER)
    scripted.die(there(killed.ask()), **BEFORE)
    killed.put("pin", None)
    killed.put("driver old", entry(0.0, preflight="leads", finals="leads"))
    told: list[str] = []
    begun = time.monotonic()
    again = scripted.opened(tmp_path, DEFINITION)
    again.crew.doubt_s = 4.0
    planted.search(again, observer=lambda event: told.append(event.text) if isinstance(event, Note) else None)
    assert time.monotonic() - begun < 60
    assert len({trial.settings for trial in again.trials if trial.run}) == 4
    assert not any("goes on in" in text for text in told)


def test_the_default_left_by_a_dead_driver_is_run(tmp_path: Path) -> None:
    """It was found dead only after this driver had begun: before its next trial it looks again."""
    study = scripted.opened(tmp_path, StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None}))
    study.enqueue(DEFAULT, Origin.DEFAULT)
    scripted.die(there(study.ask()))
    study.catch_up()
    again = there(study.ask())
    assert (again.settings, again.origin) == (DEFAULT, Origin.DEFAULT)
