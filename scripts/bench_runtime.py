"""How fast the sessions of `rtmo_optuna` are, numpy in and numpy out, against ONNX Runtime's default session.

    python scripts/bench_runtime.py speed models/rtmo-s.onnx --input models/rtmo-s.npz --output speed.json
    python scripts/bench_runtime.py equal models/rtmo-s.onnx --input models/rtmo-s.npz
    python scripts/bench_runtime.py soak models/rtmo-t.onnx --input models/rtmo-t.npz --calls 100000 --threads 8
    python scripts/bench_runtime.py cost

`speed` runs all ways of calling in one process, in rounds of short windows on a quiet core, in another order each time;
calls on a slow core are left out. `equal` compares a cut model with the uncut one of the same settings, to the last
bit. `soak` looks for memory that grows and for wrong answers among threads. `cost` is our own Python beside ONNX
Runtime's, on a model that does next to nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.calls import Buffers, Device
from rtmo_optuna.engine.capture import cut
from rtmo_optuna.engine.runtime import Session, open_session
from rtmo_optuna.machine import gpu
from rtmo_optuna.machine.canary import QuietCore
from rtmo_optuna.wire import SessionSpec, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]

PADDING = 114
ROUNDS = 4  # a graph is captured when a number of rows comes again, and replayed after that
FAST = {"prefer_nhwc": True, "fuse_conv_bias": True}
BOUND = {"io_binding": True}
SPLIT = {**BOUND, "enable_cuda_graph": True, "split_capture": True}
HOST = {**SPLIT, "split_on_host": True}
CUT = {"split": SPLIT, "split, host": HOST}
WAYS: Mapping[str, Mapping[str, bool]] = {
    "default": {},
    "single session": FAST,
    "single session, bound": {**FAST, **BOUND},
    **CUT,
    **{f"{way}, tuned": {**FAST, **settings} for way, settings in CUT.items()},
}
SHOWN = 10  # wrong answers told apart
LOCKED = tuple(f"{way}, tuned" for way in CUT)
EQUAL: Sequence[Mapping[str, Any]] = ({}, {"cudnn_conv_algo_search": "HEURISTIC"})  # with NHWC no two runs are equal


@dataclass(frozen=True, slots=True)
class Row:
    """One way of calling: latencies of all its calls in ms, and how many times as fast as the default it is."""

    way: str
    median_ms: float
    p90_ms: float
    p99_ms: float
    calls: int
    left_out: int
    ratio: float


def spec_of(
    model: Path, settings: Mapping[str, bool], provider: str, shapes: Mapping[str, Sequence[int]]
) -> SessionSpec:
    """Return what opens `model` with the inputs' shapes fixed."""
    fixed = {name: tuple(shape) for name, shape in shapes.items()}
    free = {
        size.dim_param: fixed[given.name][place]
        for given in onnx.load(model, load_external_data=False).graph.input
        if given.name in fixed
        for place, size in enumerate(given.type.tensor_type.shape.dim)
        if size.dim_param
    }
    return SessionSpec(str(model), provider, Settings.of(settings), shapes=fixed, free_dimensions=free)


def feed_of(path: Path, batch: int) -> Feed:
    """Return the first sample of an input file, repeated to a batch."""
    with np.load(path) as stored:
        return {name: np.repeat(stored[name][:1], batch, axis=0) for name in stored.files}


# --- speed ---


def speed(args: argparse.Namespace) -> None:
    """Print the table, and write it with --output."""
    rows = []
    for batch in args.batch:
        feed = feed_of(args.input, batch)
        shapes = {name: array.shape for name, array in feed.items()}
        spec = partial(spec_of, args.model, provider=args.provider, shapes=shapes)
        calls: dict[str, Callable[[], object]] = {}
        for way, settings in WAYS.items():
            session = Session(spec(settings))
            calls[way] = partial(session.run, None, feed)
            if way in LOCKED:
                locked = {name: session.input_buffer(name, array.shape) for name, array in feed.items()}
                for name, array in feed.items():
                    locked[name][...] = array
                calls[f"{way}, page-locked input"] = partial(session.run, None, locked)
        calls |= limit(spec({**FAST, **SPLIT}), locked)
        if args.config:
            calls[args.config.name] = partial(open_session(args.model, args.config).run, None, feed)
        print(f"\n{args.model.name}, batch {batch}, {where(args.provider)}")
        found = measure(calls, args.seconds)
        rows += [{"model": args.model.name, "batch": batch, **asdict(row)} for row in found]
        print(table(found))
    if args.output:
        told = {"machine": where(args.provider), "versions": ort.load(args.provider).versions(), "rows": rows}
        args.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def limit(spec: SessionSpec, feed: Feed) -> dict[str, Callable[[], object]]:
    """Return what cannot be gone below: the head's graph alone, and the copy of a page-locked input."""
    parts, runtime = cut(spec.model, spec.shapes), ort.load(spec.provider)
    device = Device(runtime.ort, spec.provider, spec.device)
    head = runtime.open(parts.head, spec.settings, device=spec.device)
    binding, buffers = head.io_binding(), Buffers(device)
    buffers.fill(feed, lambda name, value, again: binding.bind_ortvalue_input(name, value))  # noqa: ARG005
    for output in head.get_outputs():
        binding.bind_output(output.name, spec.provider, spec.device)
    head.run_with_iobinding(binding)
    return {
        "limit: head's graph alone": partial(head.run_with_iobinding, binding),
        "limit: copy of the input": partial(buffers.fill, feed, lambda *_, **__: None),
    }


