"""The A/A test: how often a study claims a gain where there is none, and how often it finds one that is there.

    python benchmarks/aa.py record --model models/rtmo-s.onnx --count 12 --kinds plain canary --output x.json
    python benchmarks/aa.py replay x.json --gain 0.02 0.03 0.05 --studies 1000
    python benchmarks/aa.py replay --spread 0.02 0.05 --gain 0.02 0.03
    python benchmarks/aa.py live --model models/rtmo-s.onnx --provider cuda --quick --studies 3
    python benchmarks/aa.py live --engine scripted --between 0.02 --planted-gain 0.05 --studies 10

`record` runs fresh processes of the default settings, as a study does. `replay` draws studies from what was recorded,
through the program's own race and confirmation. `live` runs whole tunes. Each compares with what others do: one
process of each settings, and the fastest of them against the one process of the default ("argmin").
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

import on_device
from aa_replay import CANARY, PLAIN, Process, Recording, replay, variation, write
from rtmo_optuna.codec import encode
from rtmo_optuna.errors import TunerError
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.runner import Rules
from rtmo_optuna.show.sections.verdict import sentence
from rtmo_optuna.types.findings import LEAST_GAIN
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import EngineKind, Settings
from rtmo_optuna.verbs import tune
from rtmo_optuna.verbs.prepare import TuneOptions, plan, runner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rtmo_optuna.search.runner import Rules
    from rtmo_optuna.types.study import Observer, StudyRecord, TrialRecord
    from rtmo_optuna.verbs.prepare import Plan

PLANTED = ("graph_optimization_level", "ORT_ENABLE_BASIC")
SCRIPTED_STUDY = """
provider: cpu
knobs:
  graph_optimization_level: all
  enable_cpu_mem_arena: all
  enable_mem_pattern: all
  session.intra_op.allow_spinning: all
  session.set_denormal_as_zero: all
measuring: {warmup_s: 0.01, warmup_calls: 2, window_s: 0.03, window_calls: 3, windows_min: 3, windows_max: 5}
"""


# --- record ---


def record(args: argparse.Namespace) -> None:
    """Run the processes, write them after each one, and print how far those of each kind differ."""
    with tempfile.TemporaryDirectory(prefix="aa-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        planned = plan(_options(args, folder), folder)
        kinds = {
            kind: stack.enter_context(contextlib.closing(runner_of(planned, on_device.observe))) for kind in args.kinds
        }
        if CANARY in kinds and not planned.about.machine.gpu:
            message = "On cpu nothing is pinned: record processes of the kind 'plain'."
            raise TunerError(message)
        facts = {**on_device.facts(planned), "provider": planned.about.definition.provider}
        processes: list[Process] = []
        for index in range(args.count):
            order = list(kinds.items())
            for kind, runner in order if index % 2 == 0 else reversed(order):
                rules = replace(planned.rules, pin=kind == CANARY)
                processes.append(_process(kind, runner, rules, planned.about.space.fixed, folder / "log.txt"))
                last = processes[-1]
                dropped = "".join(f", dropped {count} ({why})" for why, count in last.dropped.items())
                print(f"{kind:7} {last.value_ms:9.4f} ms, {len(last.windows_ms)} windows{dropped}", flush=True)
                write(args.output, encode(Recording(facts, tuple(processes))))
    recording = Recording({}, tuple(processes))
    for kind in kinds:
        values = recording.values(kind)
        print(
            f"{kind}: {len(values)} processes, coefficient of variation {variation(values):.1%}, "
            f"{min(values):.4f} to {max(values):.4f} ms, median {statistics.median(values):.4f} ms"
        )


def _process(kind: str, runner: ChildRunner, rules: Rules, settings: Settings, log: Path) -> Process:
    begun = time.monotonic()
    measured = runner.run(settings, rules, log)
    if measured.outcome is not Outcome.MEASURED or measured.latency_ms is None:
        message = f"The default settings failed: {measured.stage}: {measured.reason} {measured.log_tail}"
        raise TunerError(message)
    windows_ms = tuple(round(value / 1e6, 5) for value in measured.windows_ns)
    wall_s = round(time.monotonic() - begun, 2)
    return Process(kind, round(measured.latency_ms, 5), windows_ms, measured.spin_ns, measured.dropped, wall_s)


# --- live ---


class SameForAll(ChildRunner):
    """Runs the default settings, whatever it is asked for: all settings are names for the default.

    No knob of ONNX Runtime is certain to do nothing. So a study searches its own knobs, and here, at the last place
    before the child, they all become one.
    """

    def run(self, settings: Settings, rules: Rules, log: Path, **more: Any) -> Measurement:  # noqa: ANN401, ARG002 - passed on
        """Return the Measurement of a process of the default settings."""
        return super().run(Settings(), rules, log, **more)


def same_for_all(planned: Plan, observer: Observer, check: Callable[[], None], wait_until: float) -> SameForAll:
    """Return what runs the default settings for all of a plan's processes."""
    return SameForAll(**vars(runner_of(planned, observer, check, wait_until)))


