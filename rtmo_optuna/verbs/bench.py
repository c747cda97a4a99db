"""Any two settings against each other, by the protocol of a tune's confirmation: the verb `bench`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.child import measure as bench
from rtmo_optuna.child.protocol import ReferenceRequest
from rtmo_optuna.errors import ChildError, LostError, NothingMeasuredError, UsageError
from rtmo_optuna.scratch import lost_file, scratch
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.decide import confirm
from rtmo_optuna.search.preflight import first_process
from rtmo_optuna.search.runner import Rules, recorded
from rtmo_optuna.show.sections.confirmation import claim_sentence
from rtmo_optuna.space import configfile
from rtmo_optuna.space.knobs import canonical, knob_table
from rtmo_optuna.space.values import advice, parse_value
from rtmo_optuna.types.findings import Claim, Decided, Purpose
from rtmo_optuna.types.measurement import GateMode, GateRequest, GateResult, Measurement, Outcome
from rtmo_optuna.types.request import Settings, Value
from rtmo_optuna.types.study import Note, Observer
from rtmo_optuna.verbs.circumstances import Circumstances, circumstances, with_tuned_shapes
from rtmo_optuna.verbs.prepare import TuneOptions, plan, runner_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rtmo_optuna.verbs.prepare import Plan

_CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two settings: medians over its processes, in milliseconds and bytes; None where nothing was told.

    `missed` counts, in all processes, the calls of a fixed rate that were due while another one ran.
    """

    settings: Settings
    processes: int
    latency_ms: float | None
    quantiles_ms: Mapping[str, float]
    session_build_ms: float | None
    first_run_ms: float | None
    gpu_memory_bytes: int | None
    missed: int = 0
    processes_ms: tuple[float, ...] = ()
    """The latency of each process."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the pairs say: how many times as fast `first` is as `second`, with the 98 % interval, and the verdict.

    `outputs` says whether the outputs are equal to the last bit, or how far apart they are; `notes` what did not run as
    the settings ask, and what is to be known of the input. `rate_hz` is how many calls began each second, None where
    one followed the other. `schema` grows when a field of these changes its meaning or goes.
    """

    first: Side
    second: Side
    ratio: float | None
    low: float | None
    high: float | None
    pairs: int
    verdict: str
    sentence: str
    outputs: str
    notes: tuple[str, ...] = ()
    rate_hz: float | None = None
    made_of: Circumstances | None = None
    schema: int = 1


def compare(
    options: TuneOptions,
    changes: Sequence[str],
    against: Sequence[str],
    pairs: int,
    observer: Observer,
    *,
    named: bool = False,
) -> Comparison:
    """Run `pairs` interleaved pairs of fresh processes, at most, and return what they say.

    The first settings are what config.yaml holds, with `changes` ("knob=value"); the second ONNX Runtime's default
    with `against`, where "config" stands for what config.yaml holds. A file that was `named`, or is meant by "config",
    must hold settings; the shapes that it was tuned for are the input's. Nothing goes on after `options.timeout_s`:
    a pair that is not done then does not count. Raises UsageError for bad input or equal settings, NothingMeasuredError
    where either cannot be run, LostError, with what the pairs said until then, where the model or the disk fails.
    """
    end_s = math.inf if options.timeout_s is None else time.monotonic() + options.timeout_s
    with scratch() as folder:
        meant = named or _CONFIG in against
        if meant and not options.config.exists():
            message = f"The configuration {options.config} does not exist: name another, or leave it out."
            raise UsageError(message)
        planned = plan(with_tuned_shapes(options), folder)
        if meant:
            configfile.check_settings(planned.config)
        provider, held = planned.about.definition.provider, planned.config.settings
        first = parsed(provider, held, changes)
        second = parsed(provider, held if _CONFIG in against else (), [one for one in against if one != _CONFIG])
        if first == second:
            message = f"Both sides are the same settings ({first}): name others with --set or --against."
            raise UsageError(message)
        with contextlib.closing(runner_of(planned, observer, until=end_s)) as runner:
            if planned.about.definition.measuring.rate_hz is not None:
                first_process(runner, planned.rules, planned.about.space.fixed)
            outputs = _outputs(planned, runner, first, second, folder)
            rules = replace(planned.rules, gate=GateRequest(replace(planned.gate.rules, mode=GateMode.OFF), ""))
            found = _duel(_Duel(runner, rules, observer, first, second, confirm.looks_for(pairs)), outputs)
        about = planned.about
        return replace(found, notes=(*about.warnings, *found.notes), made_of=circumstances(planned))


def parsed(provider: str, base: Iterable[tuple[str, Value]], changes: Iterable[str]) -> Settings:
    """Return the settings `base` with "knob=value" `changes`.

    Raises UsageError for an unknown knob or value, and for a knob that is set twice.
    """
    table, values = knob_table(provider), dict[str, Value]()
    for change in changes:
        name, equals, value = change.partition("=")
        problem = (
            "Write knob=value." if not equals
            else f"{name!r} is no knob of {provider}. {advice(name, table)}" if name not in table
            else f"{name!r} is given already, so leave out one." if name in values
            else ""
        )  # fmt: skip
        if problem:
            message = f"{change!r} cannot be set: {problem}"
            raise UsageError(message)
        values[name] = parse_value(table[name], value)
    return canonical(provider, {**dict(base), **values})


