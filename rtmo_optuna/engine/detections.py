"""Which rows of one list of detected boxes are which rows of another, and how far apart what belongs to them is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


Array: TypeAlias = "NDArray[Any]"
Sample: TypeAlias = "Mapping[str, NDArray[Any]]"

_BOX = slice(0, 4)
_SCORE = 4
_WIDTHS = (5, 6)
"""Columns of a list of detections: left, top, right, bottom, score and, where there is one, the class."""
_MOST_ROWS = 1000
"""No usual suppression leaves more (COCO counts 100, RTMO 50): what is longer are raw predictions."""
_SLACK = 0.05
"""How far rounding moves the overlap of two boxes. RTMO with random weights, its convolutions and matrix products
rounded to TF32's 10 bits, keeps the overlap of a box with itself above 0.97 as a rule."""
_USUAL = 0.7
"""What suppression is set to as a rule, at most (RTMO 0.65): two boxes of a list that overlap more are one box twice."""
_SMALL = 0.01
"""A number below this share of its column's root mean square counts as that much in relative errors."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an output was compared (`kind`), its errors by figure, and the rows behind those that are shares of rows."""

    kind: str
    figures: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Matching:
    """The rows that belong together, as places in all rows of all images, and how many of the rows that count do not.

    `judged` and `missing` count the reference's rows, `judged_outputs` and `extra` the output's.
    """

    reference: NDArray[np.intp]
    output: NDArray[np.intp]
    judged: int
    missing: int
    judged_outputs: int
    extra: int


def find_boxes(samples: Sequence[Sample]) -> str:
    """Return the name of the first output that is a list of boxes with scores in every sample, empty without one.

    That is [images, rows, 5 or 6] floats: left <= right, top <= bottom, a score from 0 to 1; at most 1000 rows.
    """
    return next((name for name in samples[0] if all(_are_boxes(sample[name]) for sample in samples)), "")


def followers(samples: Sequence[Sample], boxes: str) -> tuple[str, ...]:
    """Return the names of the outputs that have a row for each row of `boxes` in every sample, in the model's order."""
    return tuple(
        name
        for name in samples[0]
        if name != boxes and all(sample[name].shape[:2] == sample[boxes].shape[:2] for sample in samples)
    )


def compare(
    reference: Sequence[Sample],
    outputs: Sequence[Sample],
    names: Sequence[str],
    *,
    overlap: float,
    confident: float,
    margin: float,
    least: int,
) -> dict[str, Comparison]:
    """Compare the outputs `names`, the boxes first, row by row as `match` pairs them, over all samples at once.

    Boxes have the shares of rows that are `missing` and `extra`, and medians over pairs: `box` (1 less the overlap),
    `score` (relative). Keypoints [..., points, 2 or 3] have the median distance in `pixels`, and by `keypoint` the
    distance that three pairs of four exceed: two that are exchanged leave the former alone, and one that a blurred
    heatmap throws about leaves the latter alone. Visibilities and other floats have the median relative error of each
    `column`, whole numbers the share of pairs with another `label`. With fewer than `least` rows to judge by, there is
    nothing but the number of rows that the output has `invented`.
    """
    boxes = names[0]
    found = match(
        *([sample[boxes] for sample in samples] for samples in (reference, outputs)),
        overlap=overlap,
        confident=confident,
        margin=margin,
    )
    counts = {"missing": found.judged, "extra": found.judged_outputs}
    if found.judged < least:
        rest = {name: Comparison("rows") for name in names[1:]}
        return {boxes: Comparison("boxes", {"invented": np.array([float(found.extra)])}, counts)} | rest
    pairs = {
        name: (_rows(reference, name)[found.reference], _rows(outputs, name)[found.output]) for name in names
    }
    shares = {
        "missing": np.array([found.missing / found.judged]),
        "extra": np.array([found.extra / max(found.judged_outputs, 1)]),
    }
    if not len(found.reference):
        return {boxes: Comparison("boxes", shares, counts)}
    return {boxes: Comparison("boxes", shares | _box_errors(*pairs.pop(boxes)), counts)} | {
        name: _row_errors(*pair) for name, pair in pairs.items()
    }


