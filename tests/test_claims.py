"""Several drivers on one study's trials: who has which settings, at the start, at the end and after a death."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, cast

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

import scripted
from program import there
from rtmo_optuna.samplers.attributes import kept, ours
from rtmo_optuna.samplers.table import SAMPLERS
from rtmo_optuna.study.storage import GRACE_S
from rtmo_optuna.study.study import Proposal, Study
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition
from scripted import finish

KNOBS = ("enable_cpu_mem_arena", "enable_mem_pattern", "session.intra_op.allow_spinning")
DEFAULT = Settings()


def pair(folder: Path, sampler: str) -> tuple[Study, Study]:
    """Return one study of eight settings as two drivers have it open."""
    definition = StudyDefinition("s", "cpu", dict.fromkeys(KNOBS), sampler=sampler)
    return scripted.opened(folder, definition), scripted.opened(folder, definition)


def die(proposal: Proposal | None) -> Settings:
    """Have the driver of `proposal` be one that is no more; return the settings that it left."""
    scripted.die(there(proposal))
    return there(proposal).settings


class Meeting:
    """Stands before `one`: the first call of its method `name` returns when so many others have come to theirs."""

    def __init__(self, one: object, name: str, barrier: threading.Barrier) -> None:
        """Let all be as it is but for `name`."""
        self._one, self._name, self._barrier = one, name, barrier
        self._met = threading.Event()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it has
        """Return what the other one has, or the method that waits."""
        found = getattr(self._one, name)
        if name != self._name or self._met.is_set():
            return found

        def held(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - whatever the method takes
            result = found(*arguments, **more)
            self._met.set()
            self._barrier.wait(60)
            return result

        return held


def meet(studies: tuple[Study, Study], name: str) -> None:
    """Have both drivers' first call of a method `name` of Optuna's study return when both have come to it."""
    barrier = threading.Barrier(len(studies))
    for study in studies:
        study._study = study.claims._study = cast("optuna.Study", Meeting(study._study, name, barrier))  # noqa: SLF001


@pytest.mark.parametrize("sampler", ["auto", "exhaustive"])
def test_two_that_ask_at_once_have_different_settings(tmp_path: Path, sampler: str) -> None:
    """Both samplers have chosen the same before either trial is there."""
    both = pair(tmp_path, sampler)
    both[0].enqueue(DEFAULT, Origin.DEFAULT)
    finish(both[0], both[0].ask(), tmp_path)
    barrier = threading.Barrier(2)
    for study in both:
        study._study.sampler = cast("BaseSampler", Meeting(study._study.sampler, "propose", barrier))  # noqa: SLF001
    with ThreadPoolExecutor(2) as pool:
        asked = list(pool.map(lambda study: study.ask(), both))
    ran = {finish(study, proposal, tmp_path) for study, proposal in zip(both, asked, strict=True)}
    assert len(ran - {DEFAULT}) == 2
    for study in both:
        study.refresh()
        assert (len(study.trials), study.runs) == (3, 3)


def test_two_that_enqueue_the_same_at_once_run_it_once(tmp_path: Path) -> None:
    """Neither sees the other's trial when it looks: the later one is left where it comes up, and is no trial then."""
    both = pair(tmp_path, "auto")
    meet(both, "get_trials")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda study: study.enqueue(DEFAULT, Origin.DEFAULT), both))
    first, second = (there(study.ask()).settings for study in both)
    assert first == DEFAULT != second
    both[0].refresh()
    assert both[0].trials == ()
    states = [trial.state for trial in both[0]._study.trials]  # noqa: SLF001
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.RUNNING]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_another_has_under_way_is_left_to_it(tmp_path: Path, sampler: str) -> None:
    """While one driver runs the last but one of eight settings the other has the last, and then nothing is left."""
    one, other = pair(tmp_path, sampler)
    for _ in range(6):
        finish(one, one.ask(), tmp_path)
    running = one.ask()
    other.refresh()
    finish(other, other.ask(), tmp_path)
    assert other.ask() is None
    finish(one, running, tmp_path)
    assert one.ask() is None
    assert other.ask() is None
    one.refresh()
    assert len({trial.settings for trial in one.trials}) == len(one.trials) == 8


def test_what_a_dead_driver_has_is_tried_by_the_others(tmp_path: Path) -> None:
    """It does not hold up the end of a space until somebody starts anew."""
    one, other = pair(tmp_path, "auto")
    for _ in range(7):
        finish(one, one.ask(), tmp_path)
    left = die(one.ask())
    other.refresh()
    assert finish(other, other.ask(), tmp_path) == left
    assert other.ask() is None


def test_a_driver_that_dies_as_it_takes_a_trial_leaves_it_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has said who it is before anything else; a trial that nobody put a name to is failed after half an hour."""
    one, other = pair(tmp_path, "auto")
    one.enqueue(DEFAULT, Origin.DEFAULT)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "suggest_categorical", stop)
        with pytest.raises(KeyboardInterrupt):
            one.ask()
    (frozen,) = one._study.get_trials()  # noqa: SLF001
    left = ours(driver={**kept(frozen, "driver"), "started": "another boot 1"})
    one._study._storage.set_trial_system_attr(frozen._trial_id, *left.popitem())  # noqa: SLF001
    assert other.claims.recover() == 1
    assert finish(other, other.ask(), tmp_path) == DEFAULT
    nobodys = create_trial(state=TrialState.RUNNING, params={}, distributions={})
    for age, recovered in ((timedelta(), 0), (timedelta(seconds=GRACE_S + 60), 1)):
        nobodys.datetime_start = datetime.now() - age  # noqa: DTZ005 - as Optuna keeps it
        other._study._storage.create_new_trial(other._study._study_id, template_trial=nobodys)  # noqa: SLF001
        assert other.claims.recover() == recovered


def stop(*_arguments: object, **_more: object) -> NoReturn:
    """Stand in for Ctrl-C."""
    raise KeyboardInterrupt


def test_what_ran_while_it_was_queued_is_answered(tmp_path: Path) -> None:
    """A trial of the queue whose settings another driver finished meanwhile gets that one's value."""
    one, other = pair(tmp_path, "auto")
    one.enqueue(DEFAULT, Origin.DEFAULT)
    one._study.enqueue_trial(one._study.get_trials()[0].system_attrs["fixed_params"], {"settings": {}})  # noqa: SLF001
    finish(one, one.ask(), tmp_path)
    assert there(other.ask()).settings != DEFAULT
    assert [(trial.run, trial.value == one.trials[0].value) for trial in other.trials] == [(1, True), (0, True)]


def test_two_that_find_the_same_dead_trial(tmp_path: Path) -> None:
    """Both look before either has done anything: one queues it again, the other finds nothing to do."""
    both = pair(tmp_path, "auto")
    left = die(both[0].ask())
    meet(both, "get_trials")
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lambda study: study.claims.recover(), both)) == [0, 1]
    states = [trial.state for trial in both[0]._study.trials]  # noqa: SLF001
    assert states == [TrialState.FAIL, TrialState.WAITING]
    assert there(both[1].ask()).settings == left
