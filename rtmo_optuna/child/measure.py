"""From a request to what a child found out; a dead child becomes a FAILED Measurement, never an exception."""

import enum
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rtmo_optuna.child import protocol
from rtmo_optuna.child.launcher import Child, ChildGoneError
from rtmo_optuna.child.prefork import ChildPool
from rtmo_optuna.codec import decode
from rtmo_optuna.engine.regions import written
from rtmo_optuna.errors import ChildError
from rtmo_optuna.scratch import scratch
from rtmo_optuna.types.measurement import GateResult, Measurement, Outcome, Rounding, StageTimes, Window
from rtmo_optuna.types.placement import Placement
from rtmo_optuna.types.request import BenchmarkRequest, Limits, Measuring, ModelFacts, Stage

Decide = Callable[[Sequence[Window]], "Decision"]
OnWindow = Callable[[Window], None]
MemoryOf = Callable[[int], int | None]

_TAIL = 4000
_THROTTLED_MOST = 3
_LEAST_QUIET = 3
# Values in the upper tail that a percentile needs before it means something (MLPerf inference rules, early stopping).
_QUANTILES = {"p50": (0.5, 1), "p90": (0.9, 64), "p95": (0.95, 130), "p99": (0.99, 662)}
A = TypeVar("A", bound=protocol.Answer)


class Decision(enum.Enum):
    """What to do after a window."""

    GO_ON = enum.auto()
    ENOUGH = enum.auto()
    PRUNE = enum.auto()


@dataclass
class _Life:
    """What is known of a child so far."""

    child: Child
    limits: Limits
    until: float = math.inf
    stage: Stage = Stage.START
    windows: list[Window] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    missed: int = 0
    spin_ns: int = 0

    def left_s(self, limit_s: float) -> float:
        return min(limit_s, max(0.0, self.until - time.monotonic()))

    def expect(self, kind: type[A], stage: Stage, limit_s: float) -> A:
        self.stage = stage
        answer = self.child.receive(self.left_s(limit_s))
        if isinstance(answer, protocol.Failed):
            raise _ToldError(answer)
        if not isinstance(answer, kind):
            raise ChildGoneError(f"answered {type(answer).__name__} where {kind.__name__} was due")
        return answer


class _ToldError(Exception):
    """The child told of its failure itself."""

    def __init__(self, failed: protocol.Failed) -> None:
        super().__init__(failed.text)
        self.failed = replace(failed, text=failed.text[:_TAIL])


class _ThrottledError(Exception):
    """The GPU slows itself down, so that nothing can be said of these settings now."""


class _WrongError(Exception):
    """The outputs are not the reference's."""


