"""CUDA, the provider of onnxruntime-gpu."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtmo_optuna.providers import base
from rtmo_optuna.providers.base import (
    CPU_ARENA,
    EXECUTION,
    GRAPH,
    MEM_PATTERN,
    PRECISION,
    Knob,
    Provider,
    Untyped,
    flag,
)
from rtmo_optuna.types.request import Scope, Value
from rtmo_optuna.types.subject import Gpu

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rtmo_optuna.providers.cudart import CudaStream

FREE_SHARE = "90%"
_SPLIT: dict[str, Value] = {"io_binding": True, "enable_cuda_graph": True, "split_capture": True}


@dataclass(frozen=True, slots=True)
class _Cuda(Provider):
    """CUDA: libraries to preload, a driver to start, streams and memory of a GPU's."""

    def suits(self, gpu: Gpu | None) -> bool:
        """Return whether there is a GPU."""
        return gpu is not None

    def load(self, ort: Untyped) -> None:
        """Preload CUDA and cuDNN from the packages that bring them."""
        Provider.load(self, ort)
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()

    def start(self) -> None:
        """Start the CUDA driver."""
        with contextlib.suppress(OSError):
            ctypes.CDLL("libcuda.so.1").cuInit(0)

    def versions(self, ort: Untyped) -> dict[str, str]:
        """Return the versions of ONNX Runtime, CUDA and cuDNN."""
        cuda = str(getattr(ort, "cuda_version", "") or "")
        found = Provider.versions(self, ort) | {"cuda": cuda, "cudnn": _cudnn_version()}
        return {name: version for name, version in found.items() if version}

    def libraries(self, ort: Untyped) -> dict[str, str]:
        """Return the libraries of CUDA and cuDNN of the major versions that this ONNX Runtime was built for."""
        from rtmo_optuna.providers.cudalibs import found, wanted  # noqa: PLC0415 - no benchmark needs it

        return found(wanted(os.path.dirname(ort.__file__)))  # noqa: PTH120

    def given(self, device: int) -> dict[str, str]:
        """Return the GPU's number."""
        return {"device_id": str(device)}

    def why_missing(self, ort: Untyped) -> str:
        """Return what the loader says of the library."""
        folder = os.path.join(os.path.dirname(ort.__file__), "capi")  # noqa: PTH118, PTH120 - pathlib costs a child 3 ms
        missing = "ONNX Runtime does not say why"
        try:
            ctypes.CDLL(f"{folder}/libonnxruntime_providers_shared.so", mode=os.RTLD_GLOBAL)
            ctypes.CDLL(f"{folder}/libonnxruntime_providers_cuda.so")
        except OSError as error:
            missing = str(error)
        remedy = (
            "Install NVIDIA's driver, which brings it"
            if "libcuda.so" in missing
            else "Install the CUDA and cuDNN libraries that this ONNX Runtime was built for (pip install "
            "'rtmo-optuna[gpu]' brings them)"
        )
        return f"{self.ort_name} does not load: {missing}. {remedy}, or choose --provider cpu."

    def stream(self, device: int) -> CudaStream:
        """Return a new stream of the GPU's."""
        from rtmo_optuna.providers.cudart import CudaStream  # noqa: PLC0415 - NumPy is loaded with the engine only

        return CudaStream(device)

    def array(self, shape: Sequence[int], dtype: np.dtype[Any], device: int) -> NDArray[Any]:
        """Return page-locked memory, ordinary where there is none."""
        from rtmo_optuna.providers.cudart import page_locked_or_not  # noqa: PLC0415

        return page_locked_or_not(shape, dtype, device)


def _bytes(value: Value, device: int) -> str:
    """Return the bytes of so many GiB, or of the share of what is free on the GPU `device`."""
    if value == FREE_SHARE:
        from rtmo_optuna.machine.gpu import free_bytes  # noqa: PLC0415 - NVML is needed for this one choice only

        value = 0.9 * free_bytes(device) / 2**30
    return str(int(float(value or 0) * 2**30))


