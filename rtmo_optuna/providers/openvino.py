"""OpenVINO on the processor, as the plugin onnxruntime-ep-openvino has it.

Tried with 1.8.1: what is not in `load_config` it takes without a word and ignores, what is there it refuses where it
does not know it. Without a word on the precision it multiplies in bfloat16 where the processor can, which is no
rounding that a model's outputs always bear: here float32 is the default, and the others are choices.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from rtmo_optuna.providers.base import Knob
from rtmo_optuna.providers.plugin import Plugin
from rtmo_optuna.types.request import Scope

_DEVICE = "CPU"


@dataclass(frozen=True, slots=True)
class _OpenVino(Plugin):
    """OpenVINO: its options are a document in one option."""

    def given(self, device: int) -> dict[str, str]:
        """Return the precision."""
        del device
        return {_PRECISION.name: str(_PRECISION.default)}

    def spelled(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the one option that holds all of them."""
        return {"load_config": json.dumps({_DEVICE: given})}


_PRECISION = Knob(
    "INFERENCE_PRECISION_HINT",
    Scope.PROVIDER,
    ("f32", "f16", "bf16"),
    "what matrices are multiplied in",
    instructions={"f16": ("avx512_fp16", "amx_fp16"), "bf16": ("avx512_bf16", "amx_bf16")},
)
PROVIDER = _OpenVino(
    "openvino", "OpenVINOExecutionProvider",
    knobs=(
        _PRECISION,
        Knob("PERFORMANCE_HINT", Scope.PROVIDER, ("LATENCY", "THROUGHPUT"), "what calls are divided among cores for"),
        Knob("NUM_STREAMS", Scope.PROVIDER, (0, 1, 2, 4, 8), "calls that may run at once, 0: as the hint says",
             ceiling="cores", open=True),
        Knob("INFERENCE_NUM_THREADS", Scope.PROVIDER, (0, 1, 2, 4, 8, 16, 32), "threads, 0: by core",
             ceiling="cores", open=True),
    ),
    named=False,
    package="onnxruntime-ep-openvino",
    module="onnxruntime_ep_openvino",
    extra="openvino",
    where={"ov_device": _DEVICE},
)  # fmt: skip
