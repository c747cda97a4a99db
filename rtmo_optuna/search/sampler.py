"""The table of samplers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from rtmo_optuna.records import SearchSpace, Value
from rtmo_optuna.space.resolve import every_params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_RANDOM_TRIES = 200


def distributions(space: SearchSpace) -> dict[str, CategoricalDistribution]:
    """Return each dimension as Optuna's categorical distribution of its choices' labels."""
    return {d.name: CategoricalDistribution([choice.label for choice in d.choices]) for d in space.dimensions}


class WholeSpaceTPE(TPESampler):
    """Optuna's TPE over the study's whole space.

    Optuna infers the joint space from the parameters that all trials share; a trial of settings outside the space has
    none, and would turn the joint search into an independent one.
    """

    def __init__(self, space: SearchSpace, seed: int | None) -> None:
        """Search all of `space` at once."""
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._whole = distributions(space)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space, whatever has been tried."""
        del study, trial
        return dict(sorted(self._whole.items()))


class Unseen(BaseSampler):
    """Every combination once: in the space's order, or at random without replacement."""

    def __init__(self, space: SearchSpace, seed: int | None, *, shuffled: bool) -> None:
        """Draw from `space`."""
        self._space = space
        self._whole = distributions(space)
        self._random = RandomSampler(seed)
        self._shuffled = shuffled

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space."""
        del study, trial
        return dict(self._whole)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Value]:
        """Return a combination that no trial of the study has, any combination when there is none left."""
        names = list(search_space)
        seen = {
            tuple(other.params[name] for name in names)
            for other in study.get_trials(deepcopy=False)
            if other.params.keys() >= set(names)
        }

        def draw() -> dict[str, Value]:
            return {n: self.sample_independent(study, trial, n, d) for n, d in search_space.items()}

        drawn = (draw() for _ in range(_RANDOM_TRIES if self._shuffled else 0))
        for params in itertools.chain(drawn, every_params(self._space)):
            if tuple(params[name] for name in names) not in seen:
                return params
        return draw()

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        """Return one choice at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


SAMPLERS: Mapping[str, Callable[[SearchSpace, int | None], BaseSampler]] = {
    "tpe": WholeSpaceTPE,
    "random": lambda space, seed: Unseen(space, seed, shuffled=True),
    "exhaustive": lambda space, seed: Unseen(space, seed, shuffled=False),
}
