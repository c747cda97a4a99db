"""Each knob flipped once, the test of those that seem to do nothing, and whole searches with both."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import scripted
import simulated
from bench_screening import planted, shares
from models import facts
from program import there
from rtmo_optuna import stats
from rtmo_optuna.machine.host import host
from rtmo_optuna.search.decide import equivalence, judge, screening
from rtmo_optuna.search.decide.equivalence import InertRules, signed_rank_cut
from rtmo_optuna.search.decide.screening import Level
from rtmo_optuna.search.finals import FinalsState
from rtmo_optuna.search.verdict import judged
from rtmo_optuna.show.sections.time import saved_by_pruning
from rtmo_optuna.show.sections.verdict import sentence
from rtmo_optuna.space.advice import advised, row_for
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.space.resolve import resolve, size
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import KnobEffect, Purpose, Reading, Screening
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings, Value
from rtmo_optuna.types.study import Event, Note, Origin, TrialRecord
from rtmo_optuna.types.subject import Frozen, Gpu, Machine, SearchSpace, StudyDefinition
from test_finals import Planted, kept
from test_show_charts import markdown, measured, realistic
from test_show_charts import study as recorded

SEARCHED = (
    *("cudnn_conv_algo_search", "gpu_mem_limit_gb", "arena_extend_strategy", "do_copy_in_default_stream"),
    *("cudnn_conv_use_max_workspace", "tunable_op", "prefer_nhwc", "fuse_conv_bias"),
)
CUDA = StudyDefinition("s", "cuda", dict.fromkeys(SEARCHED))
LATENCY = OBJECTIVES["latency"]


def gpu(name: str, capability: str, gib: int = 80) -> Gpu:
    """Return a GPU of this name."""
    return Gpu(0, "GPU-0", name, gib * 2**30, "580.1", capability)


def space_for(device: Gpu, definition: StudyDefinition = CUDA) -> SearchSpace:
    """Return what `definition` searches on a machine with `device`."""
    machine = Machine("Linux", "CPU", 16, 64 * 2**30, "3.11.7", device)
    return resolve(definition, machine, facts(), fixed_shapes=True)


GRAPH: Mapping[str, Value] = {"io_binding": True, "enable_cuda_graph": True}
SPLIT: Mapping[str, Value] = {**GRAPH, "split_capture": True, "split_on_host": True}
FUSED: Mapping[str, Value] = {"prefer_nhwc": True, "fuse_conv_bias": True}
SPACE = space_for(gpu("NVIDIA H200", "9.0", 141))


def flip(settings: Mapping[str, Value], reading: Reading, *, equal: bool = True) -> KnobEffect:
    """Return the effect of a flip of one or two dimensions."""
    return KnobEffect(tuple(settings.items()), Settings.of(settings), reading, 1.0, 0.9, 1.1, equal_outputs=equal)


def effect(
    costs: list[float], level: Level, block: int | None = 0, outcome: Outcome = Outcome.MEASURED, sha: str = ""
) -> KnobEffect:
    """Return what a flip that came to `costs` says beside the default's processes of `level`."""
    measurement = Measurement(outcome, outputs_sha256=sha)
    return screening.effect(screening.flips(SPACE)[0], measurement, costs, level, block)


ADVICE: tuple[tuple[Gpu, tuple[Value, ...] | None], ...] = (
    (gpu("NVIDIA GeForce RTX 4090", "8.9", 24), ("HEURISTIC", "90%", False)),
    (gpu("NVIDIA A100-SXM4-80GB", "8.0"), ("HEURISTIC", "90%", False)),
    (gpu("NVIDIA H100 80GB HBM3", "9.0"), ("HEURISTIC", "90%", False)),
    (gpu("NVIDIA H200", "9.0", 141), ("HEURISTIC", "90%", False)),
    (gpu("NVIDIA GeForce RTX 5090", "12.0", 32), ("HEURISTIC", "90%", False)),
    (gpu("NVIDIA L4", "8.9", 24), ("HEURISTIC", 16, False)),
    (gpu("NVIDIA GeForce RTX 3090", "8.6", 24), ("HEURISTIC", 16, False)),
    (gpu("NVIDIA GeForce RTX 4070", "8.9", 12), ("HEURISTIC", 8, False)),
    (gpu("NVIDIA A10", "8.6", 24), ("HEURISTIC", 16, False)),
    (gpu("NVIDIA RTX A6000", "8.6", 48), ("HEURISTIC", 16, False)),
    (gpu("NVIDIA GeForce RTX 2080 Ti", "7.5", 11), ("DEFAULT", 8, True)),
    (gpu("Tesla V100-SXM2-16GB", "7.0", 16), ("EXHAUSTIVE", 16, False)),
    (gpu("Tesla T4", "7.5", 15), ("EXHAUSTIVE", None, False)),
    (gpu("NVIDIA GeForce RTX 3060", "8.6", 12), ("DEFAULT", 4, True)),
    (gpu("NVIDIA GeForce GTX 1080", "6.1", 8), None),
)