@dataclass(frozen=True, slots=True)
class Live:
    """One whole tune: its verdict, the gains that it and the argmin of its trials claim, and what it spent.

    `right` is whether the exported settings hold the planted choice, None where none is planted; `spread` is s_b.
    """

    sentence: str
    confirmed: bool
    complete: bool
    gain: float | None
    right: bool | None
    argmin: float | None
    processes: Mapping[str, int]
    seconds: float
    spread: float | None


def live(args: argparse.Namespace) -> list[Live]:
    """Run whole tunes, each in a folder of its own; print each verdict, then the table."""
    scripted = args.engine == EngineKind.SCRIPTED
    if scripted == (args.model is not None) or (args.planted_gain and not scripted):
        message = (
            "Give --model, or --engine scripted, which brings its own; an effect can be planted in the latter only."
        )
        raise TunerError(message)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    done: list[Live] = []
    for number in range(1, args.studies + 1):
        with tempfile.TemporaryDirectory(prefix="aa-") as name:
            folder = Path(name)
            options = _scripted(args, folder) if scripted else _options(args, folder)
            done.append(_tuned(options, planted=bool(args.planted_gain)))
        last = done[-1]
        print(f"{number}: {'CLAIMED' if last.confirmed else 'not claimed'}. {last.sentence}", flush=True)
        if args.output:
            write(args.output, [asdict(one) for one in done])
    print(_summary(done))
    return done


def _tuned(options: TuneOptions, *, planted: bool) -> Live:
    begun = time.monotonic()
    result = tune.tune(options, on_device.observe, runner_of if planted else same_for_all)
    if result.interrupted:
        raise KeyboardInterrupt
    found = result.record
    best, claim = found.verdict.best, found.proven(found.space.fixed)
    spent = Counter(process.purpose.value for process in found.processes)
    spent["search"] = sum(2 if trial.measurement.second_ns else 1 for trial in found.runs)
    return Live(
        sentence=sentence(found),
        confirmed=found.verdict.confirmed,
        complete=found.finals.decided,
        gain=claim.ratio - 1 if claim and claim.ratio else None,
        right=best is not None and best.settings.get(PLANTED[0]) == PLANTED[1] if planted else None,
        argmin=argmin(found),
        processes=dict(spent),
        seconds=round(time.monotonic() - begun, 1),
        spread=found.noise.between if found.noise else None,
    )


def argmin(study: StudyRecord) -> float | None:
    """Return the gain of the fastest trial over the default's, by one process each; None where it is under 1 %."""
    single = [value for trial in study.runs if (value := _single_ns(trial)) is not None]
    default = _single_ns(study.default) if study.default else None
    gain = default / min(single) - 1 if default else 0.0
    return gain if gain >= LEAST_GAIN else None


def _single_ns(trial: TrialRecord) -> float | None:
    """Return the latency of a trial's first process: a leader's is the mean of two."""
    measured = trial.measurement
    if measured.outcome is not Outcome.MEASURED or measured.latency_ns is None:
        return None
    return measured.latency_ns if measured.second_ns is None else 2 * measured.latency_ns - measured.second_ns


