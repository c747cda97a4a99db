"""Studies drawn from recorded processes, through the program's own race and confirmation; see aa.py."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import simulated
from rtmo_optuna.codec import decode
from rtmo_optuna.errors import TunerError
from rtmo_optuna.search.decide import confirm, race
from rtmo_optuna.types.findings import LEAST_GAIN

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from rtmo_optuna.types.request import Settings

CANARY, PLAIN = "canary", "plain"


@dataclass(frozen=True, slots=True)
class Process:
    """One fresh process of the default settings: its value and its windows' medians in ms, its shortest spin in ns.

    `kind` is "canary" where its windows ran on a quiet core, else "plain"; `dropped` counts windows by reason.
    """

    kind: str
    value_ms: float
    windows_ms: tuple[float, ...]
    spin_ns: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Recording:
    """What `record` writes: processes in the order in which they ran, and what they ran on."""

    facts: Mapping[str, Any]
    processes: tuple[Process, ...]

    def values(self, kind: str) -> list[float]:
        """Return the process values of a kind, in ms."""
        return [process.value_ms for process in self.processes if process.kind == kind]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one method says of one study.

    `gain` is the gain that it claims (0.02: 1.02 times as fast), None for none; `regret` how much slower than the best
    the chosen settings truly are; `right` whether the claimed settings are truly faster.
    """

    gain: float | None
    regret: float
    right: bool
    processes: int


@dataclass(frozen=True, slots=True)
class Row:
    """Many studies by one method: shares of them, means, and the processes of a study.

    `claims` is the share with a claimed gain of at least 1 %, `false` that with a claim of settings that are no faster,
    `found` that with a claim of the faster ones; `claimed_gain` is the mean of what is claimed, None without claims.
    """

    method: str
    source: str
    gain: float
    studies: int
    claims: float
    false: float
    found: float
    claimed_gain: float | None
    regret: float
    processes: float


def variation(values: Sequence[float]) -> float:
    """Return the coefficient of variation: the standard deviation over the mean; NaN for fewer than two values."""
    return statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 else math.nan


def replay(args: argparse.Namespace) -> list[Row]:
    """Print and return a row for each source of processes, gain and method; the gain 0 is the A/A study."""
    recorded = [
        value
        for path in args.recordings
        for value in decode(Recording, json.loads(path.read_text(encoding="utf-8"))).values(args.kind)
    ]
    if not recorded and not args.spread:
        message = f"There are no processes of the kind {args.kind!r} to draw from: give recordings, or --spread."
        raise TunerError(message)
    sources = [f"s_b {spread:.1%}" for spread in args.spread] or [f"{len(recorded)} recorded"]
    rows: list[Row] = []
    for place, source in enumerate(sources):
        for gain in (0.0, *args.gain):
            rng = random.Random(args.seed)  # noqa: S311 - no secret
            truth = simulated.forty(1 if gain else 0, gain, args.settings)
            draw = simulated.drawn(truth, args.spread[place], rng) if args.spread else resampled(truth, recorded, rng)
            answers = [one_study(truth, draw, seed) for seed in range(args.studies)]
            rows += [_row(method, source, gain, [both[method] for both in answers]) for method in answers[0]]
    print(table(rows))
    if args.output:
        write(args.output, [asdict(row) for row in rows])
    return rows


def resampled(truth: Mapping[Settings, float], values: Sequence[float], rng: random.Random) -> simulated.Draw:
    """Return a draw of processes from recorded `values` in ms, times the factor that `truth` has for the settings."""
    return lambda settings: rng.choice(values) * truth.get(settings, 1.0)


def one_study(truth: Mapping[Settings, float], draw: simulated.Draw, seed: int) -> dict[str, Answer]:
    """Return what each method says of one study of the settings in `truth`, from the same processes."""
    drawn: list[tuple[Settings, float | None]] = []

    def noted(settings: Settings) -> float | None:
        drawn.append((settings, draw(settings)))
        return drawn[-1][1]

    ours = simulated.study(list(truth), noted, race.RaceRules(), confirm.ConfirmRules(), seed)
    single = {settings: value for settings, value in drawn[: len(truth)] if value is not None}
    default = next(value for settings, value in drawn if settings == simulated.DEFAULT and value is not None)
    fastest = min(single, key=single.__getitem__)
    told = ours.confirmation.ratio if ours.confirmation and ours.claimed else None
    return {
        "argmin": _answer(truth, fastest, default / single[fastest], len(truth) + 1),
        "ours": _answer(truth, ours.winner or simulated.DEFAULT, told, len(drawn)),
    }


def _answer(truth: Mapping[Settings, float], chosen: Settings, ratio: float | None, processes: int) -> Answer:
    claimed = ratio is not None and ratio >= 1 + LEAST_GAIN
    level = truth.get(chosen, 1.0) if claimed else 1.0
    gain = ratio - 1 if claimed and ratio is not None else None
    return Answer(gain, level / min(truth.values()) - 1, claimed and level < 1, processes)


def _row(method: str, source: str, gain: float, answers: Sequence[Answer]) -> Row:
    gains = [answer.gain for answer in answers if answer.gain is not None]
    right = sum(answer.right for answer in answers)
    return Row(
        method=method,
        source=source,
        gain=gain,
        studies=len(answers),
        claims=len(gains) / len(answers),
        false=(len(gains) - right) / len(answers),
        found=right / len(answers),
        claimed_gain=statistics.fmean(gains) if gains else None,
        regret=statistics.fmean(answer.regret for answer in answers),
        processes=statistics.fmean(answer.processes for answer in answers),
    )


def table(rows: Sequence[Row]) -> str:
    """Return `rows` as a Markdown table."""
    lines = [
        "| processes from | true gain | method | studies | claims | false | found | mean claimed | regret | spent |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        claimed = "-" if row.claimed_gain is None else f"{row.claimed_gain:.1%}"
        lines.append(
            f"| {row.source} | {row.gain:.1%} | {row.method} | {row.studies} | {row.claims:.1%} | {row.false:.1%} | "
            f"{row.found:.1%} | {claimed} | {row.regret:.2%} | {row.processes:.0f} |"
        )
    return "\n".join(lines)


def write(path: Path, plain: object) -> None:
    """Write JSON, small enough to be kept: no spaces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, separators=(",", ":")) + "\n", encoding="utf-8")
