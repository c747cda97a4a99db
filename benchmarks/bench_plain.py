"""How plain is what a study exports, and what does that lose? Whole tunes of planted settings, on a clock of their own.

    python benchmarks/bench_plain.py --studies 100 --spreads 0.01 0.02
    python benchmarks/bench_plain.py --studies 100 --timeout 1800 --case unknown
    python benchmarks/bench_plain.py --studies 100 --trials 12 --timeout 180 --baseline 3 --process 4

Everything is the program's own but the processes: each takes 3.3 s of the clock and comes to what was planted, times
noise between processes (normal logarithms). Eight knobs do nothing. In the case "known" three do what they did on GPUs:
the cut model is 1.3 times as fast, NHWC 1.05 times, HEURISTIC 1.04 times beside the cut and nothing alone. In the case
"unknown" three others do, of which nothing was known beforehand, all of them by themselves. In "nothing" none does.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import optuna

import simulated
from rtmo_optuna.machine.host import host
from rtmo_optuna.search.verdict import verdict
from rtmo_optuna.space.resolve import params_of
from rtmo_optuna.types.findings import Purpose
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import ModelFacts, Settings, Value
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import Gpu, Machine, StudyDefinition
from simulated import SimulatedRunner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtmo_optuna.study.study import Study

_CHANGING = ("prefer_nhwc", "cudnn_conv_algo_search", "use_tf32")
"""The knobs whose choices change the outputs."""

Truth: TypeAlias = Callable[[Mapping[str, "Value"]], float]

IDLE: Mapping[str, tuple[Value, ...] | None] = {
    "gpu_mem_limit_gb": (None, 8),
    "arena_extend_strategy": None,
    "do_copy_in_default_stream": None,
    "cudnn_conv_use_max_workspace": None,
    "tunable_op": ("off", "on"),
    "use_ep_level_unified_stream": None,
    "enable_skip_layer_norm_strict_mode": None,
    "session.use_device_allocator_for_initializers": None,
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is searched beside what does nothing, how fast settings truly are in ms, and which choices are real."""

    knobs: Mapping[str, tuple[Value, ...] | None]
    truth: Truth
    best: frozenset[tuple[str, Value]]


def _known(on: Mapping[str, Value]) -> float:
    cut = on["capture"] == "split+host"
    heuristic = cut and on["cudnn_conv_algo_search"] == "HEURISTIC"
    return 1 / ((1.3 if cut else 1.0) * (1.05 if on["prefer_nhwc"] else 1.0) * (1.04 if heuristic else 1.0))


def _unknown(on: Mapping[str, Value]) -> float:
    gains = (
        (1.3, on["use_tf32"] is False),
        (1.05, not on["enable_mem_pattern"]),
        (1.04, not on["enable_cpu_mem_arena"]),
    )
    return 1 / math.prod(gain for gain, held in gains if held)


_SEARCH: Mapping[str, tuple[Value, ...]] = {"cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC")}
CASES: Mapping[str, Case] = {
    "known": Case(
        {"capture": ("off", "split", "split+host"), "prefer_nhwc": None, **_SEARCH},
        _known,
        frozenset({("capture", "split+host"), ("prefer_nhwc", True), ("cudnn_conv_algo_search", "HEURISTIC")}),
    ),
    "unknown": Case(
        {"use_tf32": None, "enable_mem_pattern": None, "enable_cpu_mem_arena": None},
        _unknown,
        frozenset({("use_tf32", False), ("enable_mem_pattern", False), ("enable_cpu_mem_arena", False)}),
    ),
    "nothing": Case({"prefer_nhwc": None, **_SEARCH}, lambda _on: 1.0, frozenset()),
}


def _study(case: Case, folder: str, trials: int, timeout_s: float, sampler: str) -> Study:
    knobs = {**case.knobs, **IDLE}
    definition = StudyDefinition("s", "cuda", knobs, trials=trials, timeout_s=timeout_s, sampler=sampler)
    gpu = Gpu(0, "GPU-0", "a GPU", 80 * 2**30, "580.1", "9.0")
    machine: Machine = replace(host(), gpu=gpu)
    operators = {"Conv": 72, "NonMaxSuppression": 1}
    model = ModelFacts(
        (), (), 17, operators, {}, "cuda", {"onnxruntime": "99.0"}, uncapturable={"NonMaxSuppression": 1}
    )
    return simulated.opened(folder, definition, machine, model)


