"""What the tuner itself costs: the parent's own time for each trial, and the child's start against a bare script.

    python benchmarks/bench_overhead.py [--model models/rtmo-s.onnx --input models/rtmo-s.npz] [--trials 50]

Parent: the wall time of a trial (ask, spawn, read, tell; 10 knobs, 10 reports, 2 artifacts, SQLite) less what it spent
waiting for the child, at the start of a study and after 1,000 trials, by the clock and by the processor's time. Report:
from the database of a study of 1,000 trials to Markdown, page and pictures. Child: time from spawn to the end of its
first run, warm-up left out, against a script that imports ONNX Runtime, opens the same session and runs it once;
interleaved.
"""

from __future__ import annotations

import argparse
import json
import math
import select
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

import simulated
from rtmo_optuna.child import launcher, protocol
from rtmo_optuna.machine.host import host
from rtmo_optuna.samplers.attributes import ours
from rtmo_optuna.samplers.table import distributions
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.space.knobs import dimension_table
from rtmo_optuna.space.resolve import every_params, settings_of
from rtmo_optuna.study.library import open_study
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import BenchmarkRequest, EngineKind, Measuring, ModelFacts, SessionSpec
from rtmo_optuna.types.subject import InputFacts, StudyDefinition
from rtmo_optuna.verbs.tune import report

if TYPE_CHECKING:
    from rtmo_optuna.study.study import Study

LATE = 1000
TEN_WINDOWS = Measuring(
    warmup_s=0.0, warmup_calls=1, window_s=0.0, window_calls=1, windows_min=10, windows_max=10, precision=0.0
)
BARE = """
import sys, time
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
with np.load(sys.argv[2]) as stored:
    feed = {name: stored[name][0] for name in stored.files}
session.run(None, feed)
print("ran", flush=True)
"""


