"""What won elsewhere, tried part upon part: which rung comes next, and in whole searches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import scripted
import simulated
from models import facts
from rtmo_optuna.search.decide.ladder import next_rung
from rtmo_optuna.space.resolve import resolve
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.request import Settings, Value
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import Machine, SearchSpace, StudyDefinition
from test_finals import Planted
from test_screening import CUDA, GRAPH, SPLIT, gpu, space_for

CUT: Mapping[str, Value] = {**GRAPH, "split_capture": True}
NHWC: Mapping[str, Value] = {"prefer_nhwc": True}
FUSED: Mapping[str, Value] = {**NHWC, "fuse_conv_bias": True}
HEURISTIC: Mapping[str, Value] = {"cudnn_conv_algo_search": "HEURISTIC"}
KNOBS = ("capture", "prefer_nhwc", "fuse_conv_bias", "cudnn_conv_algo_search", "use_tf32")


def space_of(*knobs: str, uncapturable: Mapping[str, int]) -> SearchSpace:
    """Return the space of `knobs` for a model with these operators that a graph cannot hold."""
    machine = Machine("Linux", "CPU", 16, 64 * 2**30, "3.11.7", gpu("NVIDIA H200", "9.0", 141))
    model = replace(facts(), uncapturable=uncapturable)
    return resolve(StudyDefinition("s", "cuda", dict.fromkeys(knobs)), machine, model, fixed_shapes=True)


def climbed(space: SearchSpace, factors: Mapping[str, float]) -> list[Settings]:
    """Return the rungs in their order; a knob of `factors` makes settings so many times as slow (infinite: fail)."""
    costs: dict[Settings, float] = {space.fixed: 1.0}
    found: list[Settings] = []
    while rung := next_rung(space, costs.get):
        found.append(rung)
        costs[rung] = math.prod(factors.get(knob, 1.0) for knob, _ in rung)
    return found


FAST = {"enable_cuda_graph": 0.7, "split_on_host": 0.9, "fuse_conv_bias": 0.93, "cudnn_conv_algo_search": 0.98}


@pytest.mark.parametrize(("knobs", "uncapturable", "slow", "wanted"), [
    (KNOBS, {"NonMaxSuppression": 1}, {}, [SPLIT, {**SPLIT, **FUSED}, {**SPLIT, **FUSED, **HEURISTIC}]),
    (
        KNOBS,
        {"NonMaxSuppression": 1},
        {"fuse_conv_bias": math.inf, "prefer_nhwc": 0.99},
        [SPLIT, {**SPLIT, **FUSED}, {**SPLIT, **NHWC}, {**SPLIT, **NHWC, **HEURISTIC}],
    ),
    (
        KNOBS,
        {"NonMaxSuppression": 1},
        {"prefer_nhwc": 6.0},
        [SPLIT, {**SPLIT, **FUSED}, {**SPLIT, **NHWC}, {**SPLIT, **HEURISTIC}],
    ),
    (
        KNOBS,
        {"NonMaxSuppression": 1},
        {"split_on_host": math.inf},
        [SPLIT, CUT, {**CUT, **FUSED}, {**CUT, **FUSED, **HEURISTIC}],
    ),
    (KNOBS, {"NonMaxSuppression": 1}, {"split_capture": math.inf}, [SPLIT, CUT, FUSED, {**FUSED, **HEURISTIC}]),
    (KNOBS, {}, {}, [GRAPH, {**GRAPH, **FUSED}, {**GRAPH, **FUSED, **HEURISTIC}]),
    (("capture", "fuse_conv_bias"), {"NonMaxSuppression": 1}, {}, [SPLIT]),
    (("use_tf32", "fuse_conv_bias"), {}, {}, []),
], ids=[
    "all", "wrong output", "slow layout", "not on the host", "no cut", "whole", "without a partner", "nothing"
])  # fmt: skip
def test_each_rung_stands_on_what_helped(
    knobs: tuple[str, ...],
    uncapturable: Mapping[str, int],
    slow: Mapping[str, float],
    wanted: list[Mapping[str, Value]],
) -> None:
    """One part that fails or is slower here hides none of the others; what the space lacks is passed over."""
    found = climbed(space_of(*knobs, uncapturable=uncapturable), {**FAST, **slow})
    assert found == [Settings.of(one) for one in wanted]


def test_the_ladder_stands_on_the_default() -> None:
    """Where it was not tried yet there is no rung; where it failed, what runs at all is a step up; outside, none."""
    space = space_of(*KNOBS, uncapturable={})
    assert next_rung(space, lambda _settings: None) is None
    failed = {space.fixed: math.inf, Settings.of(GRAPH): 1.0}
    assert next_rung(space, failed.get) == Settings.of({**GRAPH, **FUSED})
    other = replace(CUDA, knobs={"cudnn_conv_algo_search": ("HEURISTIC", "DEFAULT"), "prefer_nhwc": None})
    assert next_rung(space_for(gpu("NVIDIA H200", "9.0", 141), other), lambda _settings: 1.0) is None


@pytest.fixture
def planted() -> Planted:
    """Return a host of RTMO-s as it was exported, whose fused bias is slow."""
    factors = {"enable_cuda_graph": 0.6, "split_on_host": 0.9, "fuse_conv_bias": 6.0, "cudnn_conv_algo_search": 0.96}
    values: dict[str, Value] = {**SPLIT, **FUSED, **HEURISTIC}
    return Planted({Settings.of({knob: values[knob]}): factor for knob, factor in factors.items()})


def opened(folder: Path) -> Study:
    """Create or resume a quick study of every knob that ships, on a GPU that nobody uses."""
    machine = Machine("Linux", "CPU", 16, 64 * 2**30, "3.11.7", gpu("NVIDIA H200", "9.0", 141))
    names = (*KNOBS, *CUDA.knobs)
    definition = replace(CUDA, knobs=dict.fromkeys(names), trials=12, sampler="random")
    model = replace(facts(), uncapturable={"NonMaxSuppression": 1})
    return scripted.opened(folder, definition, machine, model)


WANTED = [SPLIT, {**SPLIT, **FUSED}, {**SPLIT, **NHWC}, {**SPLIT, **HEURISTIC}, {**SPLIT, **NHWC, **HEURISTIC}]


@pytest.mark.slow
def test_a_search_climbs_before_it_flips(tmp_path: Path, planted: Planted) -> None:
    """The default, then rung by rung, each in one process; then flips, the guide's advice, and what is sampled."""
    study = opened(tmp_path)
    planted.search(study, baseline=3)
    origins = [trial.origin for trial in study.trials if trial.run]
    rungs = [trial.settings for trial in study.trials if trial.origin is Origin.WON]
    assert origins[: 1 + len(rungs)] == [Origin.DEFAULT, *[Origin.WON] * len(rungs)]
    assert rungs[:3] == [Settings.of(one) for one in WANTED[:3]]
    assert rungs[-1] in [Settings.of(one) for one in WANTED[3:]]
    assert (len(rungs), {planted.ran[rung] for rung in rungs}) == (4, {1})
    assert origins.index(Origin.SCREENING) < origins.index(Origin.ADVICE) < origins.index(Origin.SAMPLER)
    assert origins.count(Origin.SCREENING) == 5


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_search_that_was_broken_off_goes_on_with_its_rung(tmp_path: Path, planted: Planted, after: int) -> None:
    """The rung under way is run again, those before it are not, and the ladder is the same in the end."""
    planted.stop = lambda: planted.ran.total() == 3 + 1 + after
    with pytest.raises(KeyboardInterrupt):
        planted.search(opened(tmp_path), baseline=3)
    planted.stop = lambda: False
    study = opened(tmp_path)
    planted.search(study, baseline=3)
    rungs = [trial.settings for trial in study.trials if trial.origin is Origin.WON and trial.run]
    assert len(rungs) == len(set(rungs)) == 4
    assert rungs[:3] == [Settings.of(one) for one in WANTED[:3]]


def test_a_rung_that_another_driver_has_is_not_run_twice(tmp_path: Path, planted: Planted) -> None:
    """While it is under way this driver does other things; once it is told, whoever asks next goes on from it."""
    first, second = opened(tmp_path), opened(tmp_path)
    for study in (first, second):
        study.crew.join()
    first.enqueue(Settings(), Origin.DEFAULT)
    begun = [simulated.tune(study, planted.runner(), baseline=0) for study in (first, second)]
    assert begun[0]._next()  # noqa: SLF001 - one trial at a time, of two drivers
    begun[0]._queued()  # noqa: SLF001
    rung = first.ask()
    assert rung is not None
    assert rung.settings == Settings.of(SPLIT)
    assert begun[1]._next()  # noqa: SLF001
    assert [t.origin for t in second.trials if t.run] == [Origin.DEFAULT, Origin.SAMPLER]
    begun[0]._trial(rung)  # noqa: SLF001
    assert begun[1]._next()  # noqa: SLF001
    assert second.trials[-1].settings == Settings.of({**SPLIT, **FUSED})
    assert planted.ran[Settings.of(SPLIT)] == 1
