"""The search: ask, run, tell, until the budget is spent. Preflight, race and confirmation come with a later release."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.bench.run import Decision, measure
from rtmo_optuna.machine.gpu import process_memory
from rtmo_optuna.machine.host import device_lock
from rtmo_optuna.records import (
    BenchmarkRequest,
    Event,
    Gpu,
    Note,
    Observer,
    Outcome,
    SessionSpec,
    TrialEnded,
    TrialRecord,
    TrialStarted,
    Window,
    WindowDone,
)
from rtmo_optuna.search import judge
from rtmo_optuna.search.study import Study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtmo_optuna.records import Measurement
    from rtmo_optuna.search.study import Proposal


@dataclass
class Search:
    """What one run of the search needs beside the study."""

    study: Study
    session: SessionSpec
    inputs: str
    gpu: Gpu | None
    observer: Observer
    deadline: float
    _walls: list[float] = field(default_factory=list)

    def run(self) -> bool:
        """Run trials until the study has as many as it is to have; return whether it got there.

        False means that the time ran out. Raises KeyboardInterrupt after the running trial was put back.
        """
        total = self.study.about.definition.trials
        while self.study.runs < total:
            if self._walls and time.monotonic() + statistics.median(self._walls) > self.deadline:
                self._say(Note("The time is spent; the same command goes on from here."))
                return False
            if judge.hopeless(self.study.trials):
                return False
            proposal = self.study.ask()
            if proposal is None:
                self._say(Note("Every combination of the space has been measured."))
                return True
            record = self._trial(proposal, total)
            self._walls.append(record.wall_s)
            best = judge.best(self.study.trials, self.study.objective)
            self._say(TrialEnded(record, total, best, self.study.default))
        return True

    def _say(self, event: Event) -> None:
        self.observer(event)

    def _trial(self, proposal: Proposal, total: int) -> TrialRecord:
        left = max(0.0, self.deadline - time.monotonic())
        self._say(TrialStarted(self.study.runs + 1, total, proposal.settings, proposal.origin, left))
        with tempfile.TemporaryDirectory(prefix="rtmo_optuna-") as name:
            folder = Path(name)
            try:
                with device_lock(self.gpu.uuid if self.gpu else "cpu"):
                    measurement = self._measure(proposal, folder)
            except BaseException:
                self.study.interrupt(proposal)
                raise
            return self.study.tell(proposal, measurement, folder)

    def _measure(self, proposal: Proposal, folder: Path) -> Measurement:
        study, gpu = self.study, self.gpu
        definition = study.about.definition
        limit = judge.prune_limit(study.default, definition.prune_ratio, study.objective)
        medians: list[float] = []

        def decide(windows: Sequence[Window]) -> Decision:
            return judge.after_window(
                windows, definition.measuring, prune_above_ns=limit, least_calls=study.objective.least_calls
            )

        def on_window(window: Window) -> None:
            medians.append(statistics.median(window.samples_ns) / 1e6)
            study.report(proposal, len(medians), statistics.median(medians))
            self._say(WindowDone(statistics.median(medians), len(medians)))

        return measure(
            BenchmarkRequest(
                replace(self.session, settings=proposal.settings),
                self.inputs,
                definition.measuring,
                definition.limits,
            ),
            log=folder / "log.txt",
            decide=decide,
            on_window=on_window,
            memory_of=lambda pid: process_memory(gpu, pid) if gpu else None,
            batch=study.about.batch,
        )


def outcomes(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """Return how many runs ended in each way."""
    return {kind.value: sum(t.run > 0 and t.measurement.outcome is kind for t in trials) for kind in Outcome}
