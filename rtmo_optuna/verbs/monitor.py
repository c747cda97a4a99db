"""Is what was shipped still as fast as promised: the verb `monitor`."""

import contextlib
import datetime as dt
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rtmo_optuna.errors import NothingMeasuredError, UsageError
from rtmo_optuna.machine import gpu as gpus
from rtmo_optuna.machine import load
from rtmo_optuna.machine.host import interruptions
from rtmo_optuna.scratch import scratch
from rtmo_optuna.search.decide import noise, slower
from rtmo_optuna.search.runner import Observed, Runner, recorded
from rtmo_optuna.show.sections.machine import held_down
from rtmo_optuna.show.words import number, percent
from rtmo_optuna.space import benchmark_info, configfile
from rtmo_optuna.space.benchmark_info import BenchmarkInfo
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import GateMode
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Observer, Phase, Started
from rtmo_optuna.types.subject import GpuState
from rtmo_optuna.verbs.circumstances import as_tuned, held_info
from rtmo_optuna.verbs.prepare import Plan, TuneOptions, plan, runner_of

THRESHOLD = 0.10
_FAILURES = 3
_NAMED = 3
_SLOWER_CLOCK = 0.97
"""A clock under this share of the promised one is told as a cause."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a check found: the median's ratio to what was promised (1.2: a fifth slower) and its 98 % interval.

    `slower` says that it is proven to be slower by more than `threshold`; then `causes` are what is otherwise than when
    it was tuned, the likeliest first.
    """

    date: str
    model: str
    profile: str
    settings: Settings
    promised_ms: float
    threshold: float
    ratio: float
    low: float
    high: float
    processes_ms: tuple[float, ...]
    slower: bool
    causes: tuple[str, ...] = ()
    rate_hz: float | None = None
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a slow-down may come from: machine and versions by the names in `benchmark_info`, and who else computes.

    `state` is how the GPU ran at work, `hot` says that it held itself back throughout.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    state: GpuState | None = None
    hot: bool = False
    others: tuple[str, ...] = ()


def check(options: TuneOptions, observer: Observer, threshold: float = THRESHOLD) -> Health:
    """Run the settings that config.yaml holds in fresh processes, until it is clear whether they keep what it promises.

    They run as when they were tuned: at the same rate, on the same shapes, on quiet cores where the study's did, and by
    the rules of the study definition that `options` name.
    Nothing is written. Raises UsageError for bad input and where nothing was promised, NothingMeasuredError where the
    settings cannot be run.
    """
    if not options.config.exists():
        raise UsageError(f"The configuration {options.config} does not exist: name another, or tune first.")
    info = benchmark_info.read(held_info(options), options.config)
    promised_ms = benchmark_info.promised_ms(info, options.config)
    wanted = replace(_at_its_pace(options, info), gate=GateMode.OFF, allow_busy=True)
    with scratch() as folder:
        planned = plan(replace(wanted, output=folder), folder, as_tuned)
        configfile.check_settings(planned.config, options.config_path)
        before = _others(planned)
        with contextlib.closing(runner_of(planned, observer)) as runner:
            latencies = _latencies(planned, runner, observer, promised_ms, threshold, pin=info.pinned)
        found = slower.told(latencies, promised_ms, threshold)
        around = _surroundings(planned, runner.seen, before) if found.slower else None
    low, high = found.interval
    health = Health(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=str(options.model),
        profile=planned.config.profile,
        settings=planned.config.settings,
        promised_ms=promised_ms,
        threshold=threshold,
        ratio=round(found.ratio, 4),
        low=round(low, 4),
        high=round(high, 4),
        processes_ms=tuple(round(latency, 4) for latency in latencies),
        slower=found.slower,
        causes=causes(info, around) if around else (),
        rate_hz=info.rate_hz,
    )
    return replace(health, sentence=sentence(health))


def as_shipped(options: TuneOptions) -> TuneOptions:
    """Return `options` with provider, rate, shapes and pixels that config.yaml was tuned for, where they say none."""
    info = benchmark_info.read(held_info(options), options.config)
    return as_tuned(_at_its_pace(options, info), info.model_sha256 or "")


def _at_its_pace(options: TuneOptions, info: BenchmarkInfo) -> TuneOptions:
    provider = info.provider or options.provider if options.provider == "auto" else options.provider
    return replace(options, provider=provider, rate_hz=info.rate_hz)


def repeated(
    once: Callable[[], Health],
    every_s: float,
    failed: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Health]:
    """Yield what `once` finds each `every_s` seconds, from start to start, until the process is ended.

    While the settings cannot be run, `failed` is told why, and checks go on.
    """
    with interruptions():
        while True:
            due = time.monotonic() + every_s
            try:
                yield once()
            except NothingMeasuredError as error:
                failed(str(error))
            sleep(max(0.0, due - time.monotonic()))