class Waiting:
    """Adds up how long the launcher waits for the child."""

    def __init__(self) -> None:
        """Put a clock around the launcher's two ways of waiting."""
        self.seconds = 0.0
        select.select = self._timed(select.select)
        subprocess.Popen.wait = self._timed(subprocess.Popen.wait)  # type: ignore[method-assign]

    def _timed(self, wait: Any) -> Any:  # noqa: ANN401 - any callable
        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            start = time.perf_counter()
            try:
                return wait(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def a_study(folder: Path) -> tuple[Study, SessionSpec, str]:
    """Return a study of ten knobs over a scripted engine of 1 ms a call, whose child prints a line."""
    script = folder / "script.json"
    script.write_text(json.dumps({"base_ms": 1.0, "faults": [{"when": {}, "fault": "print JSON"}]}), encoding="utf-8")
    inputs = folder / "inputs.npz"
    np.savez(inputs, input=np.zeros((1, 1), np.float32))
    names = list(dimension_table("cuda"))[:10]
    definition = StudyDefinition(
        "overhead",
        "cuda",
        dict.fromkeys(names),
        trials=10**6,
        timeout_s=math.inf,
        prune_ratio=1e6,
        measuring=TEN_WINDOWS,
    )
    machine = host()
    model = ModelFacts((), (), 0, {}, {}, "cuda", {"onnxruntime": "99.0"})
    made = InputFacts(str(inputs), "", {"input": (1,)}, 1, "", real=True)
    study = simulated.opened(folder, definition, machine, model, model_path=str(script), inputs=made)
    return study, SessionSpec(str(script), "cuda", engine=EngineKind.SCRIPTED), str(inputs)


def fill(study: Study, count: int) -> None:
    """Add `count` finished trials of different settings to the study's storage."""
    random = np.random.default_rng(0)
    measurement = Measurement(Outcome.MEASURED, latency_ns=1e6, windows_ns=(1e6,) * 10).summary()
    space = study.about.space
    for params in [p for p, keep in zip(every_params(space), random.random(10**6) < 0.1, strict=False) if keep][:count]:  # noqa: PLR2004
        study._study.add_trial(  # noqa: SLF001 - a thousand real trials would take an hour
            optuna.trial.create_trial(
                params=params,
                distributions=dict(distributions(space)),
                value=float(random.random()),
                intermediate_values=dict(enumerate(random.random(10))),
                user_attrs={"outcome": "measured"},
                system_attrs=ours(settings=settings_of(space, params), measurement=measurement),
            )
        )


def parent_cost(trials: int, filled: int, waiting: Waiting) -> tuple[float, float, float]:
    """Return the median of the parent's own milliseconds for a trial, of the processor's, and of the whole trial's."""
    with tempfile.TemporaryDirectory() as name:
        study, session, inputs = a_study(Path(name))
        if filled:
            fill(study, filled)
            study = open_study(study.about.storage, study.about, {}, new=False)
        own, busy, whole, first = [], [], [], study.runs
        changes: dict[str, Any] = {"trials": first + trials, "sampler": "exhaustive"}  # all are alike: do not give up
        study.about = replace(study.about, definition=replace(study.about.definition, **changes))
        mark = [time.perf_counter(), time.process_time()]
        waiting.seconds = 0.0

        def observe(event: object) -> None:
            if type(event).__name__ == "TrialEnded":
                now = time.perf_counter()
                whole.append(now - mark[0])
                own.append(now - mark[0] - waiting.seconds)
                busy.append(time.process_time() - mark[1])
                waiting.seconds, mark[:] = 0.0, [time.perf_counter(), time.process_time()]

        runner = ChildRunner(session, inputs, observe)
        tune = simulated.tune(study, runner, study.about.space.fixed, baseline=0, observer=observe, search_only=True)
        tune.run()
        assert study.runs >= first + trials, study.trials[-1]
        failed = [trial.measurement.why for trial in study.trials[-trials:] if study.failed(trial.settings)]
        assert not failed, failed
        own_s, busy_s, whole_s = map(statistics.median, (own, busy, whole))
        return own_s * 1e3, busy_s * 1e3, whole_s * 1e3


def report_cost(trials: int) -> str:
    """Return how long the report of a study of so many trials takes from its database on, and how large its page is."""
    with tempfile.TemporaryDirectory() as name:
        study, *_ = a_study(Path(name))
        fill(study, trials)
        begun, busy = time.perf_counter(), time.process_time()
        page = report(study.name, study.about.storage, Path(name, "report.md")).files[1]
        took, busy = time.perf_counter() - begun, time.process_time() - busy
        return f"{took:.1f} s, {busy:.1f} of the processor's; its page has {page.stat().st_size / 1e6:.2f} MB"


def child_life(model: Path, inputs: Path, pairs: int) -> tuple[list[float], list[float]]:
    """Return the seconds from spawn to the end of the first run: of our children, and of bare scripts."""
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stored = folder / "inputs.npz"
        with np.load(inputs) as arrays:
            np.savez(stored, **{key: arrays[key][None] for key in arrays.files})
        request = BenchmarkRequest(SessionSpec(str(model), "cpu"), str(stored))
        for _ in range(pairs):
            start = time.perf_counter()
            with launcher.Child(folder / "log.txt") as child:
                child.receive(60)
                child.send(protocol.dump(request))
                answers = [child.receive(60), child.receive(60)]
                ours.append(time.perf_counter() - start)
                assert isinstance(answers[1], protocol.Ran), answers
            start = time.perf_counter()
            command = [sys.executable, "-c", BARE, str(model), str(stored)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as script:  # noqa: S603 - our own interpreter
                assert script.stdout is not None
                assert script.stdout.readline() == b"ran\n"
                bare.append(time.perf_counter() - start)
                script.kill()
    return ours, bare


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=15)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    waiting = Waiting()
    early, early_busy, whole = parent_cost(args.trials, 0, waiting)
    told = f"median of {args.trials}; the whole trial {whole:.0f} ms"
    print(f"parent's own cost of a trial: {early:.1f} ms, {early_busy:.1f} of the processor's ({told})")
    late, late_busy, _ = parent_cost(args.trials, LATE, waiting)
    more = f"{late / early:.2f} and {late_busy / early_busy:.2f} times as much"
    print(f"the same after {LATE:,} trials: {late:.1f} ms, {late_busy:.1f} of the processor's, {more}")
    print(f"report of {LATE:,} trials: {report_cost(LATE)}")
    if args.model:
        ours, bare = child_life(args.model, args.input or args.model.with_suffix(".npz"), args.pairs)
        ratios = [one / other for one, other in zip(ours, bare, strict=True)]
        print(
            f"child to the end of its first run: {statistics.median(ours):.3f} s, bare script "
            f"{statistics.median(bare):.3f} s, ratio {statistics.median(ours) / statistics.median(bare):.3f} "
            f"(median of the {args.pairs} pairs' ratios {statistics.median(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