def measure(
    request: BenchmarkRequest,
    *,
    log: Path,
    decide: Decide,
    on_window: OnWindow = lambda _: None,
    memory_of: MemoryOf = lambda _: None,
    throttled: Callable[[], bool] = lambda: False,
    batch: int = 1,
    pool: ChildPool | None = None,
    until: float = math.inf,
) -> Measurement:
    """Return the Measurement of one fresh process, from the `pool` where there is one; it prints to the file `log`.

    `decide` sees all accepted windows after each one. `on_window`, `memory_of` (bytes on the GPU, by process id) and
    `throttled` (whether the GPU slowed itself down) are called between windows only, when nothing is being timed. A
    window without a quiet core or on a throttled GPU is dropped and repeated, up to half of `windows_max` times, or
    `windows_min` times where calls come at a pace and windows are long; then such windows count where there are not
    three better ones. Three throttled ones in a row end the process as
    INTERRUPTED, which says nothing of its settings. A process that goes on `until` then (monotonic seconds) has failed.
    """
    limits = request.limits
    times = StageTimes()
    options: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    outcome, stage, reason, outputs, memory, gate = Outcome.FAILED, None, "", "", None, None
    accident = False
    warmup: tuple[int, ...] = ()
    with pool.take(log, until) if pool else Child(log) as child:
        life = _Life(child, limits, until)
        try:
            life.expect(protocol.Hello, Stage.START, limits.start_s)
            times = replace(times, start_ns=_since(child))
            child.send(protocol.dump(request))
            opened = life.expect(protocol.Opened, Stage.BUILD, limits.build_s)
            options, notes = dict(opened.provider_options), opened.notes
            times = replace(times, import_ns=opened.import_ns, preload_ns=opened.preload_ns, build_ns=opened.build_ns)
            ran = life.expect(protocol.Ran, Stage.FIRST_RUN, limits.first_run_s)
            times = replace(times, first_run_ns=ran.first_run_ns)
            if request.gate:
                gate = _gate(life)
            warm = _warm(life, gate)
            outputs, warmup, times = warm.outputs_sha256, warm.samples_ns, replace(times, warmup_ns=warm.warmup_ns)
            decision = _windows(life, request.measuring, decide, on_window, throttled)
            outcome = Outcome.PRUNED if decision is Decision.PRUNE else Outcome.MEASURED
            memory = memory_of(child.pid)
            child.finish(life.left_s(limits.exit_s))
        except _ToldError as error:
            stage, reason = error.failed.stage, error.failed.text
            accident = error.failed.blame is protocol.Blame.HOST
        except ChildGoneError as error:
            stage, reason = life.stage, f"The child {error}."
            accident = error.killed or stage is Stage.START
        except _WrongError as error:
            stage, reason = Stage.GATE, str(error)
        except _ThrottledError as error:
            outcome, stage, reason = Outcome.INTERRUPTED, Stage.WINDOW, str(error)
    samples = tuple(window.samples_ns for window in trusted(life.windows))
    calls = sorted(value for window in samples for value in window)
    medians = tuple(_quantile(sorted(window), 0.5) for window in samples)
    return Measurement(
        outcome=outcome,
        stage=stage,
        reason=reason,
        accident=accident,
        latency_ns=_quantile(sorted(medians), 0.5) if medians else None,
        windows_ns=medians,
        quantiles_ns={name: _quantile(calls, q) for name, (q, least) in _QUANTILES.items() if len(calls) >= least},
        calls=len(calls),
        batch=batch,
        stages=replace(times, windows_ns=_spent_ns(life, request.measuring.rate_hz), total_ns=_since(child)),
        gpu_memory_bytes=memory,
        outputs_sha256=outputs,
        gate=gate,
        spin_ns=life.spin_ns,
        dropped=dict(life.dropped),
        left_out=life.left_out,
        missed=life.missed,
        log_tail=tail(log),
        notes=notes,
        provider_options=options,
        samples_ns=samples,
        warmup_samples_ns=warmup,
    )


def _gate(life: _Life) -> GateResult:
    told = life.expect(protocol.Gated, Stage.GATE, life.limits.first_run_s)
    try:
        gate = decode(GateResult, told.result)
    except protocol.MISFITS as error:
        raise ChildGoneError(f"told no result of the output gate: {told.result!s:.200}") from error
    if not all(figure.split() for output in gate.errors for figure in output.figures):
        raise ChildGoneError("told a figure without a name")
    if gate.found and not gate.found.sound:
        raise ChildGoneError("told of a picture that there cannot be")
    return gate


def _warm(life: _Life, gate: GateResult | None) -> protocol.Warm:
    if gate and not gate.passed:
        raise _WrongError(gate.reason)
    return life.expect(protocol.Warm, Stage.WARMUP, life.limits.window_s)


def _windows(
    life: _Life, rules: Measuring, decide: Decide, on_window: OnWindow, throttled: Callable[[], bool]
) -> Decision:
    decision, in_a_row = Decision.GO_ON, 0
    most_dropped = rules.windows_min if rules.rate_hz else rules.windows_max // 2
    while decision is Decision.GO_ON:
        life.child.send(protocol.next_window(_wanted(life.windows, rules.runs)))
        timed = life.expect(protocol.Timed, Stage.WINDOW, life.limits.window_s)
        life.spin_ns = timed.spin_ns
        life.left_out += timed.left_out
        hot = throttled()
        in_a_row = in_a_row + 1 if hot else 0
        if in_a_row == _THROTTLED_MOST:
            raise _ThrottledError(f"The GPU was throttled in {in_a_row} windows in a row.")
        disturbed = "throttled GPU" if hot else "slow core" if timed.slow else ""
        if disturbed:
            life.dropped[disturbed] += 1
            if life.dropped.total() <= most_dropped:
                continue
        life.windows.append(Window(timed.samples_ns, disturbed))
        life.missed += timed.missed
        decision = decide(life.windows)
        on_window(life.windows[-1])
    return decision


