"""The child's main: opens an engine, times windows, answers one line for each. Imported by nobody."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.child import protocol
from rtmo_optuna.child.protocol import Blame
from rtmo_optuna.child.timer import timer_for
from rtmo_optuna.engine import ort
from rtmo_optuna.engine.gate.flat import even, flat, together
from rtmo_optuna.engine.inputs.inputs import load
from rtmo_optuna.engine.inputs.pixels import as_arrays
from rtmo_optuna.engine.session import Engine, open_engine
from rtmo_optuna.errors import SettingsRefusedError, TunerError, UsageError
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.types.request import MOST_TIMED, BenchmarkRequest, EngineKind, ModelFacts, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feed = dict[str, NDArray[np.generic]]

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_AGAIN = 2
_MOST_WIDTHS = 3
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENFILE, errno.ENOMEM}
"""What the system is short of for a while, whatever the settings are."""
_NEEDED = ("hashlib", "rtmo_optuna.codec", "rtmo_optuna.engine.gate.outputs", "rtmo_optuna.types.measurement")
"""What a benchmark imports after its first run, to compare outputs."""


class Worker:
    """One request's life; `stage` is where it stands."""

    def __init__(self, answers: IO[bytes], orders: IO[bytes]) -> None:
        """Answer on `answers`, take the request and the orders for windows from `orders`."""
        self._answers = answers
        self._orders = orders
        self.stage = Stage.START

    def answer(self, message: protocol.Answer) -> None:
        """Send one line."""
        self._answers.write(protocol.dump(message))
        self._answers.flush()

    def serve(self) -> None:
        """Greet, read the request, carry it out, and tell of any error."""
        self.answer(protocol.Hello(os.getpid()))
        try:
            request = protocol.load_request(self._orders.readline())
            _HANDLERS[type(request)](self, request)
        except Exception as error:  # noqa: BLE001 - the parent learns of every one
            self.answer(protocol.Failed(self.stage, _blame(error), _sentence(error)))

    def benchmark(self, request: BenchmarkRequest) -> None:
        """Open, run once, warm up, then a window for each order until anything else comes."""
        samples = load(request.inputs)
        self.stage = Stage.BUILD
        engine = open_engine(request.session)
        for note in engine.notes:
            print(note, flush=True)  # noqa: T201 - to the trial's log
        options = dict(engine.provider_options)
        self.answer(protocol.Opened(engine.import_ns, engine.preload_ns, engine.build_ns, options, engine.notes))
        self.stage = Stage.FIRST_RUN
        start = time.perf_counter_ns()
        engine.run(samples[0])
        self.answer(protocol.Ran(time.perf_counter_ns() - start))
        runs = _settled(engine, samples)
        digest = _hash(runs[0])
        if request.gate:
            self.stage = Stage.GATE
            self.answer(protocol.Gated(_gated(runs, request.gate)))
        del runs
        timer = timer_for(
            engine, samples[:MOST_TIMED], request.measuring, request.best_spin_ns if request.pin else None
        )
        self.stage = Stage.WARMUP
        start = time.perf_counter_ns()
        spent = timer.warm_up()
        self.answer(protocol.Warm(time.perf_counter_ns() - start, tuple(spent), digest))
        self.stage = Stage.WINDOW
        while (most_calls := protocol.ordered_calls(self._orders.readline())) is not None:
            self.answer(timer.window(most_calls))
        timer.close()

    def describe(self, request: protocol.DescribeRequest) -> None:
        """Read the file, open a session on it, and tell what it is."""
        self.stage = Stage.BUILD
        spec = request.session
        graph, uncapturable = None, {}
        if spec.engine is EngineKind.ONNXRUNTIME:
            from pathlib import Path  # noqa: PLC0415

            from rtmo_optuna.engine.cutting.static import forbidding  # noqa: PLC0415
            from rtmo_optuna.engine.graph import read_graph  # noqa: PLC0415 - onnx is slow to import
            from rtmo_optuna.engine.session import OnnxRuntimeEngine  # noqa: PLC0415

            graph = read_graph(Path(spec.model))
            uncapturable = forbidding(graph.operators)
            engine: Any = OnnxRuntimeEngine(spec, record_nodes=True)
        else:
            engine = open_engine(spec)
        facts = ModelFacts(
            inputs=engine.inputs,
            outputs=engine.outputs,
            opset=graph.opset if graph else 0,
            operators=dict(graph.operators) if graph else {},
            nodes_by_provider=engine.nodes_by_provider(),
            provider=spec.provider,
            versions=engine.versions(),
            provider_options=tuple(engine.provider_options),
            uncapturable=uncapturable,
            external_files=graph.external_files if graph else (),
            random_operators=graph.random if graph else (),
            widths=graph.widths[:_MOST_WIDTHS] if graph else (),
            weights=graph.weights if graph else (),
        )
        self.answer(protocol.Described(facts))

    def reference(self, request: protocol.ReferenceRequest) -> None:
        """Run every sample once and keep the outputs, stacked by sample where their shapes agree."""
        samples = load(request.inputs)
        self.stage = Stage.BUILD
        engine = open_engine(request.session)
        self.stage = Stage.FIRST_RUN
        runs = even([flat(engine.output_names, engine.run(feed)) for feed in samples])
        if request.gate:
            self.stage = Stage.GATE
            from rtmo_optuna.codec import decode  # noqa: PLC0415
            from rtmo_optuna.engine.gate.outputs import judge  # noqa: PLC0415
            from rtmo_optuna.types.measurement import GateRules  # noqa: PLC0415

            judge(runs, runs, decode(GateRules, request.gate))
        with open(request.target, "wb") as target:  # noqa: PTH123 - pathlib is not needed otherwise
            named = {f"{n}/{name}": array for n, run in enumerate(runs) for name, array in run.items()}
            np.savez(target, allow_pickle=False, **named)
        finite = all(np.isfinite(a).all() for run in runs for a in run.values() if a.dtype.kind in "fc")
        self.answer(protocol.ReferenceMade(finite))

    def placement(self, request: protocol.PlacementRequest) -> None:
        """Open a session and tell what it leaves to the host."""
        self.stage = Stage.BUILD
        from rtmo_optuna.engine.placement import placement  # noqa: PLC0415 - nothing that a benchmark needs

        self.answer(protocol.PlacementFound(placement(request.session)))

    def installed(self, request: protocol.InstalledRequest) -> None:
        """Load what a provider needs and tell from where."""
        self.stage = Stage.BUILD
        runtime = ort.load(request.provider)
        self.answer(protocol.InstalledFound(runtime.versions(), runtime.provider.libraries(runtime.ort)))

    def rounding(self, request: protocol.RoundingRequest) -> None:
        """Find what float16 does to the model."""
        from pathlib import Path  # noqa: PLC0415

        from rtmo_optuna.codec import decode, encode  # noqa: PLC0415
        from rtmo_optuna.engine import rounding  # noqa: PLC0415 - onnx is slow to import
        from rtmo_optuna.types.measurement import GateRules  # noqa: PLC0415

        self.stage = Stage.GATE
        spec, reference = request.session, _kept(request.reference)
        samples = [as_arrays(sample, spec.pixels) for sample in load(request.inputs)]
        if len(reference) != len(samples):
            message = "the outputs of its samples differ in number"
            raise SettingsRefusedError(message)
        found = rounding.find(
            Path(spec.model),
            samples,
            reference,
            decode(GateRules, request.gate),
            spec.free_dimensions,
            tf32=request.tf32,
        )
        self.answer(protocol.RoundingFound(dict(encode(found))))


