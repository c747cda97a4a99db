"""What must be known of the host before the search: its noise, and how far the default's outputs are from the CPU's."""

import math
from dataclasses import dataclass, field, replace

from rtmo_optuna.errors import UsageError
from rtmo_optuna.search.decide import judge, noise
from rtmo_optuna.search.decide.budget import Deadline
from rtmo_optuna.search.finals import noise_of
from rtmo_optuna.search.runner import Conditions, Observed, Processes, Rules, Runner, conditions_of, recorded
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import ProcessRecord, Purpose
from rtmo_optuna.types.measurement import Measurement
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Observer

CLEARLY = 0.05
"""Where plain processes differ by more, three of them tell that the host is noisy: more of them would tell no more."""
_ENOUGH = 3
_LEAST = 2


def keep_states(study: Study, seen: Observed) -> None:
    """Keep how the GPU ran after the study's first window and after the latest one, where it has run any."""
    if seen.first_state and seen.last_state:
        study.put("gpu_states", (seen.first_state, seen.last_state))


def keep_own(study: Study, measurement: Measurement, observer: Observer) -> None:
    """Keep how far the default's outputs are from the reference, where that is not known: a limit grows with it."""
    if measurement.gate and study.get("own") is None:
        study.put("own", measurement.gate)
        for warning in measurement.gate.warnings:
            observer(Note(warning, warning=True))


def first_process(runner: Runner, rules: Rules, default: Settings) -> tuple[ProcessRecord, Measurement]:
    """Run the default settings as the first process of a study whose calls come at a fixed rate.

    Raises UsageError where they cannot keep that rate.
    """
    measuring = rules.measuring
    slot_ns = 1e9 / measuring.rate_hz if measuring.rate_hz else math.inf
    longer = measuring if measuring.warmup_exact else noise.calibrating(measuring)
    found = recorded(runner, replace(rules, measuring=longer), Purpose.BASELINE, 0, default, prune_above_ns=slot_ns)
    latency_ns = found[1].latency_ns or 0.0
    if latency_ns > slot_ns:
        raise UsageError(
            f"The model cannot keep {measuring.rate_hz:g} calls a second: with the default settings a call takes "
            f"{latency_ns / 1e6:.3g} ms, so that it reaches {1e9 / latency_ns:.3g}. Give a lower rate, or none."
        )
    return found


@dataclass(frozen=True, slots=True)
class Preflight:
    """Runs the default settings in `baseline` fresh processes, and tells by them how all others are to run.

    What an earlier run of the study found is kept with it, and is not found anew: whether to pin is decided once,
    before the first trial, so that all of a study is measured alike. Two processes of a kind are run in any case, more
    only if they end before `until`. `first` is the first of them where it ran already.
    """

    processes: Processes
    baseline: int
    until: Deadline = field(default_factory=Deadline)
    first: tuple[ProcessRecord, Measurement] | None = None

    def run(self) -> Conditions:
        """Run the default settings in fresh processes; return the noise of this host, and the gate's own error.

        Where the host is noisy they run again, each window on a quiet core: that goes on for the whole study if it
        brings the processes nearer together without making them slower. (On one host it took the spread from 15 to
        5 %, on another from 1 to 5 %; docs/lab/canary.md.)
        """
        study, observer = self.processes.study, self.processes.observer
        if default := study.default:
            keep_own(study, default.measurement, observer)
        if study.get("pin") is None:
            study.put("pin", not study.runs and self._steadier_pinned())
        keep_states(study, self.processes.runner.seen)
        found = noise_of(study)
        if found.noisy and found.between is not None and found.found is not None:
            least = f"{float(f'{100 * found.found:.2g}'):g} %"
            differ = f"processes of the same settings differ by {found.between:.1%}"
            text = f"Noisy host: {differ}; gains under about {least} will mostly not be found."
            observer(Note(text, warning=True))
        return replace(conditions_of(study), spread=found.between)

    def _steadier_pinned(self) -> bool:
        """Run the default settings, and return whether the study's windows are to run on quiet cores."""
        plain = self._baseline(Purpose.BASELINE)
        if not self._pinnable or not noise.noisy(noise.spread([plain])) or self._late():
            return False
        return judge.steadier(plain, self._baseline(Purpose.PINNED))

    @property
    def _pinnable(self) -> bool:
        """Whether quiet cores may be tried, which only a GPU's study can."""
        return self.processes.study.about.machine.gpu is not None

    def _baseline(self, purpose: Purpose) -> list[float]:
        """Return the costs of the default settings in as many fresh processes as the study's baseline takes."""
        study, observer = self.processes.study, self.processes.observer
        done = [process for process in study.processes if process.purpose is purpose]
        for index in range(len(done), self.baseline):
            if (purpose is Purpose.BASELINE and self._clearly_noisy(done)) or (index >= _LEAST and self._late()):
                break
            record, measurement = self._process(purpose, index)
            done.append(record)
            keep_own(study, measurement, observer)
            if record.cost is None:
                observer(Note(f"The default settings failed: {measurement.why}", warning=True))
                break
        return [process.cost for process in done if process.cost is not None]

    def _late(self) -> bool:
        """Whether another process would end too late."""
        return self.until.late(self.processes.each_s)

    def _clearly_noisy(self, done: list[ProcessRecord]) -> bool:
        """Whether it is time to try quiet cores."""
        costs = [process.cost for process in done if process.cost is not None]
        spread = noise.spread([costs]) if len(costs) >= _ENOUGH else None
        return self._pinnable and spread is not None and spread > CLEARLY

    def _process(self, purpose: Purpose, index: int) -> tuple[ProcessRecord, Measurement]:
        """Run and keep a process; how many calls the first one took to warm up is the warm-up of all that come after.

        One rule for all settings (docs/design.md, Measuring): never less than what the definition asks for.
        """
        study, rules = self.processes.study, self.processes.rules
        measuring, default = rules.measuring, study.about.space.fixed
        calibrates = purpose is Purpose.BASELINE and not index and not measuring.warmup_exact
        if calibrates:
            now = replace(rules, measuring=noise.calibrating(measuring))
        else:
            now = rules.under(replace(conditions_of(study), pin=purpose is Purpose.PINNED))
        if self.first and purpose is Purpose.BASELINE and not index:
            found = self.first
            study.keep(found[0])
        else:
            before = len(study.processes) - index
            processes = replace(self.processes, rules=now)
            found = processes.keep(purpose, index, default, before + index + 1, before + self.baseline)
        if calibrates:
            self._calibrate(found[1])
        return found

    def _calibrate(self, measurement: Measurement) -> None:
        measuring, series = self.processes.rules.measuring, measurement.warmup_samples_ns
        found = noise.calibrated(measuring, series)
        if found is None:
            text = (
                f"The default settings' latency did not settle within {len(series)} calls, so no warm-up could be "
                f"found for them: the rule of {measuring.warmup_s:g} s and {measuring.warmup_calls} calls stays."
            )
            self.processes.observer(Note(text, warning=True))
        self.processes.study.put("warmup_calls", (found or measuring).warmup_calls)
