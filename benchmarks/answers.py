"""Whether the sessions of `rtmo_optuna` answer right: cut against uncut, in many calls, in many threads."""

from __future__ import annotations

import itertools
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.machine import gpu
from rtmo_optuna.types.request import SessionSpec, Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]

PADDING = 114
SURE = 0.1  # a row of padding scores less
SHOWN = 10  # wrong answers told apart
ROUNDS = 4
FAST = {"prefer_nhwc": True, "fuse_conv_bias": True}
BOUND = {"io_binding": True}
SPLIT = {**BOUND, "enable_cuda_graph": True, "split_capture": True}
HOST = {**SPLIT, "split_on_host": True}
CUT = {"split": SPLIT, "split, host": HOST}
EQUAL: Sequence[Mapping[str, Any]] = ({}, {"cudnn_conv_algo_search": "HEURISTIC"})  # with NHWC no two runs are equal


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


def equal(args: argparse.Namespace) -> None:
    """Print how many people the inputs hold and whether all outputs are equal; exit 1 where one is not."""
    feed = feed_of(args.input, 1)
    shapes = {name: array.shape for name, array in feed.items()}
    wrong = 0
    for settings, (way, more) in itertools.product(EQUAL, CUT.items()):
        told = f"{settings or 'default'}, {way}"
        uncut = Session(spec_of(args.model, settings, args.provider, shapes))
        split = Session(spec_of(args.model, {**settings, **more}, args.provider, shapes))
        samples = people(feed, args.inputs)
        wanted = [uncut.run(None, sample) for sample in samples]
        rows = [int((outputs[0][..., -1] >= SURE).sum()) for outputs in wanted]
        for _ in range(ROUNDS):
            for kept, outputs, found in zip(rows, wanted, (split.run(None, sample) for sample in samples), strict=True):
                if not all(map(np.array_equal, outputs, found)):
                    wrong += 1
                    print(f"{told}, {kept} people: NOT equal")
        print(f"{told}: {len(rows)} inputs with {min(rows)} to {max(rows)} people, {ROUNDS} times each")
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


def soak(args: argparse.Namespace) -> None:
    """Print memory before and after many calls, and wrong answers of threads; exit 1 where there are any."""
    ways = {way: CUT[way] for way in args.ways} if args.provider == "cuda" else {"uncut": {}}
    wrong = sum(soaked(args, way, settings) for way, settings in ways.items())
    sys.exit(bool(wrong))


def soaked(args: argparse.Namespace, way: str, settings: Mapping[str, bool]) -> int:
    """Return how many answers of one session were wrong."""
    feed = feed_of(args.input, 1)
    shapes = {name: array.shape for name, array in feed.items()}
    session = Session(spec_of(args.model, settings, args.provider, shapes))
    samples = people(feed, 7)
    wanted = [session.run(None, sample) for sample in samples]
    wrong: list[int] = []

    def work(first: int, calls: int) -> None:
        for number in range(first, first + calls):
            found, meant = session.run(None, samples[number % len(samples)]), wanted[number % len(samples)]
            if not all(map(np.array_equal, found, meant)):
                wrong.append(number)
                if len(wrong) <= SHOWN:
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
    print(f"{way}: 1 thread, 100 calls: {len(wrong)} wrong answers", flush=True)
    calls = args.calls // 10
    print(f"{args.threads} threads, {calls} calls: {together(calls):.1f} s, {len(wrong)} wrong answers", flush=True)
    begun = time.perf_counter()
    for done in range(0, args.calls, max(1, args.calls // 10)):
        print(f"after {done} calls: {shown_memory(args.provider)}", flush=True)
        work(done, min(args.calls // 10, args.calls - done))
    print(f"{args.calls} calls in {time.perf_counter() - begun:.1f} s: {len(wrong)} wrong answers")
    print(f"at last: {shown_memory(args.provider)}", flush=True)
    return len(wrong)


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
