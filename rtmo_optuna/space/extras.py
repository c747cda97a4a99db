"""The table of ONNX Runtime's own options that are no knobs: a configuration may hold them, and no study searches them.

They are part of every session that the file speaks for, those of trials too. Names are those of 1.31: attributes of
SessionOptions, keys of onnxruntime_session_options_config_keys.h, and the providers' own. Other keys that the installed
version knows are taken as they are written: its library holds them as strings. A compiler may build a short one from
pieces in the code, so that what is not found there need not be unknown; and where the library cannot be read, the table
is all there is. Left out are those that write files, log, say how a model's file is read, or hand over memory, streams
and threads of the caller's.
"""

import contextlib
import functools
import importlib.util
import mmap
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from rtmo_optuna.errors import UsageError
from rtmo_optuna.providers.base import Extra, options
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.types.request import Scope, Value

_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NUMBER = re.compile(r"\d{1,19}")
_LIBRARY = "capi/onnxruntime_pybind11_state*"
_BUILT = "capi/build_and_package_info.py"
_NAMED = re.compile(r"^(\w+) = ['\"](.+)['\"]$", re.MULTILINE)
_KEY = re.compile(rb"\0((?:session|ep|mlas|optimization)\.[a-z][\w.]{3,}[a-z0-9])(?=\0)")
_PREFIXES = ("session.", "ep.", "mlas.", "optimization.")
_LEFT_OUT = (
    "ep.context_", "session.collect_", "session.compile_only", "session.debug_", "session.enable_moe_",
    "session.enable_profiling", "session.load_model_format", "session.log_", "session.model_external_",
    "session.moe_expert_", "session.node_partition_", "session.optimized_model_", "session.record_", "session.save_",
    "session.use_memory_mapped_", "session.use_ort_model_", "session.use_per_session_threads",
)  # fmt: skip

_OF_ALL = (
    *options(Scope.SESSION, "flag", "enable_mem_reuse use_deterministic_compute"),
    *options(
        Scope.ENTRY,
        "flag",
        "ep.enable_weightless mlas.disable_kleidiai mlas.qnbit.force_fp32 mlas.use_lut_gemm "
        "optimization.enable_cast_chain_elimination optimization.enable_gelu_approximation "
        "session.allow_released_opsets_only session.disable_aot_function_inlining session.disable_cpu_ep_fallback "
        "session.disable_double_qdq_remover session.disable_prepacking session.disable_qdq_constant_folding "
        "session.disable_quant_qdq session.enable_dq_matmulnbits_fusion session.enable_quant_qdq_cleanup "
        "session.force_spinning_stop session.inter_op.allow_spinning session.prepack.enable_parallel "
        "session.qdqisint8allowed session.strict_shape_type_inference session.use_env_allocators "
        "session.x64quantprecision",
    ),
    *options(
        Scope.ENTRY,
        "number",
        "optimization.constant_folding_max_output_size_in_bytes session.dynamic_block_base "
        "session.function_expansion_byte_limit session.function_expansion_node_limit "
        "session.graph_optimizations_loop_level session.inter_op.spin_backoff_max session.inter_op.spin_duration_us "
        "session.intra_op.spin_backoff_max session.intra_op.spin_duration_us "
        "session.qdq_matmulnbits_accuracy_level session.qdq_matmulnbits_block_size",
    ),
    *options(Scope.ENTRY, "text", "optimization.disable_specified_optimizers session.intra_op_thread_affinities"),
)
EXTRAS: Mapping[str, Extra] = {
    extra.name: extra for extra in (*_OF_ALL, *(extra for one in PROVIDERS.values() for extra in one.extras))
}


def is_entry(name: str) -> bool:
    """Return whether `name` can only be meant as a key of a session's configuration entries."""
    return name.startswith(_PREFIXES)


def is_left_out(name: str) -> bool:
    """Return whether ONNX Runtime has the key `name`, and no session here is given it."""
    return name.startswith(_LEFT_OUT)


def extra_of(name: str) -> Extra:
    """Return the option `name`; one that is not in the table is a configuration entry."""
    owners = (one.name for one in PROVIDERS.values() if one.entries and name.startswith(one.entries))
    return EXTRAS.get(name) or Extra(name, Scope.ENTRY, "any", next(owners, ""))


def extra_value(extra: Extra, raw: str) -> Value:
    """Return what `raw` stands for; raises UsageError, without a place, where it does not fit."""
    text = raw.strip().lower()
    if extra.kind == "flag" and text in _FLAGS:
        return _FLAGS[text]
    if extra.kind == "number" and _NUMBER.fullmatch(text):
        return int(text)
    if extra.kind == "any" and text.isalpha() and text in _FLAGS:
        return _FLAGS[text]
    if extra.kind in {"any", "text"} and raw:
        return raw
    wanted = {"flag": "true or false", "number": "a whole number"}.get(extra.kind, "a text")
    raise UsageError(f"{extra.name} cannot be {raw!r}: it must be {wanted}")


def installed_runtime() -> tuple[str, str]:
    """Return the ONNX Runtime that would be imported, and the CUDA that it is built with, "none" where there is none.

    Nothing is loaded: the package says both in a file.
    """
    found = importlib.util.find_spec("onnxruntime")
    places = [Path(folder, _BUILT) for folder in (found and found.submodule_search_locations) or ()]
    told = dict(_NAMED.findall("\n".join(place.read_text("utf-8") for place in places if place.exists())))
    package, version = told.get("package_name", ""), told.get("__version__", "")
    return f"{package} {version}".strip() or "none", told.get("cuda_version", "none")


@functools.cache
def installed_entries() -> frozenset[str]:
    """Return the keys that are in the library of the ONNX Runtime that would be imported; none where there is none."""
    found = importlib.util.find_spec("onnxruntime")
    return entries_in(Path(folder) for folder in (found.submodule_search_locations or ())) if found else frozenset()


def entries_in(folders: Iterable[Path]) -> frozenset[str]:
    """Return the keys in the libraries of the packages in `folders`; nothing is loaded."""
    keys = set[str]()
    for library in (path for folder in folders for path in folder.glob(_LIBRARY)):
        with (
            contextlib.suppress(OSError, ValueError),
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            keys.update(key.decode() for key in _KEY.findall(content))
    return frozenset(keys)
