"""The output gate: what rounding does passes, what is wrong does not."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from collections.abc import Callable

from numpy.typing import NDArray

import build_rtmo
from program import python
from rtmo_optuna import codec
from rtmo_optuna.engine.gate.outputs import judge
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.measurement import GateMode, GateResult, GateRules

Sample = dict[str, NDArray[Any]]
Edit = Callable[[Sample], object]

RULES = GateRules()
ROWS = 20


def edited(sample: Sample, edit: Edit) -> Sample:
    """Return a copy that `edit` was let loose on."""
    copy = {name: array.copy() for name, array in sample.items()}
    edit(copy)
    return copy


def persons(count: int = ROWS, *, seed: int = 0) -> Sample:
    """People side by side, 40 x 80 pixels, best first, and RTMO's row of padding."""
    random = np.random.default_rng(seed)
    dets = np.zeros((1, count + 1, 5), np.float32)
    left = 50.0 * np.arange(count)
    dets[0, :count] = np.stack([left, left * 0, left + 40, left * 0 + 80, np.linspace(0.9, 0.2, count)], axis=1)
    keypoints = random.uniform(0, 1, (1, count + 1, 17, 3)).astype(np.float32)
    keypoints[0, :count, :, 0] = left[:, None] + 2.0 * np.arange(17)
    keypoints[0, :count, :, 1] = 4.0 * np.arange(17)
    return {"dets": dets, "keypoints": keypoints}


def verdict(reference: Sample, outputs: Sample, rules: GateRules = RULES, own: Sample | None = None) -> GateResult:
    """Judge one sample, given the default settings' outputs."""
    return judge([reference], [outputs], rules, None if own is None else judge([reference], [own], rules))


def shift_boxes(sample: Sample) -> None:
    """Move one box in ten aside by half its width."""
    boxes = sample["dets"][0, ::10]
    boxes[:, [0, 2]] += (boxes[:, [2]] - boxes[:, [0]]) / 2


def halve_scores(sample: Sample) -> None:
    """Halve all scores."""
    sample["dets"][..., 4] /= 2


def swap_keypoints(sample: Sample) -> None:
    """Exchange two keypoints of everybody."""
    sample["keypoints"][:, :, [5, 6]] = sample["keypoints"][:, :, [6, 5]]


def keep(rows: slice) -> Edit:
    """Leave nothing but some rows."""

    def edit(sample: Sample) -> None:
        for name in sample:
            sample[name] = sample[name][:, rows]

    return edit


PLANTED = {"shifted boxes": shift_boxes, "halved scores": halve_scores, "swapped keypoints": swap_keypoints}


def test_equal_outputs_pass_with_all_figures_zero() -> None:
    """The reference itself is right, in the mode that fits it, and its padding is no person."""
    found = verdict(persons(), persons())
    assert (found.passed, found.mode, found.vacuous, found.reason) == (True, GateMode.DETECTIONS, False, "")
    assert [(error.name, error.kind) for error in found.errors] == [("dets", "boxes"), ("keypoints", "keypoints")]
    assert found.errors[0].counts == {"missing": ROWS, "extra": ROWS}
    assert all(set(values) == {0.0} for error in found.errors for values in error.figures.values())


def test_rows_are_matched_whatever_their_order() -> None:
    """Equal scores may come in any order, and each row's keypoints go with it."""
    order = np.random.default_rng(1).permutation(ROWS + 1)
    found = verdict(persons(), {name: array[:, order] for name, array in persons().items()})
    assert found.passed, found.reason


