"""One Optuna study: create or resume, ask, report, tell, artifacts."""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.artifacts import upload_artifact
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from rtmo_optuna.display import visible
from rtmo_optuna.samplers.attributes import kept, ours
from rtmo_optuna.samplers.candidates import OverSpace, Params
from rtmo_optuna.scratch import scratch
from rtmo_optuna.show import notes
from rtmo_optuna.show.render.chart import Chart
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.space.resolve import every_params, params_of, settings_of
from rtmo_optuna.study import storage as database
from rtmo_optuna.study import transaction
from rtmo_optuna.study.attributes import Attributes
from rtmo_optuna.study.dashboard import save_charts
from rtmo_optuna.study.drivers import lease_s
from rtmo_optuna.study.queue import Claims
from rtmo_optuna.study.retries import patience_of
from rtmo_optuna.study.state import Kept
from rtmo_optuna.study.trials import RAN, keep_files, trial_record
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Dimension, Settings
from rtmo_optuna.types.study import Origin, StudyRecord, TrialRecord

_BEAT_S = 30.0
_UNCOUNTED = {Origin.ADVICE, Origin.WON, Origin.PLAINER, Origin.PLAIN, Origin.SCREENING}


@dataclass
class Proposal:
    """A trial that was asked for and waits to be told; `beaten` is when its heartbeat was last recorded."""

    trial: optuna.Trial
    settings: Settings
    origin: Origin
    begun: str
    started: float
    beaten: float