def measure(calls: Mapping[str, Callable[[], object]], seconds: float) -> list[Row]:
    """Return a row for each way, from `seconds` of windows of 0.1 s for each."""
    best_ns, least_ns = 0, dict.fromkeys(calls, 0)
    samples: dict[str, list[int]] = {way: [] for way in calls}
    left_out = dict.fromkeys(calls, 0)
    order = list(calls)
    for call in calls.values():
        for _ in range(30):
            call()
    for _ in range(max(4, round(seconds / 0.1))):
        random.shuffle(order)
        for way in order:
            core = QuietCore(best_ns, least_ns=least_ns[way])  # what quiet beats take differs from way to way
            core.before()
            taken = window(calls[way], quiet=core.quiet)
            samples[way] += [spent for spent, quiet in taken if quiet]
            left_out[way] += sum(not quiet for _, quiet in taken)
            core.close()
            best_ns, least_ns[way] = core.best_ns, core.least_ns
    base = statistics.median(samples["default"])
    return [row(way, taken, left_out[way], base) for way, taken in samples.items() if taken]


def window(
    call: Callable[[], object], seconds: float = 0.1, quiet: Callable[[], bool] = lambda: True
) -> list[tuple[int, bool]]:
    """Return the latencies in ns of `seconds` of calls, each with what `quiet` says after it."""
    taken: list[tuple[int, bool]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - start, quiet()))
    return taken


def row(way: str, taken: Sequence[int], left_out: int, base: float) -> Row:
    """Return what the latencies `taken` amount to; `base` is the default's median."""
    median, p90, p99 = (float(np.quantile(taken, share)) / 1e6 for share in (0.5, 0.9, 0.99))
    return Row(way, round(median, 4), round(p90, 4), round(p99, 4), len(taken), left_out, round(base / median / 1e6, 3))


def table(rows: Sequence[Row]) -> str:
    """Return `rows` as a Markdown table."""
    lines = [
        "| way | median ms | p90 | p99 | p99 / median | times as fast | calls | left out |",
        "|---" * 8 + "|",
    ]
    lines += [
        f"| {r.way} | {r.median_ms:.3f} | {r.p90_ms:.3f} | {r.p99_ms:.3f} | {r.p99_ms / r.median_ms:.2f} | "
        f"{r.ratio:.2f} | {r.calls} | {r.left_out} |"
        for r in rows
    ]
    return "\n".join(lines)


def where(provider: str) -> str:
    """Return the machine in words."""
    return gpu.gpus()[0].name if provider == "cuda" else f"{os.cpu_count()} CPU cores"


# --- equal ---


def equal(args: argparse.Namespace) -> None:
    """Print for each input how many rows come out and whether all are equal; exit 1 where one is not."""
    feed = feed_of(args.input, 1)
    shapes = {name: array.shape for name, array in feed.items()}
    wrong = 0
    ways = CUT if args.provider == "cuda" else {"uncut": {}}
    for settings, (way, more) in itertools.product(EQUAL, ways.items()):
        told = f"{settings or 'default'}, {way}"
        uncut = Session(spec_of(args.model, settings, args.provider, shapes))
        split = Session(spec_of(args.model, {**settings, **more}, args.provider, shapes))
        samples = people(feed, args.inputs)
        wanted = [uncut.run(None, sample) for sample in samples]
        rows = [outputs[0].shape[1] - 1 for outputs in wanted]
        for _ in range(ROUNDS):
            for kept, outputs, found in zip(rows, wanted, (split.run(None, sample) for sample in samples), strict=True):
                if not all(map(np.array_equal, outputs, found)):
                    wrong += 1
                    print(f"{told}, {kept} rows: NOT equal")
        print(f"{told}: {len(rows)} inputs with {min(rows)} to {max(rows)} rows, {ROUNDS} times each")
    print("NOT EQUAL" if wrong else "equal to the last bit")
    sys.exit(bool(wrong))