@pytest.mark.parametrize(("edit", "reason"), [
    (keep(slice(1)), "1 of 20 confident rows found (at least 95% needed)"),
    (keep(slice(18)), "18 of 20 confident rows found (at least 95% needed)"),
    (shift_boxes, "18 of 20 confident rows found (at least 95% needed)"),
    (halve_scores, "the scores are typically off by 50% (at most 10%)"),
    (swap_keypoints, "point 5 of keypoints is over 4.5 px off in three rows of four (at most 2.0)"),
    (lambda sample: sample["keypoints"][..., 0].__iadd__(3), "keypoints is typically 3.0 px off (at most 2.0)"),
    (lambda sample: sample["keypoints"][..., 2].fill(0), "column 0 of keypoints is typically off by 100%"),
    (lambda sample: sample["dets"][..., 2].__isub__(8), "the boxes typically overlap by 80% (at least 90% needed)"),
])  # fmt: skip
def test_wrong_detections_are_told_apart(edit: Edit, reason: str) -> None:
    """Each kind of error is rejected, and the reason says what is wrong and what was needed."""
    found = verdict(persons(), edited(persons(), edit))
    assert not found.passed
    assert found.reason.startswith(f"wrong output: {reason}")


def test_what_is_repeated_is_extra() -> None:
    """Boxes that suppression should have dropped are extra rows, though each has its like in the reference."""
    found = verdict(persons(), {name: array.repeat(2, axis=1) for name, array in persons().items()})
    assert found.reason == "wrong output: 20 of 40 confident rows are in the reference (at least 95% needed)"


def scored(score: float, sample: Sample) -> Sample:
    """Give the last three of 20 people a score."""
    return edited(sample, lambda copy: copy["dets"][0, ROWS - 3 : ROWS, 4].fill(score))


def test_a_row_at_the_confidence_threshold_is_missed_by_nobody() -> None:
    """A person who scores 0.105 may drop out, one who scores 0.13 may not, nor be elsewhere."""
    fewer = edited(persons(), keep(slice(ROWS - 3)))
    for score, right in ((0.105, True), (0.13, False)):
        reference = scored(score, persons())
        assert verdict(reference, fewer).passed is right
        assert verdict(fewer, reference).passed is right
    reference = scored(0.105, persons())
    elsewhere = edited(reference, lambda sample: sample["dets"][0, ROWS - 3 : ROWS, :4].__iadd__([20, 0, 20, 0]))
    assert verdict(reference, elsewhere).reason.startswith("wrong output: 17 of 20 confident rows found")


def test_a_score_may_fall_below_the_threshold() -> None:
    """A person who scores 0.115 in the reference is found where the output has 0.095."""
    assert verdict(scored(0.115, persons()), scored(0.095, persons())).passed


def test_the_defaults_noise_widens_the_threshold() -> None:
    """Where the default moves scores by 8 %, one of 0.12 may drop out."""
    reference = scored(0.12, persons())
    fewer = edited(reference, keep(slice(ROWS - 3)))
    own = edited(reference, lambda sample: sample["dets"][..., 4].__imul__(1.08))
    assert not verdict(reference, fewer).passed
    assert verdict(reference, fewer, own=own).passed


@pytest.mark.parametrize(("overlap", "dropped", "right"), [
    (0.66, [4, 7, 11], True), (0.66, [3, 6, 10], False), (0.55, [4, 7, 11], False), (0.3, [4, 7, 11], False),
])  # fmt: skip
def test_a_suppression_turned_over_by_rounding_is_excused(overlap: float, dropped: list[int], *, right: bool) -> None:
    """Of two boxes at the suppression's threshold the worse may be dropped, the better or one well below it may not."""
    both = persons()
    for n in (1, 4, 7, 11):
        common = 0.69 if n == 1 else overlap
        aside = 40 * (1 - common) / (1 + common)
        both["dets"][0, n, :4] = both["dets"][0, n - 1, :4] + [aside, 0, aside, 0]
        both["dets"][0, n, 4] /= 2
    fewer = {name: np.delete(array, dropped, axis=1) for name, array in both.items()}
    assert verdict(both, fewer).passed is right
    if 4 in dropped:
        assert verdict(fewer, both).passed is right


def test_a_keypoint_that_is_thrown_about_in_half_of_the_rows_is_right() -> None:
    """A blurred heatmap has two peaks, and rounding decides between them."""
    thrown = edited(persons(), lambda sample: sample["keypoints"][:, ::2, 3, :2].__iadd__(100))
    assert verdict(persons(), thrown).passed


def moved(point: int | slice, by: float) -> Edit:
    """Move a keypoint of everybody aside."""
    return lambda sample: sample["keypoints"][:, :, point, 0].__iadd__(by)


