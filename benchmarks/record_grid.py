"""Records a grid: all settings of a study in fresh processes, through what runs a tune's trials."""

from __future__ import annotations

import math
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import grids
import on_device
from rtmo_optuna.codec import encode
from rtmo_optuna.errors import UsageError
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.runner import Conditions, Rules
from rtmo_optuna.space.resolve import every_params, settings_of
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.verbs.prepare import plan, runner_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping

    from rtmo_optuna.types.request import Settings
    from rtmo_optuna.verbs.prepare import Plan


@dataclass
class Recorder:
    """Runs what is due and writes `output` after each process; `until` is when the last one must have ended."""

    grid: grids.Grid
    runner: ChildRunner
    rules: Rules
    output: Path
    log: Path
    until: float

    def run(self, args: argparse.Namespace) -> None:
        """Run until each settings has its processes and the best have more that are held out, or the time is over.

        The default runs once before all others: no settings need to be nearer to the reference than it is.
        """
        first = self.runner.run(self.grid.fixed, self.rules, self.log)
        self.rules = self.rules.under(Conditions(pin=self.rules.pin, own=first.gate))
        entries = {entry.settings: entry for entry in self.grid.entries}
        for settings, held_out in self._due(entries, args):
            if time.monotonic() + statistics.median(self.runner.seen.walls_s) > self.until:
                print("The time is over: the same command goes on from here.")
                break
            process = self._process(settings)
            if process is not None:
                entries[settings] = entries[settings].with_process(process, held_out=held_out)
                grids.save(replace(self.grid, entries=tuple(entries.values())), self.output)
        done = [len(entry.processes) for entry in entries.values()]
        held = sum(len(entry.held_out) for entry in entries.values())
        print(
            f"{self.output}: {sum(done)} processes of {sum(map(bool, done))} settings, of {len(done)}; {held} held out."
        )

    def _due(
        self, entries: Mapping[Settings, grids.Entry], args: argparse.Namespace
    ) -> Iterator[tuple[Settings, bool]]:
        """Yield settings whose next process is due, and whether that is to be held out.

        They come in blocks of one process each in random order, the default's first; at last those that are held out,
        of the best settings by then.
        """
        for block in range(args.processes):
            for settings in self._order(entries, f"{args.seed} {block}"):
                if len(entries[settings].processes) == block and not entries[settings].failed:
                    yield settings, False
        ranked = sorted((e.true_ms, str(s), s) for s, e in entries.items() if e.true_ms is not None and not e.held_out)
        chosen = [settings for settings, entry in entries.items() if entry.held_out]
        chosen += [settings for _, _, settings in ranked][: max(0, args.best - len(chosen))]
        for block in range(args.held_out):
            for settings in self._order(dict.fromkeys((self.grid.fixed, *chosen)), f"{args.seed} held out {block}"):
                if len(entries[settings].held_out) == block and not entries[settings].failed:
                    yield settings, True

    def _order(self, settings: Iterable[Settings], seed: str) -> tuple[Settings, ...]:
        others = [one for one in settings if one != self.grid.fixed]
        random.Random(seed).shuffle(others)  # noqa: S311 - no secret
        return (self.grid.fixed, *others)

    def _process(self, settings: Settings) -> grids.Process | None:
        """Return a process of `settings`; None where it says nothing of them: throttled, or cut off by the time."""
        left_s = max(1.0, self.until - time.monotonic())
        limits = self.rules.limits
        stages = {f"{stage}_s": min(getattr(limits, f"{stage}_s"), left_s) for stage in grids.LIMITED}
        measured = self.runner.run(settings, replace(self.rules, limits=replace(limits, **stages)), self.log)
        process = grids.process_of(measured, self.runner.seen.walls_s[-1])
        print(f"{process.wall_s:6.2f} s  {process.reason or f'{process.latency_ms:.4f} ms'}  {settings}", flush=True)
        cut_off = process.outcome is Outcome.FAILED and time.monotonic() > self.until
        return None if cut_off or process.outcome is Outcome.INTERRUPTED else process


def record(args: argparse.Namespace) -> None:
    """Record what the command line asks for; see `replay.py record`."""
    until = math.inf if args.time_limit is None else time.monotonic() + args.time_limit
    with tempfile.TemporaryDirectory(prefix="replay-") as name:
        folder = Path(name)
        planned = plan(on_device.options(args, folder), folder)
        grid, runner = _begun(args.output, planned), runner_of(planned, on_device.observe)
        rules = replace(planned.rules, pin=args.pin)
        try:
            Recorder(grid, runner, rules, args.output, folder / "log.txt", until).run(args)
        finally:
            runner.close()


def _begun(output: Path, planned: Plan) -> grids.Grid:
    """Return the grid in `output` where it is of the same plan, else a new one."""
    about = planned.about
    known = dict.fromkeys(settings_of(about.space, params) for params in every_params(about.space))
    new = grids.Grid(
        facts={
            **on_device.facts(planned),
            "model_sha256": about.model_sha256,
            "measuring": encode(about.definition.measuring),
        },
        provider=about.space.provider,
        fixed=about.space.fixed,
        dimensions=about.space.dimensions,
        entries=tuple(map(grids.Entry, known)),
    )
    if not output.exists():
        return new
    old = grids.load(output)
    if replace(old, entries=()) != replace(new, entries=()):
        message = f"{output} holds a grid of something else (model, machine, versions or space): name another --output."
        raise UsageError(message)
    return old
