"""How fast the sessions of `rtmo_optuna` are, numpy in and numpy out, against ONNX Runtime's default session.

    python benchmarks/bench_runtime.py speed models/rtmo-s.onnx --input models/rtmo-s.npz --output speed.json
    python benchmarks/bench_runtime.py equal models/rtmo-s.onnx --input models/rtmo-s.npz
    python benchmarks/bench_runtime.py soak models/rtmo-t.onnx --input models/rtmo-t.npz --calls 100000 --threads 8
    python benchmarks/bench_runtime.py cost

`speed` runs all ways of calling in one process, in rounds of short windows on a quiet core, in another order each time;
calls on a slow core are left out. With `--busy` others work on every core in bursts meanwhile. `equal` compares a cut
model with the uncut one of the same settings, to the last bit. `soak` looks for memory that grows and for wrong answers
among threads. `cost` is our own Python beside ONNX Runtime's, on a model that does next to nothing, without and with
`monitor=True`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
import timeit
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from answers import BOUND, CUT, FAST, SPLIT, equal, feed_of, soak, spec_of
from bench_canary import neighbours
from rtmo_optuna.engine import ort
from rtmo_optuna.engine.cutting.cut import cut
from rtmo_optuna.engine.device import Device
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.engine.fixed import FixedSession, Inputs
from rtmo_optuna.engine.monitor import Monitor
from rtmo_optuna.engine.runtime import open_session
from rtmo_optuna.machine import gpu
from rtmo_optuna.machine.canary import QuietCore
from rtmo_optuna.types.request import SessionSpec, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]

WAYS: Mapping[str, Mapping[str, bool]] = {
    "default": {},
    "single session": FAST,
    "single session, bound": {**FAST, **BOUND},
    **CUT,
    **{f"{way}, tuned": {**FAST, **settings} for way, settings in CUT.items()},
}
LOCKED = tuple(f"{way}, tuned" for way in CUT)


@dataclass(frozen=True, slots=True)
class Row:
    """One way of calling: latencies of its calls on quiet cores in ms, and how many times as fast as the default it is.

    `all_median_ms` and `all_p99_ms` are of all its calls.
    """

    way: str
    median_ms: float
    p90_ms: float
    p99_ms: float
    calls: int
    left_out: int
    ratio: float
    all_median_ms: float
    all_p99_ms: float


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
        with neighbours(args.busy):
            found = measure(calls, args.seconds)
        rows += [{"model": args.model.name, "batch": batch, **asdict(row)} for row in found]
        print(table(found))
    if args.output:
        told = {"machine": where(args.provider), "versions": ort.load(args.provider).versions(), "rows": rows}
        args.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def limit(spec: SessionSpec, feed: Feed) -> dict[str, Callable[[], object]]:
    """Return what cannot be gone below: the head's graph alone, and the copy of a page-locked input."""
    parts, runtime = cut(spec.model, spec.shapes), ort.load(spec.provider)
    device = Device.captured(runtime.ort, runtime.provider, spec.device)
    session = runtime.open(parts.head, spec.settings, device=spec.device, stream=device.stream.handle)
    inputs = Inputs(device, ort.specs(session.get_inputs()))
    head = FixedSession(session, device, inputs.values)
    head.capture()

    def wait_for(work: Callable[[], None]) -> None:
        work()
        device.stream.synchronize()

    def fill() -> None:
        with inputs.holding(feed):
            device.stream.synchronize()

    return {
        "limit: head's graph alone": partial(wait_for, head.run),
        "limit: copy of the input": fill,
    }


def measure(calls: Mapping[str, Callable[[], object]], seconds: float) -> list[Row]:
    """Return a row for each way, from `seconds` of windows of 0.1 s for each."""
    best_ns, least_ns = 0, dict.fromkeys(calls, 0)
    samples: dict[str, list[tuple[int, bool]]] = {way: [] for way in calls}
    order = list(calls)
    for call in calls.values():
        for _ in range(30):
            call()
    for _ in range(max(4, round(seconds / 0.1))):
        random.shuffle(order)
        for way in order:
            core = QuietCore(best_ns, least_ns=least_ns[way])  # what quiet beats take differs from way to way
            core.before()
            samples[way] += window(calls[way], quiet=core.quiet)
            core.close()
            best_ns, least_ns[way] = core.best_ns, core.least_ns
    rows = [row(way, taken) for way, taken in samples.items()]
    base_ms = next(row.median_ms for row in rows if row.way == "default")
    return [replace(row, ratio=round(base_ms / row.median_ms, 3)) for row in rows]


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


