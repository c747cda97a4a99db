"""The table of samplers."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial

from rtmo_optuna.samplers.candidates import OverSpace, Params, Pool, distributions
from rtmo_optuna.samplers.gp_sampler import HammingGP
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.subject import SearchSpace

__all__ = ["SAMPLERS", "NewTPE", "OverSpace", "distributions"]


class NewTPE(OverSpace, TPESampler):
    """Optuna's TPE over the study's whole space, and never the same settings twice.

    TPE suggests again what it liked: then the nearest combination that was never tried takes its place, since a
    repeated measurement teaches the search little. It passes over trials that are FAIL; those that are PRUNED without a
    value it takes for bad ones.
    """

    sees_failed = False

    def __init__(self, space: SearchSpace, seed: int | None) -> None:
        """Search all of `space` at once."""
        OverSpace.__init__(self, space, seed)
        TPESampler.__init__(self, seed=seed, multivariate=True, constant_liar=True)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return TPE's suggestion, or a new one near it; at random during the first trials."""
        suggested = self._sample_relative(study, trial, search_space)  # the other one writes on a trial already made
        taken = self.taken(study)
        return self._pool.near(suggested, taken) if suggested else self._pool.any(taken)


class EachOnce(OverSpace):
    """All settings once, in the order that `choose` takes them from what is left."""

    def __init__(self, space: SearchSpace, seed: int | None, choose: Callable[[Pool, set[Settings]], Params]) -> None:
        """Draw from `space`."""
        super().__init__(space, seed)
        self._choose = choose

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return settings that no trial of the study has, any when there are none left."""
        del trial, search_space
        return self._choose(self._pool, self.taken(study))


SAMPLERS: Mapping[str, Callable[[SearchSpace, int | None], OverSpace]] = {
    "auto": HammingGP,
    "gp": HammingGP,
    "tpe": NewTPE,
    "random": lambda space, seed: EachOnce(space, seed, Pool.any),
    "exhaustive": lambda space, seed: EachOnce(space, seed, Pool.first),
}
