"""The libraries of CUDA and cuDNN that an ONNX Runtime was built for, by what its file and its package ask for."""

import contextlib
import ctypes
import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

from rtmo_optuna.providers.elf import needed

DRIVER = "libcuda.so.1"
"""What the driver brings; all others come in packages."""
_OURS = re.compile(r"lib(cu|nv)\w*\.so\.\d+")
_ASKED = re.compile(r"nvidia-(?:cuda-)?([a-z]+)(?:-cu\d+)?\s*~=\s*(\d+)")
_SONAMES = {"runtime": "cudart"}
"""Packages whose library is called otherwise."""
_OTHER_MAJORS = range(9, 16)


def wanted(folder: str) -> tuple[str, ...]:
    """Return the names, with the major version, of what the ONNX Runtime in `folder` wants to load.

    The provider's library names some itself, others it loads when they are first used: those are in the package's
    extras `cuda` and `cudnn`, where it has any.
    """
    library = Path(folder, "capi", "libonnxruntime_providers_cuda.so")
    named = [name for name in needed(library) if _OURS.fullmatch(name)] if library.exists() else []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        asked = map(_ASKED.match, importlib.metadata.requires("onnxruntime-gpu") or ())
        named += [f"lib{_SONAMES.get(one[1], one[1])}.so.{one[2]}" for one in asked if one]
    return tuple(dict.fromkeys(named))


def found(names: Iterable[str]) -> dict[str, str]:
    """Return where the loader finds each library; they stay loaded.

    It is "" where there is none; then other major versions of it that there are follow.
    """
    places = {name: _loaded(name) for name in names}
    for name in [name for name, place in places.items() if not place]:
        stem = name.rpartition(".")[0]
        places |= {other: place for n in _OTHER_MAJORS if (place := _loaded(other := f"{stem}.{n}"))}
    return places


def _loaded(name: str) -> str:
    try:
        ctypes.CDLL(name)
    except OSError:
        return ""
    with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123 - not a file of ours
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if name in line}
    return min(paths, default=name)
