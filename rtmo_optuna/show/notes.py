"""What optuna-dashboard says of a study and its trials: notes in Markdown, and attributes that are short."""

import textwrap
from datetime import datetime

from rtmo_optuna.display import visible
from rtmo_optuna.show.render.blocks import Code, Facts, Listing, Paragraph, filled
from rtmo_optuna.show.render.markdown import body
from rtmo_optuna.show.scores import differing, exported, objective, with_unit
from rtmo_optuna.show.sections.verdict import sentence
from rtmo_optuna.show.words import NBSP, count, number, seconds
from rtmo_optuna.show.words import sentence as as_sentence
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import Started, StudyRecord, TrialRecord

_SHORT = 80
"""The most characters of an attribute: the dashboard does not break them into lines."""
_LAST_LINES = 12
_QUANTILES = ("p50", "p99")


def attributes(trial: TrialRecord, times: float | None) -> dict[str, str | float]:
    """Return what is to be seen of a trial at a glance; `times` is how many times as fast as the default's it was."""
    found = trial.measurement
    shown: dict[str, str | float] = {"origin": trial.origin.value, "outcome": found.outcome.value}
    known = {name: found.quantiles_ns[name] for name in _QUANTILES if name in found.quantiles_ns}
    shown |= {f"{name} ms": round(value / 1e6, 3) for name, value in known.items()}
    if times is not None:
        shown["times as fast as default"] = round(times, 3)
    if found.outcome is Outcome.FAILED:
        shown["reason"] = short(found.why)
    return shown


def short(text: str) -> str:
    """Return the beginning of `text`, which fits a line of the dashboard."""
    return textwrap.shorten(visible(text), _SHORT, placeholder=" ...")


def of_trial(about: StudyRecord, trial: TrialRecord, times: float | None) -> str:
    """Return the note on a trial of the study `about`: how it ended and why, what it tried, the end of its log."""
    found = trial.measurement
    default = trial.settings == about.space.fixed
    beside = "" if times is None else f", {number(times)} times as fast as the default's trial"
    figure = "no figure" if trial.value is None else with_unit(about, trial.value)
    windows = count(len(found.windows_ns), "window")
    told = {
        Outcome.MEASURED: f"Measured: {figure}{beside}.",
        Outcome.PRUNED: f"Pruned after {windows}: the fastest was slower than what it had to beat by more than chance.",
        Outcome.FAILED: f"Failed in {found.stage}." if found.stage else "Failed.",
        Outcome.INTERRUPTED: "Broken off.",
    }
    proof = "A single measurement, which proves nothing: race and confirmation decide."
    last = "\n".join(found.log_tail.rstrip().splitlines()[-_LAST_LINES:])
    return body(
        filled(
            Paragraph(told[found.outcome], strong=True),
            Listing(found.reason, "") if found.reason else None,
            Paragraph(proof) if found.outcome is Outcome.MEASURED and not default else None,
            Paragraph(("Tried: ", Code(str(differing(about, trial.settings))), f" ({trial.origin}).")),
            Facts(_figures(trial)),
            *(Paragraph(as_sentence(note)) for note in found.notes),
            Paragraph("The end of its log:") if last else None,
            Listing(last, "") if last else None,
        )
    )


def _figures(trial: TrialRecord) -> tuple[tuple[str, str], ...]:
    found, stages = trial.measurement, trial.measurement.stages
    took = {"session build": stages.build_ns, "first run": stages.first_run_ns}
    return (
        *((name, f"{number(value / 1e6)}{NBSP}ms") for name, value in found.quantiles_ns.items()),
        *(((f"{len(found.windows_ns)} windows", count(found.calls, "call")),) if found.windows_ns else ()),
        *((name, seconds(value / 1e9)) for name, value in took.items() if value is not None),
        ("in all", seconds(trial.wall_s)),
    )


def broken_off(*, again: bool) -> str:
    """Return the note on a trial that was broken off, or left behind by a process that died."""
    return f"**Broken off.** {'Its settings wait to run again.' if again else 'Another trial has its settings.'}"


def underway(about: StudyRecord, started: Started, best: TrialRecord | None, left_s: float, now: datetime) -> str:
    """Return the note on a study that is under way, written at `now` with so many seconds left.

    It says where the run is, and what the best trial is so far.
    """
    at = f" {started.place} of {started.total}" if started.total else ""
    told = Paragraph(
        f"{started.phase.capitalize()}{at}. Over in {seconds(max(0.0, left_s))} at the latest.", strong=True
    )
    found = best and (
        f"Best so far: {with_unit(about, best.value or 0.0)}, trial {best.number}, ",
        Code(str(differing(about, best.settings))),
        ". A single measurement proves nothing: race and confirmation decide.",
    )
    return body(filled(told, Paragraph(found) if found else None, Paragraph(f"Written at {now:%H:%M:%S} UTC.")))


def of_study(record: StudyRecord, applied: str, report: str) -> str:
    """Return the note on a study that ended: verdict, what became of it, and how the dashboard's best is to be taken.

    `report` is the path of its report under the dashboard's address.
    """
    told = body((Paragraph(sentence(record), strong=True), Paragraph(applied), Paragraph(_best(record))))
    return f"{told}\n\n[The report]({report}), with its plots."


def _best(record: StudyRecord) -> str:
    """Return why the dashboard's best value is not what the verdict says."""
    taken, better = record.verdict.best, min if objective(record).lower_is_better else max
    measured = [trial for trial in record.runs if trial.value is not None]
    if taken is None or not measured:
        return ""
    luckiest = better(measured, key=lambda trial: trial.value or 0.0)
    alone = with_unit(record, luckiest.value or 0.0)
    first = f"The dashboard's best trial is number {luckiest.number}, {alone} when it was tried"
    found = exported(record)
    typical = f", typically {with_unit(record, found.score)}{found.source}" if found else ""
    if luckiest.settings == taken.settings:
        return f"{first}: the same settings as in the verdict{typical}."
    return f"{first}, which luck decides among the fastest. The verdict is about trial {taken.number}{typical}."