WIDENED: dict[str, tuple[bool, list[Edit]]] = {
    "what it does to the reference, threefold": (True, [moved(slice(None), by) for by in (1.5, 4, 5)]),
    "its worst point's error, tenfold": (True, [moved(3, 1), moved(9, 9), moved(9, 11)]),
    "the rows that it loses, threefold": (False, [keep(slice(count)) for count in (18, 14, 13)]),
}
"""What others may do where the default does something: whether that is right by itself; it, what is right, what not."""


@pytest.mark.parametrize("case", WIDENED)
def test_the_defaults_own_error_widens_the_limits(case: str) -> None:
    """Others may do so many times what the default does, but not more."""
    right, edits = WIDENED[case]
    own, near, far = (edited(persons(), edit) for edit in edits)
    assert verdict(persons(), own).passed is right
    assert not verdict(persons(), near).passed
    assert verdict(persons(), near, own=own).passed
    assert not verdict(persons(), far, own=own).passed


def test_a_default_that_finds_little_is_reported() -> None:
    """A default that finds 15 of 20 people passes by itself, with a warning; half of them is still too few."""
    own = edited(persons(), keep(slice(15)))
    found = verdict(persons(), own, own=own)
    assert found.passed
    assert found.warnings[0].startswith("The default settings themselves find only 75% of the reference's")
    assert not verdict(persons(), edited(persons(), keep(slice(7))), own=own).passed
    assert not verdict(persons(), persons(), own=persons()).warnings


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_people_make_the_gate_vacuous(count: int) -> None:
    """With fewer than five people any others pass, which is said; a crowd out of nowhere or a NaN does not."""
    reference = persons(count)
    found = verdict(reference, persons(1))
    assert (found.passed, found.vacuous) == (True, True)
    assert found.warnings[0].startswith(f"Only {count} rows of the reference are confident and 5 are needed")
    crowd = verdict(reference, persons())
    assert crowd.reason == f"wrong output: {ROWS - count} confident rows where the reference has next to none"
    assert not verdict(reference, edited(persons(1), lambda sample: sample["dets"].fill(np.nan))).passed


def test_no_rows_at_all_can_be_compared() -> None:
    """A list may be empty, of either side."""
    none = edited(persons(), keep(slice(0)))
    assert verdict(none, none).vacuous
    assert verdict(persons(), none).reason == "wrong output: 0 of 20 confident rows found (at least 95% needed)"


def test_people_are_counted_over_all_samples_and_images() -> None:
    """Two samples of two images: one in ten rows missing is too many, whichever image they are missing in."""
    batch = {name: np.concatenate([array, array]) for name, array in persons(10).items()}
    other = edited(batch, lambda sample: sample["dets"][1, :4, 4].fill(0))
    found = judge([batch, batch], [batch, other], RULES)
    assert found.reason == "wrong output: 36 of 40 confident rows found (at least 95% needed)"
    assert judge([batch, batch], [batch, batch], RULES).passed


def test_keypoints_are_compared_with_their_own_image() -> None:
    """Rows of several images and samples keep their places, in any order."""
    samples = [persons(8, seed=seed) for seed in (1, 2, 3)]
    order = np.random.default_rng(1).permutation(9)
    outputs = [samples[0], *({name: array[:, order] for name, array in sample.items()} for sample in samples[1:])]
    found = judge(samples, outputs, RULES)
    assert found.errors[1].figures["column"] == found.errors[1].figures["keypoint"] == (0.0,) * 17


def test_labels_and_other_rows_go_with_the_boxes() -> None:
    """Whole numbers of a row have to be equal in 95 % of the rows, other floats close in every column."""
    more = {"labels": np.arange(ROWS + 1)[None], "masks": np.random.default_rng(0).uniform(1, 2, (1, ROWS + 1, 3, 4))}
    reference = persons() | more
    assert verdict(reference, reference).passed
    labels = edited(reference, lambda sample: sample["labels"][:, :2].fill(-1))
    assert verdict(reference, labels).reason == "wrong output: 10% of the rows of labels differ (at most 5%)"
    masks = edited(reference, lambda sample: sample["masks"][..., 1, 2].fill(0))
    assert verdict(reference, masks).reason.startswith("wrong output: column 6 of masks is typically off by 100%")


