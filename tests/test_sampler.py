"""The table of samplers, in real studies in memory: what they propose, and what they never do."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace
from typing import Literal, TypeAlias

import optuna
import pytest
from optuna.trial import TrialState

import bench_sampler
from rtmo_optuna.samplers.gp_sampler import ENUMERATED, HammingGP, _History
from rtmo_optuna.samplers.table import SAMPLERS, OverSpace, distributions
from rtmo_optuna.space.knobs import dimension_table
from rtmo_optuna.space.resolve import settings_of, size
from rtmo_optuna.types.request import Dimension, Settings, Value
from rtmo_optuna.types.subject import SearchSpace

Direction: TypeAlias = Literal["minimize", "maximize"]

NAMES = ("graph_optimization_level", "use_tf32", "prefer_nhwc", "tunable_op")


def space_of(*names: str, provider: str = "cuda") -> SearchSpace:
    """Return the space of these dimensions with all their choices."""
    table = dimension_table(provider)
    return SearchSpace(provider, tuple(table[name] for name in names))


SPACE = space_of(*NAMES)


def study_of(sampler: OverSpace, direction: Direction = "minimize") -> optuna.Study:
    """Return a new study in memory."""
    return optuna.create_study(sampler=sampler, direction=direction)


def ask(study: optuna.Study, space: SearchSpace = SPACE) -> optuna.Trial:
    """Ask for a trial with all the dimensions of a space."""
    return study.ask(dict(distributions(space)))


def latency(params: dict[str, Value]) -> float:
    """Return the latency in ms of some settings: NHWC is fast, no TF32 slow, a lower graph level slower."""
    levels = {"ORT_ENABLE_ALL": 0.0, "ORT_ENABLE_EXTENDED": 0.05, "ORT_ENABLE_BASIC": 0.1, "ORT_DISABLE_ALL": 0.5}
    return 5 * math.exp(
        levels[str(params["graph_optimization_level"])]
        + 0.3 * (not params["use_tf32"])
        - 0.2 * bool(params["prefer_nhwc"])
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_all_settings_come_once(name: str) -> None:
    """As many trials as there are settings try each of them; what comes then is of the space."""
    study = study_of(SAMPLERS[name](SPACE, 1))
    for _ in range(size(SPACE)):
        trial = ask(study)
        study.tell(trial, latency(trial.params))
    assert len({settings_of(SPACE, trial.params) for trial in study.trials}) == size(SPACE)
    assert ask(study).params.keys() == set(NAMES)


@pytest.mark.parametrize("name", SAMPLERS)
def test_names_for_the_same_settings_are_tried_once(name: str) -> None:
    """With a parallel execution `enable_mem_pattern` means nothing: two combinations are the same settings."""
    space = space_of("execution", "enable_mem_pattern", provider="cpu")
    study = study_of(SAMPLERS[name](space, 1))
    for _ in range(5):
        study.tell(ask(study, space), 1.0)
    assert len({settings_of(space, trial.params) for trial in study.trials}) == 5


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_under_way_is_not_proposed(name: str) -> None:
    """Twenty workers have twenty different settings, before anything was told."""
    study = study_of(SAMPLERS[name](SPACE, 1))
    asked = [settings_of(SPACE, ask(study).params) for _ in range(20)]
    assert len(set(asked)) == 20


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_frozen_dimension_stays_where_it_is(name: str) -> None:
    """After `freeze` only the rest is searched, whatever the history holds; a second call replaces the first."""
    sampler = SAMPLERS[name](SPACE, 1)
    study = study_of(sampler)
    for _ in range(15):
        trial = ask(study)
        study.tell(trial, latency(trial.params))
    sampler.freeze({"tunable_op": "off", "use_tf32": True})
    frozen = [ask(study).params for _ in range(4)]
    assert {(params["tunable_op"], params["use_tf32"]) for params in frozen} == {("off", True)}
    sampler.freeze({"tunable_op": "on"})
    assert ask(study).params["tunable_op"] == "on"


@pytest.mark.parametrize("wrong", [{"tunable_op": "perhaps"}, {"no_such_knob": True}])
def test_only_what_the_space_has_can_be_frozen(wrong: dict[str, Value]) -> None:
    """A label or a dimension that is not of the space is refused by name."""
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        SAMPLERS["gp"](SPACE, 1).freeze(wrong)


def test_trials_of_other_settings_do_no_harm() -> None:
    """The history may hold settings outside the space and, where the space was narrowed, choices that it lacks."""
    narrow = replace(SPACE, dimensions=(Dimension(NAMES[0], SPACE.dimensions[0].choices[:2]), *SPACE.dimensions[1:3]))
    study = study_of(SAMPLERS["gp"](narrow, 1))
    wide = study_of(SAMPLERS["random"](SPACE, 1))
    known = [settings_of(SPACE, ask(wide).params) for _ in range(12)]
    for settings in [*known, Settings.of({"gpu_mem_limit_gb": 3})]:
        plain = {"settings": settings.to_plain()}
        study.add_trial(optuna.trial.create_trial(value=5.0, user_attrs=plain))
    assert settings_of(narrow, ask(study, narrow).params) not in known


@pytest.mark.parametrize(("direction", "power"), [("minimize", 1), ("maximize", -1)])
def test_the_gaussian_process_finds_the_best_in_few_trials(direction: Direction, power: int) -> None:
    """The best of 48 settings is among the first 12, for latencies and for throughputs."""
    study = study_of(SAMPLERS["gp"](SPACE, 1), direction)
    for _ in range(12):
        trial = ask(study)
        study.tell(trial, latency(trial.params) ** power)
    best = study.best_trial.params
    assert (best["graph_optimization_level"], best["use_tf32"], best["prefer_nhwc"]) == ("ORT_ENABLE_ALL", True, True)


def test_a_pruned_trial_counts_with_its_last_report() -> None:
    """A choice whose trials were pruned as slow is not proposed again while others are left."""
    study = study_of(SAMPLERS["gp"](SPACE, 1))
    for _ in range(16):
        trial = ask(study)
        trial.report(latency(trial.params), 3)
        if trial.params["use_tf32"]:
            study.tell(trial, latency(trial.params))
        else:
            trial.set_user_attr("outcome", "pruned")
            study.tell(trial, state=TrialState.PRUNED)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert 1 <= len(pruned) <= 5


def test_a_report_is_a_latency_where_the_value_is_a_tail() -> None:
    """Where values are twice their last reports, a pruned trial's report of 3 ms stands for 6 and is not the best."""
    study = study_of(SAMPLERS["gp"](SPACE, 1))
    for number in range(16):
        trial = ask(study)
        trial.report(latency(trial.params), 3)
        if number % 3 == 2:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, 2 * latency(trial.params))
    assert study.best_value == pytest.approx(2 * 5 * math.exp(-0.2))


