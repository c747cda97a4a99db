"""One search over a recorded grid: each process is one of those recorded for its settings, drawn at random.

What a trial costs, when it is pruned and when a leader runs twice is as in a tune; only the processes are drawn.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import optuna
import simulated
from grids import Entry, Grid, Process
from optuna.trial import TrialState

from rtmo_optuna.bench.run import Decision
from rtmo_optuna.codec import encode
from rtmo_optuna.records import Measurement, Measuring, Outcome, Settings, Window
from rtmo_optuna.search import confirm, judge, noise, race
from rtmo_optuna.search.sampler import SAMPLERS, distributions
from rtmo_optuna.space.resolve import params_of, settings_of

if TYPE_CHECKING:
    from rtmo_optuna.records import SearchSpace, Value

GOOD = 1.01
MOST_TIMES = 1.5
GUIDE = (
    "cudnn_conv_algo_search", "gpu_mem_limit_gb", "do_copy_in_default_stream", "cudnn_conv_use_max_workspace"
)  # fmt: skip
_NEVER = Measuring(windows_min=10**6, windows_max=10**6)

Sampler: TypeAlias = Callable[["SearchSpace", int], optuna.samplers.BaseSampler]


def guide_settings(space: SearchSpace) -> list[dict[str, Value]]:
    """Return the params of the guide's grid: its four knobs, as far as the space has them, and the default of others."""
    default = params_of(space, space.fixed)
    if default is None:
        return []
    sampler = SAMPLERS["exhaustive"](space, None)
    sampler.freeze({name: label for name, label in default.items() if name not in GUIDE})
    study = optuna.create_study(sampler=sampler)
    known: list[dict[str, Value]] = []
    while (params := study.ask(dict(distributions(space))).params) not in known:
        known.append(params)
    return known


STRATEGIES: Mapping[str, Sampler] = {
    **{name: (lambda space, seed, make=make: make(space, seed)) for name, make in SAMPLERS.items() if name != "auto"},
    "tpe-repeats": lambda _space, seed: optuna.samplers.TPESampler(seed=seed),
    "optuna-gp": lambda _space, seed: optuna.samplers.GPSampler(seed=seed),
}