def test_numbers_of_next_to_nothing_are_no_error_in_a_column() -> None:
    """Most rows' probabilities of a class are nothing, and nothing may be anything that is."""
    reference = persons() | {"classes": np.full((1, ROWS + 1, 2), 1e-9)}
    reference["classes"][:, :5] = 0.9
    assert verdict(reference, reference | {"classes": np.maximum(reference["classes"], 1e-6)}).passed
    assert not verdict(reference, reference | {"classes": np.maximum(reference["classes"], 1e-2)}).passed


def test_masks_are_compared_whole() -> None:
    """A pixel is no column: one that is wrong in every mask is next to nothing, masks that are half wrong are not."""
    masks = np.random.default_rng(0).uniform(size=(1, ROWS + 1, 40, 40))
    reference = persons() | {"masks": masks}
    found = verdict(reference, edited(reference, lambda sample: sample["masks"][..., 0, 0].fill(2)))
    assert found.passed
    assert len(found.errors[2].figures["column"]) == 1
    assert not verdict(reference, edited(reference, lambda sample: sample["masks"][..., :20].fill(0))).passed


def test_the_class_column_of_a_list_is_compared() -> None:
    """A sixth column is the class of the row."""
    reference = {"dets": np.concatenate([persons()["dets"], np.ones((1, ROWS + 1, 1), np.float32)], axis=2)}
    other = edited(reference, lambda sample: sample["dets"][..., 5].fill(2))
    assert verdict(reference, reference).passed
    assert verdict(reference, other).reason == "wrong output: 100% of the rows of dets differ (at most 5%)"


def features(*, seed: int = 0) -> Sample:
    """A map of 64 channels, a dense prediction of 96, and one number."""
    random = np.random.default_rng(seed)
    shapes = {"map": (1, 64, 8, 8), "dense": (1, 200, 96), "loss": ()}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def rounded(sample: Sample, size: float, *, seed: int) -> Sample:
    """Add noise of a size relative to each output's."""
    random = np.random.default_rng(seed)
    noise = {name: size * np.std(array) * random.normal(size=array.shape) for name, array in sample.items()}
    return {name: (array + noise[name]).astype(array.dtype) for name, array in sample.items()}


@pytest.mark.parametrize(("name", "part", "reason"), [
    ("map", np.s_[:, 7], "part 7 of axis 1 of map is off by 100.00% in all"),
    ("map", np.s_[..., 3], "map is off by 3"),
    ("dense", np.s_[..., 95], "part "),
    ("dense", np.s_[:, 11], "part 11 of axis 1 of dense is off by 100.00%"),
    ("loss", np.s_[...], "loss is off by 100.00% in all"),
])  # fmt: skip
def test_a_zeroed_part_is_found_under_tf32_sized_noise(name: str, part: Any, reason: str) -> None:  # noqa: ANN401
    """One channel, one column, one place: what is all wrong is found whatever the whole's error is allowed to be."""
    reference = features()
    own, other = (rounded(reference, 0.02, seed=seed) for seed in (1, 2))
    own["loss"] = other["loss"] = reference["loss"]
    assert not verdict(reference, other).passed
    assert verdict(reference, other, own=own).passed
    found = verdict(reference, edited(other, lambda sample: sample[name].__setitem__(part, 0)), own=own)
    assert found.reason.startswith(f"wrong output: {reason}")
    assert found.mode is GateMode.ELEMENTWISE


def test_a_slight_error_everywhere_is_found() -> None:
    """Four times the default's typical error is too much, though a norm may be ten times as large."""
    reference = features()
    own, other = (rounded(reference, size, seed=seed) for size, seed in ((0.01, 1), (0.05, 2)))
    own["loss"] = other["loss"] = reference["loss"]
    found = verdict(reference, other, own=own)
    assert "map is typically off by" in found.reason


