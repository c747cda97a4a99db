"""What a trial takes beside its windows, from a child made for it and from a pool of children made ahead.

    python benchmarks/bench_pool.py --model models/rtmo-s.onnx --input models/rtmo-s.npz --count 8

Processes of the default settings, as a study runs them, `count` in a row from a pool and as many without, in turn; the
time to make the pool's children is part of the first trial that waits for them, and so of the mean.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rtmo_optuna.child.prefork import ChildPool, size_for
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.verbs.prepare import TuneOptions, plan, runner_of

if TYPE_CHECKING:
    from rtmo_optuna.types.measurement import Measurement


def stages_of(measured: Measurement) -> dict[str, float]:
    """Return the seconds of each stage, and of the rest: the gate, what is between the windows, the end."""
    known = {name.removesuffix("_ns"): (spent or 0) / 1e9 for name, spent in asdict(measured.stages).items()}
    total = known.pop("total")
    return {**known, "rest": total - sum(known.values())}


def main() -> None:
    """Print the mean and median seconds of both, the medians of their stages, and the ratio of the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--count", type=int, default=8, help="processes in a row; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="of both; default: %(default)s")
    args = parser.parse_args()
    spent: dict[str, list[float]] = {"without": [], "pool": []}
    whole: dict[str, list[float]] = {"without": [], "pool": []}
    stages: dict[str, list[dict[str, float]]] = {"without": [], "pool": []}
    with tempfile.TemporaryDirectory(prefix="pool-") as name:
        folder = Path(name)
        options = TuneOptions(
            args.model, config=folder / "config.yaml", output=folder, provider=args.provider, input=args.input
        )
        planned = plan(options, folder)
        runner = runner_of(planned, lambda _event: None)
        runner.close()
        size = size_for(planned.about.machine.cores)
        for _ in range(args.rounds):
            for kind, outside in spent.items():
                with ChildPool(planned.session.provider, size, 60.0) as pool:
                    runner.pool = pool if kind == "pool" else None
                    for _ in range(args.count):
                        begun = time.monotonic()
                        measured = runner.run(planned.about.space.fixed, planned.rules, folder / "log.txt")
                        assert measured.outcome is Outcome.MEASURED, measured.reason
                        whole[kind].append(time.monotonic() - begun)
                        outside.append(whole[kind][-1] - (measured.stages.windows_ns or 0) / 1e9)
                        stages[kind].append(stages_of(measured))
                        print(f"{kind:8} {outside[-1]:.2f} s of {whole[kind][-1]:.2f} s", flush=True)
    for kind, seconds in spent.items():
        print(
            f"{kind}: {statistics.fmean(seconds):.2f} s outside the windows (median {statistics.median(seconds):.2f}), "
            f"{3600 / statistics.fmean(whole[kind]):.0f} whole trials an hour"
        )
        names = sorted({name for one in stages[kind] for name in one})
        medians = {name: statistics.median(one.get(name, 0.0) for one in stages[kind]) for name in names}
        print("  " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in medians.items()))
    print(
        f"ratio {statistics.fmean(spent['pool']) / statistics.fmean(spent['without']):.2f}, {size} children at a time"
    )


if __name__ == "__main__":
    main()
