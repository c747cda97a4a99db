"""Whether tuned sessions live with each other and with others in one process, and how many calls they make together.

    python benchmarks/bench_together.py models/rtmo-s.onnx --input models/rtmo-s.npz --seconds 60 --output together.json

Each thread calls with pictures of 0 to 50 people, in an order of its own, and holds every answer against what the
session said alone: to the last bit where it repeats itself alone. Where it does not, as cuDNN's convolutions do with
some settings, the rows have to be as many, give or take a twentieth, and most of them the same people. A failed call,
a wrong answer or an abort of the process is what must not be; what all sessions together make in a second must not be
less than one makes alone.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from answers import FAST, HOST, feed_of, people, spec_of
from bench_runtime import where
from rtmo_optuna.engine.dropin import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]
    Answer = Sequence[NDArray[Any]]

SETTINGS: Mapping[str, Mapping[str, bool]] = {"split+host": HOST, "split+host, NHWC": {**HOST, **FAST}}
INPUTS = 50
REPEATED = 3
OVERLAP = 0.5
ALIKE = 0.8
"""Of the rows, so many must be the same people where answers are not repeatable: random weights are easily upset."""
REOPENED_S = 2.0
MOST_TOLD = 5

Work = Callable[[threading.Event], None]


@dataclass(slots=True)
class Tally:
    """What happened in one scenario: `calls` of our sessions, what `others` did, sentences about what went wrong."""

    calls: int = 0
    wrong: int = 0
    others: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, who: str, error: Exception) -> None:
        """Note what `who` was told."""
        with self.lock:
            self.failed.append(f"{who}: {' '.join(str(error).split())[:200]}")


class Bench:
    """A model with pictures, the answers to them, and the scenarios."""

    def __init__(self, args: argparse.Namespace, settings: Mapping[str, bool]) -> None:
        """Open one session, and note what it answers alone."""
        self.args = args
        feed = feed_of(args.input, 1)
        shapes = {name: array.shape for name, array in feed.items()}
        self.spec = spec_of(args.model, settings, args.provider, shapes)
        self.plain = spec_of(args.model, {}, args.provider, shapes)
        noise = np.random.default_rng(0).uniform(0, 255, next(iter(feed.values())).shape).astype(np.float32)
        self.feeds = [*people(feed, INPUTS), dict.fromkeys(feed, noise)]
        session = Session(self.spec)
        self.wanted = [session.run(None, one) for one in self.feeds]
        self.exact = all(
            np.array_equal(*pair)
            for _ in range(REPEATED)
            for one, wanted in zip(self.feeds, self.wanted, strict=True)
            for pair in zip(session.run(None, one), wanted, strict=True)
        )
        self.sessions = [session]

    def session(self, number: int) -> Session:
        """Return the session `number`, opened where there are fewer."""
        while len(self.sessions) <= number:
            self.sessions.append(Session(self.spec))
        return self.sessions[number]

    def right(self, found: Answer, number: int) -> bool:
        """Whether `found` is the answer to the picture `number`."""
        if self.exact:
            return all(map(np.array_equal, found, self.wanted[number]))
        return alike(found[0][0], self.wanted[number][0][0])

    def caller(self, session: Session, tally: Tally) -> Work:
        """Return what calls `session` with all pictures in a random order, again and again."""

        def work(stop: threading.Event) -> None:
            order = [*range(len(self.feeds))]
            while not stop.is_set():
                random.shuffle(order)
                for number in order:
                    if stop.is_set():
                        break
                    try:
                        found = session.run(None, self.feeds[number])
                    except Exception as error:  # noqa: BLE001 - each is counted
                        tally.fail("ours", error)
                        continue
                    right = self.right(found, number)
                    with tally.lock:
                        tally.calls += 1
                        tally.wrong += not right

        return work

    def other_session(self, tally: Tally) -> Work:
        """Return what calls ONNX Runtime's own session, with its defaults."""
        import onnxruntime  # noqa: PLC0415 - after ours, which loads CUDA's libraries

        name = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[self.args.provider]
        session = onnxruntime.InferenceSession(str(self.args.model), providers=[name])
        rng = np.random.default_rng(1)

        def step() -> None:
            session.run(None, self.feeds[rng.integers(len(self.feeds))])

        return partial(self._repeat, tally, "plain session", step)

    def torch(self, tally: Tally) -> Work:
        """Return what allocates, copies and multiplies with PyTorch."""
        import torch  # noqa: PLC0415 - needed here only

        rng = np.random.default_rng(2)

        def step() -> None:
            rows = int(rng.integers(256, 1024))
            matrix = torch.randn(rows, 1024, device=self.args.provider)
            (matrix @ matrix.T).sum().item()
            matrix.cpu()
            if rows % 16 == 0:
                torch.cuda.empty_cache()

        step()
        return partial(self._repeat, tally, "PyTorch", step)

    def opener(self, tally: Tally) -> Work:
        """Return what opens a session every two seconds, and calls it."""

        def step() -> None:
            session = Session(self.spec)
            for number, feed in enumerate(self.feeds[::10]):
                if not self.right(session.run(None, feed), 10 * number):
                    with tally.lock:
                        tally.wrong += 1
            time.sleep(REOPENED_S)

        return partial(self._repeat, tally, "opened", step)

    def _repeat(self, tally: Tally, who: str, step: Callable[[], object], stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                step()
            except Exception as error:  # noqa: BLE001 - each is counted
                tally.fail(who, error)
            tally.others[who] += 1

    def ours(self, tally: Tally, sessions: int, threads: int = 1) -> list[Work]:
        """Return a caller for each of `threads` of each of `sessions`."""
        return [self.caller(self.session(n), tally) for n in range(sessions) for _ in range(threads)]


SCENARIOS: Mapping[str, Callable[[Bench, Tally], list[Work]]] = {
    "one": lambda bench, tally: bench.ours(tally, 1),
    "two": lambda bench, tally: bench.ours(tally, 2),
    "four": lambda bench, tally: bench.ours(tally, 4),
    "eight threads on one": lambda bench, tally: bench.ours(tally, 1, 8),
    "one beside a plain session": lambda bench, tally: [*bench.ours(tally, 1), bench.other_session(tally)],
    "one beside PyTorch": lambda bench, tally: [*bench.ours(tally, 1), bench.torch(tally)],
    "two while others are opened": lambda bench, tally: [*bench.ours(tally, 2), bench.opener(tally)],
}


def alike(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether two lists of boxes [n, 5] are about as long, and most of them overlap with one of the other."""
    if abs(len(found) - len(wanted)) > 1 + len(wanted) // 20:
        return False
    low, high = (
        np.maximum(found[:, None, :2], wanted[None, :, :2]),
        np.minimum(found[:, None, 2:4], wanted[None, :, 2:4]),
    )
    inside = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(one[:, 2:4] - one[:, :2], 0, None).prod(-1) for one in (found, wanted)]
    union = areas[0][:, None] + areas[1][None] - inside
    shared = (inside / np.maximum(union, 1e-9)).max(axis=0, initial=0)
    return bool((shared >= OVERLAP).mean() >= ALIKE) if len(wanted) else True


def run(bench: Bench, name: str, seconds: float) -> dict[str, Any]:
    """Return what happened in a scenario of so many seconds."""
    tally, stop = Tally(), threading.Event()
    threads = [threading.Thread(target=work, args=(stop,)) for work in SCENARIOS[name](bench, tally)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - begun
    return {
        "scenario": name,
        "exact": bench.exact,
        "seconds": round(spent, 1),
        "calls": tally.calls,
        "per_second": round(tally.calls / spent, 1),
        "failed": len(tally.failed),
        "wrong": tally.wrong,
        "others_per_second": {who: round(count / spent, 1) for who, count in tally.others.items()},
        "told": [*dict.fromkeys(tally.failed)][:MOST_TOLD],
    }


def main() -> None:
    """Run the command; exit 1 where a call failed or an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--input", type=Path, required=True, help="a picture with people (.npz)")
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of each scenario; default: %(default)s")
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    warnings.simplefilter("always")
    for settings in args.settings:
        bench = Bench(args, SETTINGS[settings] if args.provider == "cuda" else {})
        for scenario in args.scenarios:
            with suppress(ImportError):
                rows.append({"settings": settings, **run(bench, scenario, args.seconds)})
                print(json.dumps(rows[-1]), flush=True)
    if args.output:
        told = {"machine": where(args.provider), "model": args.model.name, "rows": rows}
        args.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(row["failed"] or row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
