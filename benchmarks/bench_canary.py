"""What the canary is worth on a host that others use too: their load is planted, so no GPU is needed.

    python benchmarks/bench_canary.py models/rtmo-t.onnx --input models/rtmo-t.npz --busy 0.5 0.75 --count 8

A model on one CPU thread follows its core as a GPU's launching thread does. On each core another process works in
bursts of a quarter of a second on average, for that share of the time. Fresh processes run plain and with the canary in
turn, by the rules of a study; what they say is compared with what the model takes while nobody else is there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.child.measure import measure
from rtmo_optuna.search.decide import judge
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import BenchmarkRequest, Measuring, Settings
from rtmo_optuna.verbs.prepare import TuneOptions, plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtmo_optuna.types.measurement import Measurement
    from rtmo_optuna.verbs.prepare import Plan

BURST_S = 0.25
NEIGHBOUR = """
import os, random, sys, time
core, busy_s, idle_s = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
os.sched_setaffinity(0, {core})
lots = random.Random(core)
while True:
    end = time.perf_counter() + lots.expovariate(1 / busy_s)
    while time.perf_counter() < end:
        pass
    time.sleep(lots.expovariate(1 / idle_s))
"""
ONE_THREAD = Settings.of({"intra_op_num_threads": 1})


@contextlib.contextmanager
def neighbours(busy: float) -> Iterator[None]:
    """Keep every core busy for a share of the time."""
    with contextlib.ExitStack() as stack:
        for core in sorted(os.sched_getaffinity(0)) if busy else ():
            idle_s = BURST_S * (1 - busy) / busy
            command = [sys.executable, "-c", NEIGHBOUR, str(core), str(BURST_S), str(idle_s)]
            process = stack.enter_context(subprocess.Popen(command))  # noqa: S603 - our own program
            stack.callback(process.kill)
        yield


def run(planned: Plan, measuring: Measuring, log: Path, spins_ns: list[int], *, pin: bool) -> tuple[Measurement, float]:
    """Return one process of the model and the seconds that it took; `spins_ns` learns how fast a quiet core is."""
    request = BenchmarkRequest(
        session=replace(planned.session, settings=ONE_THREAD),
        inputs=planned.about.inputs.path,
        measuring=measuring,
        pin=pin,
        best_spin_ns=round(statistics.median(spins_ns)) if spins_ns else 0,
    )
    begun = time.monotonic()
    measured = measure(request, log=log, decide=partial(judge.after_window, rules=measuring, prune_above_ns=None))
    assert measured.outcome is Outcome.MEASURED, measured.reason
    if measured.spin_ns:
        spins_ns.append(measured.spin_ns)
    return measured, time.monotonic() - begun


def main() -> None:
    """Print a row for each load, plain and with the canary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--busy", type=float, nargs="+", default=[0.5, 0.75], help="shares; default: %(default)s")
    parser.add_argument("--count", type=int, default=8, help="processes of either kind; default: %(default)s")
    args = parser.parse_args()
    print("| others are busy | | median ms | coefficient of variation | seconds a process | calls left out |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="canary-") as name:
        folder = Path(name)
        options = TuneOptions(args.model, folder / "config.yaml", output=folder, provider="cpu", input=args.input)
        planned = plan(options, folder)
        rules = replace(planned.about.definition.measuring, window_s=0.3, slow_call_ms=5.0, windows_max=12)
        for busy in [0.0, *args.busy]:
            found: dict[bool, list[tuple[Measurement, float]]] = {False: [], True: []}
            spins_ns: list[int] = []
            with neighbours(busy):
                for number in range(args.count):
                    for pin in (False, True) if number % 2 else (True, False):
                        found[pin].append(run(planned, rules, folder / "log.txt", spins_ns, pin=pin))
            for pin, ran in found.items():
                print(row(busy, ran, pin=pin), flush=True)


def row(busy: float, ran: list[tuple[Measurement, float]], *, pin: bool) -> str:
    """Return a row of the table."""
    values = [measured.latency_ms for measured, _ in ran if measured.latency_ms]
    left_out = sum(measured.left_out for measured, _ in ran) / sum(m.calls + m.left_out for m, _ in ran)
    return (
        f"| {busy:.0%} | {'canary' if pin else 'plain'} | {statistics.median(values):.2f} | "
        f"{statistics.stdev(values) / statistics.fmean(values):.1%} | {statistics.fmean(s for _, s in ran):.1f} | "
        f"{left_out:.0%} |"
    )


if __name__ == "__main__":
    main()
