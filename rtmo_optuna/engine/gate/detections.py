"""Which rows of one list of detected boxes are which rows of another, and how far apart what belongs to them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array: TypeAlias = NDArray[Any]
    Errors: TypeAlias = NDArray[np.float64]
    Places: TypeAlias = NDArray[np.intp]
    Sample: TypeAlias = Mapping[str, Array]

SCORE, _LABEL = 4, 5
"""Columns of a list of detections, after left, top, right and bottom; not all have a label."""
_LIST_SHAPES = {(3, (5,)), (3, (6,))}
_KEYPOINT_SHAPES = {(3, 2), (3, 3)}
"""Dimensions and width of a list, and of what has x, y and perhaps visibility for each row and point."""
_MOST_COLUMNS = 1024
_MOST_ROWS = 1000
"""No usual suppression leaves more (COCO counts 100, RTMO 50): what is longer are raw predictions."""
_NOISES, _MARGINS = 3.0, (0.1, 0.3)
"""A score is surely past the threshold by so many times the scores' typical error, but by 10 to 30 %."""
_MOVED, _SAME = 0.2, 0.03
"""Overlap and relative difference of scores that tell a box moved aside; by half its width is an overlap of 1/3."""
_SLACK = 0.05
"""How far rounding moves the overlap of two boxes. RTMO with random weights, its convolutions and matrix products
rounded to TF32's 10 bits, keeps the overlap of a box with itself above 0.97 as a rule."""
_USUAL = 0.7
"""What suppression is set to as a rule, at most (RTMO 0.65): boxes of a list that overlap more are one box twice."""
_GREAT, _SMALL = 1e9, 0.01
"""A number below this share of its column's root mean square counts as that much in relative errors."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How an output was compared (`kind`), its errors by figure, and the rows behind those that are shares of rows."""

    kind: str
    figures: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """The reference's and the output's rows of one image, best first, and which of them belong together.

    `rows` are their places among all rows of all images, `overlaps` [reference, output] what `partners` [pairs, 2] were
    chosen by; both lists hold what scores half of what is confident, or more.
    """

    boxes: tuple[Array, Array]
    rows: tuple[Places, Places]
    overlaps: Errors
    partners: Places


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
    samples: Sequence[tuple[Sample, Sample]],
    names: Sequence[str],
    overlap: float,
    confident: float,
    *,
    noise: float | None,
    least: int,
) -> dict[str, Comparison]:
    """Compare the outputs `names`, the boxes first, row by row, over all `samples` (reference, output) at once.

    Within an image rows are matched one to one, those that overlap most first, where their intersection over union is
    at least `overlap`; RTMO's row of padding scores less than `confident` and is left out.

    Boxes have the shares of rows that are `missing` and `extra` (see `unfound`), and medians over pairs: `box` (1 less
    the overlap), `score` (relative). Keypoints [..., points, 2 or 3] have the median distance in `pixels`, and by
    `keypoint` the distance that three pairs of four exceed: two that are exchanged leave the former alone, and one that
    a blurred heatmap throws about leaves the latter alone. Visibilities and other floats have the median relative error
    of each `column`, whole numbers the share of pairs with another `label`. `noise` is the `score` of the default
    settings, None where it is they that are compared. With fewer than `least` rows of the reference that count there is
    nothing but the number of rows that the output has `invented`.
    """
    boxes = names[0]
    images = matched([(a[boxes], b[boxes]) for a, b in samples], overlap, confident)
    wanted, found = np.concatenate([_sure(image, confident) for image in images]).T
    errors = {}
    for name in names if len(wanted) else ():
        pairs = joined([a[name] for a, _ in samples])[wanted], joined([b[name] for _, b in samples])[found]
        errors[name] = _box_errors(*pairs) if name == boxes else _row_errors(*pairs)
    if noise is None:
        noise = float(errors[boxes].figures["score"][0]) if errors else 0.0
    margin = margin_of(noise)
    judged, missing, judged_outputs, extra = np.sum(
        [unfound(image, overlap, confident, margin) for image in images], axis=0
    )
    counts = {"missing": int(judged), "extra": int(judged_outputs)}
    if judged < least:
        figures = {"invented": np.array([float(extra)])}
        return {name: Comparison("rows") for name in names} | {boxes: Comparison("boxes", figures, counts)}
    shares = {"missing": np.array([missing / judged]), "extra": np.array([extra / max(judged_outputs, 1)])}
    figures = shares | dict(errors[boxes].figures if errors else {})
    return errors | {boxes: Comparison("boxes", figures, counts)}


