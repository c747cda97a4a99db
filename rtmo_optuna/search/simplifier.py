"""The race's winner made plain for real: what nothing speaks for is put back, in fresh processes that resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.search.decide import confirm, simplify
from rtmo_optuna.search.runner import Runner
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import Note, Origin

if TYPE_CHECKING:
    from rtmo_optuna.types.request import Settings


@dataclass
class Plainer:
    """Puts back what nothing speaks for; `processes_left` says for how many processes there is time."""

    study: Study
    runner: Runner
    processes_left: Callable[[], int]

    def run(self, winner: Settings, spread: float | None) -> Settings:
        """Return `winner` without what was found to do nothing for it, tried as a trial of its own.

        `spread` is s_b. Nothing begins that would not end in time; blocks that are kept are not run again.
        """
        study = self.study
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
            if not costs and self.processes_left() < 2 * state.blocks_left + 1:
                break
            if not index:
                self.runner.observer(
                    Note("What little speaks for is put back to its default, and compared with the best.")
                )
            for side in confirm.who_first(index, (winner, candidate)):
                if side not in costs:
                    record, _ = self.runner.record(Purpose.PLAIN, index, side)
                    study.keep(record)
                    costs[side] = record.cost
            state, index = simplify.after(state, costs[winner], costs[candidate]), index + 1
        return state.settings if self._measured(state.settings) else winner

    def _measured(self, settings: Settings) -> bool:
        """Whether a trial of `settings` was measured; it runs where there is none: what is exported was a trial."""
        known = self.study.known(settings)
        if known is None:
            proposal = self.study.propose(settings, Origin.PLAIN)
            known = self.study.run(proposal, lambda folder: self.runner.run(settings, Path(folder, "log.txt")))
        return known.measurement.outcome is Outcome.MEASURED
