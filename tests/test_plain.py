"""The race's winner made plain: which choices are put back, in which order, and in whole tunes."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import scripted
import simulated
from bench_plain import CASES, exported, parser
from models import facts
from program import there
from rtmo_optuna.search.decide import simplify
from rtmo_optuna.search.decide.simplify import Plain, PlainRules
from rtmo_optuna.search.finals import FinalsState
from rtmo_optuna.search.verdict import verdict
from rtmo_optuna.space.resolve import settings_of
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import KnobEffect, Purpose, Reading, Screening
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings, Value
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import SearchSpace, StudyDefinition
from test_finals import Planted, kept
from test_screening import CUDA, gpu, space_for

SEARCHED = replace(CUDA, knobs={**CUDA.knobs, "use_ep_level_unified_stream": None})
SPACE = space_for(gpu("NVIDIA H200", "9.0", 141), SEARCHED)
IDLE: Mapping[str, Value] = {
    "arena_extend_strategy": "kSameAsRequested",
    "do_copy_in_default_stream": False,
    "tunable_op": "on",
    "use_ep_level_unified_stream": True,
}
MODEL = replace(facts(), operators={"Conv": 72, "MatMul": 2})
REAL: Mapping[str, Value] = {"prefer_nhwc": True, "fuse_conv_bias": True, "cudnn_conv_algo_search": "HEURISTIC"}


def of(space: SearchSpace, params: Mapping[str, Value]) -> Settings:
    """Return the settings of `params`, all other dimensions at their first choice."""
    return settings_of(space, {d.name: params.get(d.name, d.choices[0].label) for d in space.dimensions})


def begun(params: Mapping[str, Value], effects: Sequence[KnobEffect] = (), spread: float = 0.01) -> Plain:
    """Return the state before the first block for a winner of `params`."""
    return there(simplify.start(SPACE, of(SPACE, params), effects, MODEL, spread))


def flip(option: tuple[str, Value], reading: Reading, ratio: float = 1.0) -> KnobEffect:
    """Return what a flip of one choice said."""
    return KnobEffect((option,), Settings(), reading, ratio)


def run_out(state: Plain, worth: Mapping[str, float], spread: float = 0.0, seed: int = 0) -> tuple[Plain, int]:
    """Return the end of `state`, where a dimension is `worth` so many times, and the blocks."""
    rng, blocks = random.Random(seed), 0  # noqa: S311 - no secret

    def cost(settings: Settings) -> float:
        gain = math.prod(times for name, times in worth.items() if settings.get(name) == state.winner[name])
        return math.exp(rng.gauss(0.0, spread)) / gain

    while (candidate := state.candidate) is not None:
        state, blocks = simplify.after(state, cost(of(SPACE, state.winner)), cost(candidate)), blocks + 1
    return state, blocks


def test_what_nothing_speaks_for_goes_first_and_together() -> None:
    """Then what was worth something elsewhere, each by itself; what a choice needs comes after that choice."""
    effects = [flip(option, Reading.UNDECIDED) for option in (*IDLE.items(), *REAL.items())]
    state = begun({**IDLE, **REAL}, effects)
    assert set(state.groups[0]) == IDLE.keys()
    assert state.groups[1:] == (("cudnn_conv_algo_search",), ("fuse_conv_bias",), ("prefer_nhwc",))


def test_what_was_clearly_faster_alone_is_not_put_back_and_what_was_barely_comes_last() -> None:
    """By more than a tenth, beside the default: no process is spent on it."""
    faster = [flip(("prefer_nhwc", True), Reading.FASTER, 0.8), flip(("tunable_op", "on"), Reading.FASTER, 0.97)]
    state = begun({**IDLE, "prefer_nhwc": True, "cudnn_conv_algo_search": "HEURISTIC"}, faster)
    assert set(state.groups[0]) == IDLE.keys() - {"tunable_op"}
    assert state.groups[1:] == (("cudnn_conv_algo_search",), ("tunable_op",))


def test_idle_choices_are_put_back_in_five_blocks() -> None:
    """All at once; those that matter are each seen to, and stay."""
    worth = {"prefer_nhwc": 1.05, "fuse_conv_bias": 1.07, "cudnn_conv_algo_search": 1.04}
    state, blocks = run_out(begun({**IDLE, **REAL}), worth)
    assert set(state.back) == IDLE.keys()
    assert state.settings == of(SPACE, REAL)
    assert blocks <= 5 + 2 * 5


def test_one_that_matters_among_those_that_do_not_is_found() -> None:
    """The group loses, so its halves are tried, down to the one."""
    state, _ = run_out(begun({**IDLE, **REAL}), {"use_ep_level_unified_stream": 1.04, **dict.fromkeys(REAL, 1.05)})
    assert set(state.back) == IDLE.keys() - {"use_ep_level_unified_stream"}


def test_small_losses_do_not_add_up() -> None:
    """Four choices worth 0.4 % each are no loss one by one; compared with the winner, two stay at least."""
    state, _ = run_out(begun({**IDLE, **REAL}), {**dict.fromkeys(IDLE, 1.004), **dict.fromkeys(REAL, 1.05)}, seed=1)
    assert 0 < len(state.back) <= 2


def test_the_last_choice_is_for_the_confirmation() -> None:
    """What is left is never compared when that is the default itself."""
    assert begun({"prefer_nhwc": True}).candidate is None
    state, _ = run_out(begun({"arena_extend_strategy": "kSameAsRequested", "tunable_op": "on"}), {})
    assert len(state.back) == 1
    assert state.settings != SPACE.fixed


def test_what_another_choice_needs_stays_with_it() -> None:
    """Channels-last is not put back while fused bias is there; once that is, it may be."""
    state, _ = run_out(begun({**IDLE, **REAL}), {"fuse_conv_bias": 1.07, "cudnn_conv_algo_search": 1.04})
    assert state.settings == of(SPACE, REAL)
    state, _ = run_out(begun({**IDLE, **REAL}), {"cudnn_conv_algo_search": 1.04})
    assert state.settings == of(SPACE, {"cudnn_conv_algo_search": "HEURISTIC"})


def test_failures_end_it_or_keep_a_choice() -> None:
    """Settings that fail without a choice need it; a winner that fails three times is left as it is."""
    faster = [flip(("prefer_nhwc", True), Reading.FASTER, 0.8)]
    state = begun({"arena_extend_strategy": "kSameAsRequested", "prefer_nhwc": True}, faster)
    assert simplify.after(state, 1.0, None).candidate is None
    for _ in range(3):
        assert state.candidate is not None
        state = simplify.after(state, None, 1.0)
    assert (state.candidate, state.back) == (None, ())


def test_noisy_hosts_take_more_blocks() -> None:
    """So many that one error is 1.3 %: a gain of 4 % is then hardly ever taken for none."""
    rules = PlainRules()
    assert [rules.blocks(spread) for spread in (0.002, 0.01, 0.02, 0.05)] == [5, 5, 5, 30]
    worth = {"cudnn_conv_algo_search": 1.04, "prefer_nhwc": 1.05, "fuse_conv_bias": 1.05}
    for spread in (0.01, 0.02):
        back = [run_out(begun(REAL), worth, spread, seed)[0].back for seed in range(200)]
        assert sum("cudnn_conv_algo_search" in names for names in back) <= 6


def test_outside_of_the_space_nothing_is_put_back() -> None:
    """What config.yaml holds may be no settings of the space."""
    assert simplify.start(SPACE, Settings.of({"enable_mem_pattern": False}), (), MODEL, 0.01) is None


# --- whole tunes ---

KNOBS = (
    *("enable_cpu_mem_arena", "enable_mem_pattern", "session.intra_op.allow_spinning"),
    "session.set_denormal_as_zero",
)
ARENA, PATTERN, SPINNING = (Settings.of({name: False}) for name in KNOBS[:3])
LUCKY = Settings.of({KNOBS[0]: False, KNOBS[1]: False, KNOBS[2]: False})
WANTED = Settings.of({KNOBS[0]: False, KNOBS[2]: False})


@pytest.fixture
def planted() -> Planted:
    """Return a host that two knobs matter on."""
    return Planted({ARENA: 0.7, SPINNING: 0.9})


def searched(folder: Path, planted: Planted) -> Study:
    """Create or resume a study of which three settings were tried, none of them as plain as can be."""
    definition = StudyDefinition("s", "cpu", dict.fromkeys(KNOBS), trials=3)
    study = scripted.opened(folder, definition)
    study.put("pin", False)  # noqa: FBT003 - as the preflight leaves it
    for settings, origin in ((Settings(), Origin.DEFAULT), (LUCKY, Origin.SAMPLER), (PATTERN, Origin.SAMPLER)):
        study.enqueue(settings, origin)
    processes = simulated.processes(study, planted.runner())
    while study.claims.waiting and (proposal := study.ask()):
        study.run(proposal, partial(processes.run, proposal.settings, on_window=lambda *_: None))
    return study


def finished(study: Study, planted: Planted) -> FinalsState:
    """Run race, making plain and confirmation."""
    runner = planted.runner()
    runner.seen.walls_s.append(0.01)
    return simulated.finals(study, runner).run()


@pytest.mark.slow
def test_the_plain_winner_is_tried_confirmed_and_exported(tmp_path: Path, planted: Planted) -> None:
    """It was no trial before and runs as one, which is none of the search's; the same command again runs nothing."""
    study = searched(tmp_path, planted)
    found = finished(study, planted)
    assert (found.raced, found.winner, found.over) == (LUCKY, WANTED, True)
    last = study.trials[-1]
    assert (last.settings, last.origin, last.measurement.outcome) == (WANTED, Origin.PLAIN, Outcome.MEASURED)
    told = verdict(study, found)
    assert (told.confirmed, there(told.best).settings) == (True, WANTED)
    assert {settings for _, settings, _ in kept(study, Purpose.CONFIRMATION)} == {WANTED, Settings()}
    processes = study.processes
    again = searched(tmp_path, planted)
    assert finished(again, planted) == found
    assert again.processes == processes


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 9, 13])
def test_what_was_interrupted_goes_on(tmp_path: Path, planted: Planted, count: int) -> None:
    """No process that ended is run again, and the end is the same; the trial that was broken off is run again."""
    (tmp_path / "whole").mkdir()
    wanted = finished(searched(tmp_path / "whole", planted), planted)
    everything, planted.ran = planted.ran, type(planted.ran)()
    study = searched(tmp_path, planted)
    planted.stop = lambda: len(kept(study, Purpose.PLAIN)) == count
    with pytest.raises(KeyboardInterrupt):
        finished(study, planted)
    planted.stop = lambda: False
    study = searched(tmp_path, planted)
    assert len(kept(study, Purpose.PLAIN)) == count
    assert replace(finished(study, planted), pairs=None) == replace(wanted, pairs=None)
    assert planted.ran == everything


