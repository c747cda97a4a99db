"""The sampler for small categorical spaces: a Gaussian process that sees every settings at once."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rtmo_optuna.samplers import gp
from rtmo_optuna.samplers.attributes import kept
from rtmo_optuna.samplers.candidates import OverSpace, Params
from rtmo_optuna.samplers.gp import Codes, Floats
from rtmo_optuna.space.resolve import params_of
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.subject import SearchSpace

ENUMERATED = 20_000
_DRAWN = 4_000
_AROUND = 5
_HOPELESS = 0.05
_TOLD = 100
"""The surrogate's time grows with the cube of what it is told: of more, that is the best and a share of the others."""


@dataclass
class _History:
    """What the trials of a study say, by the codes of their settings; costs are logarithms, small is good."""

    measured: list[tuple[list[int], float]] = field(default_factory=list)
    failed: list[list[int]] = field(default_factory=list)
    pending: list[list[int]] = field(default_factory=list)

    def best(self, count: int) -> list[list[int]]:
        """Return the codes of the `count` best."""
        return [codes for codes, _ in self._ranked()[:count]]

    def telling(self, most: int) -> list[tuple[list[int], float]]:
        """Return what was measured; of more than `most` the best half of them, and the others thinned out evenly."""
        if len(self.measured) <= most:
            return self.measured
        ranked, half = self._ranked(), most // 2
        step = (len(ranked) - half) / (most - half)
        return ranked[:half] + [ranked[half + int(place * step)] for place in range(most - half)]

    def _ranked(self) -> list[tuple[list[int], float]]:
        return sorted(self.measured, key=lambda entry: entry[1])


class HammingGP(OverSpace):
    """Proposes the settings with the greatest expected improvement of the log cost that were never tried.

    The space is enumerated up to 20,000 combinations; beyond, 4,000 draws and the neighbours of the best five stand for
    it. A pruned trial counts with its last report, times what finished trials' values were of theirs: it was measured,
    only shorter (an objective like p99 lies above the running median). Failed trials teach no cost but where settings
    fail. What other workers have under way is believed to turn out as predicted. Without an initial design: after the
    default, what is expected to improve most is what is known least, far off the default in all dimensions. Of equals
    the first in the space's order is proposed. Of more than 100 measured costs, the best and a share of the others are
    learned from.
    """

    def __init__(self, space: SearchSpace, seed: int | None) -> None:
        """Search all of `space`."""
        super().__init__(space, seed)
        self._sizes = np.array([len(labels) for labels in self._pool.labels.values()])
        self._hyper: Floats | None = None
        self._known: dict[Settings, list[int] | None] = {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the best settings that no trial has, any when there are none left; the first of all without trials."""
        del search_space
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        history = self._history(trials, sign=-1 if study.direction is StudyDirection.MAXIMIZE else 1)
        taken = self.taken(study)
        if not taken:
            return self._pool.first(taken)
        candidates = self._candidates(history)
        scores = self._scores(history, candidates)
        for place in np.argsort(-scores, kind="stable"):
            params = self._pool.decoded(candidates[place])
            if self._pool.settings(params) not in taken:
                return params
        return self._pool.any(taken)

    def _candidates(self, history: _History) -> Codes:
        if self._pool.size <= ENUMERATED:
            return self._pool.all_codes()
        best = [self._pool.decoded(np.array(codes)) for codes in history.best(_AROUND)]
        return self._pool.some_codes(_DRAWN, best)

    def _scores(self, history: _History, candidates: Codes) -> Floats:
        """Return the expected improvement of each candidate, times its chance to run; what will surely fail is last."""
        told = history.telling(_TOLD)
        measured = self._array([codes for codes, _ in told])
        costs = gp.compressed(np.array([cost for _, cost in told]))
        surrogate = gp.fit(measured, costs, self._sizes, self._hyper)
        self._hyper = surrogate.hyper
        best = surrogate.predict(measured)[0].min() if len(costs) else surrogate.level
        mean, variance = surrogate.believing(self._array(history.pending)).predict(candidates)
        chance = gp.chance_to_run(candidates, self._array(history.failed), measured)
        return np.where(chance < _HOPELESS, chance - 1, gp.expected_improvement(mean, variance, best) * chance)

    def _array(self, codes: Sequence[Sequence[int]]) -> Codes:
        return np.array(codes, dtype=np.int64).reshape(len(codes), len(self._sizes))

    def _history(self, trials: Sequence[FrozenTrial], sign: int) -> _History:
        """Return what `trials` say; costs are the values' logarithms times `sign`."""
        history = _History()
        scale = statistics.median(_over_report(trials) or [1.0])
        for trial in trials:
            settings = self.settings_of(trial)
            codes = None if settings is None else self._codes(settings)
            if codes is None or "answered_from" in trial.user_attrs:
                continue
            if trial.state is TrialState.COMPLETE and trial.value:
                cost = sign * math.log(trial.value)
                history.measured += [(codes, cost + apart) for apart in _repeats(trial)]
            elif trial.state is TrialState.PRUNED and _was_pruned(trial):
                history.measured.append((codes, sign * math.log(_last_report(trial) * scale)))
            elif trial.state is TrialState.PRUNED or trial.user_attrs.get("outcome") == Outcome.FAILED.value:
                history.failed.append(codes)
            elif not trial.state.is_finished():
                history.pending.append(codes)
        return history

    def _codes(self, settings: Settings) -> list[int] | None:
        """Return the codes of `settings`, None where they lie outside the space."""
        if settings not in self._known:
            params: Params | None = params_of(self._pool.space, settings)
            self._known[settings] = None if params is None else self._pool.codes(params)
        return self._known[settings]


def _was_pruned(trial: FrozenTrial) -> bool:
    return bool(trial.intermediate_values) and trial.user_attrs.get("outcome") != Outcome.FAILED.value


def _last_report(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]


def _over_report(trials: Sequence[FrozenTrial]) -> list[float]:
    """Return how many times its last report each finished trial's value is."""
    finished = (t for t in trials if t.state is TrialState.COMPLETE and t.intermediate_values)
    return [trial.value / _last_report(trial) for trial in finished if trial.value]


def _repeats(trial: FrozenTrial) -> list[float]:
    """Return the log distances of a trial's processes from its value: a leader has two, and it is their mean."""
    costs = (kept(trial, "measurement") or {}).get("costs") or [1.0]
    return [math.log(cost / statistics.fmean(costs)) for cost in costs]