@pytest.mark.parametrize(("device", "wanted"), ADVICE, ids=[device.name for device, _ in ADVICE])
def test_the_guides_advice_for_each_gpu(device: Gpu, wanted: tuple[Value, ...] | None) -> None:
    """By name, else by compute capability; canonical, and no larger than the GPU; older ones have none."""
    found = advised(space_for(device), device)
    assert (row_for(device) is None) == (wanted is None)
    if wanted is None:
        assert found is None
        return
    found = there(found)
    algorithm, memory, copy = wanted
    assert found.get("cudnn_conv_algo_search", "EXHAUSTIVE") == algorithm
    assert found.get("gpu_mem_limit_gb") == memory
    assert found.get("do_copy_in_default_stream", True) == copy
    assert found.get("tunable_op_enable") is found.get("tunable_op_tuning_enable") is True
    assert "arena_extend_strategy" not in dict(found)
    assert "cudnn_conv_use_max_workspace" not in dict(found)


def test_advice_keeps_to_the_space() -> None:
    """Knobs that the study does not search stay as they are; a space without the default settings gets none."""
    device = gpu("NVIDIA H200", "9.0", 141)
    narrow = replace(CUDA, knobs={"prefer_nhwc": None, "do_copy_in_default_stream": None}, fixed={"use_tf32": False})
    found = advised(space_for(device, narrow), device)
    assert found == Settings.of({"do_copy_in_default_stream": False, "use_tf32": False})
    assert advised(SPACE, None) is None
    other = replace(CUDA, knobs={"cudnn_conv_algo_search": ("HEURISTIC", "DEFAULT"), "prefer_nhwc": None})
    assert advised(space_for(device, other), device) is None


def test_each_choice_is_flipped_once_and_a_needy_one_with_its_partner_too() -> None:
    """Every choice off the default alone, and fused bias with channels-last as well."""
    found = [one.options for one in screening.flips(SPACE)]
    alone = [options[0] for options in found if len(options) == 1]
    assert len(alone) == len(set(alone)) == sum(len(d.choices) - 1 for d in SPACE.dimensions)
    assert [options for options in found if len(options) > 1] == [(("fuse_conv_bias", True), ("prefer_nhwc", True))]
    assert all(one.settings != Settings() for one in screening.flips(SPACE))


@pytest.mark.parametrize(("changes", "why"), [
    ({"trials": 40}, ""),
    ({"trials": 12}, ""),
    ({"trials": 3}, "too many beside 3 trials"),
    ({"sampler": "exhaustive"}, "every settings anyway"),
    ({"trials": 40, "knobs": {"prefer_nhwc": None, "fuse_conv_bias": None}}, "every settings anyway"),
    ({"knobs": {**CUDA.knobs, "cudnn_conv_algo_search": ("HEURISTIC", "DEFAULT")}}, "not hold the default"),
], ids=["usual", "quick", "hardly any trials", "exhaustive", "small", "without the default"])  # fmt: skip
def test_what_is_not_screened(changes: dict[str, Any], why: str) -> None:
    """Where screening has nothing to give it is left out, with the reason."""
    definition = replace(CUDA, **changes)
    found = screening.unfit(definition, space_for(gpu("NVIDIA H200", "9.0", 141), definition))
    assert why in found
    assert bool(why) == bool(found)


BESIDE = Level((4.0, 4.04, 3.96, 4.02, 3.98, 4.0), frozenset({"a", "b"}), again={0: 4.0, 1: 4.0})
DEFAULT = Level((4.0, 4.04, 3.96, 4.02, 3.98, 4.0), frozenset({"a", "b"}))


