"""What belongs together in the database, written in one transaction: a kill leaves all of it, or nothing."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial

from rtmo_optuna.samplers.attributes import OURS, kept, ours
from rtmo_optuna.study.retries import patient

_HIDDEN = ("driver", "measurement", "settings")
"""What earlier versions showed of a trial that says nothing to a reader."""
_NOTE_PART = 1 << 13
"""How much of a note lies in one attribute: MySQL takes 64 KiB."""


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
            session, models.TrialSystemAttributeModel, trial_id, f"{OURS}driver", driver
        )
        session.add(models.TrialHeartbeatModel(trial_id=trial_id))
    return True


@patient
def attributes(opened: RDBStorage, study_id: int) -> dict[str, Any]:
    """Return what is kept with a study for this program alone, by name; of an earlier version all that it kept."""
    with _create_scoped_session(opened.scoped_session) as session:
        told = _ours(session, study_id).all()
        if not told:
            told = session.query(models.StudyUserAttributeModel).filter_by(study_id=study_id).all()
        return {row.key.removeprefix(OURS): json.loads(row.value_json) for row in told}


@patient
def keep(opened: RDBStorage, study_id: int, values: Mapping[str, Any], shown: Mapping[str, Any] | None = None) -> None:
    """Keep `values` with a study for this program alone, and beside them what is to be `shown` to everybody."""
    with _create_scoped_session(opened.scoped_session, ignore_integrity_error=True) as session:
        _put(session, models.StudySystemAttributeModel, study_id, {f"{OURS}{name}": v for name, v in values.items()})
        _put(session, models.StudyUserAttributeModel, study_id, shown or {})


@patient
def forget(opened: RDBStorage, study_id: int, names: Iterable[str]) -> None:
    """Remove what is kept with a study under `names`; Optuna itself can only set it."""
    with _create_scoped_session(opened.scoped_session) as session:
        keys = [f"{OURS}{name}" for name in names]
        _ours(session, study_id).filter(models.StudySystemAttributeModel.key.in_(keys)).delete()


@patient
def hide(opened: RDBStorage, study_id: int) -> None:
    """Keep for this program alone what an earlier version of it showed of a study and its trials, where it was one."""
    with _create_scoped_session(opened.scoped_session) as session:
        if _ours(session, study_id).first() is not None:
            return
        whole, part, trial = models.StudyUserAttributeModel, models.TrialUserAttributeModel, models.TrialModel
        trials = session.query(trial.trial_id).filter_by(study_id=study_id)
        rows: Any = (
            *session.query(whole).filter_by(study_id=study_id),
            *session.query(part).filter(part.trial_id.in_(trials), part.key.in_(_HIDDEN)),
        )
        for row in rows:
            named: dict[str, Any] = {"key": f"{OURS}{row.key}", "value_json": row.value_json}
            if isinstance(row, whole):
                session.add(models.StudySystemAttributeModel(study_id=study_id, **named))
            else:
                session.add(models.TrialSystemAttributeModel(trial_id=row.trial_id, **named))
            session.delete(row)


@patient
def describe(
    opened: RDBStorage, study_id: int, trial_id: int, *, shown: Mapping[str, Any], held: Mapping[str, Any], note: str
) -> None:
    """Keep with a trial that is not told yet what is `shown`, what is `held` for this program alone, and its note.

    Raises UpdateFinishedTrialError where somebody has told it.
    """
    with _create_scoped_session(opened.scoped_session) as session:
        for model, values in (
            (models.TrialUserAttributeModel, shown),
            (models.TrialSystemAttributeModel, held),
        ):
            for name, value in values.items():
                opened._set_trial_attr_without_commit(session, model, trial_id, name, value)  # noqa: SLF001 - as Optuna
        _write_note(session, study_id, f"dashboard:{trial_id}:", note)


@patient
def write_note(opened: RDBStorage, study_id: int, trial_id: int | None, text: str) -> None:
    """Put the note `text` on a study, or on a trial of it, told or not, in place of what stands there."""
    with _create_scoped_session(opened.scoped_session) as session:
        _write_note(session, study_id, "dashboard:" if trial_id is None else f"dashboard:{trial_id}:", text)


def _write_note(session: Any, study_id: int, place: str, text: str) -> None:  # noqa: ANN401 - SQLAlchemy's
    """Write a note as optuna-dashboard keeps it, whose own `save_note` reads all notes of a study for each."""
    model = models.StudySystemAttributeModel
    of_study = session.query(model).filter_by(study_id=study_id)
    version = of_study.filter_by(key=f"{place}note_ver").one_or_none()
    of_study.filter(model.key.startswith(f"{place}note_str:", autoescape=True)).delete()
    number = json.loads(version.value_json) + 1 if version else 1
    parts = [text[at : at + _NOTE_PART] for at in range(0, len(text), _NOTE_PART)]
    told = {f"{place}note_str:{i}": part for i, part in enumerate(parts)}
    _put(session, model, study_id, {f"{place}note_ver": number, **told})


def _ours(session: Any, study_id: int) -> Any:  # noqa: ANN401 - SQLAlchemy's
    model = models.StudySystemAttributeModel
    return session.query(model).filter_by(study_id=study_id).filter(model.key.startswith(OURS, autoescape=True))


def _put(session: Any, model: Any, study_id: int, values: Mapping[str, Any]) -> None:  # noqa: ANN401 - SQLAlchemy's
    known = session.query(model).filter_by(study_id=study_id).filter(model.key.in_(list(values)))
    rows = {row.key: row for row in known}
    for key, value in values.items():
        if key in rows:
            rows[key].value_json = json.dumps(value)
        else:
            session.add(model(study_id=study_id, key=key, value_json=json.dumps(value)))


@patient
def fail(
    opened: RDBStorage, study_id: int, trial: FrozenTrial, attributes: Mapping[str, Any], note: str, *, again: bool
) -> bool:
    """Fail `trial`, with `attributes` and a `note`, and queue another one like it where it is to be tried `again`.

    Then it has no artifacts any more. Returns whether that was done here: not where the trial has ended meanwhile.
    """
    fixed = {"fixed_params": trial.system_attrs.get("fixed_params", dict(trial.params))}
    origin = {name: value for name, value in trial.user_attrs.items() if name == "origin"}
    waiting = create_trial(
        state=TrialState.WAITING,
        system_attrs={**fixed, **ours(settings=kept(trial, "settings"))},
        user_attrs=origin,
    )
    trial_id = trial._trial_id  # noqa: SLF001 - Optuna's name
    with _create_scoped_session(opened.scoped_session) as session:
        models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        held: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        if held.state.is_finished():
            return False
        for name, value in attributes.items():
            opened._set_trial_attr_without_commit(session, models.TrialUserAttributeModel, trial_id, name, value)  # noqa: SLF001
        _write_note(session, study_id, f"dashboard:{trial_id}:", note)
        held.state, held.datetime_complete = TrialState.FAIL, datetime.now()  # noqa: DTZ005 - as Optuna keeps it
        if again:
            told = session.query(models.TrialSystemAttributeModel).filter_by(trial_id=trial_id)
            told.filter(models.TrialSystemAttributeModel.key.startswith(ARTIFACTS_ATTR_PREFIX)).delete()
            opened._get_prepared_new_trial(study_id, waiting, session)  # noqa: SLF001 - as `create_new_trial`
    return True
