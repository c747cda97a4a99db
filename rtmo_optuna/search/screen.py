"""The screening run for real: each knob flipped once, then the test of those that seem to do nothing. It resumes."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from rtmo_optuna.search.decide import equivalence, judge, noise, screening
from rtmo_optuna.search.decide.budget import Deadline
from rtmo_optuna.search.decide.equivalence import InertRules, InertTest, Option
from rtmo_optuna.search.decide.screening import Level
from rtmo_optuna.search.runner import Processes
from rtmo_optuna.space.resolve import params_of, settings_of
from rtmo_optuna.study.study import Proposal
from rtmo_optuna.types.findings import KnobEffect, Purpose, Screening
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Origin, TrialRecord, Waiting

_APART = 3
"""So far apart are the numbers of blocks of two runs of the program: no default process is beside both."""


@dataclass
class Screen:
    """Finds out what each knob does here, and freezes what does nothing; `trial` runs a proposal as the search does."""

    processes: Processes
    until: Deadline
    trial: Callable[[Proposal], TrialRecord]

    def __post_init__(self) -> None:
        """Look after the processes' study."""
        self.study = self.processes.study

    def run(self) -> None:
        """Screen, or go on where that was interrupted; what was over is not begun anew."""
        kept = self.study.screening
        if kept is None or not kept.over:
            kept = self._screened(kept or Screening())
            self.study.put("screening", kept)
            self._tell(kept)
        self.study.leave_out_inert()

    def _screened(self, kept: Screening) -> Screening:
        about = self.study.about
        why = screening.unfit(about.definition, about.space)
        default = self._default()
        if not why and (not default.costs or self.study.failed(about.space.fixed)):
            why = "the default settings failed"
        if why:
            return Screening(note=f"No knob was tried alone: {why}.")
        effects, untried = self._flips()
        tested, why = (kept.tested, kept.note) if kept.tested else self._affordable(effects)
        self.study.put("screening", Screening(effects, tested=tested, note=why))
        test = self._test(tested)
        effects = screening.with_test(effects, test)
        return Screening(
            effects=effects,
            inert=screening.inert(about.space, effects, about.model),
            tested=tested,
            pairs=len(test.pairs),
            untried=untried,
            note=why,
            over=not untried and bool(tested or not why) and test.over,
        )

    def _default(self) -> Level:
        """Return what is known of the default settings: from the baseline, and from their trial."""
        fixed = self.study.about.space.fixed
        costs = [process.cost for process in self.study.baseline if process.cost is not None]
        hashes = {process.outputs_sha256 for process in self.study.baseline}
        trial = self.study.known(fixed)
        if trial is not None:
            costs += self.study.costs(trial)
            hashes.add(trial.measurement.outputs_sha256)
        ran = self.study.results(Purpose.LEVEL).items()
        again = {block: cost for block, costs in ran if (cost := costs.get(fixed)) is not None}
        return Level(tuple(costs), frozenset(hashes - {""}), again)

    def _flips(self) -> tuple[tuple[KnobEffect, ...], int]:
        """Try what flips were not tried yet, while time and trials last; return what they did, and how many are left.

        The default runs again before each block of flips that are tried, and after the last.
        """
        about = self.study.about
        every = screening.flips(about.space, about.model)
        most = screening.room(about.definition, len(every)) - self._tried()
        effects: list[KnobEffect] = []
        blocks: dict[int, int] = dict(self.study.get("flip_blocks") or ())
        first, ran = _APART + max((*blocks.values(), *self.study.results(Purpose.LEVEL)), default=-_APART), 0
        for flip in every:
            self.study.catch_up()
            if self.study.known(flip.settings) is None and not self.study.claims.under_way(flip.settings):
                if ran >= most or self._late(1) or judge.hopeless(self.study.trials):
                    continue
                block, inside = divmod(ran, screening.AGAIN)
                if not inside:
                    self._again(first + block)
                self.study.enqueue(flip.settings, Origin.SCREENING)
                if proposal := self.study.ask():
                    blocks[self.trial(proposal).number] = first + block
                    self.study.put("flip_blocks", tuple(blocks.items()))
                    ran += 1
        if ran:
            self._again(max(blocks.values()) + 1)
        self._wait_for([flip.settings for flip in every])
        default = self._default()
        for flip in every:
            tried = self.study.known(flip.settings)
            if tried is not None:
                costs, beside = self.study.costs(tried), blocks.get(tried.number)
                effects.append(screening.effect(flip, tried.measurement, costs, default, beside))
        return tuple(effects), len(every) - len(effects)

    def _tried(self) -> int:
        return sum(trial.run > 0 and trial.origin is Origin.SCREENING for trial in self.study.trials)

    def _again(self, block: int) -> None:
        """Run the default before the flips of `block`, where there is time."""
        if not self._late(1):
            self.processes.keep(Purpose.LEVEL, block, self.study.about.space.fixed)

    def _wait_for(self, settings: list[Settings]) -> None:
        """Wait for the trials of `settings` that other drivers have under way."""
        others = Waiting("trials that other drivers have under way", time.time() + self.until.left_s)
        while any(self.study.known(one) is None and self.study.claims.under_way(one) for one in settings):
            if self._late(1):
                break
            self.processes.observer(others)
            self.study.crew.wait()
            self.study.catch_up()

    def _affordable(self, effects: tuple[KnobEffect, ...]) -> tuple[tuple[Option, ...], str]:
        """Return which options there is time to test, and what is to be said of the others.

        Each pair tests one choice of every dimension, so the one with the most choices takes the most pairs. Pairs run
        one right after the other, so that the host's changes among the flips are no noise of theirs.
        """
        options = screening.candidates(self.study.about.space, effects)
        spread = noise.spread([self._default().costs])
        if not options or spread is None:
            return (), ""
        each = InertRules().pairs_for(spread)
        fit = self.until.fits(2 * self.processes.each_s)
        choices = Counter(name for name, _ in options)
        chosen = tuple(option for option in options if choices[option[0]] * each <= fit)
        left = [name for name in choices if choices[name] * each > fit]
        need = max((choices[name] for name in left), default=0) * each
        many = f"that takes {need} pairs of processes at this noise, and there is time for {fit}"
        return chosen, f"Not tested whether they do anything: {', '.join(left)}; {many}." if left else ""

    def _test(self, options: tuple[Option, ...]) -> InertTest:
        test = equivalence.start(options, InertRules())
        if not options:
            return test
        space = self.study.about.space
        default = params_of(space, space.fixed) or {}
        results = self.study.results(Purpose.SCREENING)
        many = len(options) > 1
        what = (
            f"{len(options)} choices that seem to do nothing, together"
            if many
            else "A choice that seems to do nothing,"
        )
        self.processes.observer(Note(f"{what} in fresh pairs."))
        while not test.over:
            pair, index = equivalence.next_pair(test), len(test.pairs)
            values = results.get(index, {})
            if self._late(2) and not values:
                break
            sides = [settings_of(space, {**default, **pair.side(sign)}) for sign in (1, -1)]
            values = self.processes.costs(Purpose.SCREENING, index, sides, test.pairs_due, values)
            first, second = (values[side] for side in sides)
            gap = math.log(first / second) if first and second else None
            test = equivalence.after(test, replace(pair, gap=gap))
        return test

    def _late(self, processes: int) -> bool:
        return self.until.late(self.processes.each_s, processes)

    def _tell(self, kept: Screening) -> None:
        if kept.inert:
            names = ", ".join(found.name for found in kept.inert)
            self.processes.observer(Note(f"Inert here, and left at the default: {names}."))
        if kept.left_out:
            self.processes.observer(Note(kept.left_out))