def test_an_effect_is_a_ratio_with_its_interval() -> None:
    """The interval is the textbook's for a new value against n known ones, on logs."""
    found = effect([4.04], BESIDE, sha="b")
    logs = [math.log(cost) for cost in DEFAULT.costs]
    spread = statistics.stdev(logs) * math.sqrt(5 / 6)
    reach = stats.t_quantile(0.99, 6) * spread * math.sqrt(1 + 1 / 2)
    ratio = there(found.ratio)
    assert ratio == pytest.approx(4.04 / 4.0, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((ratio * math.exp(-reach), ratio * math.exp(reach)))
    assert found.reading is Reading.UNDECIDED
    assert found.equal_outputs
    assert stats.t_quantile(0.975, 10) == pytest.approx(2.228, abs=1e-3)


@pytest.mark.parametrize(("outcome", "costs", "reading"), [
    (Outcome.MEASURED, [3.6], Reading.FASTER),
    (Outcome.MEASURED, [4.4], Reading.SLOWER),
    (Outcome.PRUNED, [4.3], Reading.SLOWER),
    (Outcome.MEASURED, [3.96, 4.02], Reading.UNDECIDED),
    (Outcome.FAILED, [], Reading.FAILED),
])  # fmt: skip
def test_a_single_trial_reads_faster_or_slower_from_three_spreads_on(
    outcome: Outcome, costs: list[float], reading: Reading
) -> None:
    """Nearer is undecided, pruned is slower, failed is failed."""
    assert effect(costs, BESIDE, outcome=outcome).reading is reading


@pytest.mark.parametrize("fast", [0, 1, 2, 3], ids="after the {}th".format)
@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_step_of_the_host_makes_no_flip_look_faster_or_slower(block: int, fast: int) -> None:
    """The host grows 10 % faster after one of four processes of the default: whatever a flip took, it says nothing."""
    before, after = 4.0, 3.6
    level = replace(DEFAULT, again={place: after if place > fast else before for place in range(4)})
    ran = {before if block <= fast else after, after if block >= fast else before}
    assert {effect([cost], level, block).reading for cost in ran} == {Reading.UNDECIDED}


def test_a_flip_is_compared_with_the_default_beside_it() -> None:
    """With its block's two; where none ran beside it, it says nothing unless it was pruned. Neighbours tell noise."""
    level = replace(DEFAULT, again={0: 3.6, 1: 3.6, 4: 4.0, 5: 4.0})
    readings = [effect([3.6], level, block).reading for block in (0, 1, 4, None)]
    assert readings == [Reading.UNDECIDED, Reading.UNDECIDED, Reading.FASTER, Reading.UNDECIDED]
    assert effect([6.0], level, None, Outcome.PRUNED).reading is Reading.SLOWER
    assert level.noise[0] == pytest.approx((DEFAULT.noise[0] or 0) * math.sqrt(5 / 7))
    assert level.noise[1] == 7
    assert replace(DEFAULT, again=dict.fromkeys(range(7), 4.0)).noise[1] == 5 + 4
    assert effect([3.6], replace(DEFAULT, again={})).reading is Reading.UNDECIDED


def test_only_what_leaves_the_outputs_equal_is_tested() -> None:
    """Not what is decided, nor a dimension of which a choice is faster or changes the outputs."""
    effects = [
        flip({"arena_extend_strategy": "kSameAsRequested"}, Reading.UNDECIDED),
        flip({"prefer_nhwc": True}, Reading.UNDECIDED, equal=False),
        flip({"do_copy_in_default_stream": False}, Reading.FASTER),
        flip({"gpu_mem_limit_gb": 4}, Reading.SLOWER),
        flip({"gpu_mem_limit_gb": 8}, Reading.UNDECIDED),
        flip({"cudnn_conv_algo_search": "HEURISTIC"}, Reading.UNDECIDED, equal=False),
        flip({"cudnn_conv_algo_search": "DEFAULT"}, Reading.UNDECIDED),
        flip({"fuse_conv_bias": True, "prefer_nhwc": True}, Reading.UNDECIDED),
    ]
    found = screening.candidates(SPACE, effects)
    assert found == (("arena_extend_strategy", "kSameAsRequested"), ("gpu_mem_limit_gb", 8))


def test_a_choice_that_hides_another_is_not_tested_beside_it() -> None:
    """Memory patterns mean nothing where execution is parallel: that is flipped first and tested, this is not."""
    definition = StudyDefinition("s", "cpu", {"enable_mem_pattern": None, "execution": None})
    machine = Machine("Linux", "CPU", 16, 64 * 2**30, "3.11.7")
    space = resolve(definition, machine, facts(), fixed_shapes=True)
    flips = screening.flips(space)
    effects = [KnobEffect(one.options, one.settings, Reading.UNDECIDED, 1.0, equal_outputs=True) for one in flips]
    assert {name for name, _ in screening.candidates(space, effects)} == {"execution"}


@pytest.mark.parametrize(("readings", "frozen"), [
    ((Reading.INERT, Reading.INERT), True),
    ((Reading.INERT, Reading.SLOWER), True),
    ((Reading.FAILED, Reading.INERT), True),
    ((Reading.SLOWER, Reading.SLOWER), False),
    ((Reading.INERT, Reading.UNDECIDED), False),
    ((Reading.INERT, Reading.FASTER), False),
    ((Reading.INERT,), False),
])  # fmt: skip
def test_a_dimension_is_frozen_where_no_choice_can_gain(readings: tuple[Reading, ...], *, frozen: bool) -> None:
    """One does nothing, and the others do nothing, are slower or fail; one that was not tried keeps it live."""
    labels = ("on", "on+tuning")
    effects = [flip({"tunable_op": label}, reading) for label, reading in zip(labels, readings, strict=False)]
    model = replace(facts(), operators={"Conv": 72, "MatMul": 2})
    why = "tunable ops act on Gemm and MatMul only; this model has 2"
    assert screening.inert(SPACE, effects, model) == ((Frozen("tunable_op", why),) if frozen else ())


def test_the_cut_inverts_the_signed_rank_test() -> None:
    """The largest that errs no more often than allowed, counted over all signs; the confirmation's table agrees."""
    every = itertools.product((0, 1), repeat=10)
    sums = Counter(sum(rank for rank, sign in enumerate(signs, 1) if sign) for signs in every)
    for level in (0.007, 0.02, 0.05):
        cut = signed_rank_cut(10, level)
        assert sum(sums[total] for total in range(cut + 1)) <= level * 2**10
        assert sum(sums[total] for total in range(cut + 2)) > level * 2**10
    assert signed_rank_cut(10, 0.007) == 4
    with pytest.raises(ValueError, match="too few"):
        signed_rank_cut(5, 0.01)


def test_each_pair_says_something_of_every_dimension() -> None:
    """Off the default on one side, at it on the other; choices of one dimension take turns."""
    options = [("a", 1), ("b", 1), ("b", 2)]
    test = equivalence.start(options, InertRules())
    played: Counter[equivalence.Option] = Counter()
    for _ in range(8):
        pair = equivalence.next_pair(test)
        assert sorted({name for name, _ in pair.signs}) == ["a", "b"]
        assert {**pair.side(1), **pair.side(-1)}.keys() == {"a", "b"}
        assert not pair.side(1).keys() & pair.side(-1).keys()
        played.update(list(pair.signs))
        test = equivalence.after(test, replace(pair, gap=0.001))
    assert played == {("a", 1): 8, ("b", 1): 4, ("b", 2): 4}
    assert test.told[0].inert
    assert test.open == (("b", 1), ("b", 2))


def test_failed_pairs_count_for_nothing_and_three_end_the_test() -> None:
    """A combination that fails may not decide anything."""
    test = equivalence.start([("a", 1)], InertRules())
    for _ in range(3):
        assert not test.over
        test = equivalence.after(test, equivalence.next_pair(test))
    assert test.over
    assert test.told[0] == equivalence.Told()


@pytest.mark.parametrize("gains", [(), (-0.03,), (-0.03, 0.03)], ids=["none", "one", "two opposite"])
def test_what_does_nothing_is_found_and_what_is_worth_3_percent_is_not_called_so(gains: tuple[float, ...]) -> None:
    """At s_b 2 %: two opposite effects do not hide each other. The figures at length: benchmarks/bench_screening.py."""
    found = shares(100, planted(gains), 0.02)
    assert found.inert >= 0.8
    assert found.wrong <= 0.04 or not gains
    assert found.mean < 80


def test_a_drifting_host_makes_no_knob_look_faster() -> None:
    """1 % from process to process: without the default among the flips a quarter was misread (docs/lab/claims.md)."""
    found = shares(60, planted((), binary=18), 0.01, drift=0.01)
    assert found.misread < 0.04
    assert found.inert >= 0.8


def test_a_small_gain_that_is_sure_is_not_called_nothing() -> None:
    """On a quiet host a gain of 1.5 % lies within the margin, but the race wants it; a loss as small is inert."""
    found = {}
    for gap in (-0.015, 0.015, -0.005):
        test = equivalence.start([("a", 1)], InertRules())
        for place in range(8):
            pair = equivalence.next_pair(test)
            test = equivalence.after(test, replace(pair, gap=pair.signs["a", 1] * gap + place / 1e5))
        found[gap] = test.told[0]
    assert [told.inert for told in found.values()] == [False, True, True]
    assert [told.active for told in found.values()] == [True, False, False]


def trial(run: int, latency_ms: float, origin: Origin = Origin.SAMPLER) -> TrialRecord:
    """Return a measured trial."""
    measurement = Measurement(Outcome.MEASURED, latency_ns=latency_ms * 1e6)
    return TrialRecord(run - 1, run, Settings.of({"k": run}), origin, measurement, latency_ms)


def test_the_search_ends_after_fifteen_samples_without_a_gain() -> None:
    """Gains under 1 % are none; screening does not count, and a real gain begins the count anew."""
    start = [trial(1, 5.0, Origin.DEFAULT), *(trial(n, 4.0, Origin.SCREENING) for n in range(2, 12))]
    fruitless = [trial(n, 3.99 - n / 1e5) for n in range(12, 27)]
    assert not judge.stalled(start, LATENCY)
    assert not judge.stalled([*start, *fruitless[1:]], LATENCY)
    assert judge.stalled([*start, *fruitless], LATENCY)
    assert not judge.stalled([*start, *fruitless[:-1], trial(27, 3.9)], LATENCY)


@dataclass
class Bench(Planted):
    """Planted processes whose outputs are all equal, but for settings with a knob of `changing`.

    `host` is how slow the host is now.
    """

    changing: frozenset[str] = field(default_factory=frozenset)
    host: Callable[[], float] = lambda: 1.0

    def process(self, settings: Settings, count: int) -> Measurement:
        """Return what the process number `count` of `settings` would have measured."""
        found = super().process(settings, count)
        changed = self.changing & {knob for knob, _ in settings}
        latency_ns = None if found.latency_ns is None else found.latency_ns * self.host()
        return replace(found, latency_ns=latency_ns, outputs_sha256=",".join(["same", *sorted(changed)]))


@pytest.fixture
def bench() -> Bench:
    """Return a host that all settings are alike on."""
    return Bench()


ARENA = Settings.of({"enable_cpu_mem_arena": False})
SPINNING = Settings.of({"session.intra_op.allow_spinning": False})
KNOBS = (
    *("graph_optimization_level", "enable_cpu_mem_arena", "enable_mem_pattern", "session.intra_op.allow_spinning"),
    *("session.set_denormal_as_zero", "intra_op_num_threads"),
)


def opened(folder: Path, trials: int = 24, **changes: Any) -> Study:  # noqa: ANN401
    """Create or resume a study of 256 settings in `folder`."""
    knobs: dict[str, tuple[Value, ...] | None] = {**dict.fromkeys(KNOBS), "intra_op_num_threads": (0, 1, 2, 3)}
    definition = StudyDefinition("s", "cpu", knobs, trials=trials, sampler="random", **changes)
    return scripted.opened(folder, definition, replace(host(), cores=4))


def tune(study: Study, bench: Bench, told: list[str] | None = None, *, search_only: bool = True) -> FinalsState | None:
    """Tune on; raises KeyboardInterrupt where that is planted. What is noted goes to `told`."""

    def observe(event: Event) -> None:
        if isinstance(event, Note) and told is not None:
            told.append(event.text)

    study.enqueue(Settings(), Origin.DEFAULT)
    return simulated.tune(study, bench.runner(), observer=observe, search_only=search_only).run()


def broken_off(folder: Path, bench: Bench, stop: Callable[[Study], bool], **more: Any) -> Study:  # noqa: ANN401
    """Tune in `folder` until `stop` says so of the study, then Ctrl-C; return the study as it is then."""
    study = opened(folder, **more)
    bench.stop = lambda: stop(study)
    with pytest.raises(KeyboardInterrupt):
        tune(study, bench)
    bench.stop = lambda: False
    return study


def screened(study: Study) -> Screening:
    """Return what the study's screening found."""
    return there(study.screening)


@pytest.mark.slow
def test_what_does_nothing_is_frozen_and_what_does_something_is_not(tmp_path: Path, bench: Bench) -> None:
    """Six dimensions: one fast, one slow, one that changes the outputs; the others never leave their defaults again."""
    bench.factors = {ARENA: 0.9, SPINNING: 1.3}
    bench.changing = frozenset({"graph_optimization_level"})
    study, told = opened(tmp_path), list[str]()
    tune(study, bench, told)
    found = screened(study)
    inert = {"enable_mem_pattern", "session.set_denormal_as_zero", "intra_op_num_threads"}
    assert {one.name for one in found.inert} == inert
    assert size(study.live) == 16
    readings = {one.options[0]: one.reading for one in found.effects}
    assert readings["enable_cpu_mem_arena", False] is Reading.FASTER
    assert readings["session.intra_op.allow_spinning", False] is Reading.SLOWER
    assert readings["graph_optimization_level", "ORT_ENABLE_BASIC"] is Reading.UNDECIDED
    sampled = [one for one in study.trials if one.run and one.origin is Origin.SAMPLER]
    assert sampled
    assert not any(inert & {knob for knob, _ in one.settings} for one in sampled)
    assert any("Inert here" in text for text in told)
    assert study.counted < 24 < study.runs + len(study.processes)
    assert told[-1] == "Every combination of the space has been measured."


@pytest.mark.slow
def test_trials_count_the_search_only(tmp_path: Path, bench: Bench) -> None:
    """Ten flips ran beside the 24 trials, of which the default is one."""
    bench.changing = frozenset({"graph_optimization_level", "intra_op_num_threads", "enable_mem_pattern"})
    study, told = opened(tmp_path), list[str]()
    bench.factors = {ARENA: 0.9, SPINNING: 1.3}
    tune(study, bench, told)
    assert Counter(one.origin for one in study.trials if one.run)[Origin.SCREENING] == 10
    assert study.counted == 24 or "gained less than" in told[-1]
    runs = study.runs
    tune(study, bench)
    assert study.runs == runs


@pytest.mark.slow
def test_flips_before_and_after_an_interruption_are_compared_with_what_ran_beside_them(
    tmp_path: Path, bench: Bench
) -> None:
    """Three flips, Ctrl-C, and the host is 8 % faster when the rest is run: none looks faster, and none runs again."""
    bench.spread = 0.002
    broken_off(tmp_path, bench, lambda _: bench.ran.total() == 6 + 1 + 1 + 3)
    bench.host = lambda: 0.92
    study = opened(tmp_path)
    tune(study, bench)
    found = screened(study)
    assert len(found.effects) == 10
    assert {effect.reading for effect in found.effects} <= {Reading.INERT, Reading.UNDECIDED}
    assert [p.index for p in study.processes if p.purpose is Purpose.LEVEL] == [0, 3, 4, 5]
    assert Counter(trial.origin for trial in study.trials if trial.run)[Origin.SCREENING] == 10


@pytest.mark.slow
@pytest.mark.parametrize("flips", [0, 1])
def test_no_two_defaults_among_the_flips_are_of_one_block(tmp_path: Path, bench: Bench, flips: int) -> None:
    """Broken off in its first flip, before which the default ran, or in its second: the next run has other blocks."""
    broken_off(tmp_path, bench, lambda _: bench.ran.total() == 6 + 1 + 1 + flips)
    study = opened(tmp_path)
    tune(study, bench)
    blocks = [p.index for p in study.processes if p.purpose is Purpose.LEVEL]
    assert len(blocks) == len(set(blocks)) > 2
    assert 3 in blocks
    assert not {1, 2} & set(blocks)
    assert len(screened(study).effects) == 10


@pytest.mark.slow
def test_an_interrupted_test_of_what_does_nothing_goes_on(tmp_path: Path, bench: Bench) -> None:
    """What was run is not run again, and the end is the same as without the interruption."""
    bench.factors = {ARENA: 0.9}
    broken_off(tmp_path, bench, lambda _: bench.ran.total() == 25)
    resumed = opened(tmp_path)
    tune(resumed, bench)
    ran = bench.ran.copy()
    bench.ran.clear()
    (tmp_path / "whole").mkdir()
    whole = opened(tmp_path / "whole")
    tune(whole, bench)
    assert screened(resumed) == screened(whole)
    assert kept(resumed, Purpose.SCREENING) == kept(whole, Purpose.SCREENING)
    assert ran[Settings()] == bench.ran[Settings()]


@pytest.mark.slow
def test_the_default_runs_before_each_block_of_flips_and_after_the_last(tmp_path: Path, bench: Bench) -> None:
    """Ten flips are two blocks; a host that is twice as fast in the second one makes none of its flips look faster."""
    before_it = 6 + 1 + 1  # the baseline, the default's trial, and the one before the first block
    bench.host = lambda: 0.5 if bench.ran[Settings()] > before_it else 1.0
    study = opened(tmp_path)
    tune(study, bench)
    ran = [p for p in study.processes if p.purpose is Purpose.LEVEL]
    assert [(p.index, p.settings) for p in ran] == [(0, Settings()), (1, Settings()), (2, Settings())]
    assert [p.cost or 0 for p in ran] == pytest.approx([5.0, 2.5, 2.5], rel=0.05)
    effects = screened(study).effects
    assert len(effects) == 10
    assert Reading.FASTER not in {effect.reading for effect in effects}


@pytest.mark.slow
def test_where_nothing_does_anything_the_default_stays(tmp_path: Path, bench: Bench) -> None:
    """Every dimension frozen: no settings are sampled, and the verdict is that nothing was faster."""
    study = opened(tmp_path)
    finals = tune(study, bench, search_only=False)
    assert size(study.live) == 1
    assert not [one for one in study.trials if one.origin is Origin.SAMPLER]
    found = judged(study, finals)
    assert (there(finals).over, there(found.verdict.best).settings) == (True, Settings())
    assert "No proven gain" in sentence(found)
    assert bench.ran.total() < 80


@pytest.mark.slow
def test_nothing_is_screened_where_the_default_fails(tmp_path: Path, bench: Bench) -> None:
    """There is nothing to compare with; the search goes on without."""
    bench.fails = lambda settings, _count: settings == Settings()
    study, told = opened(tmp_path), list[str]()
    tune(study, bench, told)
    assert not screened(study).effects
    assert any("the default settings failed" in text for text in told)


@pytest.mark.slow
def test_what_there_is_no_time_to_test_is_named(tmp_path: Path, bench: Bench) -> None:
    """On a noisy host hundreds of pairs would be needed: all stays in the search, and nothing is run for it."""
    bench.spread = 0.2
    study, told = opened(tmp_path, timeout_s=10.0), list[str]()
    tune(study, bench, told)
    assert any(text.startswith("Not tested whether they do anything: ") for text in told)
    assert not [p for p in study.processes if p.purpose is Purpose.SCREENING]
    assert not screened(study).over


@pytest.mark.slow
def test_a_screening_that_ran_out_of_time_goes_on_with_more(tmp_path: Path, bench: Bench) -> None:
    """The flips of the first run are not run again; what it had no time to test is tested, and the search goes on."""
    bench.spread = 0.2
    study = broken_off(tmp_path, bench, lambda study: study.counted == 5, timeout_s=10.0)
    flips = len(screened(study).effects)
    study = opened(tmp_path, trials=30, timeout_s=360_000.0)
    tune(study, bench)
    found = screened(study)
    assert (found.over, len(found.effects)) == (True, flips)
    assert sum(one.origin is Origin.SCREENING for one in study.trials) == flips
    assert found.pairs > 0
    assert study.counted > 5


@pytest.mark.slow
def test_flips_that_were_tried_later_are_no_longer_missed(tmp_path: Path, bench: Bench) -> None:
    """A run that had no time for three flips says so; the next one, which had, does not."""

    def untested(study: Study) -> bool:
        return study.screening is not None and study.screening.pairs == 0 and bench.ran.total() == 25

    study = broken_off(tmp_path, bench, untested)
    early = replace(screened(study), untried=3)
    assert early.tested
    assert early.left_out.startswith("3 flips were not tried")
    study.put("screening", early)
    tune(study, bench)
    assert (screened(study).left_out, screened(study).over) == ("", True)


@pytest.mark.slow
def test_the_screening_leaves_half_of_the_searchs_time_to_the_sampler(tmp_path: Path, bench: Bench) -> None:
    """After a preflight that took half of a minute, 60 % of which is the search's, no more than 3 s are left for it."""
    study = opened(tmp_path, timeout_s=60.0)
    study.enqueue(Settings(), Origin.DEFAULT)
    simulated.tune(study, bench.runner(takes_s=0.4), late_s=30.0, baseline=0, search_only=True).run()
    flips = sum(len(study.costs(one)) for one in study.trials if one.origin is Origin.SCREENING)
    levels = sum(process.purpose is Purpose.LEVEL for process in study.processes)
    assert 2.0 < 0.4 * (flips + levels) <= 3.0


@pytest.mark.slow
def test_the_report_says_what_each_knob_does_here(tmp_path: Path, bench: Bench) -> None:
    """The inert ones with their reasons, then each choice with its interval and what it is from."""
    bench.factors = {ARENA: 0.9}
    study = opened(tmp_path)
    tune(study, bench)
    text = markdown(judged(study, None), {})
    part = text[text.index("## What each knob does here") :]
    assert "Inert here" in part
    assert "- `enable_mem_pattern`" in part
    assert "98 % interval".replace(" %", "\N{NO-BREAK SPACE}%") in part
    row = next(line for line in part.splitlines() if line.startswith("| `enable_cpu_mem_arena=0`"))
    assert "| faster |" in row


def test_pruning_accounts_for_itself() -> None:
    """What the pruned trials' windows would have taken as well, from the median of those that ran to their end."""
    whole = [(Settings.of({"gpu_mem_limit_gb": n}), measured(4.0, windows=8)) for n in (4, 8)]
    cut = [(Settings.of({"gpu_mem_limit_gb": 16}), measured(9.0, Outcome.PRUNED, windows=3))]
    assert saved_by_pruning(recorded([*whole, *cut])) == pytest.approx((8 - 3) * 0.12)
    assert saved_by_pruning(recorded(whole)) is None
    assert "Pruning saved about" in markdown(realistic(), {})


def said(name: str, reading: Reading, label: Value = True) -> KnobEffect:  # noqa: FBT002 - a choice like any other
    """Return what the flip of one choice said."""
    return KnobEffect(((name, label),), Settings(), reading)


def test_the_best_is_made_plainer() -> None:
    """What was seen to matter stays; what changed nothing goes, and so does what nobody tried and nobody recorded."""
    names = ("prefer_nhwc", "use_tf32", "tunable_op", "graph_optimization_level", "arena_extend_strategy")
    space = space_for(gpu("NVIDIA H200", "9.0", 141), replace(CUDA, knobs=dict.fromkeys(names)))
    level, strategy = ("graph_optimization_level", "ORT_ENABLE_EXTENDED"), ("arena_extend_strategy", "kSameAsRequested")
    others = {"prefer_nhwc": True, "use_tf32": False, "tunable_op_enable": True}
    best = Settings.of({**others, **dict([level, strategy])})
    effects = [
        said("prefer_nhwc", Reading.FASTER), said("tunable_op", Reading.UNDECIDED, "on"),
        said(level[0], Reading.UNDECIDED, level[1]),
    ]  # fmt: skip
    plain = screening.plainer(space, best, effects)
    assert plain == Settings.of({"prefer_nhwc": True})
    assert screening.plainer(space, plain, effects) == plain
    outside = Settings.of({"enable_mem_pattern": False})
    assert screening.plainer(space, outside, effects) == outside


def test_what_is_queued_is_tried_before_the_best_is_made_plainer(tmp_path: Path, bench: Bench) -> None:
    """Where the search's time is over after one trial: it is the best of all that was queued that is made plainer."""
    bench.factors = {SPINNING: 0.9, ARENA: 0.8}
    study = opened(tmp_path)
    study.enqueue(Settings.of({**dict(SPINNING), "enable_mem_pattern": False}), Origin.ADVICE)
    study.enqueue(ARENA, Origin.WON)
    simulated.tune(study, bench.runner(), late_s=0.6 * study.about.definition.timeout_s).run()
    assert bench.ran[ARENA]
    assert not bench.ran[SPINNING]


def test_what_the_best_needs_stays_with_it() -> None:
    """Fused bias fails alone, so it stays; then channels-last does too, though it was found to do nothing by itself."""
    best = Settings.of({**FUSED, "tunable_op_enable": True})
    effects = [said("prefer_nhwc", Reading.INERT), said("fuse_conv_bias", Reading.FAILED)]
    effects.append(said("tunable_op", Reading.UNDECIDED, "on"))
    assert screening.plainer(SPACE, best, effects) == Settings.of(FUSED)


def test_what_was_worth_something_elsewhere_stays_until_it_is_seen_to_do_nothing() -> None:
    """HEURISTIC gains beside a cut and not alone: a plain contender without it lost by 4 %."""
    best = Settings.of({"cudnn_conv_algo_search": "HEURISTIC", "tunable_op_enable": True})
    for reading, stays in ((Reading.UNDECIDED, True), (Reading.INERT, False)):
        effects = [said("cudnn_conv_algo_search", reading, "HEURISTIC"), said("tunable_op", Reading.UNDECIDED, "on")]
        wanted = {"cudnn_conv_algo_search": "HEURISTIC"} if stays else {}
        assert screening.plainer(SPACE, best, effects) == Settings.of(wanted)


def test_a_pair_that_is_faster_together_stays() -> None:
    """Neither shows anything alone."""
    both = (("fuse_conv_bias", True), ("prefer_nhwc", True))
    alone = [said(name, Reading.INERT) for name, _ in both]
    assert screening.plainer(SPACE, Settings.of(FUSED), alone) == Settings()
    together = KnobEffect(both, Settings(), Reading.FASTER)
    assert screening.plainer(SPACE, Settings.of(FUSED), [*alone, together]) == Settings.of(FUSED)


@pytest.mark.parametrize(("provider", "names", "operators", "first", "last"), [
    (
        "cuda",
        ("gpu_mem_limit_gb", "use_tf32", "cudnn_conv_algo_search", "prefer_nhwc", "fuse_conv_bias", "capture"),
        {"Conv": 1},
        ["capture", "fuse_conv_bias", "prefer_nhwc", "cudnn_conv_algo_search"],
        {"gpu_mem_limit_gb"},
    ),
    ("cuda", ("prefer_nhwc", "tunable_op", "capture", "use_tf32"), {"MatMul": 1}, ["capture"], {"tunable_op"}),
    (
        "cpu",
        ("enable_cpu_mem_arena", "execution", "session.intra_op.allow_spinning", "intra_op_num_threads"),
        {},
        ["intra_op_num_threads", "session.intra_op.allow_spinning", "execution"],
        {"enable_cpu_mem_arena"},
    ),
])  # fmt: skip
def test_what_may_be_worth_most_is_flipped_first(
    provider: str, names: tuple[str, ...], operators: Mapping[str, int], first: list[str], last: set[str]
) -> None:
    """By provider and by the model's operators; what is known to do nothing comes last, all threads before some."""
    model = replace(facts(), operators=operators)
    machine = Machine("Linux", "CPU", 8, 64 * 2**30, "3.11.7", gpu("NVIDIA H200", "9.0", 141))
    definition = StudyDefinition("s", provider, dict.fromkeys(names))
    found = screening.flips(resolve(definition, machine, model, fixed_shapes=True), model)
    order = list(dict.fromkeys(flip.options[0][0] for flip in found))
    assert order[: len(first)] == first
    assert {flip.options[0][0] for flip in found[-len(last) :]} == last
    threads = [flip.options[0][1] for flip in found if flip.options[0][0] == "intra_op_num_threads"]
    assert threads == sorted(threads, key=lambda count: -int(count or 0))


def test_what_needs_another_choice_is_flipped_with_it_first() -> None:
    """Alone it is worth nothing: where few flips fit, it is the pair that is tried."""
    order = [flip.options for flip in screening.flips(SPACE)]
    pair = (("fuse_conv_bias", True), ("prefer_nhwc", True))
    assert order.index(pair) < order.index(pair[1:]) < order.index(pair[:1])


def test_a_rung_far_from_the_default_says_something_though_none_ran_beside_it() -> None:
    """Hosts grow faster by several percent within minutes, not by a quarter."""
    readings = [effect([cost], DEFAULT, None).reading for cost in (3.0, 3.6, 4.4, 5.2)]
    assert readings == [Reading.FASTER, Reading.UNDECIDED, Reading.UNDECIDED, Reading.SLOWER]


@pytest.mark.slow
def test_few_trials_have_room_for_the_first_flips(tmp_path: Path, bench: Bench) -> None:
    """Five beside twelve trials, the threads first; with more trials the same study goes on with the others."""
    study, told = opened(tmp_path, trials=12), list[str]()
    tune(study, bench, told)
    flipped = [one.settings for one in study.trials if one.origin is Origin.SCREENING]
    every = [flip.settings for flip in screening.flips(study.about.space)]
    assert (flipped, flipped[0]) == (every[:5], Settings.of({"intra_op_num_threads": 3}))
    assert screened(study).untried == len(every) - 5
    assert any("5 flips were not tried" in text for text in told)
    study = opened(tmp_path)
    tune(study, bench)
    assert {one.settings for one in study.trials if one.run} >= set(every)
    assert (screened(study).untried, screened(study).over) == (0, True)
