"""What makes calls after a pause slower, and what helps: ways of waiting for a camera's next frame against each other.

    python benchmarks/bench_pace.py models/rtmo-s.onnx --input models/rtmo-s.npz --rates 30 10 --output pace.json

Sessions (ONNX Runtime's default, and the fastest known settings) are called at a fixed rate, with each of the `WAYS` of
waiting (benchmarks/waiting.py) between two calls, and back to back. Rounds of about a second are interleaved in another
order each time, so that drift hits all alike; before a round the calling thread moves to a quiet core. A call's latency
is its own, without the wait. The first calls of a round, `SETTLING` of them, are left out and told apart. What the GPU
and the core do meanwhile is sampled by another process than the one that calls.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench_runtime import where
from paced_calls import PARTS, SESSIONS, SETTLING, Combination, Taken, serve
from rtmo_optuna.engine import ort
from rtmo_optuna.machine import gpu
from waiting import WAYS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtmo_optuna.types.subject import Gpu

SAMPLED_S = 0.1
QUANTILES = (0.5, 0.9, 0.99)


class Watched:
    """A calling process, and what is sampled while it calls."""

    def __init__(self, args: argparse.Namespace, sync: str, device: Gpu | None) -> None:
        """Start it, and wait until its sessions stand; `reason` says why they do not."""
        here, there = multiprocessing.get_context("spawn").Pipe()
        self._connection, self._device = here, device
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(args, sync, there))
        self._process.start()
        there.close()
        self.reason: str = here.recv()

    def round(self, one: Combination, seconds: float) -> Taken | str:
        """Return what a round took, or why it cannot be had."""
        self._connection.send((one, seconds))
        mhz, watts, core_mhz = [], [], []
        while not self._connection.poll(SAMPLED_S):
            if self._device:
                mhz.append(gpu.state(self._device).sm_mhz)
                watts.append(gpu.power_w(self._device))
            core_mhz.append(core_clock(self._process.pid or 0))
        taken: Taken | str = self._connection.recv()
        if isinstance(taken, Taken):
            taken.mhz, taken.watts, taken.core_mhz = known(mhz), known(watts), known(core_mhz)
        return taken

    def close(self) -> None:
        """End it."""
        if self._process.is_alive():
            self._connection.send(None)
        self._process.join()


def known(values: Sequence[float | None]) -> list[float]:
    """Return those of `values` that were told."""
    return [value for value in values if value is not None]


def core_clock(pid: int) -> float | None:
    """Return the clock in MHz of the core that the process `pid` ran on last; None where the kernel does not tell."""
    with contextlib.suppress(OSError):
        core = int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[36])
        path = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq")
        return int(path.read_text(encoding="ascii")) / 1e3
    return None


def combinations(args: argparse.Namespace) -> list[Combination]:
    """Return all that is to be measured."""
    found = []
    for session, name in itertools.product(args.sessions, args.ways):
        way = WAYS[name]
        if way.sync == "auto" or args.provider == "cuda":
            found += [Combination(session, name, rate) for rate in (args.rates if way.paced else [0.0])]
    return found


def measure(args: argparse.Namespace) -> tuple[dict[Combination, list[Taken]], dict[str, str]]:
    """Return the rounds of each combination, and why some ways cannot be had."""
    device = next(iter(gpu.gpus()), None) if args.provider == "cuda" else None
    wanted, missing = combinations(args), dict[str, str]()
    told = f"{len(wanted)} combinations of {args.seconds:g} s: about {len(wanted) * args.seconds:.0f} s"
    print(f"{args.model.name}, {where(args.provider)}. {told}, and the sessions.", flush=True)
    with contextlib.ExitStack() as stack:
        callers: dict[str, Watched] = {}
        for sync in dict.fromkeys(WAYS[one.way].sync for one in wanted):
            callers[sync] = Watched(args, sync, device)
            stack.callback(callers[sync].close)
        found: dict[Combination, list[Taken]] = {one: [] for one in wanted}
        rounds = max(1, round(args.seconds / args.round))
        for _ in range(rounds):
            random.shuffle(wanted)
            for one in wanted:
                caller = callers[WAYS[one.way].sync]
                taken = missing.get(one.way) or caller.reason or caller.round(one, args.seconds / rounds)
                if isinstance(taken, str):
                    missing[one.way] = taken
                else:
                    found[one].append(taken)
    return {one: taken for one, taken in found.items() if taken}, missing


# --- what it amounts to ---


def row(one: Combination, rounds: Sequence[Taken]) -> dict[str, Any]:
    """Return the figures of one combination, in ms, MHz and W; what was not told is left out."""
    latency_ms = np.array([ns for taken in rounds for ns in taken.latency_ns[SETTLING:]]) / 1e6
    median, p90, p99 = (round(float(value), 4) for value in np.quantile(latency_ms, QUANTILES))
    settled = {
        "late": [ns for taken in rounds for ns in taken.late_ns[SETTLING:]],
        "first": [taken.latency_ns[0] for taken in rounds],
        **{part: [ns for taken in rounds for ns in taken.parts_ns.get(part, ())[SETTLING:]] for part in PARTS},
    }
    sampled = {name: [value for taken in rounds for value in getattr(taken, name)] for name in SAMPLED}
    return {
        **asdict(one),
        "calls": len(latency_ms),
        "median_ms": median,
        "p90_ms": p90,
        "p99_ms": p99,
        **{f"{name}_ms": round(statistics.median(values) / 1e6, 4) for name, values in settled.items() if values},
        **{name: round(statistics.median(values), 1) for name, values in sampled.items() if values},
    }


SAMPLED = ("mhz", "watts", "core_mhz")
COLUMNS = (
    ("median_ms", "median ms", ".3f"),
    ("ratio", "against back to back", ".2f"),
    ("p90_ms", "p90", ".3f"),
    ("p99_ms", "p99", ".3f"),
    ("first_ms", "first", ".3f"),
    ("late_ms", "begins late by", ".3f"),
    *((f"{part}_ms", part, ".3f") for part in PARTS),
    ("mhz", "GPU MHz", ".0f"),
    ("watts", "W", ".0f"),
    ("core_mhz", "core MHz", ".0f"),
    ("calls", "calls", "d"),
)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `rows` as a Markdown table, without the columns that nothing is known for."""
    columns = [column for column in COLUMNS if any(column[0] in row for row in rows)]
    lines = ["| session | calls a second | way of waiting | " + " | ".join(title for _, title, _ in columns) + " |"]
    lines.append("|---" * (len(columns) + 3) + "|")
    for row in rows:
        cells = [format(row[name], form) if name in row else "" for name, _, form in columns]
        rate = f"{row['rate_hz']:g}" if row["rate_hz"] else "all it can"
        lines.append(f"| {row['session']} | {rate} | {row['way']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write it with --output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--input", type=Path, required=True, help="arrays (.npz), its first sample is taken")
    parser.add_argument("--rates", type=float, nargs="+", default=[30.0, 10.0], help="default: 30 10")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each row; default: %(default)s")
    parser.add_argument("--round", type=float, default=1.0, help="seconds of a round; default: %(default)s")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--sessions", nargs="+", help="default: all")
    parser.add_argument("--provider", choices=SESSIONS, default="cuda")
    parser.add_argument("--output", type=Path, help="JSON file, every call in it")
    args = parser.parse_args()
    args.sessions = args.sessions or list(SESSIONS[args.provider])
    if unknown := set(args.sessions) - set(SESSIONS[args.provider]):
        parser.error(f"there is no session {', '.join(unknown)}: they are {', '.join(SESSIONS[args.provider])}")
    found, missing = measure(args)
    rows = [row(one, rounds) for one, rounds in found.items()]
    base_ms = {one["session"]: one["median_ms"] for one in rows if not one["rate_hz"]}
    for one in rows:
        if one["session"] in base_ms:
            one["ratio"] = round(one["median_ms"] / base_ms[one["session"]], 3)
    print(table(rows))
    for way, reason in missing.items():
        print(f"\nNot here: {way} ({reason}).")
    if args.output:
        versions = ort.load(args.provider).versions()
        told = {"machine": where(args.provider), "cores": os.cpu_count(), "versions": versions}
        taken = [{**asdict(one), "rounds": [asdict(each) for each in rounds]} for one, rounds in found.items()]
        args.output.write_text(json.dumps({**told, "rows": rows, "missing": missing, "taken": taken}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
