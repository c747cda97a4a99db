"""The queue of a study, and which of its trials has which settings."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from rtmo_optuna.codec import encode
from rtmo_optuna.display import visible
from rtmo_optuna.samplers.attributes import OURS, kept, ours
from rtmo_optuna.samplers.candidates import Params, ToldSettings
from rtmo_optuna.samplers.table import distributions
from rtmo_optuna.show import notes
from rtmo_optuna.space.resolve import params_of, settings_of
from rtmo_optuna.study import transaction
from rtmo_optuna.study.storage import GRACE_S
from rtmo_optuna.study.trials import LEFT_TO, driver, drop_files, ran
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import SearchSpace

HasGone = Callable[[Mapping[str, Any]], bool]


class Claims:
    """Makes and takes the trials of one study, so that no two drivers have the same settings.

    A trial appears in the database together with its settings. So of two with the same settings the one with the lower
    number was there when the other was made: it keeps them, and whoever has the other one leaves it.
    """

    def __init__(
        self,
        study: optuna.Study,
        opened: RDBStorage,
        store: FileSystemArtifactStore,
        space: SearchSpace,
        has_gone: HasGone,
    ) -> None:
        """Look after the trials of `study`, whose database is `opened`; `has_gone` tells of a trial's driver.

        Their artifacts are in `store`.
        """
        self._has_gone = has_gone
        self._store = store
        self._study = study
        self._opened = opened
        self._space = space
        self._distributions = distributions(space)
        self._told = ToldSettings()

    @property
    def waiting(self) -> bool:
        """Whether a trial is queued."""
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def taken(self) -> dict[Settings, int]:
        """Return the number of the first trial of all settings that ran, wait or are under way.

        Not of those that were broken off, nor of what drivers that are known to be dead left running.
        """
        held = [t for t in self._study.get_trials(deepcopy=False) if t.state is not TrialState.FAIL or ran(t)]
        told = ((self._told(trial), trial) for trial in reversed(held) if not self._orphaned(trial))
        return {settings: trial.number for settings, trial in told if settings is not None}

    def under_way(self, settings: Settings) -> bool:
        """Whether a trial of `settings` is running, and not one that a dead driver left."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return encode(settings) in [kept(trial, "settings") for trial in running if not self._orphaned(trial)]

    def enqueue(self, settings: Settings, origin: Origin) -> None:
        """Have `settings`, which may lie outside the space, tried next."""
        told = {"fixed_params": params_of(self._space, settings) or {}, **ours(settings=settings)}
        queued = create_trial(state=TrialState.WAITING, system_attrs=told, user_attrs={"origin": origin.value})
        self._add(queued)

    def _add(self, made: FrozenTrial) -> int:
        """Add a trial to the study and return its id."""
        return self._study._storage.create_new_trial(self._study._study_id, template_trial=made)  # noqa: SLF001 - with system attributes

    def take(self) -> Trial | None:
        """Return the first trial of the queue, which this driver has from now on; None where nothing is queued."""
        number = transaction.take(self._opened, self._study._study_id, driver())  # noqa: SLF001 - Optuna names the study so
        if number is None:
            return None
        trial = Trial(self._study, number)
        held = kept(self.frozen(trial), "settings")
        if held is None or params_of(self._space, Settings.from_plain(held)):
            try:
                params = {name: trial.suggest_categorical(name, d.choices) for name, d in self._distributions.items()}
            except ValueError as error:
                self._refuse(trial, f"It was queued with what is no choice of the study: {error}")
                return self.take()
            if held is None:
                told = encode(settings_of(self._space, params))
                self._opened.set_trial_system_attr(trial._trial_id, f"{OURS}settings", told)  # noqa: SLF001
        return trial

    def _refuse(self, trial: Trial, why: str) -> None:
        """Fail a trial that cannot be run; the study goes on."""
        self.describe(trial, {"outcome": "refused", "reason": notes.short(why)}, {}, f"**Refused.** {why}")
        self._study.tell(trial, state=TrialState.FAIL)

    def describe(self, trial: Trial, shown: Mapping[str, Any], held: Mapping[str, Any], note: str) -> None:
        """Keep what is `shown` of a trial that is not told yet, what is `held` for this program alone, and its note."""
        ids = self._study._study_id, trial._trial_id  # noqa: SLF001 - Optuna's names
        transaction.describe(self._opened, *ids, shown=shown, held=held, note=visible(note))

    def make(self, params: Params, **attributes: str) -> Trial:
        """Return a running trial of `params`, this driver's, with `attributes`."""
        made = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions={**self._distributions},
            user_attrs=attributes,
            system_attrs=ours(settings=settings_of(self._space, params), driver=driver()),
        )
        trial = Trial(self._study, self._add(made))
        self.beat(trial)
        return trial

    def leave(self, trial: Trial, first: int) -> None:
        """Leave the settings of `trial` to the trial `first`: it is told FAIL and counts for nothing."""
        shown = {"outcome": f"left to trial {first}", LEFT_TO: first}
        self.describe(trial, shown, {}, f"**Left to trial {first}**, which had the same settings first.")
        self._study.tell(trial, state=TrialState.FAIL)

    def beat(self, trial: Trial) -> None:
        """Record the heartbeat of `trial`, which tells drivers on other hosts that this one lives."""
        self._opened.record_heartbeat(trial._trial_id)  # noqa: SLF001 - Optuna names the trial so to its storages

    def frozen(self, trial: Trial) -> FrozenTrial:
        """Return `trial` as it is kept."""
        return self._opened.get_trial(trial._trial_id)  # noqa: SLF001

    def recover(self) -> int:
        """Queue again what drivers that died left running, and return how many trials that were.

        Of several drivers that look at once one does. A driver on this host is known to be dead at once, by its process
        id and start time; one on another host by its heartbeats. A trial of nobody is given up after a while.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        stale = self._opened._get_stale_trial_ids(self._study._study_id)  # noqa: SLF001 - Optuna would not say which of them it failed
        dead = [trial for trial in running if trial._trial_id in stale or self._orphaned(trial) or _nobodys(trial)]  # noqa: SLF001
        return sum(self.put_back(trial) for trial in dead)

    def release(self) -> None:
        """Put back what this driver has running, wherever it was interrupted."""
        me = driver()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if kept(trial, "driver") == me:
                self.put_back(trial)

    def put_back(self, trial: FrozenTrial) -> bool:
        """Fail `trial`, which was broken off, and queue its settings again unless they are another trial's by now.

        Returns whether it was this driver that did.
        """
        held = kept(trial, "settings")
        first = trial.number if held is None else self.taken().get(Settings.from_plain(held), trial.number)
        again = first == trial.number and (held is not None or "fixed_params" in trial.system_attrs)
        if again:
            drop_files(self._store, trial)
        told, note = {"outcome": Outcome.INTERRUPTED.value}, notes.broken_off(again=again)
        return transaction.fail(self._opened, self._study._study_id, trial, told, note, again=again)  # noqa: SLF001

    def _orphaned(self, trial: FrozenTrial) -> bool:
        """Return whether `trial` is running by what it says, and its driver is gone."""
        return trial.state is TrialState.RUNNING and self._has_gone(kept(trial, "driver") or {})


def _nobodys(trial: FrozenTrial) -> bool:
    """Return whether `trial` has been running for long without a driver's name."""
    begun = trial.datetime_start
    return kept(trial, "driver") is None and begun is not None and (datetime.now() - begun).total_seconds() > GRACE_S  # noqa: DTZ005 - as Optuna keeps it