def _latencies(
    planned: Plan, runner: Runner, observer: Observer, promised_ms: float, threshold: float, *, pin: bool
) -> list[float]:
    """Return the latencies of as many fresh processes as the answer takes, in ms."""
    # The tune found out how many calls its model takes to warm up, and did not write it down: so it is thrice as many.
    measuring = noise.calibrating(planned.rules.measuring)
    rules, settings = replace(planned.rules, measuring=measuring, pin=pin), planned.config.settings
    latencies: list[float] = []
    failed = 0
    while not (latencies and slower.told(latencies, promised_ms, threshold).over):
        observer(Started(Phase.PROCESSES, len(latencies) + 1, settings=settings))
        record, measurement = recorded(runner, rules, Purpose.CONFIRMATION, len(latencies), settings)
        if record.cost is None or record.latency_ms is None:
            failed += 1
            if failed == _FAILURES or not latencies:
                raise NothingMeasuredError(f"{settings} cannot be run: {measurement.why}")
            continue
        latencies.append(record.latency_ms)
        observer(Note(f"process {len(latencies)}: {number(record.latency_ms)} ms, {number(promised_ms)} ms promised"))
    return latencies


def _others(planned: Plan) -> dict[int, str]:
    """Return who else computes now, on the GPU and on the processor, the busiest first, by process id."""
    machine = planned.about.machine
    on_gpu = [one for one in gpus.processes(machine.gpu) if one.pid != os.getpid()] if machine.gpu else []
    return {one.pid: f"{one.name or 'a process'} (pid {one.pid}) on the GPU" for one in on_gpu} | {
        one.pid: f"{one.name} (pid {one.pid}) on {one.cores:.1f} cores" for one in load.busy_with(machine.cores)[1]
    }


def _surroundings(planned: Plan, seen: Observed, before: Mapping[int, str]) -> Surroundings:
    machine, versions = planned.about.machine, planned.about.model.versions
    names = {"onnxruntime_version": "onnxruntime", "cuda_version": "cuda", "cudnn_version": "cudnn"}
    named = {field: versions[name] for field, name in names.items() if name in versions}
    named["model_sha256"] = planned.about.model_sha256
    if machine.gpu:
        named |= {"gpu_name": machine.gpu.name, "driver_version": machine.gpu.driver}
    else:
        named["cpu_name"] = machine.cpu
    others = _others(planned)
    both = {pid: name for pid, name in before.items() if pid not in others} | others
    return Surroundings(named, seen.last_state, seen.hot, tuple(both.values()))


_NAMES = (
    ("gpu_name", "another machine: the GPU"),
    ("cpu_name", "another machine: the processor"),
    ("model_sha256", "another model: its SHA-256"),
    ("driver_version", "another driver: it"),
    ("onnxruntime_version", "another ONNX Runtime: it"),
    ("cuda_version", "another CUDA: it"),
    ("cudnn_version", "another cuDNN: it"),
)
"""What is compared with `benchmark_info`, in the order in which a slow-down is put down to it."""


def causes(promised: BenchmarkInfo, now: Surroundings) -> tuple[str, ...]:
    """Return what is otherwise than when it was tuned, as clauses, the likeliest cause of a slow-down first."""
    clauses = []
    state, mhz = now.state, promised.sm_mhz
    if now.hot or (state and noise.throttled(state.reasons, None, None)):
        why = held_down(state.reasons) if state else ""
        clauses.append(f"throttling: the GPU held its clocks down{f' ({why})' if why else ''}")
    if state and state.sm_mhz and mhz and state.sm_mhz < _SLOWER_CLOCK * mhz:
        clauses.append(f"clocks: the GPU ran at {state.sm_mhz} MHz, when it was tuned at {mhz:g} MHz")
    if now.others:
        more = len(now.others) - _NAMED
        clauses.append(f"others: {', '.join(now.others[:_NAMED])}{f' and {more} more' if more > 0 else ''}")
    for name, what in _NAMES:
        was, is_now = getattr(promised, name), now.named.get(name)
        if was and is_now and was != is_now:
            clauses.append(f"{what} was {was[:40]}, is {is_now[:40]}")
    return tuple(clauses)


def sentence(found: Health) -> str:
    """Return in a sentence what a check found."""
    took = (
        f"{found.ratio:.3f} times the {number(found.promised_ms)} ms that were promised "
        f"({found.low:.3f} to {found.high:.3f}, {len(found.processes_ms)} processes)"
    )
    if not found.slower:
        return f"As promised: {took}; it is not proven to be slower by more than {percent(found.threshold)}."
    likely = "; ".join(found.causes) or "nothing known: machine, versions, clocks and other processes are as they were"
    return f"Slower: {took}. Likely cause: {likely}."
