"""NVIDIA's TensorRT for RTX, as the plugin onnxruntime-ep-nv-tensorrt-rtx-cu13 has it; for GeForce and RTX cards.

Its options are those of the header that comes with 0.5.0, tensorrt_rtx_provider_options.h. It was never run here on a
card that it takes: what is known is that an H100 is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rtmo_optuna.providers import base
from rtmo_optuna.providers.base import Provider, Untyped, flag
from rtmo_optuna.providers.plugin import Plugin
from rtmo_optuna.types.request import Scope
from rtmo_optuna.types.subject import Gpu

_CAPABILITIES = ("8.6", "8.9")
_NEWEST_LISTED = 12.0


@dataclass(frozen=True, slots=True)
class _TensorRtRtx(Plugin):
    """TensorRT for RTX: it says itself which GPUs it takes."""

    def why_missing(self, ort: Untyped) -> str:
        """Return which GPUs it takes, and which are here."""
        from rtmo_optuna.machine.gpu import gpus  # noqa: PLC0415 - NVML is needed for this sentence only

        return f"{Provider.why_missing(self, ort)} {refusal(gpus())}"


def takes(gpu: Gpu) -> bool:
    """Return whether the plugin takes a GPU of this compute capability."""
    return gpu.compute_capability in _CAPABILITIES or float(gpu.compute_capability) >= _NEWEST_LISTED


def refusal(gpus: Iterable[Gpu]) -> str:
    """Return which GPUs the plugin takes, and which of `gpus` it does not."""
    others = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in gpus if not takes(gpu))
    return (
        f"TensorRT for RTX takes GPUs of compute capability {', '.join(_CAPABILITIES)} and 12.0 or newer, and here "
        f"{f'is {others}' if others else 'none answers'}: choose --provider cuda."
    )


PROVIDER = _TensorRtRtx(
    "tensorrt_rtx", "NvTensorRTRTXExecutionProvider",
    knobs=(
        flag("rtx_cuda_graph", Scope.PROVIDER, "replay all kernels as one graph", option="enable_cuda_graph"),
        flag("nv_persistent_context_memory", Scope.PROVIDER, "keep a run's memory for the next one"),
        flag("nv_use_sync_gpu_allocator", Scope.PROVIDER, "allocate by cudaMalloc"),
        flag("nv_multi_profile_enable", Scope.PROVIDER, "several profiles of shapes in one session"),
    ),
    extras=(
        *base.options(Scope.PROVIDER, "number", "nv_max_workspace_size nv_max_shared_mem_size", "tensorrt_rtx"),
        *base.options(
            Scope.PROVIDER, "text",
            "nv_runtime_cache_path nv_profile_min_shapes nv_profile_opt_shapes nv_profile_max_shapes "
            "nv_op_types_to_exclude nv_weight_streaming_budget",
            "tensorrt_rtx",
        ),
    ),
    memory="cuda",
    on_gpu=True,
    named=False,
    package="onnxruntime-ep-nv-tensorrt-rtx-cu13",
    module="onnxruntime_ep_nv_tensorrt_rtx",
    extra="rtx",
)  # fmt: skip
