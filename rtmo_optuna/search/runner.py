"""One fresh process of given settings by the study's rules: what trials, baseline, race and pairs are made of."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.child.measure import Decision, measure
from rtmo_optuna.child.prefork import ChildPool
from rtmo_optuna.codec import decode, encode
from rtmo_optuna.machine.gpu import process_memory, state
from rtmo_optuna.machine.host import PROCESSOR, device_lock
from rtmo_optuna.scratch import check_kept, scratch
from rtmo_optuna.search.decide import judge, noise
from rtmo_optuna.space.objectives import Objective
from rtmo_optuna.types.findings import ProcessRecord, Purpose
from rtmo_optuna.types.measurement import GateMode, GateRequest, GateResult, Measurement, Outcome, Window
from rtmo_optuna.types.request import BenchmarkRequest, Limits, Measuring, SessionSpec, Settings
from rtmo_optuna.types.study import Note, Observer, WindowDone
from rtmo_optuna.types.subject import Gpu, GpuState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

LEAST_PRECISION = 0.003
_RECENT = 20
_FIRST_GUESS_S = 5.0
_START_S = 3.0
_COOLING_S = (2.0, 8.0)
_LONG_S = 10.0


@dataclass
class Runner:
    """Runs processes on one device, and remembers what they share: how fast a quiet core spins, the clock, the gate.

    `fixed` are the study's default settings, the only ones whose outputs may tell how far from the reference is near.
    `spread` is s_b once it is known: a process is then measured to a third of it, not finer. `pin` has each window run
    on a quiet core; the preflight sets it where that steadies the host. `check` is asked before each process, and
    raises where the user has interrupted the run; `unchanged` is asked before and after it, and raises where the model
    is another one now: what ran meanwhile says nothing. `first_state` and `last_state` are the GPU's after the first
    window of the study and after the latest one: at rest its clock would say nothing. A process that takes more than
    `max_memory_gb` (GiB) of the GPU's memory has failed. `hot` says that the GPU held itself back
    however long one waited, and still does. `waited_s` is how long others had the device, which is no process's time.
    `paced_s` is what a process takes at the least where calls come at a rate. No process goes on after `until`
    (monotonic seconds).
    """

    session: SessionSpec
    inputs: str
    measuring: Measuring
    limits: Limits
    gate: GateRequest
    objective: Objective
    observer: Observer
    gpu: Gpu | None = None
    pin: bool = False
    batch: int = 1
    spread: float | None = None
    max_memory_gb: float | None = None
    fixed: Settings = field(default_factory=Settings)
    hot: bool = False
    paced_s: float = 0.0
    until: float = math.inf
    pool: ChildPool | None = None
    check: Callable[[], None] = lambda: None
    unchanged: Callable[[], None] = lambda: None
    first_state: GpuState | None = None
    last_state: GpuState | None = None
    spins_ns: list[int] = field(default_factory=list)
    walls_s: list[float] = field(default_factory=list)
    dropped: int = 0
    waited_s: float = 0.0
    _waited: bool = False
    _foretold: bool = False

    @property
    def each_s(self) -> float:
        """How long a process takes, in seconds: the median of the latest ones, a guess before the first."""
        return statistics.median(self.walls_s[-_RECENT:] or [max(_FIRST_GUESS_S, _START_S + self.paced_s)])

    def run(
        self,
        settings: Settings,
        log: Path,
        *,
        prune_above_ns: float | None = None,
        on_window: Callable[[float, int], None] = lambda _latency_ms, _windows: None,
    ) -> Measurement:
        """Return the Measurement of one fresh process of `settings`, while no other process of ours has the device.

        `on_window` gets the running median in ms and the number of windows. A process during which the GPU held itself
        back says nothing and is run again after a while; where that does not end, that is how fast this GPU is until it
        recovers, and no reason to give up a trial. What may be an accident is tried once more.
        """
        measurement = self._cooled(settings, log, prune_above_ns, on_window)
        died = measurement.accident or (settings == self.fixed and judge.died(measurement))
        if died and time.monotonic() < self.until:
            text = f"{measurement.why.rstrip('.')}, which need not be the settings' fault: one more try."
            self.observer(Note(text, warning=True))
            measurement = self._cooled(settings, log, prune_above_ns, on_window)
        return measurement

    def _cooled(
        self, settings: Settings, log: Path, prune_above_ns: float | None, on_window: Callable[[float, int], None]
    ) -> Measurement:
        """Run one process, again where the GPU held itself back."""
        for pause_s in (0.0, *_COOLING_S):
            time.sleep(pause_s)
            measurement = self._once(settings, log, prune_above_ns, on_window)
            if measurement.outcome is not Outcome.INTERRUPTED:
                return measurement
        self.hot = True
        text = f"{measurement.reason} Waiting did not help, so the GPU is measured as it is."
        self.observer(Note(text, warning=True))
        return self._once(settings, log, None, on_window)

    def _once(
        self, settings: Settings, log: Path, prune_above_ns: float | None, on_window: Callable[[float, int], None]
    ) -> Measurement:
        self.check()
        asked = time.monotonic()
        precision = max(LEAST_PRECISION, (self.spread or 0.0) / 3, self.measuring.precision)
        rules = replace(self.measuring, precision=precision)
        medians: list[float] = []

        def decide(windows: Sequence[Window]) -> Decision:
            limit_ns, least_calls = None if self.hot else prune_above_ns, self.objective.least_calls
            return judge.after_window(windows, rules, prune_above_ns=limit_ns, least_calls=least_calls)

        def note(window: Window) -> None:
            medians.append(statistics.median(window.samples_ns) / 1e6)
            self._foretell(medians[0])
            on_window(statistics.median(medians), len(medians))
            self.observer(WindowDone(statistics.median(medians), len(medians)))

        gate = self.gate if settings == self.fixed else replace(self.gate, baseline=False)
        request = BenchmarkRequest(
            session=replace(self.session, settings=settings),
            inputs=self.inputs,
            measuring=rules,
            limits=self.limits,
            pin=self.pin and self.gpu is not None,
            best_spin_ns=round(statistics.median(self.spins_ns)) if self.spins_ns else 0,
            gate={} if gate.rules.mode is GateMode.OFF else encode(gate),
        )
        with device_lock(self.gpu.uuid if self.gpu else PROCESSOR, self._wait):
            begun = time.monotonic()
            self.waited_s += begun - asked
            self.unchanged()
            measurement = measure(
                request,
                log=log,
                decide=decide,
                on_window=note,
                memory_of=lambda pid: process_memory(self.gpu, pid) if self.gpu else None,
                throttled=self._throttled,
                batch=self.batch,
                pool=self.pool,
                until=self.until,
            )
        self.unchanged()
        if measurement.outcome is Outcome.FAILED:
            compared = [gate.reference] if gate.rules.mode is not GateMode.OFF else []
            check_kept(log.parent, *map(Path, (self.inputs, *compared)))
        measurement = judge.with_score(judge.within_memory(measurement, self.max_memory_gb), self.objective)
        if measurement.outcome is not Outcome.INTERRUPTED:
            self.walls_s.append(time.monotonic() - begun)
        self.dropped += sum(measurement.dropped.values())
        if measurement.spin_ns:
            self.spins_ns.append(measurement.spin_ns)
        return measurement

    def record(
        self, purpose: Purpose, index: int, settings: Settings, *, prune_above_ns: float | None = None
    ) -> tuple[ProcessRecord, Measurement]:
        """Run one process beside the trials and return it as the study keeps it, and its whole Measurement."""
        begun, waited_s = time.monotonic(), self.waited_s
        with scratch() as folder:
            measurement = self.run(settings, folder / "log.txt", prune_above_ns=prune_above_ns)
        measured = measurement.outcome is Outcome.MEASURED
        kept = ProcessRecord(
            purpose=purpose,
            index=index,
            settings=settings,
            cost=self.objective.cost(measurement) if measured else None,
            latency_ms=measurement.latency_ms,
            windows_ms=tuple(round(value / 1e6, 5) for value in measurement.windows_ns),
            memory_bytes=measurement.gpu_memory_bytes,
            reason="" if measured else measurement.reason,
            dropped=sum(measurement.dropped.values()),
            left_out=measurement.left_out,
            wall_s=round(time.monotonic() - begun - (self.waited_s - waited_s), 2),
            outputs_sha256=measurement.outputs_sha256,
        )
        return kept, measurement

    def close(self) -> None:
        """End the children that wait in the pool."""
        if self.pool:
            self.pool.close()

    def set_own(self, own: Mapping[str, Any]) -> None:
        """Take how far the default settings' outputs are from the reference, as it was kept: it widens every limit."""
        self.gate = replace(self.gate, own=decode(GateResult, own), baseline=False)

    def _throttled(self) -> bool:
        if self.gpu is None:
            return False
        now = self.last_state = state(self.gpu)
        self.first_state = self.first_state or now
        held_back = noise.throttled(now.reasons, now.sm_mhz, self.first_state.sm_mhz)
        self.hot = self.hot and held_back
        return held_back and not self.hot

    def _foretell(self, latency_ms: float) -> None:
        """Say once where the objective's calls make processes long; the first one's `latency_ms` stands for all."""
        least_calls, rate_hz = self.objective.least_calls, self.measuring.rate_hz
        long_s = least_calls * max(latency_ms / 1e3, 1 / rate_hz if rate_hz else 0.0)
        if long_s > _LONG_S and not self._foretold:
            text = f"The objective {self.objective.name!r} needs {least_calls} calls of each process"
            pace = f"{rate_hz:g} calls a second" if rate_hz else f"{latency_ms:.3g} ms a call"
            self.observer(Note(f"{text}: about {long_s:.0f} s at {pace}."))
        self._foretold = True

    def _wait(self, holder: int | None) -> None:
        if self._waited:
            return
        self._waited = True
        who = f"process {holder}" if holder else "another process"
        self.observer(Note(f"Waiting for {who}, which is measuring on this device."))
