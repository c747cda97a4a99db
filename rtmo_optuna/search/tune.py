"""A whole tune in order: preflight, search, race and confirmation, each within its share of the time."""

import itertools
import statistics
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rtmo_optuna.search.decide import judge, screening
from rtmo_optuna.search.decide.budget import Budget, Deadline, enough_minutes
from rtmo_optuna.search.decide.ladder import next_rung
from rtmo_optuna.search.finals import Finals, FinalsState, kept_finals, least_pairs, plain_settings
from rtmo_optuna.search.preflight import Preflight, keep_own
from rtmo_optuna.search.runner import Conditions, Processes, Rules, Runner, conditions_of
from rtmo_optuna.search.screen import Screen
from rtmo_optuna.space.advice import advised
from rtmo_optuna.space.knobs import canonical
from rtmo_optuna.space.resolve import MADE_UP, size
from rtmo_optuna.study.study import Proposal, Study
from rtmo_optuna.types.findings import LEAST_GAIN, LEAST_PAIRS, ProcessRecord, Purpose
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Observer, Origin, Phase, Started, TrialEnded, TrialRecord, Waiting
from rtmo_optuna.types.subject import Frozen


@dataclass
class Tune:
    """One run of a study, begun at `begun` of the runner's clock: it goes on where the last one stopped.

    `rules` are those before the preflight. `first` is the default settings' first process, where that ran before there
    was a study.
    """

    study: Study
    runner: Runner
    rules: Rules
    incumbent: Settings
    baseline: int
    observer: Observer
    begun: float
    search_only: bool = False
    first: tuple[ProcessRecord, Measurement] | None = None
    _walls_s: list[float] = field(default_factory=list)
    _foretold: bool = False
    _pairs_come: bool = True

    def __post_init__(self) -> None:
        """Share out the time, which the runner tells."""
        self.study.clock = self.runner.clock
        self.budget = Budget(self.begun, self.study.about.definition.timeout_s, self.runner.clock)
        self.processes = Processes(self.study, self.runner, self.rules, self.observer, tuple(self.study.walls_s))
        self.conditions = Conditions()

    def run(self) -> FinalsState | None:
        """Return what race and confirmation came to; None where they were not to run, or had nothing to run.

        They are left to the last of several drivers. Raises KeyboardInterrupt after the running trial was put back.
        """
        self.study.crew.join()
        try:
            return self._whole()
        finally:
            self.study.claims.release()
            self.study.crew.leave()

    def _whole(self) -> FinalsState | None:
        if (found := self.study.screening) and found.over:
            self.study.leave_out_inert()
        self._foretell()
        self._preflight()
        self._foretell()
        if raced := self._broken_off():
            self.observer(Note("Race and confirmation, which were broken off, go on; the next run searches on."))
        else:
            self._search()
        self._doubt()
        if not self.study.crew.is_last():
            who = ", ".join(self.study.crew.others()) or "another process"
            self.observer(Note(f"The study goes on in {who}; the last one races and confirms."))
            return None
        self.study.refresh()
        if judge.best(self.study.trials, self.study.objective) is None:
            return None
        needed = least_pairs(self.study, self.incumbent) if self._pairs_come else 0
        if not raced:
            until = self.budget.pairs_from(self.processes.each_s, needed)
            self._simplify(until)
            self._try_float16(until)
        if self.search_only:
            return None
        return Finals(self.processes, self.incumbent, self.budget.end).run()

    def _broken_off(self) -> bool:
        """Whether the last run was broken off in its race or pairs, and its search had ended for want of time.

        Searching on, as there is time again, would have them begin anew.
        """
        kept = kept_finals(self.study)
        begun = kept is not None and not kept.ended and kept.incumbent == self.incumbent
        return begun and bool(self.study.get("cut_short")) and not self.search_only

    def _preflight(self) -> None:
        """Run the preflight, or wait for that of another driver; it holds for all of them."""
        crew, waits, until = self.study.crew, False, self.budget.waiting
        while not crew.leads("preflight") and self.study.get("pin") is None and until.left_s:
            if not waits:
                who = ", ".join(crew.others())
                self.observer(Waiting(f"the preflight of {who}", time.time() + until.left_s))
            waits = True
            self.runner.check()
            crew.wait()
        self.study.refresh()
        self._run_under(Preflight(self.processes, self.baseline, self.budget.preflight, self.first).run())

    def _run_under(self, conditions: Conditions) -> None:
        """Have all further processes run under these `conditions`."""
        self.conditions = conditions
        self.processes = replace(self.processes, rules=self.rules.under(conditions))

    def _doubt(self) -> None:
        """Wait until those that may be gone are, or are heard of: a container that was started again found itself."""
        needed_s = least_pairs(self.study, self.incumbent) * self.processes.each_s
        crew = self.study.crew
        end = self.budget.end.before(needed_s).within(crew.doubt_s)
        if (who := crew.doubtful()) and end.left_s:
            self.observer(Waiting(f"a sign of {', '.join(who)}, which may be gone", time.time() + end.left_s))
        while crew.doubtful() and end.left_s:
            self.runner.check()
            crew.wait()
        self.study.claims.recover()

    def _foretell(self) -> None:
        """See whether the time does for what a claim takes, and say beforehand where it cannot."""
        if not self.processes.walls_s:
            return
        each_s = self.processes.each_s
        self._pairs_come = self._fits()
        if self._pairs_come or self.search_only or self._foretold:
            return
        self._foretold = True
        proof = f"the {LEAST_PAIRS} pairs that prove a gain will find no time, and the search takes it all"
        text = f"A process takes {each_s:.3g} s here, so that {proof}"
        self.observer(Note(f"{text}: give --timeout {enough_minutes(each_s)}m or more.", warning=True))

    def _fits(self) -> bool:
        """Whether pairs are to come, and those that a claim takes find time, as long as processes take now."""
        if self.search_only:
            return False
        pairs = least_pairs(self.study, self.incumbent, searched=self._searched())
        return not pairs or self.budget.in_time(self.processes.each_s, pairs, trials=self.study.runs)

    def _until(self) -> Deadline:
        """Return when the search ends: it leaves time for a short race and the least confirmation, where it can.

        Where the first processes were longer than the later ones, there is time again.
        """
        self._pairs_come = self._pairs_come or self._fits()
        if not self._pairs_come:
            return self.budget.end
        each_s = statistics.median(self.processes.walls_s or [0.0])
        return self.budget.search(each_s, least_pairs(self.study, self.incumbent))

    def _simplify(self, until: Deadline) -> None:
        """Try what is still queued, then the best settings without what does nothing by itself.

        No trial begins that would end after `until`, when the least confirmation has to begin.
        """
        self._run_queued(until)
        plain = plain_settings(self.study)
        if plain is not None:
            self.study.enqueue(plain, Origin.PLAINER)
            self._run_queued(until)

    def _try_float16(self, until: Deadline) -> None:
        """Run the best settings in float16 once, where they are not to be had only because the input was made up."""
        study = self.study
        best = judge.best(study.trials, study.objective)
        left_out = Frozen("precision=float16", MADE_UP) in study.about.space.left_out
        tried = any(process.purpose is Purpose.PRECISION for process in study.processes)
        if best and left_out and not tried and not until.late(self.processes.each_s):
            values = {**dict(best.settings), "precision": "float16"}
            self.processes.keep(Purpose.PRECISION, 0, canonical(study.about.space.provider, values))

    def _queued(self) -> bool:
        """Whether a trial is queued, the next rung of what won elsewhere with it."""
        if rung := next_rung(self.study.about.space, self.study.cost):
            self.study.enqueue(rung, Origin.WON)
        return self.study.claims.waiting

    def _run_queued(self, until: Deadline) -> None:
        while self._queued() and not self._late(until) and self._next():
            pass

    def _search(self) -> None:
        """Run what is queued, rung by rung what won elsewhere, screen the knobs, then sample; say why the search ended.

        One driver screens; the others sample meanwhile.
        """
        while self._queued() and not (self._spent() or self._late(self._until())) and self._next():
            pass
        if not (self._spent() or self._late(self._until())) and self.study.crew.leads("screening"):
            Screen(self.processes, self.budget.screening(self._until()), self._trial).run()
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
            self._trial(proposal)
        return proposal is not None

    @property
    def _total(self) -> int:
        """How many trials there are to be, as it looks now: those asked for, and what is tried beside them."""
        study, about = self.study, self.study.about
        runs: int = study.runs
        beside = runs - study.counted
        if study.screening is None and not screening.unfit(about.definition, about.space):
            beside = max(beside, screening.room(about.definition, len(screening.flips(about.space))))
        return min(about.definition.trials + beside, max(size(about.space), runs))

    def _searched(self) -> bool:
        """Whether an earlier run has left nothing to try, by what is known before this one."""
        return not self.study.claims.waiting and (self.study.exhausted or bool(self._ended()))

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
            return f"The last {patience} settings gained less than {LEAST_GAIN:.0%}: the search ends."
        return ""

    def _late(self, until: Deadline) -> bool:
        """Whether another trial would end after `until`; the first of a run is always in time."""
        return bool(self._walls_s) and until.late(statistics.median(self._walls_s))

    def _trial(self, proposal: Proposal) -> TrialRecord:
        """Run a proposal, tell the study and whoever watches."""
        place = self.study.runs + 1
        total = max(place, self._total)
        self.observer(Started(Phase.SEARCH, place, total, proposal.settings, proposal.origin))
        record = self.study.run(proposal, partial(self._measure, proposal))
        self._walls_s.append(record.wall_s)
        best = judge.best(self.study.trials, self.study.objective)
        self.observer(TrialEnded(record, place, total, best, self.study.default))
        return record

    def _measure(self, proposal: Proposal, folder: Path) -> Measurement:
        study, steps, seen = self.study, itertools.count(1), self.runner.seen
        waited_s = seen.waited_s
        measurement = self.processes.run(
            proposal.settings,
            folder / "log.txt",
            lambda latency_ms, _windows: study.report(proposal, next(steps), latency_ms),
            prune_above_ns=self._prune_limit(proposal.origin),
        )
        if proposal.settings == study.about.space.fixed and self.conditions.own is None:
            keep_own(study, measurement, self.observer)
            self._run_under(replace(self.conditions, own=conditions_of(study).own))
        once = proposal.origin is Origin.WON or not study.objective.so_far
        if not once and judge.leads(measurement, study.trials, study.objective):
            second = self.processes.run(proposal.settings, folder / "second.txt", lambda *_: study.beat(proposal))
            measurement = judge.joined(measurement, second, study.objective)
        proposal.started += seen.waited_s - waited_s
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
        return judge.prune_limit([value for value in reference if value], self.conditions.spread, ratio)
