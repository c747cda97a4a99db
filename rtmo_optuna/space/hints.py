"""What is known of knobs beforehand: which won, what they may be worth, why one may do nothing. Pure data.

Sources: recorded grids (benchmarks/data), and ONNX Runtime's CUDA provider since 1.20, where the options are read
(onnxruntime/core/providers/cuda).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rtmo_optuna.types.request import ModelFacts, Value

ANY = "any"

TOGETHER: Mapping[tuple[str, Value], tuple[str, Value]] = {
    ("fuse_conv_bias", True): ("prefer_nhwc", True),
}
"""A dimension's choice, and the choice of another one without which it cannot show what it is worth.

The screening tries it alone and with that one. (A CUDA graph and its IO binding are one flat choice already.)
"""

LADDER: tuple[tuple[Mapping[str, Value], ...], ...] = (
    ({"provider": "openvino+bf16"}, {"provider": "openvino"}),
    ({"capture": "split+host"}, {"capture": "split"}, {"capture": "graph"}),
    ({"prefer_nhwc": True, "fuse_conv_bias": True}, {"prefer_nhwc": True}),
    ({"precision": "float16"}, {"precision": "mixed"}),
    ({"cudnn_conv_algo_search": "HEURISTIC"},),
)
"""What was fastest together on GPUs of compute capability 9.0 (docs/lab/tunes.md) and on a processor, as rungs: each is
tried upon what helped of those before it, its first part that helps is kept, and believed no more than any other."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What a choice may be worth: how many `times` as fast as without it, at best.

    `operators`: it acts on those only, so that in a model with none of them it is worth nothing. Empty: on any model.
    `recorded` says whether that was measured somewhere; else it is an order only.
    """

    times: float
    operators: tuple[str, ...] = ()
    recorded: bool = True


_CONV = ("Conv", "ConvTranspose", "FusedConv")

WORTH: Mapping[str, Mapping[Value, Worth]] = {
    "capture": {"split+host": Worth(1.43), "split": Worth(1.35), "graph": Worth(1.35), "binding": Worth(1.0)},
    "precision": {"float16": Worth(1.25, _CONV), "mixed": Worth(1.2, _CONV, recorded=False)},
    "fuse_conv_bias": {True: Worth(1.07, _CONV)},
    "prefer_nhwc": {True: Worth(1.05, _CONV)},
    "cudnn_conv_algo_search": {"HEURISTIC": Worth(1.04, _CONV), "DEFAULT": Worth(0.36, _CONV)},
    "graph_optimization_level": {"ORT_ENABLE_BASIC": Worth(0.93), "ORT_DISABLE_ALL": Worth(0.9)},
    "use_tf32": {False: Worth(0.77)},
    "provider": {ANY: Worth(1.3, recorded=False)},
    "INFERENCE_PRECISION_HINT": {ANY: Worth(1.3, recorded=False)},
    "threads": {ANY: Worth(1.3, recorded=False)},
    "intra_op_num_threads": {ANY: Worth(1.3, recorded=False)},
    "session.intra_op.allow_spinning": {False: Worth(1.1, recorded=False)},
    "execution": {ANY: Worth(1.05, recorded=False)},
    "enable_cpu_mem_arena": {False: Worth(0.85, recorded=False)},
    "enable_mem_pattern": {False: Worth(0.8, recorded=False)},
}
"""What each choice of a dimension (`ANY`: each other one) may be worth; what is not here is taken to be worth nothing.

On the GPU: the most seen on the recorded grids of RTMO-s and m (benchmarks/data/grid_*.json), from the default or
beside what was best there; `graph` as `split`, whose head is one; HEURISTIC on an exported RTMO-s
(docs/lab/claims.md). On the CPU no grid is recorded: the order is that of ONNX Runtime's page "Thread management",
and the figures are no more than it.
"""


def _acts_on(*operators: str, what: str) -> Callable[[ModelFacts], str]:
    def reason(model: ModelFacts) -> str:
        count = sum(model.operators.get(name, 0) for name in operators)
        return f"{what} {' and '.join(operators)} only; this model has {count or 'none'}"

    return reason


WHY: Mapping[str, Callable[[ModelFacts], str]] = {
    "tunable_op": _acts_on("Gemm", "MatMul", what="tunable ops act on"),
    "do_copy_in_default_stream": _acts_on("Loop", what="it is read by"),
    "enable_skip_layer_norm_strict_mode": _acts_on("SkipLayerNormalization", what="it is read by"),
    "cudnn_conv_use_max_workspace": lambda _model: (
        "only the cuDNN 8 path reads it; since ONNX Runtime 1.20 convolutions take another one"
    ),
    "gpu_mem_limit_gb": lambda _model: "a limit does nothing as long as it is not reached",
    "arena_extend_strategy": lambda _model: "the arena grows in the first runs only",
    "session.use_device_allocator_for_initializers": lambda _model: "weights are placed once, when a session is built",
}
"""Why a dimension may do nothing, by name: shown where it was found to do nothing, and never believed before."""


def worth(name: str, label: Value, model: ModelFacts | None = None) -> float:
    """Return how many times as fast a choice may make `model` (None: one with any operator); 1 where unknown."""
    found = _row(name, label)
    acts = not (model and found.operators) or model.operators.keys() & set(found.operators)
    return found.times if acts else 1.0


def gained(name: str, label: Value, model: ModelFacts | None = None) -> bool:
    """Return whether a choice was recorded to make a model with what it acts on faster."""
    return worth(name, label, model) > 1 and _row(name, label).recorded


def _row(name: str, label: Value) -> Worth:
    choices = WORTH.get(name, {})
    return choices.get(label, choices.get(ANY, Worth(1.0, recorded=False)))
