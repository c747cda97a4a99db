"""The table of samplers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeAlias

from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler

from rtmo_optuna.space.resolve import every_params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from rtmo_optuna.records import SearchSpace, Value

    Params: TypeAlias = dict[str, Value]
    Seen: TypeAlias = set[tuple[tuple[str, Value], ...]]

_TRIES = 50


def distributions(space: SearchSpace) -> dict[str, CategoricalDistribution]:
    """Return each dimension as Optuna's categorical distribution of its choices' labels."""
    return {d.name: CategoricalDistribution([choice.label for choice in d.choices]) for d in space.dimensions}


class Unseen:
    """The combinations of a space that no trial of a study has."""

    def __init__(self, space: SearchSpace, seed: int | None) -> None:
        """Draw from `space`."""
        self._space = space
        self._random = random.Random(seed)  # noqa: S311 - no secrets here
        self._labels = {d.name: [choice.label for choice in d.choices] for d in space.dimensions}

    def first(self, seen: Seen) -> Params:
        """Return the first in the space's order, at random where there is none."""
        return next((params for params in every_params(self._space) if _key(params) not in seen), self.draw())

    def any(self, seen: Seen) -> Params:
        """Return one at random."""
        draws = (self.draw() for _ in range(_TRIES))
        return next((params for params in draws if _key(params) not in seen), None) or self.first(seen)

    def near(self, params: Params, seen: Seen) -> Params:
        """Return `params`, or where they were seen one that differs in few dimensions, at random."""
        for changes in range(len(self._labels) + 1):
            for _ in range(_TRIES if changes else 1):
                changed = self._random.sample(list(self._labels), changes)
                near = {**params, **{name: self._random.choice(self._labels[name]) for name in changed}}
                if _key(near) not in seen:
                    return near
        return self.first(seen)

    def draw(self) -> Params:
        """Return any combination at random."""
        return {name: self._random.choice(labels) for name, labels in self._labels.items()}


def _key(params: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(params.items()))


def _seen(study: optuna.Study) -> Seen:
    return {_key(trial.params) for trial in study.get_trials(deepcopy=False)}


class NewTPE(TPESampler):
    """Optuna's TPE over the study's whole space, and never the same combination twice.

    Optuna infers the joint space from the parameters that all trials share; a trial of settings outside the space has
    none, and would turn the joint search into an independent one. TPE also suggests again what it liked: then the
    nearest combination that was never tried takes its place, since a repeated measurement teaches the search little.
    """

    def __init__(self, space: SearchSpace, seed: int | None) -> None:
        """Search all of `space` at once."""
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._whole = distributions(space)
        self._unseen = Unseen(space, seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space, whatever has been tried."""
        del study, trial
        return dict(sorted(self._whole.items()))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return TPE's suggestion, or a new one near it; at random during the first trials."""
        suggested = super().sample_relative(study, trial, search_space)
        seen = _seen(study)
        return self._unseen.near(suggested, seen) if suggested else self._unseen.any(seen)


class EachOnce(BaseSampler):
    """Every combination once, in the order that `choose` takes them from what is unseen."""

    def __init__(self, space: SearchSpace, choose: Callable[[Seen], Params]) -> None:
        """Draw from `space`."""
        self._whole = distributions(space)
        self._choose = choose

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space."""
        del study, trial
        return dict(self._whole)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a combination that no trial of the study has, any combination when there is none left."""
        del trial, search_space
        return self._choose(_seen(study))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        """Refuse: every dimension of the space is sampled jointly."""
        del study, trial, param_distribution
        message = f"{param_name} is not of the study's space."
        raise ValueError(message)


SAMPLERS: Mapping[str, Callable[[SearchSpace, int | None], BaseSampler]] = {
    "tpe": NewTPE,
    "random": lambda space, seed: EachOnce(space, Unseen(space, seed).any),
    "exhaustive": lambda space, seed: EachOnce(space, Unseen(space, seed).first),
}