@pytest.mark.parametrize(("shape", "axes"), [
    ((1, 2000, 17), ["axis 2"]), ((1, 8, 2), []), ((32, 10), ["axis 1"]), ((1, 16, 4, 4), ["axis 1", "axis 3"]),
])  # fmt: skip
def test_parts_are_channels(shape: tuple[int, ...], axes: list[str]) -> None:
    """Not thousands of places, and no parts of a few numbers, which have no norm worth the name."""
    out = {"out": np.ones(shape)}
    assert list(verdict(out, out).errors[0].figures) == ["norm", "typical", *axes]


def test_a_part_of_next_to_nothing_is_no_error() -> None:
    """A dead channel that holds rounding noise of its neighbours is right; one that holds 1 % of them is not."""
    reference = edited(features(), lambda sample: sample["map"][:, 3].fill(0))
    for size, right in ((1e-9, True), (1e-2, False)):
        assert verdict(reference, edited(reference, lambda sample: sample["map"][:, 3].fill(size))).passed is right  # noqa: B023 - called at once


def test_an_output_of_zeros_has_to_stay_zero() -> None:
    """Nothing can be relative to nothing: all zeros are right, a thousandth is wrong."""
    zeros = {"out": np.zeros((1, 8), np.float32)}
    assert verdict(zeros, zeros).passed
    assert not verdict(zeros, {"out": np.full((1, 8), 1e-3, np.float32)}).passed


def test_the_worst_sample_counts() -> None:
    """One sample of ten is wrong, so the outputs are; another one may be empty."""
    samples = [features(seed=seed) for seed in range(10)]
    outputs = [*samples[:9], features(seed=11)]
    assert not judge(samples, outputs, RULES).passed
    empty: Sample = {"map": np.zeros((0, 64, 8, 8), np.float32), "dense": np.zeros((1, 0, 96), np.float32)}
    samples[0] = outputs[0] = samples[0] | empty
    assert not judge(samples, outputs, RULES).passed
    assert judge(samples, samples, RULES).passed
    assert judge(samples[:1], outputs[:1], RULES).passed


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_whole_numbers_have_to_be_equal(dtype: str) -> None:
    """One of a thousand that differs is wrong, unless the default's own differ as often."""
    reference = {"out": np.zeros((10, 100), dtype)}
    other = edited(reference, lambda sample: sample["out"].__setitem__((3, 4), 1))
    worse = edited(reference, lambda sample: sample["out"].__setitem__((3, slice(4)), 1))
    assert verdict(reference, reference).passed
    assert verdict(reference, other).reason == "wrong output: 0.10% of out differ (at most 0.00%)"
    assert verdict(reference, other, own=other).passed
    assert verdict(reference, worse, own=other).reason == "wrong output: 0.40% of out differ (at most 0.30%)"


def test_complex_numbers_are_compared_whole() -> None:
    """An imaginary part that is lost is an error."""
    reference = {"out": np.array([[1 + 1j, 2 - 2j]])}
    assert verdict(reference, reference).passed
    assert "out is off by 70.71% in all" in verdict(reference, {"out": reference["out"].real + 0j}).reason


@pytest.mark.parametrize(("edit", "reason"), [
    (lambda sample: sample.pop("map"), "there is no output map"),
    (lambda sample: sample.update(map=sample["map"].astype(np.float16)), "map holds float16 instead of float32"),
    (lambda sample: sample.update(dense=sample["dense"][:, :9]), "dense has the shape [1, 9, 96] instead of [1, 2"),
    (lambda sample: sample["map"][0, 0].fill(np.nan), "map holds NaN or infinity where the reference has none"),
    (lambda sample: sample["loss"].fill(np.inf), "loss holds NaN or infinity where the reference has none"),
])  # fmt: skip
def test_incomparable_outputs_are_wrong_under_any_limits(edit: Edit, reason: str) -> None:
    """A missing output, another type or shape and numbers that are none are wrong, even where the default has them."""
    found = verdict(features(), edited(features(), edit), own=edited(features(), edit))
    assert not found.passed
    assert found.reason.startswith(f"wrong output: {reason}")


