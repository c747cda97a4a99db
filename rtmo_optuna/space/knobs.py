"""The table of providers and their knobs: pure data, and the few functions that read it.

Sources: ONNX Runtime's pages "CUDA Execution Provider" and "Thread management", its header
onnxruntime_session_options_config_keys.h, and options read back from 1.31. `since` is the first release with the knob.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtmo_optuna.types.request import Choice, Dimension, Scope, Settings, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

FREE_SHARE = "90%"


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting of ONNX Runtime under its own name, or the guide's.

    `ceiling` names the machine's amount that a choice may not exceed. `needs` is the (knob, value) without which this
    one means nothing. `open` knobs take any positive number from a configuration file, not only the choices; `also` is
    what else they may hold there.
    """

    name: str
    scope: Scope
    choices: tuple[Value, ...]
    about: str
    since: tuple[int, int] = (1, 18)
    needs: tuple[str, Value] | None = None
    ceiling: str | None = None
    open: bool = False
    also: tuple[Value, ...] = ()

    @property
    def default(self) -> Value:
        """ONNX Runtime's default: the first choice."""
        return self.choices[0]


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider: its knobs, and the dimensions that set several of them at once."""

    name: str
    ort_name: str
    knobs: tuple[Knob, ...]
    combined: tuple[Dimension, ...] = field(default=())


def _flag(name: str, scope: Scope, about: str, **more: object) -> Knob:
    default = bool(more.pop("default", False))
    return Knob(name, scope, (default, not default), about, **more)  # type: ignore[arg-type]


def _combined(name: str, **choices: dict[str, Value]) -> Dimension:
    return Dimension(name, tuple(Choice(label.replace("_", "+"), tuple(v.items())) for label, v in choices.items()))


_GRAPH = Knob(
    "graph_optimization_level",
    Scope.SESSION,
    ("ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_BASIC", "ORT_DISABLE_ALL"),
    "how far the graph is rewritten before it runs",
    also=("ORT_ENABLE_LAYOUT",),
)
_MEM_PATTERN = _flag("enable_mem_pattern", Scope.SESSION, "plan activations' memory ahead", default=True)
_CPU_ARENA = _flag("enable_cpu_mem_arena", Scope.SESSION, "keep freed memory for the next run", default=True)
_EXECUTION = Knob(
    "execution_mode", Scope.SESSION, ("ORT_SEQUENTIAL", "ORT_PARALLEL"), "run branches of the graph at once"
)

_SPLIT: dict[str, Value] = {"io_binding": True, "enable_cuda_graph": True, "split_capture": True}

CUDA = Provider(
    "cuda", "CUDAExecutionProvider",
    knobs=(
        Knob("cudnn_conv_algo_search", Scope.PROVIDER, ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
             "how cuDNN chooses a convolution's algorithm"),
        Knob("gpu_mem_limit_gb", Scope.PROVIDER, (None, 4, 8, 16, FREE_SHARE),
             "size of the arena for activations, in GiB", ceiling="gpu_memory_gb", open=True),
        Knob("arena_extend_strategy", Scope.PROVIDER, ("kNextPowerOfTwo", "kSameAsRequested"), "how the arena grows"),
        _flag("do_copy_in_default_stream", Scope.PROVIDER, "copy on the computing stream", default=True),
        _flag("cudnn_conv_use_max_workspace", Scope.PROVIDER, "let cuDNN take all the scratch memory it asks for",
              default=True),
        _flag("tunable_op_enable", Scope.PROVIDER, "use tunable implementations of Gemm and MatMul"),
        _flag("tunable_op_tuning_enable", Scope.PROVIDER, "tune them in the first run",
              needs=("tunable_op_enable", True)),
        _flag("prefer_nhwc", Scope.PROVIDER, "run convolutions channels-last"),
        _flag("fuse_conv_bias", Scope.PROVIDER, "add the bias inside cuDNN's convolution", since=(1, 20)),
        _flag("use_tf32", Scope.PROVIDER, "multiply float32 in TensorFloat-32", default=True),
        _flag("use_ep_level_unified_stream", Scope.PROVIDER, "one stream for the whole provider"),
        _flag("enable_skip_layer_norm_strict_mode", Scope.PROVIDER, "accumulate SkipLayerNormalization in float32"),
        _GRAPH,
        _MEM_PATTERN,
        _CPU_ARENA,
        _EXECUTION,
        _flag("session.use_device_allocator_for_initializers", Scope.ENTRY, "keep weights out of the arena"),
        _flag("io_binding", Scope.CALL, "copy inputs into buffers that stay on the GPU"),
        _flag("enable_cuda_graph", Scope.PROVIDER, "replay all kernels as one graph", needs=("io_binding", True)),
        # Before 1.31, what was captured of GatherND, Concat or Split read freed memory when it was replayed.
        _flag("split_capture", Scope.CALL, "cut the model where it cannot be captured, and capture the parts",
              since=(1, 31), needs=("enable_cuda_graph", True)),
        _flag("split_on_host", Scope.CALL, "run on the host what no graph can hold", needs=("split_capture", True)),
    ),
    combined=(
        _combined(
            "tunable_op",
            off={},
            on={"tunable_op_enable": True},
            on_tuning={"tunable_op_enable": True, "tunable_op_tuning_enable": True},
        ),
        _combined(
            "capture",
            off={},
            binding={"io_binding": True},
            graph={"io_binding": True, "enable_cuda_graph": True},
            split=_SPLIT,
            split_host={**_SPLIT, "split_on_host": True},
        ),
    ),
)  # fmt: skip

CPU = Provider(
    "cpu", "CPUExecutionProvider",
    knobs=(
        Knob("intra_op_num_threads", Scope.SESSION, (0, 1, 2, 4, 8, 16, 32), "threads inside an operator, 0: by core",
             ceiling="cores", open=True),
        _EXECUTION,
        Knob("inter_op_num_threads", Scope.SESSION, (0, 2, 4, 8), "threads across operators, 0: by core",
             needs=("execution_mode", "ORT_PARALLEL"), ceiling="cores", open=True),
        _GRAPH,
        _CPU_ARENA,
        Knob("enable_mem_pattern", Scope.SESSION, (True, False), "plan activations' memory ahead",
             needs=("execution_mode", "ORT_SEQUENTIAL")),
        _flag("session.intra_op.allow_spinning", Scope.ENTRY, "idle threads spin before they sleep", default=True),
        _flag("session.set_denormal_as_zero", Scope.ENTRY, "treat denormal numbers as zero"),
    ),
    combined=(
        _combined(
            "execution",
            sequential={},
            parallel={"execution_mode": "ORT_PARALLEL"},
            parallel_2={"execution_mode": "ORT_PARALLEL", "inter_op_num_threads": 2},
            parallel_4={"execution_mode": "ORT_PARALLEL", "inter_op_num_threads": 4},
        ),
    ),
)  # fmt: skip

PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in (CUDA, CPU)}


def knob_table(provider: str) -> dict[str, Knob]:
    """Return the provider's knobs by name."""
    return {knob.name: knob for knob in PROVIDERS[provider].knobs}


def dimension_table(provider: str) -> dict[str, Dimension]:
    """Return every dimension that a study definition may search, by name, with all its choices.

    A knob that belongs to a combined dimension has none of its own: one flat parameter searches better than two of
    which one depends on the other.
    """
    table = PROVIDERS[provider]
    inside = {knob for combined in table.combined for choice in combined.choices for knob, _ in choice.values}
    single = (
        Dimension(knob.name, tuple(Choice(value, ((knob.name, value),)) for value in knob.choices))
        for knob in table.knobs
        if knob.name not in inside
    )
    return {dimension.name: dimension for dimension in (*single, *table.combined)}


def canonical(provider: str, values: Mapping[str, Value]) -> Settings:
    """Return settings without default values and without knobs that another one makes meaningless."""
    table = knob_table(provider)

    def in_force(name: str) -> Value:
        need = table[name].needs
        held = need is None or in_force(need[0]) == need[1]
        return values.get(name, table[name].default) if held else table[name].default

    return Settings.of({name: value for name in values if (value := in_force(name)) != table[name].default})
