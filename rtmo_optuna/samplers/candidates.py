"""The combinations of a space that a sampler may still propose, and what every sampler of ours shares."""

import itertools
import math
import random
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from rtmo_optuna.samplers.attributes import kept
from rtmo_optuna.samplers.gp import Codes
from rtmo_optuna.space.resolve import settings_of
from rtmo_optuna.types.request import Settings, Value
from rtmo_optuna.types.subject import SearchSpace

Params: TypeAlias = dict[str, Value]

_TRIES = 50


def distributions(space: SearchSpace) -> dict[str, CategoricalDistribution]:
    """Return each dimension as Optuna's categorical distribution of its choices' labels."""
    return {d.name: CategoricalDistribution([choice.label for choice in d.choices]) for d in space.dimensions}


class Pool:
    """The combinations of a space, less what is frozen; `taken` are the settings of trials, never to be run again.

    `names` and `labels` are those of the whole space, `live` the labels that are left.
    """

    def __init__(self, space: SearchSpace, seed: int | None) -> None:
        """Draw from `space`."""
        self.space = space
        self.names = [dimension.name for dimension in space.dimensions]
        self.labels = {d.name: [choice.label for choice in d.choices] for d in space.dimensions}
        self.live = dict(self.labels)
        self._random = random.Random(seed)  # noqa: S311 - no secrets here

    def freeze(self, params: Mapping[str, Value]) -> None:
        """Propose only what has these labels; replaces what was frozen before. Raises ValueError for unknown ones."""
        unknown = [f"{name}={label}" for name, label in params.items() if label not in self.labels.get(name, ())]
        if unknown:
            raise ValueError(f"Not of the study's space: {', '.join(unknown)}.")
        self.live = {name: [params[name]] if name in params else labels for name, labels in self.labels.items()}

    def settings(self, params: Params) -> Settings:
        """Return the settings that `params` stand for."""
        return settings_of(self.space, params)

    @property
    def size(self) -> int:
        """How many combinations are live."""
        return math.prod(len(labels) for labels in self.live.values())

    def every(self) -> Iterator[Params]:
        """Yield each live combination, the first choices first."""
        for labels in itertools.product(*self.live.values()):
            yield dict(zip(self.names, labels, strict=True))

    def first(self, taken: Collection[Settings]) -> Params:
        """Return the first in the space's order, at random where there is none."""
        return next((params for params in self.every() if self.settings(params) not in taken), self.draw())

    def any(self, taken: Collection[Settings]) -> Params:
        """Return one at random."""
        draws = (self.draw() for _ in range(_TRIES))
        return next((params for params in draws if self.settings(params) not in taken), None) or self.first(taken)

    def near(self, params: Params, taken: Collection[Settings]) -> Params:
        """Return the live `params`, or where they are taken some that differ in few dimensions, at random."""
        params = {name: params[name] if params[name] in labels else labels[0] for name, labels in self.live.items()}
        for changes in range(len(self.names) + 1):
            for _ in range(_TRIES if changes else 1):
                near = self._changed(params, changes)
                if self.settings(near) not in taken:
                    return near
        return self.first(taken)

    def _changed(self, params: Params, changes: int) -> Params:
        changed = self._random.sample(self.names, changes)
        return {**params, **{name: self._random.choice(self.live[name]) for name in changed}}

    def draw(self) -> Params:
        """Return any live combination at random."""
        return {name: self._random.choice(labels) for name, labels in self.live.items()}

    def codes(self, params: Params) -> list[int]:
        """Return the place of each label in its dimension of the whole space."""
        return [self.labels[name].index(params[name]) for name in self.names]

    def decoded(self, codes: Codes) -> Params:
        """Return the params that `codes` stand for."""
        return {name: self.labels[name][code] for name, code in zip(self.names, codes, strict=True)}

    def all_codes(self) -> Codes:
        """Return the codes of each live combination, the first choices first; one row each."""
        places = [[self.labels[name].index(label) for label in self.live[name]] for name in self.names]
        return np.array(list(itertools.product(*places)), dtype=np.int64)

    def some_codes(self, count: int, around: Collection[Params]) -> Codes:
        """Return the codes of every live neighbour of `around`, one choice off, and of `count` draws."""
        near = [
            {**params, name: label}
            for params in around
            for name, labels in self.live.items()
            for label in labels
            if all(params[other] in kept for other, kept in self.live.items() if other != name)
        ]
        drawn = [self.draw() for _ in range(count)]
        return np.unique(np.array([self.codes(params) for params in near + drawn], dtype=np.int64), axis=0)


class ToldSettings:
    """The settings that trials say they have, by number: they never change, and are read once each."""

    def __init__(self) -> None:
        """Know of no trial."""
        self._told: dict[int, Settings] = {}

    def __call__(self, trial: FrozenTrial) -> Settings | None:
        """Return the settings of `trial`; None where it says nothing of any."""
        if trial.number not in self._told and (held := kept(trial, "settings")) is not None:
            self._told[trial.number] = Settings.from_plain(held)
        return self._told.get(trial.number)


class OverSpace(BaseSampler):
    """What samples a whole study's space at once, and each settings once only.

    Optuna infers the joint space from the parameters that all trials share; a trial of settings outside the space has
    none, and would turn the joint search into an independent one.

    Attributes:
        sees_failed: Whether it learns from trials that are FAIL, so that those that failed may be.
    """

    sees_failed = True

    def __init__(self, space: SearchSpace, seed: int | None) -> None:
        """Search all of `space`; equal seeds and histories give equal proposals, None draws a seed."""
        self._whole = distributions(space)
        self._pool = Pool(space, seed)
        self._told = ToldSettings()

    def freeze(self, params: Mapping[str, Value]) -> None:
        """Propose from now on only what has the labels `params` (dimension to label), which may be none at all.

        What was measured off them stays in the history, and teaches the search what it can. A call replaces the one
        before. Raises ValueError for a dimension or label that is not of the space.
        """
        self._pool.freeze(params)

    def propose(self, study: optuna.Study) -> Params:
        """Return what a trial that is yet to be made is to try."""
        unmade = create_trial(state=TrialState.WAITING)
        return self.sample_relative(study, unmade, self.infer_relative_search_space(study, unmade))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space, whatever has been tried or is frozen: Optuna refuses choices that change."""
        del study, trial
        return dict(sorted(self._whole.items()))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        """Refuse: every dimension of the space is sampled jointly."""
        del study, trial, param_distribution
        raise ValueError(f"{param_name} is not of the study's space.")

    def taken(self, study: optuna.Study) -> set[Settings]:
        """Return the settings of all trials, running and waiting ones too."""
        told = (self.settings_of(trial) for trial in study.get_trials(deepcopy=False))
        return {settings for settings in told if settings is not None}

    def settings_of(self, trial: FrozenTrial) -> Settings | None:
        """Return the settings of a trial; None where it has neither settings nor all parameters of the space."""
        if (told := self._told(trial)) is not None:
            return told
        known = self._pool.labels
        whole = all(trial.params.get(name, self) in labels for name, labels in known.items())
        return self._pool.settings({name: trial.params[name] for name in known}) if whole else None