def test_without_time_the_winner_stays_as_it_is(tmp_path: Path, planted: Planted) -> None:
    """The pairs come first: what makes the winner plain begins only where it may end."""
    study = searched(tmp_path, planted)
    runner = planted.runner(takes_s=10.0)
    runner.seen.walls_s.append(10.0)
    found = simulated.finals(study, runner, seconds=245.0).run()
    assert found.winner == found.raced == LUCKY
    assert not kept(study, Purpose.PLAIN)
    assert len(kept(study, Purpose.CONFIRMATION)) == 20
    assert not planted.ran[WANTED]


def test_a_plain_winner_with_wrong_outputs_is_not_taken(tmp_path: Path, planted: Planted) -> None:
    """Its processes ran, its trial fails: the race's winner is confirmed instead."""
    planted.fails = lambda settings, count: settings == WANTED and count >= 5
    study = searched(tmp_path, planted)
    found = finished(study, planted)
    assert (found.raced, found.winner) == (LUCKY, LUCKY)
    assert study.failed(WANTED)


def test_a_screening_counts(tmp_path: Path, planted: Planted) -> None:
    """What was clearly faster alone takes no process to be kept."""
    study = searched(tmp_path, planted)
    faster = KNOBS[::2]
    effects = tuple(KnobEffect(((k, False),), Settings.of({k: False}), Reading.FASTER, 0.7) for k in faster)
    study.put("screening", Screening(effects=effects, over=True))
    assert finished(study, planted).winner == WANTED
    assert {settings for _, settings, _ in kept(study, Purpose.PLAIN)} == {LUCKY, WANTED}
    assert len(kept(study, Purpose.PLAIN)) == 10


@pytest.mark.slow
def test_simulated_studies_export_what_is_real() -> None:
    """Ten whole tunes on a clock of their own; the figures at length: docs/lab/claims.md."""
    args = parser().parse_args([])
    found = [exported(CASES["known"], 0.02, seed, args) for seed in range(10)]
    assert sum(one.exact for one in found) >= 9
    assert sorted(one.loss for one in found)[5] <= 0.005
