"""The output gate: are these arrays the reference's, but for rounding? NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rtmo_optuna.engine.gate import pictures
from rtmo_optuna.engine.gate.detections import Comparison, compare, find_boxes, followers
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.measurement import FIGURES, GateMode, GateResult, GateRules, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
    Sample: TypeAlias = Mapping[str, Array]
    Figures: TypeAlias = Mapping[str, Sequence[float]]

_MOST_PARTS, _LEAST_NUMBERS = 1024, 16
_WORST = 1e9
_NOTHING = 1e-6  # single precision says nothing about numbers this much smaller than those beside them
_SMALL = 0.1  # a part of a smaller share of the whole's size is measured by that share: it matters so much less


@dataclass(frozen=True, slots=True)
class _Limit:
    """The words for a figure past its limit, and the field of GateRules with the factor of the default's own.

    The worst of the default's figure `beside` it counts as well.
    """

    words: str
    factor: str = "own_factor"
    beside: str = ""


_LIMITS = {
    "norm": _Limit("{name} is off by {value:.2%} in all (at most {limit:.2%})", "tail_factor"),
    "typical": _Limit("{name} is typically off by {value:.2%} (at most {limit:.2%})", beside="norm"),
    "axis": _Limit(
        "part {part} of {figure} of {name} is off by {value:.2%} in all (at most {limit:.2%})", "tail_factor", "norm"
    ),
    "unequal": _Limit("{value:.2%} of {name} differ (at most {limit:.2%})"),
    "missing": _Limit("{good} of {count} confident rows found {least}"),
    "extra": _Limit("{good} of {count} confident rows are in the reference {least}"),
    "invented": _Limit("{value:.0f} confident rows where the reference has next to none"),
    "box": _Limit("the boxes typically overlap by {right:.0%} {least}"),
    "score": _Limit("the scores are typically off by {value:.0%} (at most {limit:.0%})"),
    "column": _Limit("column {part} of {name} is typically off by {value:.0%} (at most {limit:.0%})"),
    "label": _Limit("{value:.0%} of the rows of {name} differ (at most {limit:.0%})"),
    "pixels": _Limit("{name} is typically {value:.1f} px off (at most {limit:.1f})"),
    "keypoint": _Limit(
        "point {part} of {name} is over {value:.1f} px off in three rows of four (at most {limit:.1f})",
        "tail_factor",
        "keypoint",
    ),
    "lost": _Limit("{value:.0f} of {count} people or objects are lost (at most {limit:.0f})"),
    "added": _Limit("{value:.0f} people or objects are found that are not there (at most {limit:.0f})"),
    "far": _Limit("one keypoint in twenty is {value:.1f} px off or more (at most {limit:.1f})"),
    "picture": _Limit("keypoints are typically {value:.1f} px off in one picture (at most {limit:.1f})", "tail_factor"),
}


def judge(
    reference: Sequence[Sample], outputs: Sequence[Sample], rules: GateRules, own: GateResult | None = None
) -> GateResult:
    """Say whether `outputs` are the `reference`'s, each one mapping of name to array a sample; at least one sample.

    `own` is what this function says of the default settings' outputs without an `own`: no limit is stricter than what
    rounding alone makes of this model. A median or a share of rows may be `own_factor` times the default's: in RTMO-t
    and RTMO-s with random weights (20 seeds, 20 pairs of roundings to TF32's 10 bits each) one rounding came to 0.7 of
    what another one allows. A norm may be `tail_factor` times the default's, as a few numbers can decide it: it was up
    to 7.5 times as large. But no relative error or share may come more than half the way from the default's to 1, where
    nothing is right, so that a zeroed channel is found under any rounding. Judged with its own result the default
    passes, unless its types, shapes or NaNs are wrong. Of several pictures each counts: nobody may be lost in one or
    added to one, but three times as many as by the default.

    Wrong whatever the limits: a missing output, another type or shape, NaN or infinity where the reference has none.
    Raises UsageError where an output holds no numbers or no finite one, or where `rules` want detections and no output
    is a list of boxes (see `find_boxes`).
    """
    if rules.mode is GateMode.OFF:
        return GateResult(passed=True, mode=GateMode.OFF)
    samples = list(zip(reference, outputs, strict=True))
    boxes = _boxes(reference, rules)
    listed = (boxes, *followers(reference, boxes)) if boxes else ()
    known = {error.name: error.figures for error in own.errors} if own else {}
    faults = {name: _fault(name, samples, boxes if name in listed else "") for name in reference[0]}
    sound = [name for name, fault in faults.items() if not fault]
    compared = {name: _elementwise(name, samples) for name in sound if name not in listed}
    rows, people = rules.min_rows, None
    if boxes in sound:
        names = [name for name in listed if name in sound]
        noise = known.get(boxes, {}).get("score", (0.0,))[0] if own else None
        compared |= compare(samples, names, rules.overlap, rules.confident, noise=noise, least=rules.min_rows)
        rows = compared[boxes].counts["missing"]
    if boxes in sound and rows >= rules.min_rows:
        if noise is None:
            noise = float(compared[boxes].figures.get("score", (0.0,))[0])
        sides = [({n: a[n] for n in names}, {n: b[n] for n in names}) for a, b in samples]
        people = pictures.count(sides, boxes, rules, noise)
        compared[boxes] = pictures.judged(compared[boxes], people)
    errors = []
    for name, fault in faults.items():
        found = compared.get(name, Comparison("rows" if name in listed else "elementwise"))
        figures = {figure: _plain(values) for figure, values in found.figures.items()}
        wrong = fault or _complaint(name, figures, found.counts, known.get(name, {}), rules)
        errors.append(OutputError(name, found.kind, figures, found.counts, wrong))
    reason = next((f"wrong output: {error.wrong}" for error in errors if error.wrong), "")
    mode = GateMode.DETECTIONS if boxes else GateMode.ELEMENTWISE
    warnings = tuple(_warnings(reference, rows, known.get(boxes, {}), rules))
    vacuous = rows < rules.min_rows or is_empty(reference)
    return GateResult(not reason, mode, tuple(errors), vacuous, reason, warnings, people)


def strain(found: GateResult, rules: GateRules, own: GateResult | None = None) -> float:
    """Return the largest figure of `found` over its limit; infinite where outputs cannot be compared.

    Limits are those of `judge`; figures that have to be nothing count as 1 and more where they are not.
    """
    known = {error.name: error.figures for error in own.errors} if own else {}
    worst = 0.0
    for error in found.errors:
        if error.wrong and not error.figures:
            return math.inf
        for figure, values in error.figures.items():
            limits = np.broadcast_to(_limits(figure, known.get(error.name, {}), rules), len(values))
            ratios = np.where(limits > 0, np.array(values) / np.where(limits > 0, limits, 1), 1 + np.array(values))
            worst = max(worst, float(np.where(np.array(values) > 0, ratios, 0).max()))
    return worst


def is_empty(samples: Sequence[Sample]) -> bool:
    """Whether no output of any sample has an element, so that there is nothing to compare."""
    return not any(array.size for sample in samples for array in sample.values())


def _boxes(reference: Sequence[Sample], rules: GateRules) -> str:
    """Name the list of boxes, empty where outputs are compared number by number; raises UsageError as `judge` says."""
    for name, array in reference[0].items():
        if array.dtype.kind not in "biufcU":
            message = (
                f"The output {name!r} holds {array.dtype}, no numbers or texts, so it cannot be compared with a "
                "reference: run with --gate off, and check the outputs yourself."
            )
            raise UsageError(message)
        if array.size and array.dtype.kind != "U" and not any(np.isfinite(sample[name]).any() for sample in reference):
            message = (
                f"The output {name!r} is NaN or infinite everywhere for this input, so nothing can be compared: give "
                "another --input, or run with --gate off and check the outputs yourself."
            )
            raise UsageError(message)
    boxes = "" if rules.mode is GateMode.ELEMENTWISE else find_boxes(reference)
    if rules.mode is GateMode.DETECTIONS and not boxes:
        message = (
            f"None of the outputs {', '.join(reference[0])} is a list of boxes ([images, rows, 5 or 6]: left, top, "
            "right, bottom, score), so no rows can be matched: choose the output gate `elementwise` or `auto`."
        )
        raise UsageError(message)
    return boxes


def _fault(name: str, samples: Sequence[tuple[Sample, Sample]], boxes: str) -> str:
    """Say what makes an output incomparable, else nothing; its number of rows is free where it has those of `boxes`."""
    for sample, other in samples:
        if name not in other:
            return f"there is no output {name}"
        wanted, found = sample[name], other[name]
        shape = wanted.shape
        if boxes:
            shape = shape[:1] + other.get(boxes, found).shape[1:2] + shape[2:]
        if found.dtype != wanted.dtype and {found.dtype.kind, wanted.dtype.kind} != {"U"}:
            return f"{name} holds {found.dtype} instead of {wanted.dtype}"
        if found.shape != shape:
            return f"{name} has the shape {list(found.shape)} instead of {list(shape)}"
        if wanted.dtype.kind == "U":
            continue
        expected, strange = (np.where(np.isfinite(array), 0, array) for array in (wanted, found))
        if strange.any() and not expected.any() if boxes else not np.array_equal(expected, strange, equal_nan=True):
            return f"{name} holds NaN or infinity where the reference has none, or lacks those that it has"
    return ""


def _elementwise(name: str, samples: Sequence[tuple[Sample, Sample]]) -> Comparison:
    """Compare arrays of equal shapes; the worst sample counts. Axes that differ between samples are not judged."""
    pairs = [(wanted[name], found[name]) for wanted, found in samples if wanted[name].size]
    each = [(_float_errors if wanted.dtype.kind in "fc" else _integer_errors)(wanted, found) for wanted, found in pairs]
    if not each:
        return Comparison("elementwise")
    shared = [figure for figure in each[0] if len({len(errors.get(figure, ())) for errors in each}) == 1]
    return Comparison("elementwise", {figure: np.max([errors[figure] for errors in each], axis=0) for figure in shared})


def _integer_errors(wanted: Array, found: Array) -> dict[str, Array]:
    return {"unequal": np.array([np.mean(wanted != found)])}


def _float_errors(wanted: Array, found: Array) -> dict[str, Array]:
    """Return the errors of the whole, and of each part along the second and the last axis, where channels are.

    The whole hides a channel: one zeroed out of 192 is 7 % of the norm, and TF32 moves it by up to 5 %. A part that is
    small beside the whole is measured by a tenth of the whole's size (rounding before a sigmoid is all there is of its
    smallest values); axes too long to hold channels are left out.
    """
    finite, wide = np.isfinite(wanted), np.result_type(wanted, np.float64)
    wanted, found = (np.where(finite, array, 0).astype(wide).reshape(array.shape or 1) for array in (wanted, found))
    errors, sizes = np.abs(found - wanted), np.abs(wanted)
    least = np.maximum(_NOTHING * _rms(sizes), np.finfo(np.float32).tiny)
    whole = np.maximum(_rms(sizes), least)
    figures = {"norm": _rms(errors) / whole, "typical": np.median(errors) / whole}
    for axis in sorted({1, wanted.ndim - 1} & set(range(1, wanted.ndim))):
        parts = wanted.shape[axis]
        if 1 < parts <= _MOST_PARTS and wanted.size >= _LEAST_NUMBERS * parts:
            figures[f"axis {axis}"] = _rms(errors, axis) / np.maximum(_rms(sizes, axis), _SMALL * whole)
    return figures


def _rms(sizes: Array, axis: int | None = None) -> Array:
    """Root mean squares, one for all or for each place along an axis."""
    parts = sizes.reshape(1, -1) if axis is None else np.moveaxis(sizes, axis, 0).reshape(sizes.shape[axis], -1)
    return np.asarray(np.sqrt((parts**2).mean(axis=1)))


def _limits(figure: str, known: Figures, rules: GateRules) -> Array:
    """Return what each part of a figure may be at most, given the default's figures."""
    kind = figure.split(maxsplit=1)[0]
    row, told = _LIMITS[kind], FIGURES[kind]
    own = np.maximum(np.array(known.get(figure, (0.0,))), max(known.get(row.beside, (0.0,))))
    wider = getattr(rules, row.factor) * own
    bounded = np.where(own < 1, np.minimum(wider, (1 + own) / 2), wider) if told.share else wider
    return np.asarray(np.maximum(getattr(rules, told.rule) if told.rule else 0.0, bounded))


