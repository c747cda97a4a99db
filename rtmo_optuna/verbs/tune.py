"""A whole run: plan, tune, export, report, attach the report to the study."""

from __future__ import annotations

import base64
import contextlib
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.engine.inputs.images import Layout, layout_of
from rtmo_optuna.engine.inputs.inputs import load
from rtmo_optuna.engine.inputs.sketch import sketch
from rtmo_optuna.errors import HeldError, LostError, NothingMeasuredError, TunerError, UsageError
from rtmo_optuna.machine.host import interruptions
from rtmo_optuna.scratch import lost_file, scratch, sweep_scratch
from rtmo_optuna.search.finals import FinalsState, kept_finals
from rtmo_optuna.search.preflight import first_process, keep_states
from rtmo_optuna.search.tune import Tune
from rtmo_optuna.search.verdict import judged
from rtmo_optuna.show import notes
from rtmo_optuna.show import report as show
from rtmo_optuna.show.scores import exported
from rtmo_optuna.show.sections.verdict import sentence
from rtmo_optuna.show.words import count, written
from rtmo_optuna.space import configfile
from rtmo_optuna.space.benchmark_info import BenchmarkInfo
from rtmo_optuna.space.knobs import knob_table
from rtmo_optuna.space.values import as_yaml
from rtmo_optuna.study.library import has_study, load_study, open_study
from rtmo_optuna.types.findings import ANSWERS, Status
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.study import Note, Origin, Phase, Started, StudyRecord
from rtmo_optuna.verbs import checks
from rtmo_optuna.verbs.live import Live
from rtmo_optuna.verbs.prepare import Plan, TuneOptions, foretell, plan_tune
from rtmo_optuna.verbs.prepare import runner_of as children_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtmo_optuna.search.runner import Runner
    from rtmo_optuna.study.study import Study
    from rtmo_optuna.types.findings import Claim, ProcessRecord
    from rtmo_optuna.types.measurement import Measurement
    from rtmo_optuna.types.request import Settings, Value
    from rtmo_optuna.types.study import Observer