def _summary(done: Sequence[Live]) -> str:
    lines = ["| method | studies | claims | mean claimed | of the planted choice |", "|---|---|---|---|---|"]
    for method, gains in (("argmin", [one.argmin for one in done]), ("ours", [one.gain for one in done])):
        claimed = [gain for gain in gains if gain is not None]
        mean = f"{statistics.fmean(claimed):.1%}" if claimed else "-"
        known = method == "ours" and done[0].right is not None
        right = str(sum(bool(one.right and one.confirmed) for one in done)) if known else "-"
        lines.append(f"| {method} | {len(done)} | {len(claimed)} | {mean} | {right} |")
    stages = {
        stage: statistics.fmean(one.processes.get(stage, 0) for one in done) for one in done for stage in one.processes
    }
    spreads = [one.spread for one in done if one.spread is not None]
    lines.append("")
    lines.append(
        f"A study took {statistics.fmean(one.seconds for one in done):.0f} s and "
        f"{sum(stages.values()):.0f} processes ({', '.join(f'{stage} {n:.0f}' for stage, n in stages.items())}); "
        f"s_b {f'{min(spreads):.1%} to {max(spreads):.1%}' if spreads else 'unknown'}; "
        f"{sum(not one.complete for one in done)} not complete."
    )
    return "\n".join(lines)


def _scripted(args: argparse.Namespace, folder: Path) -> TuneOptions:
    """Write a script, with the planted effect on one choice of one knob, and its study definition."""
    effects = {"=".join(PLANTED): 1 / (1 + args.planted_gain)} if args.planted_gain else {}
    script = {"base_ms": args.base_ms, "between": args.between, "within": 0.01, "effects": effects}
    model, study = folder / "script.json", folder / "planted.yaml"
    model.write_text(json.dumps(script), encoding="utf-8")
    study.write_text(SCRIPTED_STUDY, encoding="utf-8")
    plain = _options(args, folder)
    return replace(plain, model=model, study=str(study), provider="cpu", engine=EngineKind.SCRIPTED)


# --- shared ---


def _options(args: argparse.Namespace, folder: Path) -> TuneOptions:
    return on_device.options(args, folder, trials=args.trials, timeout_s=args.timeout)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    model = argparse.ArgumentParser(add_help=False)
    on_device.add_arguments(model)
    model.add_argument("--trials", type=int, help="trials of a study")
    model.add_argument("--timeout", type=float, metavar="SECONDS", help="limit of a study")

    one = commands.add_parser("record", parents=[model], help="run fresh processes of the default settings")
    one.add_argument("--model", type=Path, required=True, help="ONNX file")
    one.add_argument("--count", type=int, default=12, help="processes of each kind; default: %(default)s")
    one.add_argument(
        "--kinds", nargs="+", default=[PLAIN], choices=(PLAIN, CANARY), help="interleaved; default: %(default)s"
    )
    one.add_argument("--output", type=Path, required=True, help="JSON file, written anew after each process")
    one.set_defaults(run=record)

    two = commands.add_parser("replay", help="draw studies from recorded processes, or from a lognormal spread")
    two.add_argument("recordings", type=Path, nargs="*", help="what record wrote; several are pooled")
    two.add_argument("--kind", default=PLAIN, choices=(PLAIN, CANARY), help="of processes; default: %(default)s")
    two.add_argument("--spread", type=float, nargs="+", default=[], help="lognormal processes instead: s_b, e.g. 0.02")
    two.add_argument("--gain", type=float, nargs="+", default=[], help="beside A/A: one faster setting, e.g. 0.03")
    two.add_argument("--settings", type=int, default=40, help="searched in a study; default: %(default)s")
    two.add_argument("--studies", type=int, default=1000, help="default: %(default)s")
    two.add_argument("--seed", type=int, default=0, help="of the drawn processes; default: %(default)s")
    two.add_argument("--output", type=Path, help="JSON file for the table")
    two.set_defaults(run=replay)

    three = commands.add_parser("live", parents=[model], help="run whole tunes whose every setting is the default")
    three.add_argument("--model", type=Path, help="ONNX file")
    three.add_argument("--studies", type=int, default=3, help="default: %(default)s")
    three.add_argument("--engine", default="onnxruntime", choices=[str(kind) for kind in EngineKind], help="see below")
    three.add_argument("--planted-gain", type=float, default=0.0, help="scripted: one choice is faster by this (0.05)")
    three.add_argument(
        "--between", type=float, default=0.02, help="scripted: spread of processes; default: %(default)s"
    )
    three.add_argument(
        "--base-ms", type=float, default=30.0, help="scripted: latency of the default settings; default: %(default)s"
    )
    three.add_argument("--output", type=Path, help="JSON file, written anew after each study")
    three.set_defaults(run=live)
    three.epilog = "The scripted engine takes real time in real children, as its script says; no model is needed."
    return top


def main() -> None:
    """Run the command; a fault of the user's is one sentence."""
    args = parser().parse_args()
    try:
        args.run(args)
    except TunerError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