_HANDLERS: Mapping[type[protocol.Request], Callable[[Worker, Any], None]] = {
    BenchmarkRequest: Worker.benchmark,
    protocol.DescribeRequest: Worker.describe,
    protocol.ReferenceRequest: Worker.reference,
    protocol.PlacementRequest: Worker.placement,
    protocol.InstalledRequest: Worker.installed,
    protocol.RoundingRequest: Worker.rounding,
}


def _blame(error: Exception) -> Blame:
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in _PASSING:
        return Blame.HOST
    if isinstance(error, UsageError):
        return Blame.INPUT
    return Blame.SETTINGS if isinstance(error, SettingsRefusedError) else Blame.UNKNOWN


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, TunerError | RuntimeError) else f"{type(error).__name__}: {text}"


def _settled(engine: Engine, samples: list[Feed]) -> list[dict[str, NDArray[Any]]]:
    """Return each sample's outputs, after two runs more of the first: what a session answers in the long run counts.

    A CUDA graph is replayed by then. And one setting of ONNX Runtime 1.31 (`fuse_conv_bias` without `prefer_nhwc`, on
    an H200) answers right in its first run only.
    """
    for _ in range(_AGAIN):
        engine.run(samples[0])
    return [flat(engine.output_names, engine.run(feed)) for feed in samples]


def _gated(outputs: list[dict[str, NDArray[Any]]], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the outputs of every sample with the reference; what that takes is loaded here, after the first run."""
    from dataclasses import replace  # noqa: PLC0415

    from rtmo_optuna.codec import decode, encode  # noqa: PLC0415
    from rtmo_optuna.engine.gate.outputs import judge  # noqa: PLC0415
    from rtmo_optuna.types.measurement import GateRequest  # noqa: PLC0415

    wanted = decode(GateRequest, plain)
    reference = _kept(wanted.reference)
    found = outputs if len(reference) == len(outputs) else [together(outputs)]
    result = judge(reference, found, wanted.rules, wanted.own)
    if wanted.baseline:
        final = judge(reference, found, wanted.rules, result)
        result = replace(result, passed=final.passed, reason=final.reason)
    return dict(encode(result))


def _kept(path: str) -> list[dict[str, NDArray[Any]]]:
    """Return the arrays of the file that `Worker.reference` wrote, one mapping a sample."""
    samples: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(path) as stored:
        for name, array in stored.items():
            number, _, output = name.partition("/")
            samples.setdefault(number, {})[output] = array
    return list(samples.values())


def _hash(outputs: Mapping[str, NDArray[Any]]) -> str:
    import hashlib  # noqa: PLC0415 - only after the first run

    digest = hashlib.sha256()
    for name, array in outputs.items():
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; elsewhere than on Linux, the end of stdin ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        sys.exit("The parent is gone.")


def _load_ahead(provider: str) -> None:
    """Load what a benchmark needs; what goes wrong goes wrong again in the request, which tells of it."""
    for module in _NEEDED:
        importlib.import_module(module)
    with contextlib.suppress(UsageError):
        ort.load(provider)
    PROVIDERS[provider].start()


def main() -> None:
    """Serve one request: `worker ANSWERS_FD PARENT_PID PROVIDER`, request and orders on stdin.

    With a PROVIDER, its libraries and all that a request needs are loaded before the greeting.
    """
    descriptor, parent = map(int, sys.argv[1:3])
    _die_with(parent)
    if provider := sys.argv[3]:
        _load_ahead(provider)
    with os.fdopen(descriptor, "wb") as answers:
        Worker(answers, sys.stdin.buffer).serve()
    sys.stdout.flush()
    sys.stderr.flush()
    # The libraries' own teardown takes time and has been seen to crash; the kernel frees everything.
    os._exit(0)


if __name__ == "__main__":
    main()
