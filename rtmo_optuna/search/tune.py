"""A whole tune in order: preflight, search, race and confirmation, each within its share of the time."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.records import Measurement, Note, Observer, Outcome, Purpose, Settings, TrialEnded, TrialStarted
from rtmo_optuna.search import judge, noise
from rtmo_optuna.search.finals import Finals, Outcomes, noise_of
from rtmo_optuna.search.process import Runner
from rtmo_optuna.search.study import Study

if TYPE_CHECKING:
    from rtmo_optuna.records import TrialRecord
    from rtmo_optuna.search.study import Proposal

SEARCH_UNTIL = 0.6


@dataclass
class Tune:
    """One run of a study: it goes on where the last one stopped."""

    study: Study
    runner: Runner
    incumbent: Settings
    baseline: int
    observer: Observer
    begun: float
    search_only: bool = False

    def run(self) -> Outcomes | None:
        """Return what race and confirmation came to; None where they were not to run, or had nothing to run.

        Raises KeyboardInterrupt after the running trial was put back.
        """
        timeout_s = self.study.about.definition.timeout_s
        self._preflight()
        self._search(self.begun + SEARCH_UNTIL * timeout_s)
        if self.search_only or judge.best(self.study.trials, self.study.objective) is None:
            return None
        return Finals(self.study, self.runner, self.incumbent, self.begun + timeout_s).run()

    def _preflight(self) -> None:
        """Run the default settings in fresh processes: the noise of this host, and the gate's own error.

        Where the host is noisy they run again, each window on a quiet core: that goes on for the whole study if it
        brings the processes nearer together without making them slower. (On one host it took the spread from 15 to
        5 %, on another from 1 to 5 %; docs/benchmarks.md.)
        """
        if own := self.study.get("own"):
            self.runner.set_own(own)
        plain = self._baseline(Purpose.BASELINE)
        spread = noise.between({self.incumbent: plain})
        if self.study.get("pin") is None and self.runner.gpu and noise.noisy(spread):
            self.runner.pin = True
            pinned = self._baseline(Purpose.PINNED)
            self.study.put("pin", judge.steadier(plain, pinned))
        self.runner.pin = bool(self.study.get("pin"))
        found = noise_of(self.study)
        self.runner.spread = found.between
        if found.noisy and found.between is not None and found.found is not None:
            text = (
                f"Noisy host: processes of the same settings differ by {found.between:.1%}; gains under "
                f"{found.found:.1%} will mostly not be found."
            )
            self.observer(Note(text, warning=True))

    def _baseline(self, purpose: Purpose) -> list[float]:
        """Return the costs of the default settings in as many fresh processes as the study's baseline takes."""
        done = [process for process in self.study.processes if process.purpose is purpose]
        for index in range(len(done), self.baseline):
            record, measurement = self.runner.record(purpose, index, self.study.about.space.fixed)
            self.study.keep(record)
            done.append(record)
            self._take_own(measurement)
            if record.cost is None:
                text = f"The default settings failed: {measurement.stage}: {measurement.reason}"
                self.observer(Note(text, warning=True))
                break
        return [process.cost for process in done if process.cost is not None]

    def _take_own(self, measurement: Measurement) -> None:
        """Keep how far the default's outputs are from the reference: no other settings need to be nearer."""
        if measurement.gate and self.study.get("own") is None:
            self.study.put("own", measurement.gate)
            self.runner.set_own(self.study.get("own"))
            for warning in measurement.gate.warnings:
                self.observer(Note(warning, warning=True))

    def _search(self, deadline: float) -> None:
        total = self.study.about.definition.trials
        walls_s: list[float] = []
        while self.study.runs < total and not judge.hopeless(self.study.trials):
            if walls_s and time.monotonic() + statistics.median(walls_s) > deadline:
                self.observer(Note("The search's share of the time is spent; the same command goes on from here."))
                return
            proposal = self.study.ask()
            if proposal is None:
                self.observer(Note("Every combination of the space has been measured."))
                return
            record = self._trial(proposal, total, deadline)
            walls_s.append(record.wall_s)
            best = judge.best(self.study.trials, self.study.objective)
            self.observer(TrialEnded(record, total, best, self.study.default))

    def _trial(self, proposal: Proposal, total: int, deadline: float) -> TrialRecord:
        left = max(0.0, deadline - time.monotonic())
        self.observer(TrialStarted(self.study.runs + 1, total, proposal.settings, proposal.origin, left))
        with tempfile.TemporaryDirectory(prefix="rtmo_optuna-") as name:
            folder = Path(name)
            try:
                measurement = self._measure(proposal, folder)
            except BaseException:
                self.study.interrupt(proposal)
                raise
            return self.study.tell(proposal, measurement, folder)

    def _measure(self, proposal: Proposal, folder: Path) -> Measurement:
        study = self.study
        limit = self._prune_limit()
        measurement = self.runner.run(
            proposal.settings,
            folder / "log.txt",
            prune_above_ns=limit,
            on_window=lambda latency_ms, windows: study.report(proposal, windows, latency_ms),
        )
        if measurement.outcome is Outcome.INTERRUPTED:
            self.observer(Note(f"{measurement.reason} The trial is put back.", warning=True))
        best = judge.best(study.trials, study.objective)
        leads = best and measurement.latency_ns and measurement.latency_ns < (best.measurement.latency_ns or 0.0)
        if leads and measurement.outcome is Outcome.MEASURED and study.objective.so_far:
            second = self.runner.run(proposal.settings, folder / "second.txt")
            if second.outcome is Outcome.MEASURED and second.latency_ns and measurement.latency_ns:
                both = statistics.fmean((measurement.latency_ns, second.latency_ns))
                measurement = replace(measurement, latency_ns=both, second_ns=second.latency_ns)
        return measurement

    def _prune_limit(self) -> float | None:
        """Return the window median in ns above which a trial is given up, None where windows do not foretell its score.

        The reference is the best of the baseline and of the leaders, which were all confirmed in a second process.
        """
        if self.study.objective.so_far is None:
            return None
        purpose = Purpose.PINNED if self.runner.pin else Purpose.BASELINE
        baseline = [p.latency_ms for p in self.study.processes if p.purpose is purpose and p.cost]
        twice = [t.measurement.latency_ms for t in self.study.trials if t.run and t.measurement.second_ns]
        known = [*twice, *([statistics.median(filter(None, baseline))] if len(baseline) > 1 else [])]
        ratio = self.study.about.definition.prune_ratio
        return judge.prune_limit([value for value in known if value], self.runner.spread, ratio)