def people(feed: Feed, count: int) -> list[Feed]:
    """Return inputs with fewer and fewer people: more and more of the picture is padding, at last all of it."""
    samples = []
    for number in range(count):
        sample = {name: array.copy() for name, array in feed.items()}
        for array in sample.values():
            array[..., : array.shape[-1] * (number + 1) // count] = PADDING
        samples.append(sample)
    return [feed, *samples]


# --- soak ---


def soak(args: argparse.Namespace) -> None:
    """Print memory before and after many calls, and wrong answers of threads; exit 1 where there are any."""
    feed = feed_of(args.input, 1)
    shapes = {name: array.shape for name, array in feed.items()}
    settings = SPLIT if args.provider == "cuda" else {}  # an answer is wrong where a bit of it is
    session = Session(spec_of(args.model, settings, args.provider, shapes))
    samples = people(feed, 7)
    wanted = [session.run(None, sample) for sample in samples]
    wrong: list[int] = []

    def work(first: int, calls: int) -> None:
        for number in range(first, first + calls):
            found, meant = session.run(None, samples[number % len(samples)]), wanted[number % len(samples)]
            if not all(map(np.array_equal, found, meant)):
                wrong.append(number)
                if len(wrong) < SHOWN:
                    print(f"call {number}: {apart(found, meant)}", flush=True)

    def together(calls: int) -> float:
        threads = [threading.Thread(target=work, args=(n, calls // args.threads)) for n in range(args.threads)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun

    work(0, 100)
    print(f"1 thread, 100 calls: {len(wrong)} wrong answers", flush=True)
    calls = args.calls // 10
    print(f"{args.threads} threads, {calls} calls: {together(calls):.1f} s, {len(wrong)} wrong answers", flush=True)
    begun = time.perf_counter()
    for done in range(0, args.calls, max(1, args.calls // 10)):
        print(f"after {done} calls: {shown_memory(args.provider)}", flush=True)
        work(done, min(args.calls // 10, args.calls - done))
    print(f"{args.calls} calls in {time.perf_counter() - begun:.1f} s: {len(wrong)} wrong answers")
    print(f"at last: {shown_memory(args.provider)}")
    sys.exit(bool(wrong))


def apart(found: Sequence[NDArray[Any]], meant: Sequence[NDArray[Any]]) -> str:
    """Return how far each output is from what it should be."""
    return ", ".join(
        f"{one.shape} instead of {other.shape}"
        if one.shape != other.shape
        else f"{np.abs(one - other).max(initial=0):.3g}"
        for one, other in zip(found, meant, strict=True)
    )


def memory(provider: str) -> dict[str, float]:
    """Return the bytes that this process holds now, and has on the GPU."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    held = {"host memory": float(pages * resource.getpagesize())}
    if provider == "cuda":
        held["GPU memory"] = float(gpu.process_memory(gpu.gpus()[0], os.getpid()) or 0)
    return held


def shown_memory(provider: str) -> str:
    """Return what `memory` tells, in words."""
    return ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory(provider).items())


# --- cost ---


def cost(args: argparse.Namespace) -> None:
    """Print the microseconds of a call through our session and through ONNX Runtime's own, interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "identity.onnx")
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "identity",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, path)
        feed = {"x": np.zeros((1, 8), np.float32)}
        runtime = ort.load(args.provider)
        bare = runtime.open(str(path), Settings())
        session = Session(SessionSpec(str(path), args.provider))
        calls = {"bare": partial(bare.run, ["y"], feed), "ours": partial(session.run, ["y"], feed)}
        spent: dict[str, list[int]] = {name: [] for name in calls}
        for _ in range(200):
            for name, call in calls.items():
                spent[name] += [taken for taken, _ in window(call, 0.005)]
    medians = {name: statistics.median(taken) / 1e3 for name, taken in spent.items()}
    print(
        f"bare {medians['bare']:.2f} us, ours {medians['ours']:.2f} us: {medians['ours'] - medians['bare']:.2f} us more"
    )


def main() -> None:
    """Run the command."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("model", type=Path)
    model.add_argument("--input", type=Path, required=True, help="arrays (.npz), its first sample is taken")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")

    one = commands.add_parser("speed", parents=[model, shared], help="latencies of all ways of calling")
    one.add_argument("--batch", type=int, nargs="+", default=[1], help="default: 1; others need a dynamic batch")
    one.add_argument("--config", type=Path, help="what a tune wrote: its settings too, by open_session")
    one.add_argument("--seconds", type=float, default=3.0, help="of windows for each way; default: %(default)s")
    one.add_argument("--output", type=Path, help="JSON file")
    one.set_defaults(run=speed)
    two = commands.add_parser("equal", parents=[model, shared], help="cut and uncut, to the last bit")
    two.add_argument("--inputs", type=int, default=20, help="default: %(default)s")
    two.set_defaults(run=equal)
    three = commands.add_parser("soak", parents=[model, shared], help="memory and threads")
    three.add_argument("--calls", type=int, default=100_000, help="default: %(default)s")
    three.add_argument("--threads", type=int, default=8, help="default: %(default)s")
    three.set_defaults(run=soak)
    four = commands.add_parser("cost", parents=[shared], help="our own Python for each call")
    four.set_defaults(run=cost)
    args = top.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
