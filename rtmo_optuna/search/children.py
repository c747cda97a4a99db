"""The runner of a tune: each process is an isolated child on this machine's device."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rtmo_optuna.child.measure import Decision, measure
from rtmo_optuna.child.prefork import ChildPool
from rtmo_optuna.codec import encode
from rtmo_optuna.machine.gpu import process_memory, state
from rtmo_optuna.machine.host import PROCESSOR, device_lock
from rtmo_optuna.scratch import check_kept
from rtmo_optuna.search.decide import judge, noise
from rtmo_optuna.search.decide.budget import Clock
from rtmo_optuna.search.runner import Observed, OnWindow, Rules
from rtmo_optuna.types.measurement import GateMode, Measurement, Outcome, Window
from rtmo_optuna.types.request import BenchmarkRequest, SessionSpec, Settings
from rtmo_optuna.types.study import Note, Observer, Waiting, WindowDone
from rtmo_optuna.types.subject import Gpu, GpuState

_LONG_S = 10.0
_WAIT_S = 60.0


@dataclass
class ChildRunner:
    """Runs children of `session` on one device.

    `fixed` are the study's default settings, the only ones whose outputs may tell how far from the reference is near.
    `check` is asked before each process, and raises where the user has interrupted the run; `unchanged` is asked before
    and after it, and raises where the model is another one now: what ran meanwhile says nothing. No process goes on
    after `until`; other programs' are waited for until `wait_until`, a minute at least: a sound one is done by then
    (seconds of `clock`); `run_end` (since the epoch) is what others who wait are told. A GPU that holds itself back, as
    `gpu_state` tells, is waited for for `cooling_s`, once and once more. `measure` makes a child's life a Measurement.
    """

    session: SessionSpec
    inputs: str
    observer: Observer
    gpu: Gpu | None = None
    batch: int = 1
    fixed: Settings = field(default_factory=Settings)
    paced_s: float = 0.0
    until: float = math.inf
    wait_until: float = math.inf
    pool: ChildPool | None = None
    check: Callable[[], None] = lambda: None
    unchanged: Callable[[], None] = lambda: None
    clock: Clock = time.monotonic
    run_end: float | None = None
    cooling_s: tuple[float, ...] = (2.0, 8.0)
    gpu_state: Callable[[Gpu], GpuState] = state
    measure: Callable[..., Measurement] = measure
    seen: Observed = field(default_factory=Observed)
    _foretold: bool = False

    def run(
        self,
        settings: Settings,
        rules: Rules,
        log: Path,
        *,
        prune_above_ns: float | None = None,
        on_window: OnWindow = lambda _latency_ms, _windows: None,
    ) -> Measurement:
        """Return the Measurement of one fresh process of `settings`, while no other process of ours has the device.

        A process during which the GPU held itself back says nothing and is run again after a while; where that does
        not end, that is how fast this GPU is until it recovers, and no reason to give up a trial. What may be an
        accident is tried once more. Raises HeldError where others have the device for too long.
        """
        once = partial(self._once, settings, rules, log, on_window)
        measurement = self._cooled(once, prune_above_ns)
        died = measurement.accident or (settings == self.fixed and judge.died(measurement))
        if died and self.clock() < self.until:
            text = f"{measurement.why.rstrip('.')}, which need not be the settings' fault: one more try."
            self.observer(Note(text, warning=True))
            measurement = self._cooled(once, prune_above_ns)
        return measurement

    def _cooled(self, once: Callable[[float | None], Measurement], prune_above_ns: float | None) -> Measurement:
        """Run one process, again where the GPU held itself back."""
        for pause_s in (0.0, *self.cooling_s):
            time.sleep(pause_s)
            measurement = once(prune_above_ns)
            if measurement.outcome is not Outcome.INTERRUPTED:
                return measurement
        self.seen.hot = True
        text = f"{measurement.reason} Waiting did not help, so the GPU is measured as it is."
        self.observer(Note(text, warning=True))
        return once(None)

    def _once(
        self, settings: Settings, rules: Rules, log: Path, on_window: OnWindow, prune_above_ns: float | None
    ) -> Measurement:
        self.check()
        asked, seen = self.clock(), self.seen
        medians: list[float] = []

        def decide(windows: Sequence[Window]) -> Decision:
            limit_ns, least_calls = None if seen.hot else prune_above_ns, rules.objective.least_calls
            return judge.after_window(windows, rules.measuring, prune_above_ns=limit_ns, least_calls=least_calls)

        def note(window: Window) -> None:
            medians.append(statistics.median(window.samples_ns) / 1e6)
            self._foretell(medians[0], rules)
            on_window(statistics.median(medians), len(medians))
            self.observer(WindowDone(statistics.median(medians), len(medians)))

        request = self._request(settings, rules)
        wait_until = min(self.until, max(self.wait_until, asked + _WAIT_S))
        with device_lock(self.gpu.uuid if self.gpu else PROCESSOR, self._wait, self.run_end, wait_until):
            begun = self.clock()
            seen.waited_s += begun - asked
            self.unchanged()
            measurement = self.measure(
                request,
                log=log,
                decide=decide,
                on_window=note,
                memory_of=lambda pid: process_memory(self.gpu, pid) if self.gpu else None,
                throttled=lambda: self._throttled(rules),
                batch=self.batch,
                pool=self.pool,
                until=self.until,
            )
        self.unchanged()
        if measurement.outcome is Outcome.FAILED:
            compared = [rules.gate.reference] if request.gate else []
            check_kept(log.parent, *map(Path, (self.inputs, *compared)))
        measurement = judge.with_score(judge.within_memory(measurement, rules.max_memory_gb), rules.objective)
        if measurement.outcome is not Outcome.INTERRUPTED:
            seen.walls_s.append(self.clock() - begun)
        if measurement.spin_ns:
            seen.spins_ns.append(measurement.spin_ns)
        return measurement

    def _request(self, settings: Settings, rules: Rules) -> BenchmarkRequest:
        gate = rules.gate if settings == self.fixed else replace(rules.gate, baseline=False)
        return BenchmarkRequest(
            session=replace(self.session, settings=settings),
            inputs=self.inputs,
            measuring=rules.measuring,
            limits=rules.limits,
            pin=rules.pin and self.gpu is not None,
            best_spin_ns=round(statistics.median(self.seen.spins_ns)) if self.seen.spins_ns else 0,
            gate={} if gate.rules.mode is GateMode.OFF else encode(gate),
        )

    def close(self) -> None:
        """End the children that wait in the pool."""
        if self.pool:
            self.pool.close()

    def _throttled(self, rules: Rules) -> bool:
        if self.gpu is None:
            return False
        seen = self.seen
        now = seen.last_state = self.gpu_state(self.gpu)
        seen.first_state = seen.first_state or rules.first_state or now
        held_back = noise.throttled(now.reasons, now.sm_mhz, seen.first_state.sm_mhz)
        seen.hot = seen.hot and held_back
        return held_back and not seen.hot

    def _foretell(self, latency_ms: float, rules: Rules) -> None:
        """Say once where the objective's calls make processes long; the first one's `latency_ms` stands for all."""
        least_calls, rate_hz = rules.objective.least_calls, rules.measuring.rate_hz
        long_s = least_calls * max(latency_ms / 1e3, 1 / rate_hz if rate_hz else 0.0)
        if long_s > _LONG_S and not self._foretold:
            text = f"The objective {rules.objective.name!r} needs {least_calls} calls of each process"
            pace = f"{rate_hz:g} calls a second" if rate_hz else f"{latency_ms:.3g} ms a call"
            self.observer(Note(f"{text}: about {long_s:.0f} s at {pace}."))
        self._foretold = True

    def _wait(self, holder: int | None, until: float | None) -> None:
        who = f"process {holder}" if holder else "another process"
        self.observer(Waiting(f"{who}, with which it takes turns on this device", until))
