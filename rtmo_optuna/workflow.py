"""A whole run: plan, tune, export, report, attach the report to the study."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmo_optuna.errors import NothingMeasuredError, UsageError
from rtmo_optuna.prepare import Plan, TuneOptions, plan
from rtmo_optuna.records import Note, Origin, Outcome, StudyRecord
from rtmo_optuna.search import judge
from rtmo_optuna.search.library import load_study, open_study
from rtmo_optuna.search.tune import Search
from rtmo_optuna.show import report as show
from rtmo_optuna.space import configfile
from rtmo_optuna.space.knobs import knob_table

if TYPE_CHECKING:
    from rtmo_optuna.records import Observer, Settings, Value
    from rtmo_optuna.search.study import Study


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a tune left behind; `config` is None where the configuration file was not touched."""

    record: StudyRecord
    files: tuple[Path, ...]
    config: Path | None
    backup: Path | None
    interrupted: bool


def tune(options: TuneOptions, observer: Observer) -> TuneResult:
    """Tune a model: resume its study or create it, run trials, write config.yaml and the report.

    Raises UsageError for bad input, before anything is written, and NothingMeasuredError where no settings could be
    measured. Ctrl-C ends the search early: the report is written, the configuration file is left alone.
    """
    with tempfile.TemporaryDirectory(prefix="rtmo_optuna-") as scratch:
        planned = plan(options, Path(scratch))
        study = open_study(options.storage, planned.about, planned.identity, new=options.new)
        _greet(study, observer)
        study.enqueue(study.about.space.fixed, Origin.DEFAULT)
        study.enqueue(_with_fixed(study, planned.config.settings), Origin.CONFIG)
        deadline = time.monotonic() + study.about.definition.timeout_s
        search = Search(study, planned.session, planned.about.inputs.path, study.about.machine.gpu, observer, deadline)
        interrupted = complete = False
        try:
            complete = search.run()
        except KeyboardInterrupt:
            interrupted = True
    return _finish(study, planned, complete=complete, interrupted=interrupted)


def report(name: str, storage: str, output: Path | None) -> tuple[Path, ...]:
    """Render the report of an existing study again; return the files written. Runs nothing."""
    study = load_study(storage, name)
    target = output or Path("results", name)
    file = target if target.suffix == ".md" else target / "report.md"
    return show.write(_judged(study, complete=study.about.complete), file)


def _greet(study: Study, observer: Observer) -> None:
    lost = study.recover()
    if lost:
        observer(Note(f"{lost} trial(s) of a run that died are queued again."))
    if study.runs:
        observer(Note(f"Resuming study {study.name} after {study.runs} trials."))
    for warning in study.about.warnings:
        observer(Note(warning, warning=True))


def _with_fixed(study: Study, held: Settings) -> Settings:
    """Return what config.yaml holds, with what the study fixes."""
    return configfile.merged(study.about.space.provider, held, study.about.space.fixed)


def _judged(study: Study, *, complete: bool) -> StudyRecord:
    return study.record(
        verdict=judge.verdict(study.trials, study.objective, study.default),
        complete=complete,
    )


def _finish(study: Study, planned: Plan, *, complete: bool, interrupted: bool) -> TuneResult:
    record = _judged(study, complete=complete)
    winner = record.verdict.best
    if winner is None and not interrupted:
        failed = next((t.measurement for t in study.trials if t.measurement.outcome is Outcome.FAILED), None)
        why = f": {failed.stage}: {failed.reason}" if failed else " in the time given"
        message = f"Nothing could be measured{why} Nothing was exported."
        raise NothingMeasuredError(message)
    config = backup = refused = None
    applied = "Nothing was exported: the run was interrupted."
    if winner and not interrupted:
        knobs = _written(study, planned.config, winner.settings)
        try:
            backup = configfile.write(planned.config, knobs, _benchmark_info(record))
            config = planned.config.path
            applied = f"These settings are in {config}, under {planned.config.target or 'its top level'}."
        except UsageError as error:
            refused, applied = error, f"Nothing was exported: {error}"
    files = show.write(record, planned.report, applied)
    study.attach(files[:1])
    study.conclude(record, f"**{record.verdict.sentence}**\n\n{applied}")
    if refused:
        raise refused
    return TuneResult(record, files, config, backup, interrupted)


def _written(study: Study, config: configfile.ConfigFile, winner: Settings) -> dict[str, Value]:
    """Return every knob that the study searched or fixed, or that the file holds, with its value in the winner."""
    table = knob_table(study.about.space.provider)
    searched = {n for d in study.about.space.dimensions for choice in d.choices for n, _ in choice.values}
    names = searched | set(study.about.definition.fixed) | set(config.held)
    return {name: winner.get(name, knob.default) for name, knob in table.items() if name in names}


def _benchmark_info(record: StudyRecord) -> dict[str, Any]:
    best, machine = record.verdict.best, record.machine
    latency_ms = best.measurement.latency_ms if best else None
    return {
        **({"gpu_name": machine.gpu.name} if machine.gpu else {"cpu_name": machine.cpu}),
        "optimized_fps": round(record.batch * 1e3 / latency_ms, 1) if latency_ms else None,
        "latency_ms": round(latency_ms, 3) if latency_ms else None,
        "speedup": round(record.verdict.speedup, 3) if record.verdict.speedup else None,
        "status": "confirmed" if record.verdict.confirmed else "best measured, not confirmed",
        "benchmark_date": datetime.now(UTC).date().isoformat(),
        "onnxruntime_version": record.model.versions["onnxruntime"],
        "provider": record.definition.provider,
        "shapes": {name: "x".join(map(str, shape)) for name, shape in record.inputs.shapes.items()},
        "model_sha256": record.model_sha256,
        "study": record.name,
    }