class Study(Kept):
    """A study of one identity: asks for settings never tried, keeps what was measured.

    Attributes:
        claims: The queue, and which trial has which settings.
        clock: What tells how long trials take, in seconds.
    """

    def __init__(self, study: optuna.Study, opened: RDBStorage, url: str, about: StudyRecord) -> None:
        """Take over an existing study; see `open_study`."""
        self._trials: dict[int, TrialRecord] = {}
        self._known: dict[Settings, TrialRecord] = {}
        self._study = study
        self._opened = opened
        super().__init__(Attributes(opened, study._study_id), lease_s(about.definition))  # noqa: SLF001 - Optuna's name
        self._store = database.artifact_store(url)
        self.about = about
        self.clock: Callable[[], float] = time.monotonic
        self.patience = patience_of(opened)
        self.objective = OBJECTIVES[about.definition.objective]
        self.claims = Claims(study, opened, self._store, about.space, self.crew.has_gone)
        self.live = about.space

    def refresh(self) -> None:
        """Read what is kept, by other drivers too."""
        super().refresh()
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.number not in self._trials:
                self._remember(trial_record(frozen, self._runs()))

    def catch_up(self) -> None:
        """Take over what other drivers have found, their trials and what does nothing here, or left when they died."""
        self.claims.recover()
        if self.crew.others():
            self.refresh()
            self.leave_out_inert()

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self._study.study_name)

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All finished trials, in order."""
        return tuple(self._trials.values())

    @property
    def default(self) -> TrialRecord | None:
        """The run of the default settings, None before it."""
        return self._known.get(self.about.space.fixed)

    def known(self, settings: Settings) -> TrialRecord | None:
        """Return the trial that ran `settings`, None where none did."""
        return self._known.get(settings)

    def costs(self, trial: TrialRecord) -> list[float]:
        """Return the costs of the trial's processes: one, two where it took the lead, none where it has no figure."""
        cost = self.objective.cost(trial.measurement)
        return list(trial.measurement.costs) or ([] if cost is None else [cost])

    def cost(self, settings: Settings) -> float | None:
        """Return what `settings` cost: None where no trial ran them, infinite where it failed or was given up."""
        trial = self._known.get(settings)
        if trial is None:
            return None
        costs = self.costs(trial) if trial.measurement.outcome is Outcome.MEASURED else []
        return statistics.fmean(costs) if costs else math.inf

    @property
    def walls_s(self) -> list[float]:
        """How long processes took, in seconds, in order: those beside the trials, or those of trials that had one."""
        beside = [process.wall_s for process in self.processes if process.wall_s]
        return beside or [t.wall_s for t in self._trials.values() if t.run and t.wall_s and not t.measurement.second_ns]

    def leave_out_inert(self) -> None:
        """Leave what the screening found to do nothing at its default from now on: `live` is what is left."""
        frozen = {one.name for one in self.screening.inert} if self.screening else set()
        default = params_of(self.about.space, self.about.space.fixed)
        if not frozen or default is None:
            return
        cast("OverSpace", self._study.sampler).freeze({name: default[name] for name in frozen})
        held = {d.name: tuple(c for c in d.choices if c.label == default[d.name]) for d in self.about.space.dimensions}
        dimensions = (Dimension(d.name, held[d.name]) if d.name in frozen else d for d in self.about.space.dimensions)
        self.live = replace(self.about.space, dimensions=tuple(dimensions))

    def failed(self, settings: Settings) -> bool:
        """Whether a trial of `settings` failed: nothing can be compared with them, and they are never exported."""
        known = self._known.get(settings)
        return known is not None and known.measurement.outcome is Outcome.FAILED

    def _runs(self) -> int:
        return sum(trial.run > 0 for trial in self._trials.values())

    runs = property(_runs, doc="How many trials were really run.")

    @property
    def counted(self) -> int:
        """How many of those count as the search's own: not the screening's, nor what it was told to begin with."""
        return sum(trial.run > 0 and trial.origin not in _UNCOUNTED for trial in self._trials.values())

    @property
    def searched(self) -> int:
        """How many trials race and confirmation are about: all that ran but the winner made plain."""
        return sum(trial.run > 0 and trial.origin is not Origin.PLAIN for trial in self._trials.values())

    @property
    def exhausted(self) -> bool:
        """Whether all that may be proposed was tried, or is under way."""
        return self._untried() is None

    def _remember(self, record: TrialRecord | None) -> None:
        if record is not None:
            self._trials[record.number] = record
            if record.run:
                self._known[record.settings] = record

    def enqueue(self, settings: Settings, origin: Origin) -> None:
        """Have `settings` tried next, unless they were tried, are under way or wait; they may lie outside the space."""
        if settings not in self.claims.taken():
            self.claims.enqueue(settings, origin)

    def ask(self) -> Proposal | None:
        """Return settings that were never tried and that no other driver has under way, or None where none are left.

        The queue comes first, then the sampler, which is passed over where it has nothing new. What was tried while it
        was queued is answered from the study, and what another driver had first is left to it.
        """
        self.crew.renew()
        while self.claims.waiting or self._untried() is not None:
            begun, date = self.clock(), datetime.now(UTC).isoformat(timespec="seconds")
            trial = self.claims.take() or self._made()
            if trial is None:
                continue
            held = self.claims.frozen(trial)
            settings = Settings.from_plain(kept(held, "settings"))
            origin = Origin(held.user_attrs.get("origin", Origin.SAMPLER))
            proposal = Proposal(trial, settings, origin, date, begun, begun)
            first = self.claims.taken()[settings]
            if first == trial.number:
                return proposal
            self.refresh()
            if known := self._known.get(settings):
                self._answer(proposal, known)
            else:
                self.claims.leave(trial, first)
        return None

    def propose(self, settings: Settings, origin: Origin) -> Proposal:
        """Return a new trial of `settings`, which lie in the space and were not tried; the queue does not matter."""
        begun, date = self.clock(), datetime.now(UTC).isoformat(timespec="seconds")
        trial = self.claims.make(params_of(self.about.space, settings) or {}, origin=origin.value)
        return Proposal(trial, settings, origin, date, begun, begun)

    def _made(self) -> optuna.Trial | None:
        """Return a new trial of what the sampler proposes, or of the first that is left; None where nothing is."""
        proposed = cast("OverSpace", self._study.sampler).propose(self._study)
        repeated = settings_of(self.about.space, proposed) in self.claims.taken()
        params = self._untried() if repeated else proposed
        return None if params is None else self.claims.make(params)

    def _untried(self) -> Params | None:
        """Return the first of the live space that was not tried, does not wait and is not under way."""
        taken, every = self.claims.taken(), every_params(self.live)
        return next((params for params in every if settings_of(self.live, params) not in taken), None)

    def _answer(self, proposal: Proposal, known: TrialRecord) -> None:
        trial = proposal.trial
        shown = {"outcome": f"as trial {known.number}", "answered_from": known.number}
        self.claims.describe(trial, shown, {}, f"**As trial {known.number}**, which had the same settings.")
        record = replace(known, number=trial.number, run=0, origin=proposal.origin)
        self._tell(record, trial)
        self._remember(record)

    def report(self, proposal: Proposal, step: int, latency_ms: float) -> None:
        """Show the running median at `step`, a window, on the dashboard, and that this driver is alive."""
        if self.objective.so_far:
            with suppress(UpdateFinishedTrialError):
                proposal.trial.report(self.objective.so_far(latency_ms, self.about.batch), step)
        self.beat(proposal)

    def beat(self, proposal: Proposal) -> None:
        """Tell other drivers that this one is alive, and its trial with it."""
        self.crew.renew()
        if (now := self.clock()) - proposal.beaten > _BEAT_S:
            self.claims.beat(proposal.trial)
            proposal.beaten = now

    def run(self, proposal: Proposal, measure: Callable[[Path], Measurement]) -> TrialRecord:
        """Run a trial in a folder for its files and return it; broken off, it waits in the queue again."""
        with scratch() as folder:
            try:
                measurement = measure(folder)
            except BaseException:
                self.interrupt(proposal)
                raise
            return self.tell(proposal, measurement, folder)

    def tell(self, proposal: Proposal, measurement: Measurement, folder: Path) -> TrialRecord:
        """Keep the outcome, with the files of `folder` (its log, its samples) as artifacts; return the trial.

        It is known here even where the database or the files fail.
        """
        trial = proposal.trial
        value = self.objective.score(measurement) if measurement.outcome is Outcome.MEASURED else None
        record = TrialRecord(
            number=trial.number,
            run=self._runs() + 1 if measurement.outcome in RAN else 0,
            settings=proposal.settings,
            origin=proposal.origin,
            measurement=measurement,
            value=value,
            started=proposal.begun,
            wall_s=self.clock() - proposal.started,
        )
        self._remember(record)
        with suppress(UpdateFinishedTrialError):  # somebody ended it meanwhile
            own, default = self.objective.cost(measurement), self.cost(self.about.space.fixed)
            known = own and default and proposal.settings != self.about.space.fixed
            times = default / own if own and default and known and math.isfinite(default) else None
            shown, note = notes.attributes(record, times), notes.of_trial(self.about, record, times)
            self.claims.describe(trial, shown, ours(measurement=measurement.summary()), note)
            keep_files(self._store, trial, measurement, folder)
            self._tell(record, trial)
        return record

    def _tell(self, record: TrialRecord, trial: optuna.Trial) -> None:
        """Tell Optuna how `trial` ended: FAIL where it failed, unless the sampler learns from PRUNED ones only."""
        failed = record.measurement.outcome is Outcome.FAILED
        if record.value is not None:
            self._study.tell(trial, record.value)
        elif failed and cast("OverSpace", self._study.sampler).sees_failed:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def interrupt(self, proposal: Proposal) -> None:
        """Put a trial that was broken off back into the queue."""
        self.claims.put_back(self.claims.frozen(proposal.trial))

    def conclude(self) -> None:
        """Keep what the study was about last."""
        self._attributes.put("about", self.about)

    def note(self, text: str) -> None:
        """Put the Markdown `text` on the study, in place of the note that it has."""
        transaction.write_note(self._opened, self._study._study_id, None, visible(text))  # noqa: SLF001 - Optuna's name

    def attach(self, file: Path, kind: str) -> str:
        """Attach a file of the type `kind` to the study, in place of its last one of that name.

        Returns its path under the dashboard's address.
        """
        study_id = self._study._study_id  # noqa: SLF001 - Optuna's name
        held = self._opened.get_study_system_attrs(study_id).items()
        every = [json.loads(told) for name, told in held if name.startswith(ARTIFACTS_ATTR_PREFIX)]
        same = [one["artifact_id"] for one in every if one and one["filename"] == file.name]  # what is deleted is null
        if same:
            with file.open("rb") as content:
                self._store.write(same[-1], content)
            return f"/artifacts/{study_id}/{same[-1]}"
        new = upload_artifact(
            artifact_store=self._store, file_path=str(file), study_or_trial=self._study, mimetype=kind
        )
        return f"/artifacts/{study_id}/{new}"

    def show(self, charts: Iterable[Chart]) -> None:
        """Show `charts` among the graphs of the dashboard, each in place of its last one."""
        save_charts(self._study, charts)

    def record(self, **changes: Any) -> StudyRecord:  # noqa: ANN401 - fields of StudyRecord
        """Return the study as a record, with `changes`."""
        pinned = bool(self.get("pin"))
        return replace(self.about, trials=self.trials, processes=self.processes, pinned=pinned, **changes)
