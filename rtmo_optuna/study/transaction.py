"""What belongs together in the database, written in one transaction: a kill leaves all of it, or nothing."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import optuna
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial

from rtmo_optuna.study.retries import patient


def take(opened: RDBStorage, study_id: int, driver: Mapping[str, Any]) -> int | None:
    """Set the first waiting trial of the study running as the `driver`'s, with a first heartbeat, and return its id.

    None where no trial waits. Optuna sets it running first, and who was killed then would leave a trial of nobody.
    """
    waiting = opened.get_all_trials(study_id, deepcopy=False, states=(TrialState.WAITING,))
    return next((one._trial_id for one in waiting if _taken(opened, one._trial_id, driver)), None)  # noqa: SLF001 - Optuna's name


@patient
def _taken(opened: RDBStorage, trial_id: int, driver: Mapping[str, Any]) -> bool:
    """Return whether the trial still waited, and so is the `driver`'s now."""
    with _create_scoped_session(opened.scoped_session) as session:
        trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        if trial.state is not TrialState.WAITING:
            return False
        trial.state, trial.datetime_start = TrialState.RUNNING, datetime.now()  # noqa: DTZ005 - as Optuna keeps it
        opened._set_trial_attr_without_commit(  # noqa: SLF001 - as `set_trial_user_attr`
            session, models.TrialUserAttributeModel, trial_id, "driver", driver
        )
        session.add(models.TrialHeartbeatModel(trial_id=trial_id))
    return True


def forget(study: optuna.Study, names: Iterable[str]) -> None:
    """Remove the attributes `names` of a study from its database; Optuna itself can only set them."""
    opened = getattr(study._storage, "_backend", None)  # noqa: SLF001 - it has a cache before it
    if isinstance(opened, RDBStorage):
        _forget(opened, study._study_id, names)  # noqa: SLF001 - Optuna's name
    else:
        for name in names:
            study.set_user_attr(name, None)


@patient
def _forget(opened: RDBStorage, study_id: int, names: Iterable[str]) -> None:
    with _create_scoped_session(opened.scoped_session) as session:
        for name in names:
            session.query(models.StudyUserAttributeModel).filter_by(study_id=study_id, key=name).delete()


@patient
def fail(opened: RDBStorage, study_id: int, trial: FrozenTrial, attributes: Mapping[str, Any], *, again: bool) -> bool:
    """Fail `trial`, with `attributes`, and queue another one like it where it is to be tried `again`.

    Then it has no artifacts any more. Returns whether that was done here: not where the trial has ended meanwhile.
    """
    fixed = {"fixed_params": trial.system_attrs.get("fixed_params", dict(trial.params))}
    kept = {name: value for name, value in trial.user_attrs.items() if name in {"settings", "origin"}}
    waiting = create_trial(state=TrialState.WAITING, system_attrs=fixed, user_attrs=kept)
    trial_id = trial._trial_id  # noqa: SLF001 - Optuna's name
    with _create_scoped_session(opened.scoped_session) as session:
        models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        held: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        if held.state.is_finished():
            return False
        for name, value in attributes.items():
            opened._set_trial_attr_without_commit(session, models.TrialUserAttributeModel, trial_id, name, value)  # noqa: SLF001
        held.state, held.datetime_complete = TrialState.FAIL, datetime.now()  # noqa: DTZ005 - as Optuna keeps it
        if again:
            told = session.query(models.TrialSystemAttributeModel).filter_by(trial_id=trial_id)
            told.filter(models.TrialSystemAttributeModel.key.startswith(ARTIFACTS_ATTR_PREFIX)).delete()
            opened._get_prepared_new_trial(study_id, waiting, session)  # noqa: SLF001 - as `create_new_trial`
    return True