BASELINE = 6
QUICK_BASELINE = 3
_LAST_WAIT_S = 10.0
"""How long the database is waited for after Ctrl-C."""


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a tune left behind; `config` is None where the configuration file was not touched.

    `undecided` says that race and confirmation had their turn, or others the device until the time was up, and there is
    no verdict for want of trials or time.
    """

    record: StudyRecord
    files: tuple[Path, ...]
    config: Path | None = None
    backup: Path | None = None
    interrupted: bool = False
    undecided: bool = False


def tune(
    options: TuneOptions,
    observer: Observer,
    runner_of: Callable[[Plan, Observer, Callable[[], None], float], Runner] = children_of,
) -> TuneResult:
    """Tune a model: resume its study or create it, search, race, confirm, write config.yaml and the report.

    `runner_of` returns what runs the plan's processes, told what happens, what it asks whether to go on, and until when
    others' processes may be waited for. Raises UsageError for bad input, before anything is written, and
    NothingMeasuredError where no settings could be measured. Ctrl-C ends the run early: the report is written, the
    configuration file is left alone. Raises LostError, after a report of what is known, where the database, the disk or
    the model's files fail for good.
    """
    begun = time.monotonic()
    sweep_scratch()
    with scratch() as folder, interruptions() as check:
        observer(foretell(options))
        observer(Started(Phase.LOOK))
        planned = plan_tune(options, folder)
        end = begun + planned.about.definition.timeout_s
        with contextlib.closing(runner_of(planned, observer, check, end)) as runner:
            first = _first_process(options, planned, runner)
            study = open_study(options.storage, planned.about, planned.identity, new=options.new)
            _greet(study, observer)
            observer = Live(study, begun + planned.about.definition.timeout_s, observer)
            incumbent = configfile.merged(
                study.about.space.provider, planned.config.settings, study.about.definition.fixed.items()
            )
            study.patience.until = end
            study.patience.tell = lambda text: observer(Note(text, warning=True))
            study.enqueue(study.about.space.fixed, Origin.DEFAULT)
            study.enqueue(incumbent, Origin.CONFIG)
            baseline = QUICK_BASELINE if options.quick else BASELINE
            finals, interrupted, waited = None, False, False
            try:
                finals = Tune(
                    study, runner, planned.rules, incumbent, baseline, observer, begun, options.search_only, first
                ).run()
            except KeyboardInterrupt:
                interrupted = True
                study.patience.shorten(_LAST_WAIT_S)
            except HeldError as error:
                observer(Note(str(error), warning=True))
                finals, waited = kept_finals(study), True
            except (TunerError, OSError) as error:
                raise _lost(study, planned, error) from error
        try:
            keep_states(study, runner.seen)
            observer(Started(Phase.REPORT))
            result = _finish(study, planned, finals, interrupted=interrupted, waited=waited)
        except (LostError, OSError) as error:
            raise _lost(study, planned, error) from error
    sweep_scratch()
    return result


def _first_process(options: TuneOptions, planned: Plan, runner: Runner) -> tuple[ProcessRecord, Measurement] | None:
    """Run the default settings before there is a study, where they have to keep a rate; None where nothing has to."""
    about = planned.about
    if about.definition.measuring.rate_hz is None or (not options.new and has_study(options.storage, about.name)):
        return None
    return first_process(runner, planned.rules, about.space.fixed)


def report(name: str, storage: str, output: Path | None) -> TuneResult:
    """Render the report of an existing study again; return what is known, and the files written. Runs nothing."""
    study = load_study(storage, name)
    if not (study.runs or study.processes):
        raise UsageError(f"The study {name!r} is empty: there is nothing to report before its tune has run a process.")
    record = judged(study, kept_finals(study))
    return TuneResult(record, show.write(record, checks.report_file(output, name)))


def _greet(study: Study, observer: Observer) -> None:
    lost = study.claims.recover()
    if lost:
        observer(Note(f"{count(lost, 'trial')} of a run that died will run again."))
    if study.runs:
        observer(Note(f"Resuming study {study.name} after {count(study.runs, 'trial')}."))
    for warning in study.about.warnings:
        observer(Note(warning, warning=True))


def _finish(study: Study, planned: Plan, finals: FinalsState | None, *, interrupted: bool, waited: bool) -> TuneResult:
    record = _with_sketch(study, judged(study, finals))
    winner, status = record.verdict.best, record.verdict.status
    measured = any(trial.measurement.outcome is Outcome.MEASURED for trial in study.trials)
    if not measured and not interrupted:
        failed = next((t.measurement for t in study.trials if t.measurement.outcome is Outcome.FAILED), None)
        why = f": {failed.why.rstrip('. ')}" if failed else " in the time given"
        message = f"Nothing could be measured{why}. Nothing was exported."
        raise NothingMeasuredError(message)
    config = backup = refused = None
    why = "the run was interrupted" if interrupted else "race and confirmation are not finished"
    applied = (
        f"Nothing was exported: {status}."
        if status is Status.TOO_LITTLE
        else f"Nothing was exported: {why}. The same command goes on from here."
    )
    if winner and status in ANSWERS:
        knobs = _written(study, planned.config, winner.settings)
        try:
            held = configfile.read_info(planned.config.path, planned.config.target)
            backup = configfile.write(planned.config, knobs, benchmark_of(record).written(held))
            config = planned.config.path
            applied = f"These settings are in {config}, under {planned.config.target or 'its top level'}."
        except UsageError as error:
            refused, applied = error, f"Nothing was exported: {error}"
    files = show.write(record, planned.report, applied)
    study.conclude()
    study.attach(files[0], "text/markdown")
    study.note(notes.of_study(record, applied, study.attach(files[1], "text/html")))
    study.show(show.highlights(record))
    if refused:
        raise refused
    undecided = (waited or finals is not None) and status not in ANSWERS
    return TuneResult(record, files, config, backup, interrupted, undecided)


def _with_sketch(study: Study, record: StudyRecord) -> StudyRecord:
    """Return `record` with a drawing of the picture on which what is best is furthest from the reference, kept too."""
    gate = record.verdict.best.measurement.gate if record.verdict.best else None
    pixels = record.inputs.pixels
    layouts = {spec.name: layout_of(spec) for spec in record.model.inputs}
    name, layout = next(((name, found) for name, found in layouts.items() if found), ("", None))
    if gate is None or gate.found is None or layout is None or not gate.found.differs:
        return record
    samples = [array.reshape(-1, *array.shape[-3:]) for array in (one[name] for one in load(record.inputs.path))]
    sample, image = divmod(gate.found.worst, len(samples[0]))
    picture, layout = samples[sample][image], Layout(3, 3) if pixels else layout
    drawn = base64.b64encode(sketch(picture, layout, (gate.found.reference, gate.found.outlines))).decode()
    study.put("sketch", drawn)
    return replace(record, sketch=drawn)


def _lost(study: Study, planned: Plan, error: Exception) -> LostError:
    """Return what to say where a run cannot go on (database, disk, model lost): it leaves a report of what is known.

    The settings are in it, and in the sentence where they were proven, since nothing is exported then.
    """
    study.let_go()
    text = lost_file(error)
    record = judged(study, kept_finals(study))
    best = record.verdict.best
    if best:
        try:
            show.write(record, planned.report, f"The run ended early. {text}")
            text += f" What was measured until then is in {planned.report}."
        except (UsageError, OSError) as other:
            text += f" No report could be written either: {other}"
    if best and record.verdict.confirmed:
        knobs = as_yaml(_written(study, planned.config, best.settings))
        text += f" {sentence(record)} The settings, unless they are in {planned.config.path} already: {knobs}"
    return LostError(text)


def _written(study: Study, config: configfile.ConfigFile, winner: Settings) -> dict[str, Value]:
    """Return every knob that the study searched or fixed, or that the file holds, with its value in the winner."""
    table = knob_table(study.about.space.provider)
    searched = {n for d in study.about.space.dimensions for choice in d.choices for n, _ in choice.values}
    names = searched | set(study.about.definition.fixed) | set(config.held)
    return {name: winner.get(name, knob.default) for name, knob in table.items() if name in names}


def _ratio(claim: Claim | None) -> tuple[float | None, tuple[float, ...] | None]:
    """Return a claim's ratio and interval; None for both where nothing is claimed."""
    if claim is None or claim.ratio is None or claim.interval is None:
        return None, None
    ratio, *interval = (float(text) for text in written(claim.ratio, *claim.interval))
    return ratio, tuple(interval)


