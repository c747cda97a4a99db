"""What a tuning guide for RTMO advises by GPU, which a search tries and never takes for a result.

The guide, which is pure data here, was written for ONNX Runtime 1.18 and cuDNN 8.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rtmo_optuna.providers.cuda import FREE_SHARE
from rtmo_optuna.space.resolve import params_of, settings_of
from rtmo_optuna.types.request import Choice, Dimension, Settings, Value
from rtmo_optuna.types.subject import Gpu, SearchSpace


@dataclass(frozen=True, slots=True)
class Advice:
    """A row of the guide: the GPUs that it names, and its values by knob, the most wanted first.

    `named` is searched for in a GPU's name; where no row's is found, the row of the GPU's compute capability holds.
    """

    named: str
    capabilities: tuple[str, ...]
    values: Mapping[str, tuple[Value, ...]]

    def fit(self, choice: Choice) -> tuple[int, int] | None:
        """Return how well `choice` follows this advice, the larger the better; None where it does not."""
        advised = {**_ALWAYS, **self.values}
        if not choice.values or any(value not in advised.get(knob, ()) for knob, value in choice.values):
            return None
        return len(choice.values), -sum(advised[knob].index(value) for knob, value in choice.values)


_ALWAYS: Mapping[str, tuple[Value, ...]] = {
    "cudnn_conv_use_max_workspace": (True,),
    "tunable_op_enable": (True,),
    "tunable_op_tuning_enable": (True,),
    "arena_extend_strategy": ("kNextPowerOfTwo",),
}


def _row(algorithm: str, memory: tuple[Value, ...], *, copy: bool) -> dict[str, tuple[Value, ...]]:
    return {
        "cudnn_conv_algo_search": (algorithm,),
        "gpu_mem_limit_gb": memory,
        "do_copy_in_default_stream": (copy,),
    }


GUIDE: tuple[Advice, ...] = (
    Advice(r"RTX 3060", (), _row("DEFAULT", (4,), copy=True)),
    Advice(r"V100|\bT4\b", ("7.0",), _row("EXHAUSTIVE", (16, 12), copy=False)),
    Advice(r"RTX 20\d\d", ("7.5",), _row("DEFAULT", (8, 4), copy=True)),
    Advice(r"RTX 4090|A100", ("8.0", "9.0", "10.0", "10.3", "12.0", "12.1"),
           _row("HEURISTIC", (FREE_SHARE, 16), copy=False)),
    Advice(r"RTX [34]0\d\d|\bA\d\d?\b|RTX A\d{4}", ("8.6", "8.7", "8.9"), _row("HEURISTIC", (16, 8), copy=False)),
)  # fmt: skip
"""The guide's rows in the order in which they are looked through; an entry card's name would fit into a later one.

Its T4 stands in two rows: taken is the one that says more. What is newer than its GPUs is above the A100.
"""


def row_for(gpu: Gpu) -> Advice | None:
    """Return the guide's row for `gpu`, by its name, else by its compute capability; None where the guide has none."""
    by_name = (row for row in GUIDE if re.search(row.named, gpu.name, re.IGNORECASE))
    by_capability = (row for row in GUIDE if gpu.compute_capability in row.capabilities)
    return next(by_name, None) or next(by_capability, None)


def advised(space: SearchSpace, gpu: Gpu | None) -> Settings | None:
    """Return the guide's settings for `gpu` as far as `space` searches their knobs; None where it has none to give.

    What the space lacks, a memory limit larger than the GPU for instance, stays as in the default settings.
    """
    row = row_for(gpu) if gpu else None
    default = params_of(space, space.fixed)
    if row is None or default is None:
        return None
    chosen = {dimension.name: _best(row, dimension, default[dimension.name]) for dimension in space.dimensions}
    return settings_of(space, chosen)


def _best(row: Advice, dimension: Dimension, default: Value) -> Value:
    fitting = [(fit, choice.label) for choice in dimension.choices if (fit := row.fit(choice)) is not None]
    return max(fitting, key=lambda one: one[0])[1] if fitting else default
