"""The table of objectives: what a study minimises or maximises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rtmo_optuna.types.measurement import Measurement

AMORTIZED = 1000
"""Over how many calls the objective `amortized` spreads session build and first run."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure of merit: its unit, its direction for Optuna, and its value for a measurement (None: not enough data).

    `so_far` is the value that a running median of `latency_ms` for `batch` items stands for; None where latency says
    nothing of the score, so that a trial cannot be pruned by its windows. `least_calls` are needed for a score. `paced`
    says whether it means anything for calls at a fixed rate.
    """

    name: str
    unit: str
    direction: Literal["minimize", "maximize"]
    score: Callable[[Measurement], float | None]
    so_far: Callable[[float, int], float] | None = None
    least_calls: int = 0
    paced: bool = False

    @property
    def lower_is_better(self) -> bool:
        """Whether the score is something to be small."""
        return self.direction == "minimize"

    def cost(self, measurement: Measurement) -> float | None:
        """Return the score as something to be small: itself, or milliseconds an item where more is better."""
        score = self.score(measurement)
        return None if score is None else self.turned(score)

    def turned(self, value: float) -> float:
        """Return the cost of a score, or the score of a cost."""
        return value if self.lower_is_better else 1e3 / value


def _startup(measurement: Measurement) -> float | None:
    stages = measurement.stages
    if stages.build_ns is None or stages.first_run_ns is None:
        return None
    return (stages.build_ns + stages.first_run_ns) / 1e6


def _amortized(measurement: Measurement) -> float | None:
    startup, latency = _startup(measurement), measurement.latency_ms
    return None if startup is None or latency is None else (startup + (AMORTIZED - 1) * latency) / AMORTIZED


def _throughput(measurement: Measurement) -> float | None:
    return measurement.batch * 1e9 / measurement.latency_ns if measurement.latency_ns else None


def _latency_itself(latency_ms: float, _batch: int) -> float:
    return latency_ms


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("latency", "ms", "minimize", lambda m: m.latency_ms, _latency_itself, paced=True),
        Objective("p99", "ms", "minimize", lambda m: m.quantile_ms("p99"), _latency_itself, 662, paced=True),
        Objective("throughput", "items/s", "maximize", _throughput, lambda ms, batch: batch * 1e3 / ms),
        Objective("startup", "ms", "minimize", _startup),
        Objective("amortized", "ms", "minimize", _amortized),
    )
}