def benchmark_of(record: StudyRecord) -> BenchmarkInfo:
    """Return what is written beside the settings of a study."""
    machine, default, status = record.machine, record.space.fixed, record.verdict.status
    held, rate_hz = record.finals.incumbent, record.definition.measuring.rate_hz
    found = exported(record)
    latency_ms, ends_ms = (found.latency_ms, found.range_ms) if found else (None, None)
    speedup, interval = _ratio(record.proven(default))
    over_held, over_interval = _ratio(record.proven(held) if held != default else None)
    return BenchmarkInfo(
        gpu_name=machine.gpu.name if machine.gpu else None,
        cpu_name=None if machine.gpu else machine.cpu,
        rate_hz=int(rate_hz) if rate_hz and rate_hz.is_integer() else rate_hz,
        optimized_fps=round(record.batch * 1e3 / latency_ms, 1) if latency_ms and rate_hz is None else None,
        latency_ms=round(latency_ms, 3) if latency_ms else None,
        latency_range_ms=tuple(round(end, 3) for end in ends_ms) if ends_ms else None,
        speedup=speedup,
        speedup_interval=interval,
        speedup_over_previous=over_held,
        speedup_over_previous_interval=over_interval,
        status=status.value if status else None,
        benchmark_date=datetime.now(UTC).date().isoformat(),
        onnxruntime_version=record.model.versions["onnxruntime"],
        cuda_version=record.model.versions.get("cuda"),
        cudnn_version=record.model.versions.get("cudnn"),
        driver_version=machine.gpu.driver if machine.gpu else None,
        sm_mhz=record.gpu_states[-1].sm_mhz if record.gpu_states else None,
        pinned=record.pinned,
        provider=record.definition.provider,
        shapes=record.inputs.shapes,
        free_dimensions=record.inputs.free_dimensions,
        pixels=record.inputs.pixels,
        model_sha256=record.model_sha256,
        study=record.name,
    )
