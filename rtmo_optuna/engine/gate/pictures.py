"""What was found of what is there, picture by picture, in the field's own measures: NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rtmo_optuna.engine.gate.detections import SCORE, followers, joined, margin_of, matched, paired, unfound
from rtmo_optuna.types.measurement import Found, Picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rtmo_optuna.engine.gate.detections import Comparison, Image
    from rtmo_optuna.types.measurement import GateRules

    Array: TypeAlias = NDArray[Any]
    Sample: TypeAlias = Mapping[str, Array]
    Outlines: TypeAlias = tuple[tuple[float, ...], ...]

SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
"""How far annotators differ in each of COCO's 17 keypoints, in shares of a person's size (cocodataset.org, keypoint
evaluation)."""
_VISIBLE = 0.3
"""A keypoint that scores less is drawn by nobody, and says nothing of a person who has others."""
_LEAST_MARGIN, _TAIL = 0.01, 10.0
"""A score is past the threshold by so much for certain, or by so many times the default's typical error."""
_DRAWN = 20


def similarity(wanted: Array, found: Array, boxes: Array) -> NDArray[np.float64]:
    """Return the object keypoint similarity (OKS) of each person wanted with each one found, [wanted, found].

    The mean over keypoints of exp(-d^2 / (2 s^2 k^2)): d is their distance, k twice COCO's sigma, and s^2 the area of
    the person, here that of its box in `boxes` [wanted, 4 or more], as a model tells no outlines. Keypoints that score
    less than 0.3 in `wanted` [wanted, 17, 2 or 3] are left out, unless all do.
    """
    squares = ((wanted[:, None, :, :2].astype(np.float64) - found[None, :, :, :2]) ** 2).sum(axis=-1)
    areas = np.maximum((boxes[:, 2:4] - boxes[:, :2]).prod(axis=1, dtype=np.float64), 1.0)
    each = np.exp(-squares / (2 * areas[:, None, None] * (2 * SIGMAS) ** 2))
    counts = _seen(wanted)[:, None] & np.isfinite(each)
    return np.asarray(np.where(counts, each, 0.0).sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1))


def _seen(points: Array) -> NDArray[np.bool_]:
    """Return which keypoints [people, 17] of `points` count."""
    seen = points[..., 2] >= _VISIBLE if points.shape[-1] > 2 else np.ones(points.shape[:-1], bool)  # noqa: PLR2004 - x, y
    return np.asarray(seen | ~seen.any(axis=-1, keepdims=True))


@dataclass(frozen=True, slots=True)
class _Seen:
    """One picture, and the distances in px of all keypoints of all pairs, the similarities of pairs, the outlines."""

    picture: Picture
    distances: Array
    similarities: Array
    outlines: tuple[Outlines, Outlines]


def count(samples: Sequence[tuple[Sample, Sample]], boxes: str, rules: GateRules, noise: float) -> Found:
    """Return what was found in each picture of `samples` (reference, output), of which `boxes` is a list of boxes.

    People are told by the first output that has 17 keypoints for each row, and then they belong together whose OKS is
    at least `rules.overlap`; without, boxes that overlap so much. `noise` is the typical relative error of the default
    settings' scores: who is nearer to the threshold than ten times that, 1 % at least, is there or not by rounding and
    does not count, nor does who a suppression dropped by rounding (see `unfound`).
    """
    margin = min(margin_of(noise), max(_LEAST_MARGIN, _TAIL * noise))
    both = [sample for sample, _ in samples]
    named = next((n for n in followers(both, boxes) if both[0][n].shape[2:] in {(17, 2), (17, 3)}), "")
    points = [joined([pair[side][named] for pair in samples]) for side in (0, 1)] if named else []
    images = matched([(a[boxes], b[boxes]) for a, b in samples], rules.overlap, rules.confident)
    seen = [_seen_in(image, points, rules, margin) for image in images]
    distances = np.concatenate([one.distances for one in seen])
    similar = np.concatenate([one.similarities for one in seen])
    worst = max(range(len(seen)), key=lambda place: _badness(seen[place].picture))
    return Found(
        measure="OKS" if named else "IoU",
        similarity=_plain(np.median(similar)) if similar.size else 0.0,
        px=_plain(np.median(distances)) if distances.size else None,
        px95=_plain(np.quantile(distances, 0.95)) if distances.size else None,
        pictures=tuple(one.picture for one in seen),
        worst=worst,
        reference=seen[worst].outlines[0],
        outlines=seen[worst].outlines[1],
    )


def judged(boxes: Comparison, found: Found) -> Comparison:
    """Return `boxes` with what is judged of several pictures: who is lost or added, and how far keypoints are off."""
    if len(found.pictures) == 1:
        return boxes
    away = [picture.px for picture in found.pictures if picture.px is not None]
    figures = {"lost": float(found.lost), "added": float(found.added)}
    if found.px95 is not None:
        figures |= {"far": found.px95, "picture": max(away)}
    arrays = {name: np.array([value]) for name, value in figures.items()}
    return replace(boxes, figures={**boxes.figures, **arrays}, counts={**boxes.counts, "lost": found.there})


def _badness(picture: Picture) -> tuple[int, float]:
    return picture.lost + picture.added, picture.px or 0.0


def _seen_in(image: Image, points: Sequence[Array], rules: GateRules, margin: float) -> _Seen:
    """Return what is in one picture; `points` are the reference's and the output's keypoints of all pictures."""
    bodies = [array[rows] for array, rows in zip(points, image.rows, strict=bool(points))]
    alike = similarity(bodies[0], bodies[1], image.boxes[0]) if bodies else image.overlaps
    pairs = paired(alike, rules.overlap)
    there, lost, _, added = unfound(image, rules.overlap, rules.confident, margin, pairs)
    wanted, found = pairs[image.boxes[0][pairs[:, 0], SCORE] >= rules.confident].T
    distances = np.zeros(0)
    if bodies:
        away = np.linalg.norm(bodies[0][wanted, :, :2].astype(np.float64) - bodies[1][found, :, :2], axis=2)
        distances = away[_seen(bodies[0][wanted]) & np.isfinite(away)]
    px = _plain(np.median(distances)) if distances.size else None
    shapes = [body[..., :2] for body in bodies] or [boxes[:, :SCORE] for boxes in image.boxes]
    first, second = (
        _outlined(each[boxes[:, SCORE] >= rules.confident]) for each, boxes in zip(shapes, image.boxes, strict=True)
    )
    return _Seen(Picture(there, lost, added, px), distances, alike[wanted, found], (first, second))


def _outlined(shapes: Array) -> Outlines:
    drawn = np.nan_to_num(shapes[:_DRAWN].astype(np.float64))
    numbers = drawn.reshape(len(drawn), math.prod(drawn.shape[1:]))
    return tuple(map(tuple, np.round(numbers, 1).tolist()))


def _plain(value: np.floating[Any]) -> float:
    return float(f"{value:.4g}")
