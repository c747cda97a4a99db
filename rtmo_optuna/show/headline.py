"""The head of the report: how far the verdict may be believed, and the few numbers that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna.show import words
from rtmo_optuna.show.evidence import findable
from rtmo_optuna.show.scores import default_of, objective, typical, with_unit
from rtmo_optuna.show.stages import study_stages
from rtmo_optuna.show.verdict import estimate
from rtmo_optuna.show.words import NBSP, TIMES, number
from rtmo_optuna.space.resolve import size
from rtmo_optuna.types.findings import Status
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import ENOUGH_TRIED, StudyRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def status_line(record: StudyRecord) -> str:
    """Return the sentence below the verdict, empty where nothing could be measured."""
    found = record.verdict.status
    return f"Status: {found.value}. {_STATUS[found](record)}" if found else ""


def pace_line(record: StudyRecord) -> str:
    """Return at which pace all calls came, and how many were missed; empty where one followed the other."""
    rate_hz = record.definition.measuring.rate_hz
    if rate_hz is None:
        return ""
    calls, missed = (sum(getattr(trial.measurement, what) for trial in record.runs) for what in ("calls", "missed"))
    lost = f" Of those of the trials {missed} in {calls + missed} were due while another one ran, and missed."
    return (
        f"All of it holds for {words.pace(rate_hz)}, as a camera's frames come: the wait is in no latency, but what a "
        f"pause costs the call after it is.{lost if missed else ''}"
    )


def _confirmed(_record: StudyRecord) -> str:
    return (
        "The figures are from pairs of fresh processes that were run after the settings had been chosen, so the luck "
        "of the search is not in them."
    )


def _no_gain(record: StudyRecord) -> str:
    best = record.verdict.best
    default = best is not None and best.settings == record.space.fixed
    stays = "ONNX Runtime's defaults are" if default and not len(record.space.fixed) else "What there was is"
    found = findable(record)
    sure = f" A gain of {100 * found:.1f}{NBSP}% would have been found in four studies of five." if found else ""
    every = size(record.space)
    few = record.tried < min(ENOUGH_TRIED, every)
    end = (
        f", but only {record.tried} of {every:,} settings were" if few
        else ", but the search had no time for more" if record.cut_short
        else ": there is nothing to change"
    )  # fmt: skip
    return f"{stays} as fast as anything tried here{end}.{sure}"


def _unconfirmed(_record: StudyRecord) -> str:
    return (
        "Too few fresh processes could be run side by side in the time allowed, so nothing is claimed and what there "
        "was stays. More time is needed to tell."
    )


def _measured(_record: StudyRecord) -> str:
    return (
        "Race and confirmation did not reach their end, so a part of this lead may be luck. The same command goes on "
        "from here."
    )


def _too_little(_record: StudyRecord) -> str:
    return "Nothing was compared with what there was, so nothing can be said of it, and the settings stay as they are."


_STATUS: Mapping[Status, Callable[[StudyRecord], str]] = {
    Status.CONFIRMED: _confirmed,
    Status.NO_GAIN: _no_gain,
    Status.UNCONFIRMED: _unconfirmed,
    Status.MEASURED: _measured,
    Status.TOO_LITTLE: _too_little,
}


def facts(record: StudyRecord) -> tuple[tuple[str, str], ...]:
    """Return the few numbers that matter, each with its name; those that the study lacks are left out."""
    outcomes = [trial.measurement.outcome for trial in record.runs]
    ended = [f"{outcomes.count(o)}{NBSP}{o.value}" for o in (Outcome.PRUNED, Outcome.FAILED) if o in outcomes]
    beside, rate_hz = len(record.processes), record.definition.measuring.rate_hz
    return (
        *_latencies(record),
        *_gains(record),
        *((("Calls a second", f"{rate_hz:g}"),) if rate_hz is not None else ()),
        ("Trials", " ".join([str(len(outcomes)), *([f"({', '.join(ended)})"] if ended else [])])),
        *((("Processes beside them", str(beside)),) if beside else ()),
        *_noise(record),
        ("Time spent", words.seconds(sum(stage.wall_s for stage in study_stages(record)))),
    )


def _latencies(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Yield what is typical of the best and of the default, both from the same kind of process."""
    best, default = record.verdict.best, default_of(record)
    goal = objective(record).name
    same = best is not None and default is not None and best.settings == default.settings
    sides = {
        **({f"Best {goal}": best} if best is not None and not same else {}),
        **({f"Default {goal}": default} if default is not None else {}),
    }
    found = dict(zip(sides, typical(record, tuple(sides.values())), strict=True))
    for name, value in found.items():
        if value is not None:
            yield f"{name}{_SOURCES[value.source]}", with_unit(record, value.score)
    first = next(iter(found.values()), None)
    if best is not None and first is not None and first.latency_ms:
        if goal == "throughput":
            yield f"Latency of {words.count(record.batch, 'item')}", f"{number(first.latency_ms)}{NBSP}ms"
        elif record.definition.measuring.rate_hz is None:
            yield "FPS", number(record.batch * 1e3 / first.latency_ms)


_SOURCES: Mapping[str, str] = {
    "the confirmation": "",
    "the race": " (race)",
    "the baseline": " (baseline)",
    "one trial": " (one trial)",
}


def _gains(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Yield each claim that is proven; where none is, what the verdict comes to."""
    status, finals = record.verdict.status, record.finals
    for claim in finals.claims if finals else ():
        if claim == record.proven(claim.rival) and (figures := estimate(claim)):
            ratio, low, high = figures
            rival = "the default" if claim.rival == record.space.fixed else "config.yaml"
            yield f"Speed-up over {rival}", f"{ratio}{TIMES} ({low}{NBSP}to{NBSP}{high})"
    if status and status is not Status.CONFIRMED:
        yield "Gain", status.value


def _noise(record: StudyRecord) -> Iterator[tuple[str, str]]:
    if record.noise and record.noise.between is not None:
        yield "Noise between processes", f"{100 * record.noise.between:.1f}{NBSP}%"