def match(
    reference: Sequence[Array], outputs: Sequence[Array], *, overlap: float, confident: float, margin: float
) -> Matching:
    """Match the rows of `outputs` to those of `reference`, both one array [images, rows, 5 or 6] a sample.

    Within an image rows are matched one to one, those that overlap most first, where their intersection over union is
    at least `overlap`. What counts are rows that score at least `confident` * (1 + `margin`): a row nearer to the
    threshold, where the model itself may cut its list, is there or not by rounding; it can be matched, but is missed by
    nobody. Nor is a row missed that the other list has dropped for a better one that overlaps it too much, since
    rounding turns such decisions over as well (see `_suppressed`). RTMO's row of padding scores below any threshold.
    """
    pairs: list[NDArray[np.intp]] = []
    totals = np.zeros(4, dtype=np.intp)
    starts = np.zeros(2, dtype=np.intp)
    for wanted, found in zip(_images(reference), _images(outputs), strict=True):
        lists = [one[_among(one, confident / 2)] for one in (wanted, found)]
        between = intersection_over_union(*lists)
        partners = _pair(between, overlap)
        counts = [one[:, _SCORE] >= confident * (1 + margin) for one in lists]
        most = _most_overlap(lists[0][lists[0][:, _SCORE] >= confident])
        bounds = max(most - _SLACK, overlap), max(most + _SLACK, _USUAL)
        for side, (mine, other) in enumerate((lists, lists[::-1])):
            alone = np.isin(np.arange(len(mine)), partners[:, side], invert=True)
            overlaps = between if side == 0 else between.T
            missed = counts[side] & alone & ~_suppressed(mine, other, overlaps, bounds, margin)
            totals[2 * side : 2 * side + 2] += counts[side].sum(), missed.sum()
        sure = partners[counts[0][partners[:, 0]]]
        places = (np.flatnonzero(_among(one, confident / 2)) for one in (wanted, found))
        pairs.append(np.stack([place[index] for place, index in zip(places, sure.T, strict=True)], axis=1) + starts)
        starts += len(wanted), len(found)
    both = np.concatenate(pairs)
    return Matching(both[:, 0], both[:, 1], *(int(total) for total in totals))


def intersection_over_union(first: Array, second: Array) -> NDArray[np.float64]:
    """Return the overlap [len(first), len(second)] of boxes given as left, top, right, bottom in their first columns."""
    a, b = (boxes[:, _BOX].astype(np.float64) for boxes in (first, second))
    corners = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = corners.clip(min=0).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _box_errors(wanted: Array, found: Array) -> dict[str, NDArray[np.float64]]:
    overlaps = intersection_over_union(wanted, found).diagonal()
    errors = {"box": np.array([1 - np.median(overlaps)]), "score": _column_errors(wanted[:, 4:5], found[:, 4:5])}
    if wanted.shape[1] > max(_WIDTHS[:1]):
        errors["label"] = ...
    return errors


def _are_boxes(array: Array) -> bool:
    if array.dtype.kind != "f" or array.ndim != 3 or array.shape[2] not in _WIDTHS or array.shape[1] > _MOST_ROWS:  # noqa: PLR2004
        return False
    left, top, right, bottom, score = np.moveaxis(array, 2, 0)[:5]
    return not ((left > right) | (top > bottom) | (score < 0) | (score > 1)).any()


def _images(arrays: Sequence[Array]) -> list[Array]:
    return [image for array in arrays for image in array]


def _among(boxes: Array, score: float) -> NDArray[np.bool_]:
    return np.isfinite(boxes).all(axis=1) & (boxes[:, _SCORE] >= score)


def _pair(overlaps: NDArray[np.float64], least: float) -> NDArray[np.intp]:
    """Pairs [n, 2] of rows and columns, each in one pair at most, greatest overlap first."""
    first, second = np.nonzero(overlaps >= least)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for at in np.argsort(-overlaps[first, second], kind="stable"):
        row, column = int(first[at]), int(second[at])
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return np.array(sorted(pairs.items()), dtype=np.intp).reshape(-1, 2)


def _most_overlap(boxes: Array) -> float:
    return float(np.triu(intersection_over_union(boxes, boxes), 1).max(initial=0.0))


def _suppressed(
    mine: Array, other: Array, overlaps: NDArray[np.float64], bounds: tuple[float, float], margin: float
) -> NDArray[np.bool_]:
    """Which rows of `mine` the list `other` lacks for a row of its own that scores as much and overlaps them too much.

    Non-maximum suppression (Neubeck and Van Gool 2006) drops a box that overlaps a better one by more than a threshold,
    and the most that two boxes of the reference overlap is that threshold or something less. So whatever one list has
    and the other has dropped overlaps a row of that other list by about as much, the first of `bounds`, or more; and in
    its own list no row overlaps it by more than the second, unless the suppression itself is broken.
    """
    better = other[None, :, _SCORE] >= mine[:, None, _SCORE] * (1 - margin)
    dropped = (better & (overlaps >= bounds[0])).any(axis=1)
    own = intersection_over_union(mine, mine)
    np.fill_diagonal(own, 0)
    lawful: NDArray[np.bool_] = (own <= bounds[1]).all(axis=1)
    return dropped & lawful