@pytest.mark.parametrize(("told", "value", "costs"), [
    ({"latency_ns": 7e6, "second_ns": 8e6, "costs": [8.0, 20.0]}, 14.0, [8.0, 20.0]),
    ({"latency_ns": 5e6, "second_ns": None, "costs": []}, 5.0, [5.0]),
], ids=["costs", "one process"])  # fmt: skip
def test_both_processes_of_a_leader_are_learned_from(told: dict[str, object], value: float, costs: list[float]) -> None:
    """Each one's own cost reaches the surrogate, whatever the medians were."""
    sampler = HammingGP(SPACE, 1)
    study = study_of(sampler)
    trial = ask(study)
    trial.set_user_attr("measurement", told)
    study.tell(trial, value)
    learned = sampler._history(study.get_trials(), sign=1).measured  # noqa: SLF001 - what the surrogate is told
    assert sorted(math.exp(cost) for _, cost in learned) == pytest.approx(costs)


def test_of_many_costs_the_best_and_a_share_of_the_others_are_learned_from() -> None:
    """The best half of as many as it takes, the others evenly, each once."""
    history = _History([([place], float(place)) for place in range(1000)])
    told = [cost for _, cost in history.telling(100)]
    assert (told[:50], len(set(told))) == (list(range(50)), 100)
    assert {after - before for before, after in itertools.pairwise(told[50:])} == {19.0}
    assert len(history.telling(1000)) == 1000


@pytest.mark.slow
def test_a_choice_that_always_fails_is_soon_left_alone() -> None:
    """Of 24 trials at most 3 have the choice that fails; the best of the others is found."""
    study = study_of(SAMPLERS["gp"](SPACE, 1))
    for _ in range(24):
        trial = ask(study)
        if trial.params["prefer_nhwc"]:
            trial.set_user_attr("outcome", "failed")
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, latency(trial.params))
    assert len(study.get_trials(states=(TrialState.PRUNED,))) <= 3
    assert study.best_value == 5.0


def test_nothing_but_failures_still_gives_new_settings() -> None:
    """A sampler that has no cost to learn from goes on proposing."""
    study = study_of(SAMPLERS["gp"](SPACE, 1))
    for _ in range(6):
        trial = ask(study)
        trial.set_user_attr("outcome", "failed")
        study.tell(trial, state=TrialState.PRUNED)
    assert len({settings_of(SPACE, trial.params) for trial in study.trials}) == 6


@pytest.mark.slow
def test_a_space_too_large_to_enumerate_is_drawn_from() -> None:
    """Over 20,000 combinations the good choices are found all the same: by most seeds within 13 of them, all in 30.

    Without the dimensions of which the model decides what choices there are.
    """
    by_model = {"capture", "precision"}
    names = [name for name, d in dimension_table("cuda").items() if name not in by_model and len(d.choices) > 1]
    space = space_of(*names)
    assert size(space) > ENUMERATED
    needed = []
    for seed in range(7):
        study = study_of(SAMPLERS["gp"](space, seed))
        while not study.trials or study.best_value > 5.001 * math.exp(-0.2):
            trial = ask(study, space)
            study.tell(trial, latency(trial.params))
        needed.append(len(study.trials))
    assert statistics.median(needed) <= 13
    assert max(needed) <= 30


@pytest.mark.slow
def test_landscapes_take_few_measurements() -> None:
    """On the first 8 landscapes the Gaussian process needs under two thirds of what TPE needs, failures or not."""
    made = bench_sampler.samplers()

    def mean(name: str, *, failing: bool = False, workers: int = 1) -> float:
        seeds = range(8)
        ran = (bench_sampler.needed(bench_sampler.Landscape(s, failing=failing), made[name](s), workers) for s in seeds)
        return statistics.fmean(count for count, _, _ in ran)

    assert mean("gp") < 0.67 * mean("tpe")
    assert mean("gp", failing=True) < 18
    assert mean("gp", workers=4) < 22
