"""What must be known of the host before the search: its noise, and how far the default's outputs are from the CPU's."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from rtmo_optuna.codec import decode
from rtmo_optuna.errors import UsageError
from rtmo_optuna.search.decide import judge, noise
from rtmo_optuna.search.finals import noise_of
from rtmo_optuna.search.runner import Runner
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import ProcessRecord, Purpose
from rtmo_optuna.types.measurement import Measurement
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Observer
from rtmo_optuna.types.subject import GpuState

CLEARLY = 0.05
"""Where plain processes differ by more, three of them tell that the host is noisy: more of them would tell no more."""
_ENOUGH = 3
_LEAST = 2


def keep_states(study: Study, runner: Runner) -> None:
    """Keep how the GPU ran after the study's first window and after the latest one, where it has run any."""
    if runner.first_state and runner.last_state:
        study.put("gpu_states", (runner.first_state, runner.last_state))


def take_own(study: Study, runner: Runner, measurement: Measurement) -> None:
    """Keep how far the default's outputs are from the reference, where that is not known: a limit grows with it."""
    if measurement.gate and study.get("own") is None:
        study.put("own", measurement.gate)
        runner.set_own(study.get("own"))
        for warning in measurement.gate.warnings:
            runner.observer(Note(warning, warning=True))


def first_process(runner: Runner, default: Settings) -> tuple[ProcessRecord, Measurement]:
    """Run the default settings as the first process of a study whose calls come at a fixed rate.

    Raises UsageError where they cannot keep that rate.
    """
    rules = runner.measuring
    slot_ns = 1e9 / rules.rate_hz if rules.rate_hz else math.inf
    runner.measuring = rules if rules.warmup_exact else noise.calibrating(rules)
    found = runner.record(Purpose.BASELINE, 0, default, prune_above_ns=slot_ns)
    runner.measuring = rules
    latency_ns = found[1].latency_ns or 0.0
    if latency_ns > slot_ns:
        message = (
            f"The model cannot keep {rules.rate_hz:g} calls a second: with the default settings a call takes "
            f"{latency_ns / 1e6:.3g} ms, so that it reaches {1e9 / latency_ns:.3g}. Give a lower rate, or none."
        )
        raise UsageError(message)
    return found


@dataclass
class Preflight:
    """Runs the default settings in `baseline` fresh processes, and sets the runner up by what they tell.

    What an earlier run of the study found is kept with it, and is not found anew: whether to pin is decided once,
    before the first trial, so that all of a study is measured alike. Two processes of a kind are run in any case, more
    only if they end before `until` (monotonic seconds). `first` is the first of them where it ran already.
    """

    study: Study
    runner: Runner
    incumbent: Settings
    baseline: int
    observer: Observer
    until: float = math.inf
    first: tuple[ProcessRecord, Measurement] | None = None

    def run(self) -> None:
        """Run the default settings in fresh processes: the noise of this host, and the gate's own error.

        Where the host is noisy they run again, each window on a quiet core: that goes on for the whole study if it
        brings the processes nearer together without making them slower. (On one host it took the spread from 15 to
        5 %, on another from 1 to 5 %; docs/lab/canary.md.)
        """
        if own := self.study.get("own"):
            self.runner.set_own(own)
        elif default := self.study.known(self.study.about.space.fixed):
            take_own(self.study, self.runner, default.measurement)
        if states := self.study.get("gpu_states"):
            self.runner.first_state = decode(GpuState, states[0])
        if calls := self.study.get("warmup_calls"):
            self.runner.measuring = replace(self.runner.measuring, warmup_calls=calls)
        if self.study.get("pin") is None:
            self.study.put("pin", not self.study.runs and self._steadier_pinned())
        self.runner.pin = self.study.get("pin")
        keep_states(self.study, self.runner)
        found = noise_of(self.study)
        self.runner.spread = found.between
        if found.noisy and found.between is not None and found.found is not None:
            least = f"{float(f'{100 * found.found:.2g}'):g} %"
            differ = f"processes of the same settings differ by {found.between:.1%}"
            text = f"Noisy host: {differ}; gains under about {least} will mostly not be found."
            self.observer(Note(text, warning=True))

    def _steadier_pinned(self) -> bool:
        """Run the default settings, and return whether the study's windows are to run on quiet cores."""
        plain = self._baseline(Purpose.BASELINE)
        if not self.runner.gpu or not noise.noisy(noise.between({self.incumbent: plain})) or self._late():
            return False
        self.runner.pin = True
        return judge.steadier(plain, self._baseline(Purpose.PINNED))

    def _baseline(self, purpose: Purpose) -> list[float]:
        """Return the costs of the default settings in as many fresh processes as the study's baseline takes."""
        done = [process for process in self.study.processes if process.purpose is purpose]
        for index in range(len(done), self.baseline):
            if (purpose is Purpose.BASELINE and self._clearly_noisy(done)) or (index >= _LEAST and self._late()):
                break
            first = purpose is Purpose.BASELINE and not done and not self.runner.measuring.warmup_exact
            record, measurement = self._calibrate() if first else self._process(purpose, index)
            self.study.keep(record)
            done.append(record)
            take_own(self.study, self.runner, measurement)
            if record.cost is None:
                text = f"The default settings failed: {measurement.why}"
                self.observer(Note(text, warning=True))
                break
        return [process.cost for process in done if process.cost is not None]

    def _late(self) -> bool:
        """Whether another process would end too late."""
        return time.monotonic() + self.runner.each_s > self.until

    def _clearly_noisy(self, done: list[ProcessRecord]) -> bool:
        """Whether it is time to try quiet cores, which only a GPU's study can."""
        costs = [process.cost for process in done if process.cost is not None]
        spread = noise.between({self.incumbent: costs}) if len(costs) >= _ENOUGH else None
        return self.runner.gpu is not None and spread is not None and spread > CLEARLY

    def _process(self, purpose: Purpose, index: int) -> tuple[ProcessRecord, Measurement]:
        if self.first and purpose is Purpose.BASELINE and not index:
            return self.first
        return self.runner.record(purpose, index, self.study.about.space.fixed)

    def _calibrate(self) -> tuple[ProcessRecord, Measurement]:
        """Run the study's first process; how many calls it took to warm up is the warm-up of all that come after it.

        One rule for all settings (docs/design.md, Measuring): never less than what the definition asks for.
        """
        rules = self.runner.measuring
        self.runner.measuring = noise.calibrating(rules)
        record, measurement = self._process(Purpose.BASELINE, 0)
        found = noise.calibrated(rules, measurement.warmup_samples_ns)
        if found is None:
            text = (
                f"The default settings' latency did not settle within {len(measurement.warmup_samples_ns)} calls, so "
                f"no warm-up could be found for them: the rule of {rules.warmup_s:g} s and {rules.warmup_calls} calls "
                "stays."
            )
            self.observer(Note(text, warning=True))
        self.runner.measuring = found or rules
        self.study.put("warmup_calls", self.runner.measuring.warmup_calls)
        return record, measurement
