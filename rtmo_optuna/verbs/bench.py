"""Any settings against others, by the protocol of a tune's confirmation: the verb `bench`."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rtmo_optuna.child import measure as bench
from rtmo_optuna.child.protocol import ReferenceRequest
from rtmo_optuna.errors import ChildError, HeldError, LostError, NothingMeasuredError, UsageError
from rtmo_optuna.scratch import lost_file, scratch
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.decide import confirm
from rtmo_optuna.search.preflight import first_process
from rtmo_optuna.search.runner import Rules, recorded
from rtmo_optuna.space import configfile
from rtmo_optuna.types.findings import Claim, Purpose
from rtmo_optuna.types.measurement import GateMode, GateRequest, GateResult, Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Observer, Phase, RunStarted, Started
from rtmo_optuna.verbs.circumstances import as_tuned, circumstances
from rtmo_optuna.verbs.comparison import Bench, Comparison, comparison, side
from rtmo_optuna.verbs.prepare import TuneOptions, plan, runner_of
from rtmo_optuna.verbs.sides import Sides, settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rtmo_optuna.verbs.prepare import Plan


def compare(
    options: TuneOptions,
    changes: Sequence[str],
    against: Sequence[str],
    pairs: int,
    observer: Observer,
    *,
    named: bool = False,
) -> Comparison:
    """Compare two settings as `compare_all` does."""
    wanted = Sides(changes, (), against)
    return compare_all(options, wanted, pairs, observer, named=named).comparisons[0]


def compare_all(
    options: TuneOptions,
    wanted: Sides,
    pairs: int,
    observer: Observer,
    *,
    named: bool = False,
    slower_by: float | None = None,
) -> Bench:
    """Run `pairs` interleaved pairs of fresh processes, at most, and return what they say.

    The first settings are what config.yaml holds with changes, or those that are named; each is compared with ONNX
    Runtime's default, which may have changes too. A configuration file that was `named`, or is meant by the word
    "config", must hold settings; the shapes that it was tuned for are the input's. Nothing
    goes on after `options.timeout_s`: a pair that is not done then does not count. With `slower_by` pairs are run until
    they say as well whether the first takes that many percent longer than the second, or more. Raises UsageError for
    bad input or equal settings, NothingMeasuredError where some cannot be run, LostError, with what the pairs said
    until then, where the model or the disk fails.
    """
    end_s = math.inf if options.timeout_s is None else time.monotonic() + options.timeout_s
    with scratch() as folder:
        text = f"Comparing settings of {options.model.name} in up to {pairs} pairs of fresh processes."
        observer(RunStarted(text, end_s - time.monotonic()))
        observer(Started(Phase.LOOK))
        meant = named or wanted.meant
        if meant and not options.config.exists():
            message = f"The configuration {options.config} does not exist: name another, or leave it out."
            raise UsageError(message)
        planned = plan(replace(options, output=folder), folder, as_tuned)
        if meant:
            configfile.check_settings(planned.config)
        subjects, rival = settings_of(wanted, planned.about.definition.provider, planned.config)
        with contextlib.closing(runner_of(planned, observer, until=end_s)) as runner:
            if planned.about.definition.measuring.rate_hz is not None:
                first_process(runner, planned.rules, planned.about.space.fixed)
            outputs = _outputs(planned, runner, subjects, rival, folder)
            rules = replace(planned.rules, gate=GateRequest(replace(planned.gate.rules, mode=GateMode.OFF), ""))
            duel = _Duel(runner, rules, observer, subjects, rival, confirm.looks_for(pairs), slower_by)
            found = _duel(duel, outputs)
        return replace(found, notes=(*planned.about.warnings, *found.notes), made_of=circumstances(planned))


@dataclass
class _Duel:
    """Rounds of fresh processes, of which each of `subjects` makes a pair with the `rival`, and their costs.

    `broken` tells what the time broke off.
    """

    runner: ChildRunner
    rules: Rules
    observer: Observer
    subjects: tuple[Settings, ...]
    rival: Settings
    looks: confirm.Looks
    slower_by: float | None = None
    broken: str = ""
    rounds: list[dict[Settings, float | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.measured: dict[Settings, list[Measurement]] = {one: [] for one in (*self.subjects, self.rival)}

    def run(self) -> None:
        """Run rounds until they say something of every subject, or the time is up."""
        while (unsaid := [one for one in self.subjects if not self.over(one)]) and not _late(self.runner):
            costs = self._round(unsaid)
            if not costs:
                break
            self.rounds.append(costs)
            told = ", ".join(_ms(costs[one]) for one in unsaid)
            self.observer(Note(f"pair {len(self.rounds)}: {told} against {_ms(costs[self.rival])}"))

    def told(self, subject: Settings, factor: float = 1.0) -> Claim:
        """Return what the pairs say of `subject` against a rival that takes `factor` times as long as it does."""
        ran = [(costs[subject], costs[self.rival]) for costs in self.rounds if subject in costs]
        pairs = [(ours, theirs and theirs * factor) for ours, theirs in ran]
        return confirm.confirm(pairs, confirm.ConfirmRules(self.looks, two_sided=True), subject, self.rival)

    def asked(self, subject: Settings) -> Claim | None:
        """Return what the pairs say of whether `subject` is slower by more than was asked; None where nobody asked."""
        return None if self.slower_by is None else self.told(subject, 1 + self.slower_by / 100)

    def over(self, subject: Settings) -> bool:
        """Whether all is said of `subject`."""
        asked = self.asked(subject)
        return self.told(subject).over and (asked is None or asked.over)

    def _round(self, subjects: Sequence[Settings]) -> dict[Settings, float | None]:
        """Return the costs of a process of each; nothing where the time was up before all were done."""
        costs: dict[Settings, float | None] = {}
        index, most = len(self.rounds), self.looks[-1][0]
        for settings in confirm.who_first(index, (*subjects, self.rival)):
            self.observer(Started(Phase.PAIRS, index + 1, most, settings))
            try:
                record, measurement = recorded(self.runner, self.rules, Purpose.CONFIRMATION, index, settings)
            except HeldError as error:
                self.broken = f", while {error.holder} measured on this device"
                return {}
            costs[settings] = record.cost
            if measurement.outcome is Outcome.MEASURED:
                self.measured[settings].append(measurement)
            elif _late(self.runner):
                self.broken = f", while {settings} was in the stage {measurement.stage}"
                return {}
            elif not self.measured[settings]:
                message = f"{settings} cannot be run: {measurement.why}"
                raise NothingMeasuredError(message)
        return costs


def _duel(duel: _Duel, outputs: Mapping[Settings, str]) -> Bench:
    try:
        duel.run()
    except (LostError, OSError) as error:
        until_then = " ".join(_compared(duel, one, "").sentence for one in duel.subjects)
        raise LostError(f"{lost_file(error)} Until then, {until_then}") from error
    measured = duel.measured.items()
    notes = dict.fromkeys(f"{settings}: {note}" for settings, told in measured for one in told for note in one.notes)
    return Bench(
        comparisons=tuple(_compared(duel, one, outputs[one]) for one in duel.subjects),
        notes=tuple(notes),
        rate_hz=duel.rules.measuring.rate_hz,
        slower_by=duel.slower_by,
    )


def _compared(duel: _Duel, subject: Settings, outputs: str) -> Comparison:
    first, second = (side(one, duel.measured[one]) for one in (subject, duel.rival))
    broken = "" if duel.over(subject) else f" The time was up before that{duel.broken}."
    return comparison(duel.told(subject), first, second, outputs=outputs, asked=duel.asked(subject), broken=broken)


def _ms(value: float | None) -> str:
    return "failed" if value is None else f"{value:.3f} ms"


def _outputs(
    planned: Plan, runner: ChildRunner, subjects: Sequence[Settings], rival: Settings, folder: Path
) -> dict[Settings, str]:
    """Say how far each subject's outputs are from the rival's, for the same input on the same provider."""
    if planned.gate.rules.mode is GateMode.OFF:
        return dict.fromkeys(subjects, "not compared")
    target = folder / "second.npz"
    session = replace(planned.session, settings=rival)
    try:
        bench.reference(ReferenceRequest(session, runner.inputs, str(target)), planned.rules.limits, runner.until)
    except ChildError as error:
        raise NothingMeasuredError(_not_run(runner, rival, f"{error.stage}: {error}")) from error
    rules = replace(planned.rules, gate=GateRequest(planned.gate.rules, str(target)))
    found = dict[Settings, str]()
    for place, subject in enumerate(subjects, 1):
        runner.observer(Started(Phase.OUTPUTS, place, len(subjects), subject))
        _, measurement = recorded(runner, rules, Purpose.CONFIRMATION, -1, subject)
        if measurement.gate is None:
            raise NothingMeasuredError(_not_run(runner, subject, measurement.why))
        found[subject] = apart(measurement.gate)
    return found


def _not_run(runner: ChildRunner, settings: Settings, why: str) -> str:
    """Return why there is nothing to say of `settings`: the time may be up, which is no fault of theirs."""
    advice = " The time was up before the outputs were compared: give a longer --timeout." if _late(runner) else ""
    return f"{settings} cannot be run: {why}{advice}"


def _late(runner: ChildRunner) -> bool:
    return runner.clock() >= runner.until


def apart(gate: GateResult) -> str:
    """Return in words how far apart the outputs were that `gate` compared: "equal", figures, or that all were empty."""
    figures = {
        f"{error.name}: {name}": max(values)
        for error in gate.errors
        for name, values in error.figures.items()
        if values and max(values) > 0
    }
    empty = ", ".join(error.name for error in gate.errors if gate.passed and not error.figures)
    if not figures and gate.passed:
        same = "" if all(not error.figures for error in gate.errors) else "equal, but "
        return f"{same}nothing to compare in {empty}, which is empty" if empty else "equal"
    told = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
    return told if gate.passed else f"{gate.reason} ({told})" if told else gate.reason
