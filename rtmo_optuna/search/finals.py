"""Race and confirmation run for real: fresh processes in blocks and pairs, each kept at once, so that both resume."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from rtmo_optuna.codec import decode
from rtmo_optuna.search.decide import confirm, judge, noise, race, screening
from rtmo_optuna.search.decide.budget import Deadline, least_processes, pairs_share
from rtmo_optuna.search.decide.race import RaceRules
from rtmo_optuna.search.runner import Processes
from rtmo_optuna.search.simplifier import Plainer
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import LEAST_PAIRS, Claim, Decided, FinalsRecord, Noise, Purpose, Reading
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Origin, TrialRecord


@dataclass(frozen=True, slots=True)
class FinalsState(FinalsRecord):
    """Race and confirmation as the study keeps them, to go on with.

    They belong to a study of `trials` runs and to what config.yaml held then; with more trials they begin anew. `raced`
    won the race, `winner` is what is left of it without what nothing speaks for.
    `rules` and `pairs` are fixed before the first process, so that a resumed race decides as an uninterrupted one.
    """

    trials: int = 0
    rules: RaceRules = field(default_factory=RaceRules)
    raced: Settings | None = None
    pairs: int | None = None


def held_finals(study: Study) -> FinalsState | None:
    """Return what race and confirmation left; None before them."""
    held = study.get("finals")
    return decode(FinalsState, held) if held else None


def kept_finals(study: Study) -> FinalsState | None:
    """Return what race and confirmation came to in an earlier run; None too where trials came after."""
    kept = held_finals(study)
    return kept if kept and kept.trials == study.searched else None


def noise_of(study: Study, finals: FinalsState | None = None) -> Noise:
    """Return the noise of the study's host: from its baseline and race, where settings ran in several processes.

    With the `finals` of a study, what gain will be found is told for as many pairs as there was time for.
    """
    values: dict[Settings, list[float]] = {}
    for process in (*study.baseline, *(p for p in study.processes if p.purpose is Purpose.RACE)):
        if process.cost is not None:
            values.setdefault(process.settings, []).append(process.cost)
    baseline = [process.windows_ms for process in study.baseline if len(process.windows_ms) > 1]
    between = noise.spread(values.values())
    everything = [p.windows_ms for p in study.processes] + [t.measurement.windows_ns for t in study.trials if t.run]
    told = [how for windows in everything if (how := noise.unsteady(windows)) is not None]
    return Noise(
        between=between,
        within=noise.spread(baseline),
        noisy=noise.noisy(between),
        found=None if between is None else confirm.detectable(between, pairs=_pairs(finals)),
        judged=len(told),
        unsteady=Counter(how for how in told if how),
    )


def _pairs(finals: FinalsState | None) -> int:
    """Return for how many pairs of each comparison there was time, as many as the rules take where that is unknown."""
    if finals is None or not finals.decided or not finals.claims or not finals.pairs:
        return max(confirm.LOOKS)
    ours = (claim for claim in finals.claims if claim.subject == finals.winner)
    return finals.pairs if finals.over else min(claim.pairs for claim in ours)


def plain_settings(study: Study) -> Settings | None:
    """Return the study's best settings without what was not seen to matter by itself; None where nothing was measured.

    The race prefers them, if they are as fast. The default settings it need not: whoever beats them is confirmed.
    """
    best = judge.best(study.trials, study.objective)
    effects = study.screening.effects if study.screening else ()
    return screening.plainer(study.about.space, best.settings, effects) if best else None


def least_pairs(study: Study, incumbent: Settings, *, searched: bool = False) -> int:
    """Return for how many processes there has to be time where a claim is to come of it.

    Those are the fewest pairs of a winner with the default and with what config.yaml holds. Where all is `searched`,
    those that an earlier run kept need not come again.
    """
    kept = kept_finals(study) if searched else None
    if kept and kept.over:
        return 0
    rounds = study.results(Purpose.CONFIRMATION) if kept and kept.pairs is not None else {}
    ran = sum(len(values) for index, values in rounds.items() if index < LEAST_PAIRS)
    return least_processes(len({study.about.space.fixed, incumbent}), ran)


@dataclass
class Finals:
    """The last part of a study: who is best of those that looked good, and is that a gain over what there was?"""

    processes: Processes
    incumbent: Settings
    end: Deadline

    def __post_init__(self) -> None:
        """Look after the processes' study."""
        self.study = self.processes.study

    def run(self) -> FinalsState:
        """Race, then confirm the winner; what was run before an interruption is not run again."""
        kept = self._kept()
        if kept.over:
            return kept
        default = self.study.about.space.fixed
        rivals = tuple(rival for rival in dict.fromkeys((default, kept.incumbent)) if not self.study.failed(rival))
        state = self._race(kept.rules, least_pairs(self.study, self.incumbent, searched=True))
        winner = self._plain(kept, state)
        if kept.winner not in {None, winner}:  # after a screening that went on: no pair fits
            self.study.forget(Purpose.CONFIRMATION)
            kept = replace(kept, pairs=None, claims=())
        kept = replace(kept, blocks=state.blocks, raced=state.winner, winner=winner)
        self.study.put("finals", kept)
        if winner is not None:
            others = tuple(rival for rival in rivals if rival != winner)
            if kept.pairs is None:
                rounds = self._processes_left() // (len(others) + 1)
                claims = tuple(Claim(winner, rival) for rival in others)
                kept = replace(kept, pairs=min(rounds, max(confirm.LOOKS)), claims=claims)
                self.study.put("finals", kept)
            claims = self._confirm(winner, others, kept.pairs or 0)
            raced = bool(others) or state.over or state.blocks >= kept.rules.least_blocks
            over = raced and all(claim.over for claim in claims)
            kept = replace(kept, claims=(*claims, *self._by_default(claims)), over=over)
        kept = replace(kept, ended=True)
        self.study.put("finals", kept)
        return kept

    def _kept(self) -> FinalsState:
        """Return what was kept of an earlier run, or a new beginning."""
        kept = kept_finals(self.study)
        if kept and self._holds(kept):
            if kept.over:
                return kept
            kept = replace(kept, ended=False)
        else:
            self.study.forget(Purpose.RACE, Purpose.PLAIN, Purpose.CONFIRMATION)
            rules = RaceRules().fitted(len(self._contenders()), self._processes_left() - self._pairs_share())
            kept = FinalsState(self.incumbent, trials=self.study.searched, rules=rules)
        self.study.put("finals", kept)
        return kept

    def _holds(self, kept: FinalsState) -> bool:
        """Whether `kept` says something of what config.yaml holds now: it was compared with it, or wrote it."""
        known = {kept.winner, self.study.about.space.fixed} if kept.over else set()
        return self.incumbent in {kept.incumbent, *known}

    def _pairs_share(self) -> int:
        """Return how many of the processes that there is time for are left to the pairs."""
        return pairs_share(self._processes_left(), least_pairs(self.study, self.incumbent))

    def _processes_left(self) -> int:
        """Return how many processes end in time, if they take as long as the latest ones did."""
        return self.end.fits(self.processes.each_s)

    def _contenders(self) -> list[race.Contender]:
        """Return who may win: the default, and what was measured, except for flips that are known to do nothing.

        What failed in a trial may not, though it ran in other processes.
        """
        baseline = [
            race.Contender(process.settings, (process.cost,), process.memory_bytes, rival=True)
            for process in self.study.baseline
            if process.cost is not None and not self.study.failed(process.settings)
        ]
        effects = self.study.screening.effects if self.study.screening else ()
        inert = {found.settings for found in effects if found.reading is Reading.INERT} - {self.incumbent}
        plain = {plain_settings(self.study)} - {self.study.about.space.fixed}
        raced = (t for t in self.study.trials if t.run and t.origin is not Origin.PLAIN)
        ran = (t for t in raced if t.settings not in inert)
        measured = (t for t in ran if t.measurement.outcome is Outcome.MEASURED)
        return baseline + [self._contender(trial, plain) for trial in measured]

    def _contender(self, trial: TrialRecord, plain: Collection[Settings | None]) -> race.Contender:
        memory = trial.measurement.gpu_memory_bytes
        return race.Contender(trial.settings, tuple(self.study.costs(trial)), memory, plain=trial.settings in plain)

    def _race(self, rules: RaceRules, reserved: int) -> race.RaceState:
        """Return the race as far as it comes while there is time left for `reserved` processes after it."""
        blocks = self.study.results(Purpose.RACE)
        state = race.start(self._contenders(), rules)
        while not state.over:
            known = blocks.get(state.blocks, {})
            late = self._processes_left() - reserved < len(state.running) - len(known)
            if late and not known:
                break
            if not state.blocks:
                best = len(state.running)
                self.processes.observer(Note(f"Race: the best {best} again, in fresh processes side by side."))
            order = race.order(state.blocks, state.running, seed=0)
            sides = (one for one in order if one in known or not late)
            state = race.after(state, self.processes.costs(Purpose.RACE, state.blocks, sides, rules.blocks, known))
        return state

    def _plain(self, kept: FinalsState, state: race.RaceState) -> Settings | None:
        """Return the race's winner without what nothing speaks for, in so far as there is time to see that.

        What config.yaml holds is no winner to be made plainer: without a proven gain it stays. Once pairs of the winner
        were run, it stays what it is.
        """
        if state.winner is None or state.winner == kept.incumbent or not state.over:
            return state.winner
        if kept.pairs is not None and state.winner == (kept.raced or kept.winner):
            return kept.winner
        if kept.raced not in {None, state.winner}:
            self.study.forget(Purpose.PLAIN)
        return Plainer(self.processes, self.end, self._pairs_share()).run(state.winner, state.spread)

    def _confirm(self, winner: Settings, rivals: Sequence[Settings], most: int) -> tuple[Claim, ...]:
        """Run rounds of the winner and each undecided rival; return the claims.

        A round is a pair for each rival.
        """
        rules = confirm.ConfirmRules(looks=confirm.looks_for(most))
        pairs: dict[Settings, list[confirm.Pair]] = {rival: [] for rival in rivals}
        told = {rival: Claim(winner, rival) for rival in rivals}
        rounds = self.study.results(Purpose.CONFIRMATION)
        index = 0
        while undecided := [rival for rival in rivals if not told[rival].over]:
            values = rounds.get(index, {})
            if self._processes_left() < len(undecided) + 1 and not values:
                break
            if index == 0:
                self.processes.observer(Note(f"Confirmation of {winner}, in up to {rules.most_pairs} fresh pairs."))
            sides = confirm.who_first(index, (winner, *undecided))
            values = self.processes.costs(Purpose.CONFIRMATION, index, sides, rules.most_pairs, values)
            for rival in undecided:
                pairs[rival].append((values[winner], values[rival]))
                told[rival] = confirm.confirm(pairs[rival], rules, winner, rival)
            index += 1
        return tuple(told.values())

    def _by_default(self, claims: Sequence[Claim]) -> tuple[Claim, ...]:
        """Return what is proven of the default settings against the incumbent, where the winner beats that only."""
        default, held = self.study.about.space.fixed, self.incumbent
        beaten = {claim.rival for claim in claims if claim.decided is Decided.FASTER}
        if default == held or beaten != {held} or default in {claim.subject for claim in claims}:
            return ()
        rounds = self.study.results(Purpose.CONFIRMATION).values()
        pairs = [(costs[default], costs[held]) for costs in rounds if {default, held} <= costs.keys()]
        told = confirm.confirm(pairs, confirm.ConfirmRules(looks=confirm.looks_for(len(pairs))), default, held)
        return (told,) if told.decided is Decided.FASTER else ()