@pytest.mark.parametrize(("edit", "reason"), [
    (lambda sample: sample.update(keypoints=sample["keypoints"][:, :9]), "keypoints has the shape [1, 9, 17, 3]"),
    (lambda sample: sample.update(dets=sample["dets"][..., :4]), "dets has the shape [1, 21, 4]"),
    (lambda sample: sample.update(dets=sample["dets"][0, 0]), "dets has the shape [5]"),
    (lambda sample: sample.pop("dets"), "there is no output dets"),
    (lambda sample: sample["keypoints"][0, 3, 3].fill(np.nan), "keypoints holds NaN or infinity"),
    (lambda sample: sample["dets"][0, 3].fill(np.inf), "dets holds NaN or infinity"),
])  # fmt: skip
def test_incomparable_rows_are_wrong(edit: Edit, reason: str) -> None:
    """The number of rows is free, all else is not: outputs of the same row have to have as many of them."""
    found = verdict(persons(), edited(persons(), edit))
    assert not found.passed
    assert found.reason.startswith(f"wrong output: {reason}")


def test_a_reference_with_nan_is_said_and_its_places_have_to_agree() -> None:
    """NaN and infinity are right where the reference has them, and nowhere else."""
    reference = features()
    reference["map"][0, 0, 0, :3] = np.nan, np.inf, -np.inf
    found = verdict(reference, reference)
    assert found.passed
    assert found.warnings[0].startswith("The reference's map holds NaN or infinity in 3 places")
    flipped = edited(reference, lambda sample: sample["map"][0, 0, 0, :3].__imul__(-1))
    assert "where the reference has none, or lacks" in verdict(reference, flipped).reason
    assert "where the reference has none, or lacks" in verdict(reference, features()).reason


def test_rows_with_nan_in_the_reference_have_to_have_it_too() -> None:
    """A keypoint that nobody has is right as NaN, and wrong as a number."""
    reference = edited(persons(), lambda sample: sample["keypoints"][:, :, 4].fill(np.nan))
    found = verdict(reference, reference)
    assert found.passed
    assert found.warnings[0].startswith("The reference's keypoints holds NaN")
    assert not verdict(reference, persons()).passed
    more = edited(reference, lambda sample: sample["keypoints"][:, :, 5].fill(np.nan))
    assert not verdict(reference, more).passed


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(3, "V2")])
def test_an_output_without_numbers_is_refused(array: NDArray[Any]) -> None:
    """Objects cannot be compared: the sentence names the output and the way out."""
    with pytest.raises(UsageError, match=r"The output 'names' holds .*: run with --gate off"):
        verdict({"names": array}, {"names": array})
    assert verdict({"names": array}, {}, GateRules(mode=GateMode.OFF)).passed


def test_outputs_that_are_nowhere_finite_are_refused() -> None:
    """There is nothing to compare; where one number is finite there is."""
    nothing = {"map": np.full((2, 3), np.nan, np.float32)}
    with pytest.raises(UsageError, match=r"The output 'map' is NaN or infinite everywhere.*--gate off"):
        verdict(nothing, nothing)
    something = {"map": np.array([[np.nan, 1.0, np.inf]], np.float32)}
    assert verdict(something, something).passed
    assert verdict(nothing, nothing, GateRules(mode=GateMode.OFF)).passed


def test_modes_are_taken_at_their_word() -> None:
    """Off looks at nothing; elementwise at every number; detections needs boxes; auto chooses by the reference."""
    order = np.argsort(np.random.default_rng(1).uniform(size=ROWS + 1))
    other = {name: array[:, order] for name, array in persons().items()}
    results = {mode: verdict(persons(), other, replace(RULES, mode=mode)) for mode in GateMode}
    assert {mode: result.passed for mode, result in results.items()} == {
        GateMode.AUTO: True,
        GateMode.OFF: True,
        GateMode.ELEMENTWISE: False,
        GateMode.DETECTIONS: True,
    }
    assert results[GateMode.AUTO].mode is GateMode.DETECTIONS
    with pytest.raises(UsageError, match="None of the outputs map, dense, loss is a list of boxes"):
        verdict(features(), features(), GateRules(mode=GateMode.DETECTIONS))


