"""What Optuna keeps of a trial: its attributes as a record, its files, and who runs it."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial, TrialState

from rtmo_optuna.codec import decode, encode
from rtmo_optuna.machine.host import process_space, started
from rtmo_optuna.samplers.attributes import kept
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin, TrialRecord

RAN = {Outcome.MEASURED, Outcome.PRUNED, Outcome.FAILED}
"""The outcomes of trials that were really run."""
_TOLD = {TrialState.COMPLETE, TrialState.PRUNED}
LEFT_TO = "left_to"
"""The attribute of a trial whose settings an earlier one had under way: that one's number."""
_LOG_PART = 1 << 16


def keep_files(store: FileSystemArtifactStore, trial: optuna.Trial, measurement: Measurement, folder: Path) -> None:
    """Upload the log in `folder`, shortened where it is long, and the samples, as the trial's artifacts."""
    log, samples = folder / "log.txt", folder / "samples.json"
    samples.write_text(json.dumps(encode(measurement), separators=(",", ":")), encoding="utf-8")
    if log.exists() and log.stat().st_size > 2 * _LOG_PART:
        _shorten(log)
    for file, kind in ((log, "text/plain"), (samples, "application/json")):
        if file.exists() and file.stat().st_size:
            upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial, mimetype=kind)


def drop_files(store: FileSystemArtifactStore, frozen: FrozenTrial) -> None:
    """Remove the artifacts of a trial that was broken off and is tried again, halves of files too."""
    for name in frozen.system_attrs:
        if name.startswith(ARTIFACTS_ATTR_PREFIX):
            with contextlib.suppress(OSError, ValueError, ArtifactNotFound):
                store.remove(name.removeprefix(ARTIFACTS_ATTR_PREFIX))


def ran(frozen: FrozenTrial) -> bool:
    """Return whether Optuna's trial was really run: to its end, and not answered from another one.

    What is FAIL by its state may have been broken off, too.
    """
    outcome = frozen.user_attrs.get("outcome")
    failed = frozen.state is TrialState.FAIL and outcome == Outcome.FAILED
    return failed or (frozen.state in _TOLD and outcome in RAN)


def trial_record(frozen: FrozenTrial, runs: int) -> TrialRecord | None:
    """Return Optuna's trial as a record, after `runs` that were really run; None where it is not one.

    One that is not finished is none, nor one that was left to an earlier one.
    """
    held, settings = frozen.user_attrs, kept(frozen, "settings")
    if not frozen.state.is_finished() or settings is None or LEFT_TO in held:
        return None
    answered = held.get("answered_from")
    measured = kept(frozen, "measurement")
    if measured is not None and (frozen.state in _TOLD or ran(frozen)):
        measurement = decode(Measurement, measured)
    else:
        measurement = Measurement(Outcome.INTERRUPTED if answered is None else Outcome.MEASURED)
    begun = frozen.datetime_start
    return TrialRecord(
        number=frozen.number,
        run=runs + 1 if answered is None and measurement.outcome in RAN else 0,
        settings=Settings.from_plain(settings),
        origin=Origin(held.get("origin", Origin.SAMPLER)),
        measurement=measurement,
        value=frozen.value if frozen.state is TrialState.COMPLETE else None,
        started=begun.isoformat(timespec="seconds") if begun else "",
        wall_s=frozen.duration.total_seconds() if frozen.duration else 0.0,
    )


def driver() -> dict[str, Any]:
    """Return who runs a trial: this process, so that others can tell whether it still lives."""
    return {"host": process_space(), "pid": os.getpid(), "started": started(os.getpid())}


def is_dead(driver: Mapping[str, Any]) -> bool:
    """Return whether `driver` ran on this host and is no more; of other hosts nothing is known."""
    here = driver.get("host") == process_space()
    return here and started(int(driver["pid"])) != driver["started"]


def is_doubtful(driver: Mapping[str, Any]) -> bool:
    """Return whether nothing can be known of `driver`, which has this host's name but process ids of its own.

    A container that is started again finds so the one that it was before, and containers that share a host's name find
    each other so.
    """
    here = process_space()
    host = str(driver.get("host", here))
    return host != here and host.split()[:1] == here.split()[:1]


def _shorten(log: Path) -> None:
    """Keep the first and last 64 KiB."""
    with log.open("rb") as file:
        head = file.read(_LOG_PART)
        file.seek(-_LOG_PART, os.SEEK_END)
        cut = log.with_suffix(".cut")
        cut.write_bytes(head + b"\n... cut ...\n" + file.read())
    shutil.move(cut, log)
