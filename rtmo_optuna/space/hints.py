"""What is known of knobs beforehand: which won, which matter only together, why one may do nothing. Pure data.

Sources: ONNX Runtime's CUDA provider since 1.20 (onnxruntime/core/providers/cuda), where the options are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rtmo_optuna.records import ModelFacts, Value

TOGETHER: Mapping[tuple[str, Value], tuple[str, Value]] = {
    ("fuse_conv_bias", True): ("prefer_nhwc", True),
}
"""A dimension's choice, and the choice of another one without which it cannot show what it is worth.

The screening tries it alone and with that one. (A CUDA graph and its IO binding are one flat choice already.)
"""


WON: Mapping[str, tuple[Value, ...]] = {
    "capture": ("split+host", "split", "graph"),
    "prefer_nhwc": (True,),
    "fuse_conv_bias": (True,),
}
"""What was fastest together on GPUs of compute capability 9.0 (docs/benchmarks.md): dimensions, the most telling first,
and their choices, the most wanted first. Tried early, and believed no more than any other settings."""


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