def row(way: str, taken: Sequence[tuple[int, bool]]) -> Row:
    """Return what the latencies `taken` amount to, each with whether its core was quiet; all count if none was."""
    spent_ms = np.array([spent for spent, _ in taken]) / 1e6
    quiet_ms = spent_ms[[quiet for _, quiet in taken]]
    quiet_ms = quiet_ms if len(quiet_ms) else spent_ms
    median, p90, p99 = (round(float(value), 4) for value in np.quantile(quiet_ms, (0.5, 0.9, 0.99)))
    of_all = (round(float(value), 4) for value in np.quantile(spent_ms, (0.5, 0.99)))
    return Row(way, median, p90, p99, len(quiet_ms), len(spent_ms) - len(quiet_ms), 1.0, *of_all)


def table(rows: Sequence[Row]) -> str:
    """Return `rows` as a Markdown table."""
    lines = [
        "| way | median ms | p90 | p99 | p99 / median | times as fast | calls | left out | all: median, p99 / median |",
        "|---" * 9 + "|",
    ]
    lines += [
        f"| {r.way} | {r.median_ms:.3f} | {r.p90_ms:.3f} | {r.p99_ms:.3f} | {r.p99_ms / r.median_ms:.2f} | "
        f"{r.ratio:.2f} | {r.calls} | {r.left_out} | {r.all_median_ms:.3f}, {r.all_p99_ms / r.all_median_ms:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def where(provider: str) -> str:
    """Return the machine in words."""
    return gpu.gpus()[0].name if provider == "cuda" else f"{os.cpu_count()} CPU cores"


# --- cost ---


def cost(args: argparse.Namespace) -> None:
    """Print the microseconds of a call through our session, watched or not, and ONNX Runtime's own, interleaved.

    The look at every 128 calls is in no median: it is in the time of `Monitor.add` alone, over 12,800 calls.
    """
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
        spec = SessionSpec(str(path), args.provider)
        calls = {
            "bare": partial(bare.run, ["y"], feed),
            "ours": partial(Session(spec).run, ["y"], feed),
            "watched": partial(Session(spec, monitor=Monitor(1e9)).run, ["y"], feed),
        }
        spent: dict[str, list[int]] = {name: [] for name in calls}
        for _ in range(200):
            for name, call in calls.items():
                spent[name] += [taken for taken, _ in window(call, 0.005)]
    medians = {name: statistics.median(taken) / 1e3 for name, taken in spent.items()}
    print(
        f"bare {medians['bare']:.2f} us, ours {medians['ours']:.2f} us: {medians['ours'] - medians['bare']:.2f} us more"
    )
    monitor, rounds = Monitor(1e9), 12_800
    added = min(timeit.repeat(lambda: monitor.add(1_000_000), number=rounds, repeat=20)) / rounds * 1e6
    print(
        f"watched {medians['watched']:.2f} us: {medians['watched'] - medians['ours']:.2f} us more; "
        f"Monitor.add {added:.2f} us, looks included"
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

    one = commands.add_parser("speed", parents=[model], help="latencies of all ways of calling")
    one.add_argument("--batch", type=int, nargs="+", default=[1], help="default: 1; others need a dynamic batch")
    one.add_argument("--config", type=Path, help="what a tune wrote: its settings too, by open_session")
    one.add_argument("--seconds", type=float, default=3.0, help="of windows for each way; default: %(default)s")
    one.add_argument("--busy", type=float, default=0.0, help="share of the time that others take on each core, planted")
    one.add_argument("--output", type=Path, help="JSON file")
    one.set_defaults(run=speed, provider="cuda")
    two = commands.add_parser("equal", parents=[model], help="cut and uncut, to the last bit")
    two.add_argument("--inputs", type=int, default=20, help="default: %(default)s")
    two.set_defaults(run=equal, provider="cuda")
    three = commands.add_parser("soak", parents=[model, shared], help="memory and threads")
    three.add_argument("--calls", type=int, default=100_000, help="default: %(default)s")
    three.add_argument("--threads", type=int, default=8, help="default: %(default)s")
    three.add_argument("--ways", nargs="+", choices=CUT, default=list(CUT), help="cuda: default: all")
    three.set_defaults(run=soak)
    four = commands.add_parser("cost", parents=[shared], help="our own Python for each call")
    four.set_defaults(run=cost)
    args = top.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
