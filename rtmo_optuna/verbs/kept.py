"""Comparisons in files, and two of those files against each other: of other days, machines or versions."""

import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtmo_optuna.cache import replacing
from rtmo_optuna.codec import decode, encode
from rtmo_optuna.errors import LostError, UsageError
from rtmo_optuna.show.words import written
from rtmo_optuna.stats import median
from rtmo_optuna.types.findings import LEAST_GAIN, LEAST_PAIRS, Claim, Decided
from rtmo_optuna.types.request import Settings
from rtmo_optuna.verbs.checks import check_place
from rtmo_optuna.verbs.comparison import Bench, Comparison, Side, comparison
from rtmo_optuna.verbs.envelope import SCHEMA, answer

KIND = "bench"
_NORMAL_99 = statistics.NormalDist().inv_cdf(0.99)
_FOLDER = Path("results", "bench")
_SAME = {"model_sha256": "model", "shapes": "input shape", "rate_hz": "rate"}
"""Without what two results cannot be compared."""


def place(output: Path | None, model: Path) -> Path:
    """Return the file that takes the result: `output`, or one in it or in results/bench/ that is named after the time.

    Raises UsageError where nothing can be written there.
    """
    folder = output or _FOLDER
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    file = folder if folder.suffix.lower() == ".json" else folder / f"{model.stem}-{stamp}.json"
    check_place(file)
    return file


def keep(found: Bench, file: Path) -> None:
    """Write a comparison into `file`, in one step; raises LostError where that fails."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            new.write_text(json.dumps(answer(KIND, found), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise LostError(f"The result could not be kept in {file}: {error.strerror}.") from error


def load(file: Path) -> Bench:
    """Return the comparison in `file`; raises UsageError where there is none that this version can read."""
    problem = ""
    plain: Any = None
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValueError:
        problem = "is no JSON"
    if not problem and not (isinstance(plain, dict) and plain.get("kind") == KIND):
        problem = "holds no result of rtmo-optuna bench"
    if not problem and plain["schema"] != SCHEMA:
        problem = f"is of schema {plain['schema']}, and this version of rtmo-optuna reads {SCHEMA}"
    if not problem:
        try:
            return decode(Bench, {name: value for name, value in plain.items() if name not in answer(KIND, None)})
        except (TypeError, ValueError, KeyError):
            problem = "is damaged"
    message = f"{file} {problem}: give two files that rtmo-optuna bench has written."
    raise UsageError(message)


def against(first: Path, second: Path, slower_by: float | None = None) -> Bench:
    """Return what the file `first` holds against `second`: all settings that both ran, else the first of each.

    Their processes did not run beside each other, so that what changed on the machine meanwhile counts too. Raises
    UsageError where either cannot be read, or they are of different models, shapes or rates.
    """
    one, other = load(first), load(second)
    notes = _differences(one, other, str(first), str(second))
    ours, theirs = _sides(one, first), _sides(other, second)
    both = [settings for settings in ours if settings in theirs]
    pairs = [(settings, settings) for settings in both] or [(next(iter(ours)), next(iter(theirs)))]
    found = tuple(_unpaired(ours[mine], theirs[its], slower_by) for mine, its in pairs)
    return Bench(found, notes, one.rate_hz, one.made_of, slower_by)


def _sides(found: Bench, file: Path) -> dict[Settings, Side]:
    sides = (side for pair in found.comparisons for side in (pair.first, pair.second))
    return {side.settings: replace(side, file=str(file)) for side in sides}


def _differences(one: Bench, other: Bench, first: str, second: str) -> tuple[str, ...]:
    """Return what else is different between two runs; raise UsageError where that cannot be compared."""
    ours, theirs = (encode(found.made_of) or {} for found in (one, other))
    ours["rate_hz"], theirs["rate_hz"] = one.rate_hz, other.rate_hz
    for name, what in _SAME.items():
        mine, its = ours.get(name), theirs.get(name)
        if mine != its:
            raise UsageError(
                f"{first} is of another {what} ({mine}) than {second} ({its}): give two files of the same one."
            )
    return tuple(
        f"{name.replace('_', ' ')}: {ours.get(name)} in {first}, {theirs.get(name)} in {second}"
        for name in ("provider", "input_sha256", "machine", "versions")
        if ours.get(name) != theirs.get(name)
    )


def _unpaired(one: Side, other: Side, slower_by: float | None) -> Comparison:
    told = ratio_of(one, other)
    asked = None if slower_by is None else ratio_of(one, other, 1 + slower_by / 100)
    counts = f"{one.processes} and {other.processes} processes, not side by side"
    sentence = f"Not confirmed: {counts}, of which each file needs {LEAST_PAIRS}."
    if told.ratio and told.interval:
        ratio, low, high = written(told.ratio, *told.interval)
        sentence = f"{ratio} times as fast in {one.file} as in {other.file} (98 % interval {low} to {high}, {counts})."
    made = comparison(told, one, other, outputs="not compared", asked=asked)
    return replace(made, sentence=f"{one.settings}: {sentence}")


def ratio_of(one: Side, other: Side, factor: float = 1.0) -> Claim:
    """Return the claim that `one` is faster than an `other` that takes `factor` times as long as it does.

    The estimate is Hodges and Lehmann's of the shift between two samples of log latencies, the interval what is left of
    all differences when the rank-sum test at 98 % is inverted, by its normal approximation (Hollander and Wolfe,
    Nonparametric Statistical Methods, sections 4.2 and 4.3). Nothing is claimed under 10 processes of either.
    """
    ours, theirs = one.processes_ms, other.processes_ms
    told = Claim(one.settings, other.settings, over=True)
    if min(len(ours), len(theirs)) < LEAST_PAIRS:
        return told
    gaps = sorted(math.log(factor * its / mine) for mine in ours for its in theirs)
    count = len(gaps)
    cut = max(0, math.floor(count / 2 - _NORMAL_99 * math.sqrt(count * (len(ours) + len(theirs) + 1) / 12)))
    ratio, low, high = (math.exp(log) for log in (median(gaps), gaps[cut], gaps[-1 - cut]))
    faster, slower = low > 1 and ratio >= 1 + LEAST_GAIN, high < 1 and ratio <= 1 / (1 + LEAST_GAIN)
    decided = Decided.FASTER if faster else Decided.SLOWER if slower else Decided.UNPROVEN
    pairs = min(len(ours), len(theirs))
    return Claim(one.settings, other.settings, decided, ratio, (low, high), pairs, pairs, over=True)