def _spent_ns(life: _Life, rate_hz: float | None) -> int | None:
    """Return how long the windows took that count: their calls or, at a pace, their slots; None without a window."""
    calls = [value for window in trusted(life.windows) for value in window.samples_ns]
    slots_ns = (len(calls) + life.missed) * 1e9 / rate_hz if rate_hz else 0.0
    return max(sum(calls), round(slots_ns)) if calls else None


def _wanted(windows: Sequence[Window], runs: int | None) -> float:
    """Return how many calls the next window may have: what `windows` leave of `runs`, else any number."""
    left = 0 if runs is None else runs - sum(len(window.samples_ns) for window in windows)
    return left if left > 0 else math.inf


def trusted(windows: Sequence[Window]) -> Sequence[Window]:
    """Return the windows that were not disturbed; all of them where those are fewer than three."""
    quiet = [window for window in windows if not window.disturbed]
    return quiet if len(quiet) >= _LEAST_QUIET else windows


def describe(request: protocol.DescribeRequest, limits: Limits) -> ModelFacts:
    """Return what a child says of the model; raises ChildError where it cannot be opened."""
    return _ask(request, protocol.Described, limits).facts


def reference(request: protocol.ReferenceRequest, limits: Limits, until: float = math.inf) -> protocol.ReferenceMade:
    """Have a child write the model's outputs for the study's input; raises ChildError where it cannot, `until` then."""
    return _ask(request, protocol.ReferenceMade, limits, until)


def rounding(request: protocol.RoundingRequest, limits: Limits) -> Rounding:
    """Return what a child says float16 does to the model; raises ChildError where it cannot say."""
    told = _ask(request, protocol.RoundingFound, limits).found
    try:
        found = decode(Rounding, told)
        fits = found.precision == (written(found.kept) if found.kept else "")
    except protocol.MISFITS:
        fits = False
    if not fits:
        message = f"The child told no rounding: {told!s:.200}"
        raise ChildError(message, stage=Stage.GATE, bad_input=False)
    return found


def placement(request: protocol.PlacementRequest, limits: Limits) -> tuple[Placement, str]:
    """Return where a child says that the nodes went, and its log; raises ChildError where it cannot be opened."""
    with scratch() as folder:
        log = folder / "log.txt"
        found = _asked(request, protocol.PlacementFound, limits, log)
        return found.placement, log.read_text(errors="replace")


def installed(request: protocol.InstalledRequest, limits: Limits) -> protocol.InstalledFound:
    """Return what a child finds of a provider's libraries; raises ChildError where ONNX Runtime does not load it."""
    return _ask(request, protocol.InstalledFound, limits)


def _ask(request: protocol.Request, kind: type[A], limits: Limits, until: float = math.inf) -> A:
    with scratch() as folder:
        return _asked(request, kind, limits, folder / "log.txt", until)


def _asked(request: protocol.Request, kind: type[A], limits: Limits, log: Path, until: float = math.inf) -> A:
    with Child(log) as child:
        life = _Life(child, limits, until)
        try:
            life.expect(protocol.Hello, Stage.START, limits.start_s)
            child.send(protocol.dump(request))
            answer = life.expect(kind, Stage.BUILD, limits.build_s + limits.first_run_s)
            child.finish(limits.exit_s)
        except _ToldError as error:
            failed = error.failed
            bad_input = failed.blame in {protocol.Blame.INPUT, protocol.Blame.HOST}
            raise ChildError(failed.text, stage=failed.stage, log=tail(log), bad_input=bad_input) from None
        except ChildGoneError as error:
            raise ChildError(f"The child {error}.", stage=life.stage, log=tail(log)) from None
    return answer


def tail(log: Path) -> str:
    """Return the last lines of a log, at most 4,000 bytes."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")


def _since(child: Child) -> int:
    return (child.ended_ns or time.perf_counter_ns()) - child.started_ns


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Return the q-quantile of sorted values by linear interpolation (R's type 7, NumPy's default)."""
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))