def _plain(values: Array) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in np.nan_to_num(values, nan=_WORST, posinf=_WORST))


def _complaint(name: str, figures: Figures, counts: Mapping[str, int], known: Figures, rules: GateRules) -> str:
    """Say what is past its limit, else nothing; of the parts of a figure the one that is furthest past."""
    for figure, values in figures.items():
        limits = np.broadcast_to(_limits(figure, known, rules), len(values))
        part = int(np.argmax(values - limits))
        value, limit = values[part], float(limits[part])
        if value > limit:
            count = counts.get(figure, 0)
            facts = {"name": name, "figure": figure, "part": part, "value": value, "limit": limit, "right": 1 - value}
            facts |= {"count": count, "good": round((1 - value) * count), "least": f"(at least {1 - limit:.0%} needed)"}
            return _LIMITS[figure.split(maxsplit=1)[0]].words.format(**facts)
    return ""


def _warnings(reference: Sequence[Sample], rows: int, known: Figures, rules: GateRules) -> Iterator[str]:
    """Yield what makes the gate weaker than it looks, given the rows to judge by and the default's figures of them."""
    if empty := [name for name in reference[0] if not any(sample[name].size for sample in reference)]:
        yield (
            f"There was nothing to compare in {', '.join(empty)}, which the model leaves empty for this input: give an "
            "--input in which it finds something."
        )
    for name in reference[0]:
        if reference[0][name].dtype.kind == "U":
            continue
        if strange := sum(int((~np.isfinite(sample[name])).sum()) for sample in reference):
            yield f"The reference's {name} holds NaN or infinity in {strange} places, where sizes cannot be compared."
    if rows < rules.min_rows:
        yield (
            f"Only {rows} rows of the reference are confident and {rules.min_rows} are needed to judge by, so the "
            "output gate is vacuous: give an input in which the model finds more."
        )
    unfound = max(*known.get("missing", (0.0,)), *known.get("extra", (0.0,)))
    if unfound > rules.reported:
        yield (
            f"The default settings themselves find only {1 - unfound:.0%} of the reference's confident rows, so the "
            "output gate lets other settings differ as much: look at their outputs before you use them."
        )