def margin_of(noise: float) -> float:
    """Return by which share a score has to be past the threshold to count, scores being off by `noise` typically."""
    return min(max(_MARGINS[0], _NOISES * noise), _MARGINS[1])


def matched(samples: Sequence[tuple[Array, Array]], overlap: float, confident: float) -> list[Image]:
    """Return the pictures of `samples` (reference's list, output's list) with the rows that belong together."""
    images, starts = [], np.zeros(2, dtype=np.intp)
    for wanted, found in (pair for sample in samples for pair in zip(*sample, strict=True)):
        places = _best(wanted, confident / 2), _best(found, confident / 2)
        boxes = wanted[places[0]], found[places[1]]
        overlaps = intersection_over_union(boxes[0][:, None], boxes[1])
        images.append(Image(boxes, (places[0] + starts[0], places[1] + starts[1]), overlaps, paired(overlaps, overlap)))
        starts += len(wanted), len(found)
    return images


def _sure(image: Image, confident: float) -> Places:
    """Pairs [n, 2] of places among all rows of all images, of a confident row of the reference and its partner."""
    wanted, found = image.partners[image.boxes[0][image.partners[:, 0], SCORE] >= confident].T
    return np.stack([image.rows[0][wanted], image.rows[1][found]], axis=1)


def unfound(image: Image, overlap: float, confident: float, margin: float, pairs: Places | None = None) -> list[int]:
    """Count the reference's rows that count and those of them that are missing, then the output's.

    Who has whom for partner is told by `pairs` [n, 2] of places in the image's lists, else by the boxes.

    What counts are rows that score at least `confident` and `margin`: a row nearer to the threshold, where the model
    itself may cut its list, is there or not by rounding. Missing is what has no partner, but not a row that the other
    list has dropped for a better one that overlaps it too much, since rounding turns such decisions over as well:
    non-maximum suppression (Neubeck and Van Gool 2006) drops a box that overlaps a better one by more than a threshold,
    and the most that two boxes of the reference overlap is that threshold or something less. So what one list has and
    the other has dropped overlaps a row of that other list by about as much or more; and in its own list no row
    overlaps it by more, unless the suppression itself is broken. A row that the other list has too, but elsewhere, is
    excused by neither.
    """
    alone, unpaired = (
        _alone(image, partners) for partners in (image.partners, image.partners if pairs is None else pairs)
    )
    sure = [one[:, SCORE] >= confident for one in image.boxes]
    scores = [one[:, SCORE].astype(np.float64) for one in image.boxes]
    same = np.abs(scores[0][:, None] - scores[1]) <= _SAME * scores[0][:, None]
    moved = same & (image.overlaps >= _MOVED) & (alone[0] & sure[0])[:, None] & (alone[1] & sure[1])
    most = _between(image.boxes[0][sure[0]]).max(initial=0.0)
    totals = []
    for side, overlaps in enumerate((image.overlaps, image.overlaps.T)):
        better = scores[1 - side] >= scores[side][:, None] * (1 - margin)
        dropped = (better & (overlaps >= max(most - _SLACK, overlap))).any(axis=1)
        dropped &= alone[side] & (_between(image.boxes[side]) <= max(most + _SLACK, _USUAL)).all(axis=1)
        counts = scores[side] >= confident * (1 + margin)
        elsewhere = moved.any(axis=1 - side)
        totals += [int((counts | elsewhere).sum()), int(((counts & unpaired[side] & ~dropped) | elsewhere).sum())]
    return totals


def _alone(image: Image, pairs: Places) -> list[Array]:
    """Return which rows of either list are in none of `pairs`."""
    return [np.isin(np.arange(len(one)), pairs[:, side], invert=True) for side, one in enumerate(image.boxes)]