@pytest.mark.parametrize("array", [
    np.random.default_rng(0).uniform(-1, 1, (1, 50, 5)).astype(np.float32),
    persons(1001)["dets"],
    persons()["dets"][0],
    persons()["dets"].astype(np.int64),
], ids=["no boxes", "raw predictions", "no images", "whole numbers"])  # fmt: skip
def test_what_is_no_list_of_boxes_is_compared_number_by_number(array: NDArray[Any]) -> None:
    """Five columns alone make no boxes."""
    assert verdict({"out": array}, {"out": array}).mode is GateMode.ELEMENTWISE


def test_thousands_of_rows_from_a_broken_suppression_are_rejected() -> None:
    """A thousand times as many rows are not right, nor compared each with each."""
    found = verdict(persons(), {name: array.repeat(1000, axis=1) for name, array in persons().items()})
    assert not found.passed
    assert found.errors[0].counts == {"missing": ROWS, "extra": 1000}


def test_a_result_survives_its_way_through_json() -> None:
    """The child's answer is what the parent reads, and is good for an `own`."""
    result = verdict(persons(), edited(persons(), swap_keypoints))
    assert codec.decode(GateResult, codec.encode(result)) == result
    assert codec.decode(GateRules, codec.encode(RULES)) == RULES


def test_the_gate_loads_numpy_alone() -> None:
    """The child has no time for more."""
    code = "import sys, rtmo_optuna.engine.gate.outputs; print(*(m.split('.')[0] for m in sys.modules))"
    assert not {"onnx", "scipy"} & set(python(code).split())


# --- RTMO with random weights, which amplifies rounding as no trained network does ---

WHOLE, RAW = ["dets", "keypoints"], ["boxes", "scores", "pose", "visibility"]
TF32_BITS = 10


def reweighted(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Err in each weight as TF32 does in weights and activations together: half a unit of the last of its bits each."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    random = np.random.default_rng(seed)
    used = {name for node in copy.graph.node if node.op_type in {"Conv", "Gemm", "MatMul"} for name in node.input[:2]}
    for tensor in copy.graph.initializer:
        if tensor.name in used:
            weights = numpy_helper.to_array(tensor)
            errors = random.uniform(-1, 1, weights.shape) * 2.0 ** -(TF32_BITS + 1) * 2**0.5
            tensor.CopyFrom(numpy_helper.from_array((weights * (1 + errors)).astype(weights.dtype), tensor.name))
    return copy


@cache
def rtmo(seed: int) -> tuple[tuple[Sample, Sample], ...]:
    """Outputs and raw outputs of RTMO-t without rounding, then with each of two roundings: the default's, another's."""
    built = build_rtmo.build("t", seed=seed)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    found = []
    for model in (built.model, *(reweighted(built.model, rounding) for rounding in (1, 2))):
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in RAW)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs, raw = (
            dict(zip(names, session.run(names, {"input": built.image}), strict=True)) for names in (WHOLE, RAW)
        )
        found.append((outputs, raw))
    return tuple(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_rtmo_rounded_otherwise_than_by_default_is_right(seed: int) -> None:
    """Another rounding of the size of the default's passes, whole and raw, and so does the default."""
    for reference, own, other in zip(*rtmo(seed), strict=True):
        for outputs in (own, other):
            found = verdict(reference, outputs, own=own)
            assert found.passed, found.reason
            assert not found.vacuous


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_errors_planted_in_rtmo_are_found(seed: int, plant: Edit) -> None:
    """What is wrong is found on top of another rounding, with limits widened by the default's."""
    reference, own, other = (outputs for outputs, _ in rtmo(seed))
    assert not verdict(reference, edited(other, plant), own=own).passed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", RAW)
def test_a_channel_zeroed_in_raw_rtmo_is_found(seed: int, name: str) -> None:
    """Each of a dozen channels, in every raw output."""
    reference, own, other = (raw for _, raw in rtmo(seed))
    default = judge([reference], [own], RULES)
    channels = other[name].shape[2]
    for channel in range(0, channels, -(-channels // 12)):
        outputs = edited(other, lambda sample: sample[name][..., channel].fill(0))  # noqa: B023 - called at once
        assert not judge([reference], [outputs], RULES, default).passed
