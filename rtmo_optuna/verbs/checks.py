"""What a run cannot be made of: each check refuses it in one sentence that says what to do, by a UsageError."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.child.pace import least_s
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine import gpu as gpus
from rtmo_optuna.machine import host, load
from rtmo_optuna.show.words import count
from rtmo_optuna.space import configfile
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.types.measurement import GateMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtmo_optuna.types.request import ModelFacts
    from rtmo_optuna.types.subject import Gpu, StudyDefinition

_NAMED = 3
_LONGEST_NAME = 200


def check_model(model: Path) -> None:
    """Refuse a path at which no file with something in it lies."""
    problem = (
        "does not exist" if not model.exists()
        else "is a folder" if model.is_dir()
        else "is empty" if not model.stat().st_size
        else ""
    )  # fmt: skip
    if problem:
        message = f"The model {model} {problem}; give the path of an ONNX file."
        raise UsageError(message)


def check_name(study: str | None) -> None:
    """Refuse a study's name that would lead out of the results' folder, or that nobody could call it by."""
    if study is not None and (not study.strip() or study in {".", ".."} or set(study) & set("/\\\0")):
        message = f"{study!r} is no name for a study: give one without slashes, which stands for a folder of results."
        raise UsageError(message)


def check_profile(profile: str, device: str) -> None:
    """Refuse a profile that is not that of the device at hand: what is measured here says nothing of another one."""
    if profile not in {"", configfile.AUTO, device}:
        raise UsageError(
            f"The profile {profile!r} is for another device than the one at hand, {device}: tune it there, or say "
            "--profile auto here."
        )


def check_length(name: str, *, given: bool) -> None:
    """Refuse a study's name that no folder of results can have, with room for a number (`--new`)."""
    if len(os.fsencode(name)) > _LONGEST_NAME:
        whose = "--study-name" if given else "The model's and the study definition's names make a study's name that"
        size = len(os.fsencode(name))
        message = f"{whose} is too long ({size} bytes): give a --study-name of {_LONGEST_NAME} at most."
        raise UsageError(message)


def check_runs(chosen: StudyDefinition, *, given: bool) -> None:
    """Refuse fewer timed calls than the objective needs; `given` says that `--runs` asked for them."""
    runs, least = chosen.measuring.runs, OBJECTIVES[chosen.objective].least_calls
    if runs is not None and runs < least:
        where = "--runs" if given else "'measuring: runs'"
        message = (
            f"The objective {chosen.objective!r} of the study definition {chosen.name!r} needs {least} timed calls of "
            f"each process, and {where} gives {runs}: give at least {least}, or leave it out."
        )
        raise UsageError(message)


def check_rate(chosen: StudyDefinition, *, given: bool) -> None:
    """Refuse a pace where the objective has no meaning at one; `given` says that `--rate` asked for it."""
    rate_hz = chosen.measuring.rate_hz
    if rate_hz is not None and not OBJECTIVES[chosen.objective].paced:
        where = "--rate" if given else "'measuring: rate_hz'"
        those = " and ".join(name for name, objective in OBJECTIVES.items() if objective.paced)
        message = (
            f"At a fixed rate there are the objectives {those}, and {where} gives one to the study definition "
            f"{chosen.name!r}, whose objective is {chosen.objective!r}: leave out one of them."
        )
        raise UsageError(message)


def check_time(chosen: StudyDefinition, samples: int) -> None:
    """Refuse a rate at which one process alone would take all the time that there is."""
    each_s = least_s(chosen.measuring, samples, OBJECTIVES[chosen.objective].least_calls)
    if each_s > chosen.timeout_s:
        message = (
            f"At {chosen.measuring.rate_hz:g} calls a second each process takes {each_s:.0f} s at least, more than the "
            f"{chosen.timeout_s:g} s that all of the study may take: give a higher rate or more time."
        )
        raise UsageError(message)


def check_normalised(chosen: StudyDefinition, *, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse a mean or deviation where no session takes pixels: arrays are used as they are."""
    if (mean or std) and not chosen.pixels:
        option = "--mean" if mean else "--std"
        message = f"{option} is a part of what a session does with pixels: say --pixels too, or leave it out."
        raise UsageError(message)


def check_idle(device: Gpu | None) -> None:
    """Refuse a GPU, or without one a processor, that others compute on."""
    if device:
        name, most = device.name, ""
        others = [(process.name, process.pid) for process in gpus.processes(device) if process.pid != os.getpid()]
    else:
        cores = host.host().cores
        taken, loads = load.busy_with(cores)
        name, most = "The processor", f", on {taken:.1f} of {count(cores, 'core')}"
        others = [(one.name, one.pid) for one in loads]
    if others:
        who = ", ".join(f"{called or 'a process'} (pid {pid})" for called, pid in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        message = f"{name} is busy with {who}{more}{most}: end that, or say --allow-busy and believe the figures less."
        raise UsageError(message)


def check_comparable(model: ModelFacts, chosen: StudyDefinition) -> None:
    """Refuse a model whose outputs are others each time, unless they are not to be compared."""
    if model.random_operators and chosen.gate.mode is not GateMode.OFF:
        message = (
            f"The model draws random numbers ({', '.join(model.random_operators)}), so its outputs cannot be compared "
            "from run to run: run with --gate off, and check the outputs yourself."
        )
        raise UsageError(message)


def report_file(output: Path | None, study: str) -> Path:
    """Return where the report of a study of this name goes; refuse a place that cannot be written."""
    given = output or Path("results", study)
    report = given if given.suffix.lower() in {".md", ".markdown"} else given / "report.md"
    check_place(report)
    return report


def check_place(file: Path) -> None:
    """Refuse a file that could not be written, be it there or not."""
    standing = next(folder for folder in (file.parent, *file.parent.parents, Path()) if folder.exists())
    try:
        if not standing.is_dir():
            raise NotADirectoryError(None, "it is a file")
        with tempfile.TemporaryFile(dir=standing):
            pass
    except OSError as error:
        message = f"The output folder {file.parent} cannot be written: {error.strerror} ({standing}). Name --output."
        raise UsageError(message) from error
    if file.is_dir():
        message = f"The output {file} is a folder. Name another --output."
        raise UsageError(message)
