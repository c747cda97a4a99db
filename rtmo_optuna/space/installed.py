"""What the installed ONNX Runtime is, and the keys of entries that it knows: its library holds them as strings.

A compiler may build a short one from pieces in the code, so that what is not found need not be unknown: `extras` has a
table besides, which is all there is where the library cannot be read.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import mmap
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBRARY = "capi/onnxruntime_pybind11_state*"
_BUILT = "capi/build_and_package_info.py"
_NAMED = re.compile(r"^(\w+) = ['\"](.+)['\"]$", re.MULTILINE)
_KEY = re.compile(rb"\0((?:session|ep|mlas|optimization)\.[a-z][\w.]{3,}[a-z0-9])(?=\0)")


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