@dataclass
class _Duel:
    """Interleaved pairs of fresh processes, and what they say so far; `broken` tells what the time broke off."""

    runner: ChildRunner
    rules: Rules
    observer: Observer
    first: Settings
    second: Settings
    looks: confirm.Looks
    broken: str = ""
    pairs: list[tuple[float | None, float | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.measured: dict[Settings, list[Measurement]] = {self.first: [], self.second: []}
        self.told = self._said()

    def run(self) -> None:
        """Run pairs until they say something, or the time is up."""
        while not (self.told.over or _late(self.runner)) and (pair := self._pair()):
            self.pairs.append((pair[self.first], pair[self.second]))
            self.told = self._said()
            costs = " against ".join(map(_ms, self.pairs[-1]))
            self.observer(Note(f"pair {len(self.pairs)}: {costs}"))

    def _said(self) -> Claim:
        rules = confirm.ConfirmRules(self.looks, two_sided=True)
        return confirm.confirm(self.pairs, rules, self.first, self.second)

    def _pair(self) -> dict[Settings, float | None]:
        """Return the costs of a pair of processes; nothing where the time was up before both were done."""
        costs: dict[Settings, float | None] = {}
        for settings in confirm.who_first(len(self.pairs), (self.first, self.second)):
            record, measurement = recorded(self.runner, self.rules, Purpose.CONFIRMATION, len(self.pairs), settings)
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


def _duel(duel: _Duel, outputs: str) -> Comparison:
    first, second = duel.first, duel.second
    try:
        duel.run()
    except (LostError, OSError) as error:
        raise LostError(f"{lost_file(error)} Until then, {first}: {_sentence(duel.told)}") from error
    told, (low, high) = duel.told, duel.told.interval or (None, None)
    verdict = "no proven difference" if told.decided is Decided.UNPROVEN else told.decided.value
    return Comparison(
        first=_side(first, duel.measured[first]),
        second=_side(second, duel.measured[second]),
        ratio=told.ratio,
        low=low,
        high=high,
        pairs=told.pairs,
        verdict=verdict,
        sentence=f"{first}: {_sentence(told)}{'' if told.over else f' The time was up before that{duel.broken}.'}",
        outputs=outputs,
        notes=tuple(
            dict.fromkeys(
                f"{settings}: {note}" for settings, told in duel.measured.items() for one in told for note in one.notes
            )
        ),
        rate_hz=duel.rules.measuring.rate_hz,
    )


def _sentence(told: Claim) -> str:
    return claim_sentence(told, str(told.rival), two_sided=True)


def _ms(value: float | None) -> str:
    return "failed" if value is None else f"{value:.3f} ms"


def _outputs(planned: Plan, runner: ChildRunner, first: Settings, second: Settings, folder: Path) -> str:
    """Say how far the first settings' outputs are from the second's, for the same input on the same provider."""
    if planned.gate.rules.mode is GateMode.OFF:
        return "not compared"
    target = folder / "second.npz"
    session = replace(planned.session, settings=second)
    try:
        bench.reference(ReferenceRequest(session, runner.inputs, str(target)), planned.rules.limits, runner.until)
    except ChildError as error:
        raise NothingMeasuredError(_not_run(runner, second, f"{error.stage}: {error}")) from error
    rules = replace(planned.rules, gate=GateRequest(planned.gate.rules, str(target)))
    _, measurement = recorded(runner, rules, Purpose.CONFIRMATION, -1, first)
    if measurement.gate is None:
        raise NothingMeasuredError(_not_run(runner, first, measurement.why))
    return apart(measurement.gate)


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


def _side(settings: Settings, measured: Sequence[Measurement]) -> Side:
    quantiles = {
        name: round(value / 1e6, 4)
        for name in ("p50", "p90", "p99")
        if (value := stats.middle(m.quantiles_ns.get(name) for m in measured)) is not None
    }
    build, first_run = (
        None if value is None else round(value / 1e6, 2)
        for value in (
            stats.middle(m.stages.build_ns for m in measured),
            stats.middle(m.stages.first_run_ns for m in measured),
        )
    )
    memory = stats.middle(m.gpu_memory_bytes for m in measured)
    latency = stats.middle(m.latency_ms for m in measured)
    return Side(
        settings=settings,
        processes=len(measured),
        latency_ms=latency,
        quantiles_ms=quantiles,
        session_build_ms=build,
        first_run_ms=first_run,
        gpu_memory_bytes=None if memory is None else int(memory),
        missed=sum(m.missed for m in measured),
        processes_ms=tuple(round(m.latency_ms, 4) for m in measured if m.latency_ms is not None),
    )
