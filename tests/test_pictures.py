"""The gate over many pictures: who is found of who is there, both ways, and nobody may be lost in one of 32."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rtmo_optuna.codec import decode, encode
from rtmo_optuna.engine.gate.outputs import judge, strain
from rtmo_optuna.engine.gate.pictures import SIGMAS, similarity
from rtmo_optuna.engine.inputs.images import Layout
from rtmo_optuna.engine.inputs.sketch import sketch
from rtmo_optuna.types.measurement import Found, GateResult, Picture
from test_outputs import RULES, edited, keep, persons

if TYPE_CHECKING:
    from test_outputs import Edit, Sample

PEOPLE = 3


def album(count: int = 32, *, edit: Edit | None = None) -> list[Sample]:
    """Pictures of three people each; the last one is `edit`ed."""
    pictures = [persons(PEOPLE, seed=seed) for seed in range(count)]
    return pictures if edit is None else [*pictures[:-1], edited(pictures[-1], edit)]


def found(outputs: list[Sample], own: list[Sample] | None = None) -> tuple[GateResult, Found]:
    """Return what the gate says of outputs beside an album, and what was found in them."""
    reference = album()
    result = judge(reference, outputs, RULES, judge(reference, own or reference, RULES))
    assert result.found
    return result, result.found


def test_everybody_is_counted_picture_by_picture() -> None:
    """All 96 are found, as OKS tells, with no distance; what is told survives the way to the database."""
    result, told = found(album())
    assert (result.passed, told.there, told.lost, told.added) == (True, 32 * PEOPLE, 0, 0)
    assert (told.measure, told.similarity, told.px, told.px95) == ("OKS", 1.0, 0.0, 0.0)
    assert told.pictures == (Picture(PEOPLE, 0, 0, 0.0),) * 32
    assert decode(GateResult, encode(result)) == result


def test_a_person_lost_in_one_picture_of_32_is_refused() -> None:
    """That is one in 96, which no share of all people would tell; the picture is named, with who is there."""
    result, told = found(album(edit=keep(slice(1, None))))
    assert result.reason == "wrong output: 1 of 96 people or objects are lost (at most 0)"
    assert (told.lost, told.worst, len(told.reference), len(told.outlines)) == (1, 31, PEOPLE, PEOPLE - 1)


@pytest.mark.parametrize(("score", "noise", "right"), [(0.102, 0.0, False), (0.102, 0.005, True), (0.1005, 0.0, True)])
def test_at_the_threshold_the_defaults_own_noise_tells_who_counts(score: float, noise: float, *, right: bool) -> None:
    """Who scores 2 % past it counts, unless the default moves scores by so much that rounding may have lost him."""

    def at_the_threshold(sample: Sample) -> None:
        sample["dets"][0, PEOPLE - 1, 4] = score

    reference = album(edit=at_the_threshold)
    own = [edited(sample, lambda copy: copy["dets"][..., 4].__imul__(1 + noise)) for sample in reference]
    fewer = [*reference[:-1], edited(reference[-1], keep(slice(PEOPLE - 1)))]
    for one, other in ((reference, fewer), (fewer, reference)):
        assert judge(one, other, RULES, judge(reference, own, RULES)).passed is right


def test_three_times_as_many_may_be_lost_as_the_default_loses() -> None:
    """The default loses one of 96; three may be lost, four may not."""
    lost = [
        [edited(sample, keep(slice(1, None))) if n < count else sample for n, sample in enumerate(album())]
        for count in (1, 3, 4)
    ]
    own, near, far = lost
    assert found(near, own)[0].passed
    assert found(far, own)[0].reason == "wrong output: 4 of 96 people or objects are lost (at most 3)"


def test_who_stands_elsewhere_is_lost_and_another_one_added() -> None:
    """The box stays and the keypoints are another's: boxes alone would not tell, nor a median over all people."""

    def thrown(sample: Sample) -> None:
        sample["keypoints"][0, 0, :, :2] += 60

    result, told = found(album(edit=thrown))
    assert (told.lost, told.added, result.passed) == (1, 1, False)


def test_distances_are_told_over_all_pictures_and_of_the_worst() -> None:
    """One picture of 32 is 4 px off: the median and 95 % of all do not show it, the worst picture does."""
    result, told = found(album(edit=lambda sample: sample["keypoints"][..., 0].__iadd__(4)))
    assert (told.px, told.px95, told.pictures[told.worst].px) == (0.0, 0.0, 4.0)
    assert result.reason == "wrong output: keypoints are typically 4.0 px off in one picture (at most 2.0)"
    assert strain(result, RULES) == pytest.approx(2.0)


def test_without_keypoints_boxes_tell() -> None:
    """Objects are matched by how much they overlap, and drawn as boxes."""
    reference = [{"dets": sample["dets"]} for sample in album(8)]
    told = judge(reference, reference, RULES).found
    assert told
    assert (told.measure, told.px95, told.there, len(told.reference[0])) == ("IoU", None, 8 * PEOPLE, 4)


def test_oks_is_cocos() -> None:
    """Each keypoint counts by its own sigma and the person's area; one that nobody sees does not count at all."""
    boxes = np.array([[0, 0, 40, 80]])
    person = np.ones((1, 17, 3))
    moved = person + np.array([3, 0, 0])
    expected = np.exp(-9 / (2 * 40 * 80 * (2 * SIGMAS) ** 2))
    assert similarity(person, moved, boxes)[0, 0] == pytest.approx(expected.mean())
    person[0, 5:, 2] = 0.1
    assert similarity(person, moved, boxes)[0, 0] == pytest.approx(expected[:5].mean())


def test_the_worst_picture_is_drawn_with_both_sides() -> None:
    """Blue below and orange over it, on the dimmed picture, skeletons or boxes; what lies outside does no harm."""
    layout = Layout(3, 1)
    skeleton = [float(value) for n in range(17) for value in (10 + n, 5 + n)]
    content = sketch(np.full((3, 48, 64), 7.0, np.float32), layout, ([[2, 2, 1e12, 40]], [skeleton]))
    with Image.open(BytesIO(content)) as image:
        pixels = np.asarray(image).astype(int)
    assert pixels.shape == (720, 960, 3)
    blue, orange = (pixels[..., 2] > 200) & (pixels[..., 0] < 130), (pixels[..., 0] > 200) & (pixels[..., 2] < 90)
    assert blue[2 * 15 - 4 : 2 * 15 + 4].any()
    assert orange.any()
