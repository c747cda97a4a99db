"""The dashboard while a run goes on: the study's note, and our figures among its graphs."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from rtmo_optuna.search.finals import kept_finals
from rtmo_optuna.search.verdict import judged
from rtmo_optuna.show import notes
from rtmo_optuna.show import report as show
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.study import Event, Observer, Phase, Started, TrialEnded, TrialRecord

_OFTEN_S = 2.0
"""How often the dashboard looks."""


@dataclass
class Live:
    """An observer of a run of `study` that is over at `end` (monotonic seconds), and hands on what it hears."""

    study: Study
    end: float
    observer: Observer
    _phase: Phase = Phase.LOOK
    _best: TrialRecord | None = None
    _written: float = 0.0

    def __call__(self, event: Event) -> None:
        """Write the note where the run is another process on, and the figures where it is another phase on."""
        self.observer(event)
        if isinstance(event, TrialEnded):
            self._best = event.best
        if not isinstance(event, Started):
            return
        turned, self._phase = event.phase is not self._phase, event.phase
        if turned and event.phase is not Phase.REPORT:
            self.study.show(show.highlights(judged(self.study, kept_finals(self.study))))
        if turned or time.monotonic() > self._written + _OFTEN_S:
            self._written, now = time.monotonic(), datetime.now(UTC)
            self.study.note(notes.underway(self.study.about, event, self._best, self.end - self._written, now))