def _cudnn_version() -> str:
    try:
        number = ctypes.CDLL("libcudnn.so.9", mode=os.RTLD_NOLOAD | os.RTLD_NOW).cudnnGetVersion()
    except (OSError, AttributeError):
        return ""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


PROVIDER = _Cuda(
    "cuda", "CUDAExecutionProvider",
    knobs=(
        Knob("cudnn_conv_algo_search", Scope.PROVIDER, ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
             "how cuDNN chooses a convolution's algorithm"),
        Knob("gpu_mem_limit_gb", Scope.PROVIDER, (None, 4, 8, 16, FREE_SHARE),
             "size of the arena for activations, in GiB",
             ceiling="gpu_memory_gb", open=True, option="gpu_mem_limit", spell=_bytes),
        Knob("arena_extend_strategy", Scope.PROVIDER, ("kNextPowerOfTwo", "kSameAsRequested"), "how the arena grows"),
        flag("do_copy_in_default_stream", Scope.PROVIDER, "copy on the computing stream", default=True),
        flag("cudnn_conv_use_max_workspace", Scope.PROVIDER, "let cuDNN take all the scratch memory it asks for",
             default=True),
        flag("tunable_op_enable", Scope.PROVIDER, "use tunable implementations of Gemm and MatMul"),
        flag("tunable_op_tuning_enable", Scope.PROVIDER, "tune them in the first run",
             needs=("tunable_op_enable", True)),
        flag("prefer_nhwc", Scope.PROVIDER, "run convolutions channels-last"),
        flag("fuse_conv_bias", Scope.PROVIDER, "add the bias inside cuDNN's convolution", since=(1, 20)),
        flag("use_tf32", Scope.PROVIDER, "multiply float32 in TensorFloat-32", default=True),
        flag("use_ep_level_unified_stream", Scope.PROVIDER, "one stream for the whole provider"),
        flag("enable_skip_layer_norm_strict_mode", Scope.PROVIDER, "accumulate SkipLayerNormalization in float32"),
        GRAPH,
        MEM_PATTERN,
        CPU_ARENA,
        EXECUTION,
        flag("session.use_device_allocator_for_initializers", Scope.ENTRY, "keep weights out of the arena"),
        flag("io_binding", Scope.CALL, "copy inputs into buffers that stay on the GPU"),
        flag("enable_cuda_graph", Scope.PROVIDER, "replay all kernels as one graph", needs=("io_binding", True)),
        # Before 1.31, what was captured of GatherND, Concat or Split read freed memory when it was replayed.
        flag("split_capture", Scope.CALL, "cut the model where it cannot be captured, and capture the parts",
             since=(1, 31), needs=("enable_cuda_graph", True)),
        PRECISION,
        flag("split_on_host", Scope.CALL, "run on the host what no graph can hold", needs=("split_capture", True)),
    ),
    combined=(
        base.combined(
            "tunable_op",
            off={},
            on={"tunable_op_enable": True},
            on_tuning={"tunable_op_enable": True, "tunable_op_tuning_enable": True},
        ),
        base.combined(
            "capture",
            off={},
            binding={"io_binding": True},
            graph={"io_binding": True, "enable_cuda_graph": True},
            split=_SPLIT,
            split_host={**_SPLIT, "split_on_host": True},
        ),
    ),
    extras=(
        *base.options(Scope.ENTRY, "flag", "ep.cuda.enable_gemm_auto_tune", "cuda"),
        *base.options(Scope.PROVIDER, "flag", "cudnn_conv1d_pad_to_nc1d enable_cudnn", "cuda"),
        *base.options(Scope.PROVIDER, "number", "gpu_mem_limit sdpa_kernel tunable_op_max_tuning_duration_ms", "cuda"),
    ),
    entries="ep.cuda.",
    memory="cuda",
    on_gpu=True,
)  # fmt: skip
