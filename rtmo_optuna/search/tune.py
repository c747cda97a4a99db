"""A whole tune in order: preflight, search, race and confirmation, each within its share of the time."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from rtmo_optuna.search.decide import budget, judge, screening
from rtmo_optuna.search.decide.confirm import LOOKS
from rtmo_optuna.search.decide.ladder import next_rung
from rtmo_optuna.search.finals import Finals, FinalsState, least_pairs, plain_settings
from rtmo_optuna.search.preflight import Preflight, take_own
from rtmo_optuna.search.runner import Runner
from rtmo_optuna.search.screen import SHARE, Screen
from rtmo_optuna.space.advice import advised
from rtmo_optuna.space.resolve import size
from rtmo_optuna.study.drivers import DOUBT_S
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import ProcessRecord
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Observer, Origin, TrialEnded, TrialStarted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rtmo_optuna.study.study import Proposal
    from rtmo_optuna.types.study import Event, TrialRecord


@dataclass
class Tune:
    """One run of a study: it goes on where the last one stopped.

    `first` is the default settings' first process, where that ran before there was a study.
    """

    study: Study
    runner: Runner
    incumbent: Settings
    baseline: int
    observer: Observer
    begun: float
    search_only: bool = False
    first: tuple[ProcessRecord, Measurement] | None = None
    _walls_s: list[float] = field(default_factory=list)
    _foretold: bool = False
    _pairs_come: bool = True

    def run(self) -> FinalsState | None:
        """Return what race and confirmation came to; None where they were not to run, or had nothing to run.

        They are left to the last of several drivers. Raises KeyboardInterrupt after the running trial was put back.
        """
        self.study.crew.join()
        self.runner.observer, self.runner.check = self._heard, partial(self._go_on, self.runner.check)
        try:
            return self._whole()
        finally:
            self.study.release()
            self.study.crew.leave()

    def _whole(self) -> FinalsState | None:
        deadline = budget.deadline(self.begun, self.study.about.definition.timeout_s)
        self.runner.walls_s[:0] = self.study.walls_s
        if (found := self.study.screening) and found.over:
            self.study.freeze({one.name for one in found.inert})
        self._foretell(deadline)
        self._preflight()
        self._foretell(deadline)
        self._search()
        self._doubt(deadline - least_pairs(self.study, self.incumbent) * self.runner.each_s)
        if not self.study.crew.is_last():
            who = ", ".join(self.study.crew.others()) or "another process"
            self.observer(Note(f"The study goes on in {who}; the last one races and confirms."))
            return None
        self.study.refresh()
        if judge.best(self.study.trials, self.study.objective) is None:
            return None
        needed = least_pairs(self.study, self.incumbent) if self._pairs_come else 0
        self._simplify(budget.pairs_from(deadline, self.runner.each_s, needed))
        if self.search_only:
            return None
        return Finals(self.study, self.runner, self.incumbent, deadline).run()

    def _go_on(self, check: Callable[[], None]) -> None:
        self.study.crew.renew()
        check()

    def _heard(self, event: Event) -> None:
        """Pass on what a process tells; it is a sign of life of this driver as well."""
        self.study.crew.renew()
        self.observer(event)

    def _preflight(self) -> None:
        """Run the preflight, or wait for that of another driver; it holds for all of them."""
        crew, waits = self.study.crew, False
        until = self.begun + budget.WAIT_SHARE * self.study.about.definition.timeout_s
        while not crew.leads("preflight") and self.study.get("pin") is None and time.monotonic() < until:
            if not waits:
                most = f"for {max(0.0, until - time.monotonic()):.0f} s at most"
                self.observer(Note(f"Waiting for the preflight of {', '.join(crew.others())}, {most}."))
            waits = True
            self.runner.check()
            crew.wait()
        self.study.refresh()
        until = self.begun + budget.PREFLIGHT_SHARE * self.study.about.definition.timeout_s
        Preflight(self.study, self.runner, self.incumbent, self.baseline, self.observer, until, self.first).run()

    def _doubt(self, until: float) -> None:
        """Wait until those that may be gone are, or are heard of: a container that was started again found itself."""
        crew, end = self.study.crew, min(until, time.monotonic() + DOUBT_S)
        if (who := crew.doubtful()) and time.monotonic() < end:
            self.observer(Note(f"Is {', '.join(who)} still there? Waiting for {end - time.monotonic():.0f} s at most."))
        while crew.doubtful() and time.monotonic() < end:
            self.runner.check()
            crew.wait()
        self.study.recover()

    def _foretell(self, deadline: float) -> None:
        """See whether the time does for what a claim takes, and say beforehand where it cannot."""
        if not self.runner.walls_s:
            return
        each_s, pairs = self.runner.each_s, min(LOOKS)
        self._pairs_come = not self.search_only and self._fits(deadline)
        if self._pairs_come or self.search_only or self._foretold:
            return
        self._foretold = True
        text = f"A process takes {each_s:.3g} s here, so that the {pairs} pairs that prove a gain will find no time"
        advice = f"give --timeout {budget.enough_minutes(each_s)}m or more"
        self.observer(Note(f"{text}, and the search takes it all: {advice}.", warning=True))

    def _fits(self, deadline: float) -> bool:
        """Whether the pairs that a claim takes find time before `deadline`, as long as processes take now."""
        pairs, trials = least_pairs(self.study, self.incumbent, searched=self._searched()), self.study.runs
        return not pairs or budget.in_time(time.monotonic(), deadline, self.runner.each_s, pairs, trials=trials)

    def _until(self) -> float:
        """Return when the search ends: it leaves time for a short race and the least confirmation, where it can.

        Where the first processes were longer than the later ones, there is time again.
        """
        timeout_s = self.study.about.definition.timeout_s
        deadline = budget.deadline(self.begun, timeout_s)
        self._pairs_come = self._pairs_come or (not self.search_only and self._fits(deadline))
        if not self._pairs_come:
            return deadline
        each_s = statistics.median(self.runner.walls_s) if self.runner.walls_s else 0.0
        return budget.search_until(self.begun, timeout_s, each_s, least_pairs(self.study, self.incumbent))

    def _simplify(self, until: float) -> None:
        """Try what is still queued, then the best settings without what does nothing by itself.

        No trial begins that would end after `until`, when the least confirmation has to begin.
        """
        self._run_queued(until)
        plain = plain_settings(self.study)
        if plain is not None:
            self.study.enqueue(plain, Origin.PLAINER)
            self._run_queued(until)

    def _queued(self) -> bool:
        """Whether a trial is queued, the next rung of what won elsewhere with it."""
        if rung := next_rung(self.study.about.space, self.study.cost):
            self.study.enqueue(rung, Origin.WON)
        return self.study.waiting

    def _run_queued(self, until: float) -> None:
        while self._queued() and not self._late(until) and self._next():
            pass

    def _search(self) -> None:
        """Run what is queued, rung by rung what won elsewhere, screen the knobs, then sample; say why the search ended.

        One driver screens; the others sample meanwhile.
        """
        definition = self.study.about.definition
        while self._queued() and not (self._spent() or self._late(self._until())) and self._next():
            pass
        if not (self._spent() or self._late(self._until())) and self.study.crew.leads("screening"):
            now = time.monotonic()
            until = now + min((self._until() - now) / 2, SHARE * definition.timeout_s)
            Screen(self.study, self.runner, until, self._trial).run()
        if guide := advised(self.study.about.space, self.study.about.machine.gpu):
            self.study.enqueue(guide, Origin.ADVICE)
        late = False
        while not (why := self._ended()):
            if late := self._late(self._until()):
                why = "The search's share of the time is spent; the same command goes on from here."
                break
            if not self._next():
                elsewhere = ", or another driver has it under way" if self.study.crew.others() else ""
                why = f"Every combination of the space has been measured{elsewhere}."
                break
        self.study.put("cut_short", late)
        self.observer(Note(why))

    def _next(self) -> bool:
        """Run the trial that the study asks for next; False where nothing is left to try."""
        self.study.catch_up()
        self._queued()
        proposal = self.study.ask()
        if proposal is not None:
            self._trial(proposal, self.study.counted + 1, self.study.about.definition.trials)
        return proposal is not None

    def _searched(self) -> bool:
        """Whether an earlier run has left nothing to try, by what is known before this one."""
        return not self.study.waiting and (self.study.exhausted or bool(self._ended()))

    def _spent(self) -> str:
        """Return why no more trials are to be run at all; empty where there may be."""
        definition = self.study.about.definition
        if judge.hopeless(self.study.trials):
            return "The first trials all failed, so the fault is not in the settings."
        if self.study.counted >= definition.trials:
            had = f"{definition.trials} trials" if definition.trials > 1 else "one trial"
            return f"The search has had its {had}."
        return ""

    def _ended(self) -> str:
        """Return why nothing more is to be sampled; empty where something may be."""
        if why := self._spent():
            return why
        definition, trials = self.study.about.definition, self.study.trials
        whole = definition.sampler == "exhaustive" or size(self.study.live) <= screening.SMALL
        patience = judge.patience(definition.trials)
        if not whole and judge.stalled(trials, self.study.objective, patience):
            return f"The last {patience} settings gained less than {judge.LEAST_GAIN:.0%}: the search ends."
        return ""

    def _late(self, deadline: float) -> bool:
        """Whether another trial would end after `deadline`; the first of a run is always in time."""
        return bool(self._walls_s) and time.monotonic() + statistics.median(self._walls_s) > deadline

    def _trial(self, proposal: Proposal, place: int, total: int) -> TrialRecord:
        """Run a proposal as trial `place` of `total`, tell the study and whoever watches."""
        left = max(0.0, self._until() - time.monotonic())
        self.observer(TrialStarted(place, total, proposal.settings, proposal.origin, left))
        record = self.study.run(proposal, partial(self._measure, proposal))
        self._walls_s.append(record.wall_s)
        best = judge.best(self.study.trials, self.study.objective)
        self.observer(TrialEnded(record, place, total, best, self.study.default))
        return record

    def _measure(self, proposal: Proposal, folder: Path) -> Measurement:
        study, steps, waited_s = self.study, itertools.count(1), self.runner.waited_s
        limit = self._prune_limit(proposal.origin)
        measurement = self.runner.run(
            proposal.settings,
            folder / "log.txt",
            prune_above_ns=limit,
            on_window=lambda latency_ms, _windows: study.report(proposal, next(steps), latency_ms),
        )
        if proposal.settings == study.about.space.fixed:
            take_own(study, self.runner, measurement)
        once = proposal.origin is Origin.WON or not study.objective.so_far
        if not once and judge.leads(measurement, study.trials, study.objective):
            second_log = folder / "second.txt"
            second = self.runner.run(proposal.settings, second_log, on_window=lambda *_: study.beat(proposal))
            measurement = judge.joined(measurement, second, study.objective)
        proposal.started += self.runner.waited_s - waited_s
        return measurement

    def _prune_limit(self, origin: Origin) -> float | None:
        """Return the window median in ns above which a trial is given up, None where windows do not foretell its score.

        The reference is the best of the baseline, of the leaders, which were all confirmed in a second process, and of
        the ladder's rungs; of the screening's trials it is the baseline, since they are to tell what a knob does to the
        default. The default and what config.yaml holds are measured whatever they take: all others are compared with
        them.
        """
        if self.study.objective.so_far is None or origin in {Origin.DEFAULT, Origin.CONFIG}:
            return None
        baseline = [process.latency_ms for process in self.study.baseline if process.cost]
        known = (t for t in self.study.trials if t.run and (t.measurement.second_ns or t.origin is Origin.WON))
        whole = [t.measurement.latency_ms for t in known if t.measurement.outcome is Outcome.MEASURED]
        leaders = [] if origin is Origin.SCREENING else whole
        reference = [*leaders, *([statistics.median(filter(None, baseline))] if len(baseline) > 1 else [])]
        ratio = self.study.about.definition.prune_ratio
        return judge.prune_limit([value for value in reference if value], self.runner.spread, ratio)
