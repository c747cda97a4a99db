"""The queue of a study, and which of its trials has which settings."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState, create_trial

from rtmo_optuna.codec import encode
from rtmo_optuna.records import Settings
from rtmo_optuna.search.sampler import distributions
from rtmo_optuna.search.storage import GRACE_S
from rtmo_optuna.search.trials import LEFT_TO, driver, is_dead
from rtmo_optuna.space.resolve import params_of, settings_of

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    from rtmo_optuna.records import Origin, SearchSpace
    from rtmo_optuna.search.pool import Params


class Claims:
    """Makes and takes the trials of one study, so that no two drivers have the same settings.

    A trial appears in the database together with its settings. So of two with the same settings the one with the lower
    number was there when the other was made: it keeps them, and whoever has the other one leaves it.
    """

    def __init__(self, study: optuna.Study, opened: RDBStorage, space: SearchSpace) -> None:
        """Look after the trials of `study`, whose database is `opened`."""
        self._study = study
        self._opened = opened
        self._space = space
        self._distributions = distributions(space)

    @property
    def waiting(self) -> bool:
        """Whether a trial is queued."""
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def taken(self) -> dict[Settings, int]:
        """Return the number of the first trial of all settings that ran, wait or are under way.

        Not of those that were broken off, nor of what drivers that are known to be dead left running.
        """
        held = [t for t in self._study.get_trials(deepcopy=False) if t.state is not TrialState.FAIL]
        told = [(t.user_attrs["settings"], t.number) for t in held if "settings" in t.user_attrs and not _orphaned(t)]
        return {Settings.from_plain(plain): number for plain, number in reversed(told)}

    def under_way(self, settings: Settings) -> bool:
        """Whether a trial of `settings` is running, and not one that a dead driver left."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return encode(settings) in [trial.user_attrs.get("settings") for trial in running if not _orphaned(trial)]

    def enqueue(self, settings: Settings, origin: Origin) -> None:
        """Have `settings`, which may lie outside the space, tried next."""
        params = params_of(self._space, settings) or {}
        self._study.enqueue_trial(params, user_attrs={"settings": encode(settings), "origin": origin.value})

    def take(self) -> Trial | None:
        """Return the first trial of the queue, which this driver has from now on; None where nothing is queued."""
        number = self._study._pop_waiting_trial_id()  # noqa: SLF001 - Study.ask makes a trial where it finds none
        if number is None:
            return None
        trial = Trial(self._study, number)
        trial.set_user_attr("driver", driver())
        self.beat(trial)
        held = trial.user_attrs.get("settings")
        if held is None or params_of(self._space, Settings.from_plain(held)):
            params = {name: trial.suggest_categorical(name, d.choices) for name, d in self._distributions.items()}
            if held is None:
                trial.set_user_attr("settings", encode(settings_of(self._space, params)))
        return trial

    def make(self, params: Params, **attributes: str) -> Trial:
        """Return a running trial of `params`, this driver's, with `attributes`."""
        held = {"settings": encode(settings_of(self._space, params)), "driver": driver(), **attributes}
        made = create_trial(
            state=TrialState.RUNNING, params=params, distributions={**self._distributions}, user_attrs=held
        )
        number = self._study._storage.create_new_trial(self._study._study_id, template_trial=made)  # noqa: SLF001
        trial = Trial(self._study, number)
        self.beat(trial)
        return trial

    def leave(self, trial: Trial, first: int) -> None:
        """Leave the settings of `trial` to the trial `first`: it is told FAIL and counts for nothing."""
        trial.set_user_attr("outcome", f"left to trial {first}")
        trial.set_user_attr(LEFT_TO, first)
        self._study.tell(trial, state=TrialState.FAIL)

    def beat(self, trial: Trial) -> None:
        """Record the heartbeat of `trial`, which tells drivers on other hosts that this one lives."""
        self._opened.record_heartbeat(trial._trial_id)  # noqa: SLF001 - Optuna names the trial so to its storages

    def lost(self) -> list[FrozenTrial]:
        """Fail what drivers that died left running, and return it: to one only of several drivers that look at once.

        A driver on this host is known to be dead at once, by its process id and start time; one on another host by
        its heartbeats. One that died before it could say who it is leaves a trial of nobody.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        stale = self._opened._get_stale_trial_ids(self._study._study_id)  # noqa: SLF001 - Optuna would not say which of them it failed
        dead = [trial for trial in running if trial._trial_id in stale or _orphaned(trial) or _nobodys(trial)]  # noqa: SLF001
        return [trial for trial in dead if self._fail(trial)]

    def _fail(self, trial: FrozenTrial) -> bool:
        """Return whether it was this driver that failed `trial`."""
        try:
            return self._opened.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # noqa: SLF001
        except UpdateFinishedTrialError:
            return False


def _orphaned(trial: FrozenTrial) -> bool:
    """Return whether `trial` is running by what it says, and its driver is known to be dead."""
    return trial.state is TrialState.RUNNING and is_dead(trial.user_attrs.get("driver", {}))


def _nobodys(trial: FrozenTrial) -> bool:
    """Return whether `trial` has been running for long without a driver's name."""
    begun = trial.datetime_start
    return "driver" not in trial.user_attrs and begun is not None and (datetime.now() - begun).total_seconds() > GRACE_S  # noqa: DTZ005 - as Optuna keeps it