@dataclass(frozen=True, slots=True)
class Exported:
    """What one study came to: is only what is real off its default, how many dimensions are, what was lost, the cost.

    `loss` is how much slower than the best the exported settings truly are; `spent` counts processes by what for.
    """

    exact: bool
    off: int
    idle: int
    loss: float
    confirmed: bool
    minutes: float
    spent: Mapping[str, int]


def exported(case: Case, spread: float, seed: int, args: argparse.Namespace) -> Exported:
    """Return what the study number `seed` exports."""
    with tempfile.TemporaryDirectory(prefix="rtmo_optuna-") as folder:
        study = _study(case, folder, args.trials, args.timeout, args.sampler)
        space, fixed = study.about.space, study.about.space.fixed
        default = params_of(space, fixed) or {}
        whole = {**dict.fromkeys(dict(case.best)), **default}
        noise = random.Random(f"{seed}/{spread}")  # noqa: S311 - no secret

        def cost(settings: Settings) -> float:
            return case.truth({**whole, **(params_of(space, settings) or {})})

        def process(settings: Settings, _count: int) -> Measurement:
            latency_ns = 4e6 * cost(settings) * math.exp(noise.gauss(0.0, spread))
            changed = sorted(knob for knob in _CHANGING if settings.get(knob))
            return Measurement(
                Outcome.MEASURED,
                latency_ns=latency_ns,
                windows_ns=(latency_ns,) * 4,
                calls=40,
                outputs_sha256=",".join(["same", *changed]),
            )

        runner = SimulatedRunner(process, args.process)
        begun = runner.clock()
        study.enqueue(fixed, Origin.DEFAULT)
        told = verdict(study, simulated.tune(study, runner, fixed, baseline=args.baseline).run())
        chosen = told.best.settings if told.best else fixed
        params = params_of(space, chosen) or {}
        off = {(name, label) for name, label in params.items() if label != default[name]}
        best = case.truth({**whole, **dict(case.best)})
        spent = Counter(process.purpose.value for process in study.processes)
        spent["trials"] = runner.ran.total() - len(study.processes)
        idle = len({name for name, _ in off} & IDLE.keys())
        loss, minutes = cost(chosen) / best - 1, (runner.clock() - begun) / 60
        return Exported(off == case.best, len(off), idle, loss, told.confirmed, minutes, spent)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.01, 0.02])
    parser.add_argument("--case", choices=CASES, nargs="+", default=["known"])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds of the clock; default: %(default)s")
    parser.add_argument("--baseline", type=int, default=6, help="processes of the preflight; default: %(default)s")
    parser.add_argument("--process", type=float, default=3.3, help="seconds of one; default: %(default)s")
    parser.add_argument("--sampler", default="auto", help="default: %(default)s, a Gaussian process")
    return parser


def main() -> None:
    """Print a line for each spread and case."""
    args = parser().parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for name in args.case:
        for spread in args.spreads:
            print(line(name, spread, [exported(CASES[name], spread, n, args) for n in range(args.studies)]), flush=True)


def line(name: str, spread: float, found: Sequence[Exported]) -> str:
    """Return the figures of many studies in words."""
    share = statistics.fmean
    spent = {purpose.value: share(one.spent.get(purpose.value, 0) for one in found) for purpose in Purpose}
    processes = ", ".join(f"{what} {count:.0f}" for what, count in spent.items() if count)
    loss = sorted(one.loss for one in found)
    return (
        f"{name}, s_b {spread:.1%}, {len(found)} studies: the real ones only {share(one.exact for one in found):.0%}, "
        f"idle knobs {share(one.idle for one in found):.2f} (none in {share(one.idle == 0 for one in found):.0%}), at "
        f"most 4 dimensions {share(one.off <= 4 for one in found):.0%}, loss P50 {statistics.median(loss):.2%} P90 "  # noqa: PLR2004
        f"{loss[math.ceil(0.9 * len(loss)) - 1]:.2%}, confirmed {share(one.confirmed for one in found):.0%}, "
        f"{share(one.minutes for one in found):.1f} minutes; processes: trials "
        f"{share(one.spent['trials'] for one in found):.0f}, {processes}"
    )


if __name__ == "__main__":
    main()
