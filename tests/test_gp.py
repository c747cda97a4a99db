"""The surrogate model: what it predicts from few costs, and where it expects failures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rtmo_optuna.samplers import gp

SIZES = np.array([3, 2, 2, 4])
ALL = np.array(list(itertools.product(*map(range, SIZES))))


def costs(noise: float = 0.0, seed: int = 0) -> gp.Floats:
    """Return the log cost of all settings: two knobs act, alone and together; two do nothing."""
    together = 0.2 * (ALL[:, 0] == 2) * (ALL[:, 1] == 1)
    clean: gp.Floats = 0.3 * (ALL[:, 0] == 1) - 0.1 * ALL[:, 1] + together
    return clean + noise * np.random.default_rng(seed).standard_normal(len(ALL))


def test_it_learns_effects_and_an_interaction_from_a_third_of_the_settings() -> None:
    """16 of 48 settings with 1 % noise foretell the others within 5 %, and the doubt is as large as the error."""
    some = np.random.default_rng(1).choice(len(ALL), 16, replace=False)
    rest = np.setdiff1d(np.arange(len(ALL)), some)
    mean, variance = gp.fit(ALL[some], costs(0.01)[some], SIZES).predict(ALL[rest])
    errors = mean - costs()[rest]
    assert np.sqrt(np.mean(errors**2)) < 0.05
    assert np.mean(np.abs(errors) < 2 * np.sqrt(variance)) > 0.8


def test_a_knob_that_does_nothing_is_told_from_one_that_does() -> None:
    """The fitted variance of the first knob's effect is many times that of the last one's."""
    some = np.random.default_rng(2).choice(len(ALL), 24, replace=False)
    main = np.exp(gp.fit(ALL[some], costs(0.01)[some], SIZES).hyper[: len(SIZES)])
    assert main[0] > 10 * main[3]


@pytest.mark.parametrize("noise", [0.005, 0.05])
def test_repeats_tell_the_noise(noise: float) -> None:
    """Settings measured three times each give the noise within a factor of two."""
    some = np.tile(np.random.default_rng(3).choice(len(ALL), 12, replace=False), 3)
    told = costs()[some] + noise * np.random.default_rng(4).standard_normal(len(some))
    found = np.exp(gp.fit(ALL[some], told, SIZES).hyper[-1] / 2)
    assert noise / 2 < found < 2 * noise


def test_the_order_of_choices_means_nothing() -> None:
    """With the choices of a knob renamed, the predictions are the same."""
    some = np.arange(0, len(ALL), 3)
    renamed = np.column_stack([np.array([2, 0, 1])[ALL[:, 0]], ALL[:, 1:]])
    one = gp.fit(ALL[some], costs()[some], SIZES).predict(ALL)[0]
    other = gp.fit(renamed[some], costs()[some], SIZES).predict(renamed)[0]
    assert one == pytest.approx(other, abs=1e-6)


def test_costs_far_above_the_best_are_pulled_in() -> None:
    """The order stays, a small difference nearly so; three times as slow counts as less than one and a half times."""
    told = np.log(np.array([3.0, 1.0, 1.05, 1.1]))
    found = gp.compressed(told)
    assert list(np.argsort(found)) == [1, 2, 3, 0]
    assert np.exp(found) == pytest.approx([1.454, 1.0, 1.0446, 1.081], abs=1e-3)
    assert gp.compressed(told + 5) == pytest.approx(found)
    assert len(gp.compressed(np.array([]))) == 0


def test_what_is_under_way_is_believed() -> None:
    """Means stay, doubt shrinks there; without anything under way the model is the same object."""
    some = np.arange(0, len(ALL), 5)
    model = gp.fit(ALL[some], costs()[some], SIZES)
    pending = ALL[[7]]
    believing = model.believing(pending)
    assert believing.predict(ALL)[0] == pytest.approx(model.predict(ALL)[0], abs=1e-6)
    assert believing.predict(pending)[1] < model.predict(pending)[1] / 2
    assert model.believing(ALL[:0]) is model


def test_without_costs_what_is_unlike_the_pending_is_known_least() -> None:
    """The doubt is greatest where every choice differs."""
    nothing = gp.fit(ALL[:0], np.zeros(0), SIZES)
    _, variance = nothing.believing(ALL[[0]]).predict(ALL)
    assert (ALL[variance.argmax()] != ALL[0]).all()


def test_expected_improvement_is_that_of_the_textbook() -> None:
    """At the best known it is the deviation over sqrt(2 pi); far above nothing, far below the whole distance."""
    mean, variance = np.array([1.0, 9.0, -3.0]), np.array([0.04, 0.04, 0.04])
    expected = [0.2 / np.sqrt(2 * np.pi), 0.0, 4.0]
    assert gp.expected_improvement(mean, variance, 1.0) == pytest.approx(expected, abs=1e-9)


def test_a_failure_blames_what_no_success_has() -> None:
    """One failure with one choice that never ran makes that choice unlikely to run, and little else."""
    ran, failed = np.array([[0, 0, 0, 0], [1, 1, 1, 0]]), np.array([[1, 1, 0, 3]])
    chance = gp.chance_to_run(np.array([[0, 0, 1, 3], [2, 1, 1, 2]]), failed, ran)
    assert chance[0] < 0.2
    assert chance[1] == 1.0


def test_two_failures_blame_what_they_share() -> None:
    """After two failures with one choice in common, others of their choices are likely to run."""
    failed = np.array([[1, 1, 0, 0], [1, 0, 1, 2]])
    chance = gp.chance_to_run(np.array([[1, 0, 0, 1], [0, 0, 1, 1]]), failed, np.array([[0, 0, 0, 0]]))
    assert chance[0] < 0.05
    assert chance[1] > 0.9


def test_a_pair_is_blamed_where_both_of_its_choices_ran() -> None:
    """Where each choice of a failure ran alone, only their combination is avoided."""
    ran = np.array([[1, 0, 0, 0], [0, 1, 0, 0]])
    chance = gp.chance_to_run(np.array([[1, 1, 1, 3], [1, 0, 1, 3]]), np.array([[1, 1, 0, 0]]), ran)
    assert chance[0] < 0.6
    assert chance[1] == 1.0


def test_nothing_failed_means_that_all_will_run() -> None:
    """Without a failure every chance is 1."""
    assert (gp.chance_to_run(ALL, ALL[:0], ALL[:3]) == 1).all()
