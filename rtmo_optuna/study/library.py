"""The studies of a storage: create or resume one, load one, list them."""

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from rtmo_optuna.codec import decode, encode
from rtmo_optuna.display import without_password
from rtmo_optuna.errors import IdentityError, UsageError
from rtmo_optuna.samplers.table import SAMPLERS
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.space.values import nearest
from rtmo_optuna.study import storage as database
from rtmo_optuna.study import transaction
from rtmo_optuna.study.study import Study
from rtmo_optuna.study.trials import ran
from rtmo_optuna.types.study import StudyLine, StudyRecord

_TRIES, _PAUSE_S = 20, 0.1


def open_study(url: str, about: StudyRecord, identity: Mapping[str, str], *, new: bool) -> Study:
    """Create the study `about.name`, or resume it where its identity is the same.

    Raises IdentityError with the differences where it is not. `new` starts one beside it, with a number in its name.
    """
    opened = database.open_storage(url, create=True)
    name, made = _place(opened, about, identity, new=new)
    about, objective = replace(about, name=name), OBJECTIVES[about.definition.objective]
    with database.quietly():
        sampler = SAMPLERS[about.definition.sampler](about.space, None)
        study = optuna.create_study(
            study_name=name, storage=opened, sampler=sampler, direction=objective.direction, load_if_exists=True
        )
        if not made:
            study.set_metric_names([f"{objective.name} [{objective.unit}]"])
            held = {"about": encode(about), "identity": dict(identity)}
            transaction.keep(opened, study._study_id, held, _shown(about))  # noqa: SLF001 - Optuna's name
        else:
            transaction.hide(opened, study._study_id)  # noqa: SLF001
    return Study(study, opened, url, about)


def _shown(about: StudyRecord) -> dict[str, str]:
    """Return what everybody is shown of a study."""
    objective, machine = OBJECTIVES[about.definition.objective], about.machine
    return {
        "model": Path(about.model_path).name,
        "input": about.inputs.source or "made up",
        "machine": machine.gpu.name if machine.gpu else machine.cpu,
        "provider": about.definition.provider,
        "ONNX Runtime": about.model.versions.get("onnxruntime", ""),
        "objective": f"{objective.name} [{objective.unit}]",
    }


def foresee(url: str, about: StudyRecord, identity: Mapping[str, str], *, new: bool) -> str:
    """Return the name that `open_study` would give the study; nothing is made.

    Raises IdentityError as it would, and UsageError where the storage does not open.
    """
    opened = _existing(url)
    return _place(opened, about, identity, new=new)[0] if opened else about.name


def _place(opened: RDBStorage, about: StudyRecord, identity: Mapping[str, str], *, new: bool) -> tuple[str, bool]:
    """Return the name of the study, with a number where a `new` one has to have one, and whether it is there, whole."""
    name = about.name
    names = {study.study_name for study in opened.get_all_studies()}
    if new:
        free = (name, *(f"{name}-{number}" for number in range(2, len(names) + 3)))
        return next(one for one in free if one not in names), False
    made = name in names and not _half_made(opened, name)
    if made:
        _check_identity(opened, name, about, identity)
    return name, made


def _existing(url: str) -> RDBStorage | None:
    """Return the open storage; None where it is a file that is not there yet."""
    file = database.sqlite_file(database.url_of(url))
    return None if file and not file.exists() else database.open_storage(url, create=False)


def has_study(url: str, name: str) -> bool:
    """Whether the storage holds a study of that name; nothing is made where there is no storage yet."""
    opened = _existing(url)
    names = {study.study_name for study in opened.get_all_studies()} if opened else set()
    return opened is not None and name in names and not _half_made(opened, name)


def load_study(url: str, name: str) -> Study:
    """Return an existing study; raises UsageError where there is none of that name."""
    opened = database.open_storage(url, create=False)
    told = {study.study_name: _held(opened, study.study_name).get("about") for study in opened.get_all_studies()}
    ours = {one: about for one, about in told.items() if _is_ours(about)}
    if name not in ours:
        near = nearest(name, ours)
        known = f"did you mean {near!r}?" if near else f"there are: {', '.join(sorted(ours)) or 'none'}."
        raise UsageError(f"There is no study {name!r} in {without_password(url)}; {known}")
    try:
        about = decode(StudyRecord, ours[name])
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(
            f"The study {name!r} was kept by a version of rtmo-optuna that is newer, or much older, than this one "
            f"({version('rtmo-optuna')}): use that version, or begin a new study (--new)."
        ) from error
    return Study(optuna.load_study(study_name=name, storage=opened), opened, url, about)


