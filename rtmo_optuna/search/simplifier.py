"""The race's winner made plain for real: what nothing speaks for is put back, in fresh processes that resume."""

from dataclasses import dataclass
from pathlib import Path

from rtmo_optuna.search.decide import confirm, simplify
from rtmo_optuna.search.decide.budget import Deadline
from rtmo_optuna.search.runner import Processes
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Origin, Phase, Started


@dataclass
class Plainer:
    """Puts back what nothing speaks for, while there is time for `reserved` processes more until `end`."""

    processes: Processes
    end: Deadline
    reserved: int

    def run(self, winner: Settings, spread: float | None) -> Settings:
        """Return `winner` without what was found to do nothing for it, tried as a trial of its own.

        `spread` is s_b. Nothing begins that would not end in time; blocks that are kept are not run again.
        """
        study = self.processes.study
        effects = study.screening.effects if study.screening else ()
        state = (
            None if spread is None else simplify.start(study.about.space, winner, effects, study.about.model, spread)
        )
        if state is None:
            return winner
        blocks, index = study.results(Purpose.PLAIN), 0
        while (candidate := state.candidate) is not None:
            known = blocks.get(index, {})
            costs = {side: known[side] for side in (winner, candidate) if side in known}
            left = self.end.fits(self.processes.each_s) - self.reserved
            if not costs and left < 2 * state.blocks_left + 1:
                break
            if not index:
                self.processes.observer(
                    Note("What little speaks for is put back to its default, and compared with the best.")
                )
            sides = confirm.who_first(index, (winner, candidate))
            costs = self.processes.costs(Purpose.PLAIN, index, sides, index + state.blocks_left, costs)
            state, index = simplify.after(state, costs[winner], costs[candidate]), index + 1
        return state.settings if self._measured(state.settings) else winner

    def _measured(self, settings: Settings) -> bool:
        """Whether a trial of `settings` was measured; it runs where there is none: what is exported was a trial."""
        study = self.processes.study
        known = study.known(settings)
        if known is None:
            proposal = study.propose(settings, Origin.PLAIN)
            self.processes.observer(Started(Phase.PLAIN, settings=settings, origin=Origin.PLAIN))
            known = study.run(
                proposal,
                lambda folder: self.processes.run(settings, Path(folder, "log.txt"), lambda *_: study.beat(proposal)),
            )
        return known.measurement.outcome is Outcome.MEASURED