def intersection_over_union(first: Array, second: Array) -> Errors:
    """Return the overlaps of boxes that begin with left, top, right, bottom; leading dimensions are broadcast."""
    a, b = (boxes[..., :4].astype(np.float64) for boxes in (first, second))
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(min=0).prod(axis=-1)
    union = sum((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (a, b)) - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def joined(arrays: Sequence[Array]) -> Array:
    """Return the rows of all pictures of all samples, in order."""
    return np.concatenate([array.reshape(-1, *array.shape[2:]) for array in arrays])


def _box_errors(wanted: Array, found: Array) -> Comparison:
    figures = {
        "box": np.array([1 - np.median(intersection_over_union(wanted, found))]),
        "score": _column_errors(wanted[:, [SCORE]], found[:, [SCORE]]),
    }
    labels = _label_errors(wanted[:, _LABEL], found[:, _LABEL]) if wanted.shape[1] > _LABEL else {}
    return Comparison("boxes", figures | labels)


def _row_errors(wanted: Array, found: Array) -> Comparison:
    if wanted.dtype.kind not in "fc":
        return Comparison("rows", _label_errors(wanted, found))
    if (wanted.ndim, wanted.shape[-1]) not in _KEYPOINT_SHAPES:
        return Comparison("rows", {"column": _column_errors(wanted, found)})
    distances = np.linalg.norm(_differences(wanted[..., :2], found[..., :2]), axis=2)
    errors = {"pixels": np.array([np.median(distances)]), "keypoint": np.quantile(distances, 0.25, axis=0)}
    if visible := wanted.shape[2] - 2:
        errors["column"] = _column_errors(wanted[..., -visible:], found[..., -visible:])
    return Comparison("keypoints", errors)


def _label_errors(wanted: Array, found: Array) -> dict[str, Errors]:
    differ = (wanted != found).reshape(len(wanted), -1).any(axis=1)
    return {"label": np.array([differ.mean()])}


def _differences(wanted: Array, found: Array) -> Errors:
    """Distances of numbers; none where NaN or infinity meets its like, a great one where it meets anything else."""
    wide = np.result_type(wanted, np.float64)
    with np.errstate(invalid="ignore"):
        differences = np.abs(found.astype(wide) - wanted)
    alike = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    return np.where(np.isfinite(differences), differences, np.where(alike, 0.0, _GREAT))


def _column_errors(wanted: Array, found: Array) -> Errors:
    """Return each column's median error, relative to its numbers; those next to nothing count as 1 % of its RMS.

    Of rows too long to be columns (masks), the median of their norms' relative errors.
    """
    differences = _differences(wanted, found).reshape(len(wanted), -1)
    sizes = np.where(np.isfinite(wanted), np.abs(wanted), 0).astype(np.float64).reshape(differences.shape)
    if sizes.shape[1] > _MOST_COLUMNS:
        sizes, differences = (np.linalg.norm(array, axis=1, keepdims=True) for array in (sizes, differences))
    least = np.maximum(_SMALL * np.sqrt((sizes**2).mean(axis=0)), np.finfo(np.float32).tiny)
    return np.asarray(np.median(differences / np.maximum(sizes, least), axis=0))


def _are_boxes(array: Array) -> bool:
    if array.dtype.kind != "f" or (array.ndim, array.shape[-1:]) not in _LIST_SHAPES or array.shape[1] > _MOST_ROWS:
        return False
    left, top, right, bottom, score = np.moveaxis(array, 2, 0)[:5]
    return not ((left > right) | (top > bottom) | (score < 0) | (score > 1)).any()


def _best(boxes: Array, score: float) -> Places:
    """Places of the finite rows with at least this score, best first; a broken suppression's thousands are cut off."""
    places = np.flatnonzero(np.isfinite(boxes).all(axis=1) & (boxes[:, SCORE] >= score))
    return places[np.argsort(-boxes[places, SCORE], kind="stable")[:_MOST_ROWS]]


def paired(overlaps: Errors, least: float) -> Places:
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


def _between(boxes: Array) -> Errors:
    """Overlaps of the boxes of one list with each other, 0 with themselves."""
    overlaps = intersection_over_union(boxes[:, None], boxes)
    np.fill_diagonal(overlaps, 0.0)
    return overlaps