def _is_ours(about: object) -> TypeGuard[dict[str, Any]]:
    """Whether that is what a study of this program says of itself: others keep studies in the same database."""
    return isinstance(about, dict) and about.keys() >= {"definition", "machine", "model_path"}


def list_studies(url: str) -> tuple[StudyLine, ...]:
    """Return a line for each study of the storage, with the number of trials that were really run."""
    opened = database.open_storage(url, create=False)
    lines = []
    for summary in optuna.study.get_all_study_summaries(opened):
        about = _held(opened, summary.study_name).get("about")
        if _is_ours(about):
            begun = summary.datetime_start.isoformat(" ", "seconds") if summary.datetime_start else ""
            provider, model = about["definition"]["provider"], about["model_path"]
            study_id = opened.get_study_id_from_name(summary.study_name)
            ours = [trial for trial in opened.get_all_trials(study_id, deepcopy=False) if ran(trial)]
            found = [trial.value for trial in ours if trial.state is TrialState.COMPLETE and trial.value is not None]
            wanted = max if summary.direction is StudyDirection.MAXIMIZE else min
            best = wanted(found) if found else None
            lines.append(StudyLine(summary.study_name, len(ours), best, provider, model, begun))
    return tuple(lines)


def _half_made(opened: RDBStorage, name: str) -> bool:
    """Return whether whoever made this study died before it was complete: its identity comes last, its trials after."""
    if _identity(opened, name) is not None:
        return False
    ours = {"about"} >= _held(opened, name).keys()
    return ours and not opened.get_n_trials(opened.get_study_id_from_name(name))


def _held(opened: RDBStorage, name: str) -> dict[str, Any]:
    return transaction.attributes(opened, opened.get_study_id_from_name(name))


def _identity(opened: RDBStorage, name: str) -> Mapping[str, str] | None:
    """Return the identity of an existing study, which another driver may be about to write; None where nobody is."""
    for _ in range(_TRIES):
        held = _held(opened, name)
        if "identity" in held:
            return dict(held["identity"])
        time.sleep(_PAUSE_S)
    return None


def _check_identity(opened: RDBStorage, name: str, about: StudyRecord, now: Mapping[str, str]) -> None:
    held = _identity(opened, name) or {}
    differing = [what for what in sorted(held.keys() | now.keys()) if held.get(what) != now.get(what)]
    if not differing:
        return
    kept = _held(opened, name).get("about")
    typed = _as_it_was(kept, about, differing) if _is_ours(kept) else ""
    what_to_do = (
        f"give {typed}, as it was, or --new, which starts one beside it" if typed else "--new starts one beside it"
    )
    lines = (
        f"  {what}: {held.get(what, 'nothing')} in the study, {now.get(what, 'nothing')} now" for what in differing
    )
    raise IdentityError(f"The study {name!r} was made for something else: {what_to_do}.\n" + "\n".join(lines))


def _pixels(kept: Mapping[str, Any] | None) -> str:
    """Return the options that feed pixels as they were fed."""
    if not kept:
        return "no --pixels"
    mean, std = (",".join(map(str, kept[name])) for name in ("mean", "std"))
    return f"--pixels --input-scale {kept['scale']} --mean {mean} --std {std}"


def _as_it_was(kept: Mapping[str, Any], now: StudyRecord, differing: Collection[str]) -> str:
    """Return the options that make a run what the study that is `kept` was made for; empty where options cannot."""
    inputs, rate_hz = kept["inputs"], kept["definition"]["measuring"].get("rate_hz")
    source = "" if inputs["source"] == now.inputs.source else re.split(r" \(|, letterboxed to ", inputs["source"])[0]
    sizes = ((name, "x".join(map(str, shape))) for name, shape in inputs["shapes"].items())
    shapes = (
        " ".join(f"--shape {name}={size}" for name, size in sizes) if inputs.get("free_dimensions") else "no --shape"
    )
    options = {
        "input": (source and f"--input {source}") if inputs["real"] else "no --input" if now.inputs.real else shapes,
        "input shapes": shapes,
        "fixed dimensions": shapes,
        "calls a second": f"--rate {rate_hz:g}" if rate_hz else "no --rate",
        "provider": f"--provider {kept['definition']['provider']}",
        "pixels": _pixels(inputs.get("pixels")),
    }
    told = [options.get(what, "") for what in differing]
    return " and ".join(dict.fromkeys(told)) if all(told) else ""
