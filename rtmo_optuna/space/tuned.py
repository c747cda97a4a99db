"""What `benchmark_info` says of the shapes that settings were tuned for; a person may have edited it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_SHAPE = re.compile(r"\d{1,12}([x, ]+\d{1,12})*")
_SIZE = re.compile(r"\d{1,12}")


def tuned_shapes(info: Mapping[str, Any], path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs by name; scalars, which have none, are left out.

    They may be written as 1x64, "1,64" or [1, 64]. Raises UsageError, which names the file `path`, for all else.
    """
    found = {name: _shape(name, shape, path) for name, shape in _mapping(info, "shapes", path).items()}
    return {name: shape for name, shape in found.items() if shape}


def tuned_dimensions(info: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Return the sizes of the symbolic dimensions that were fixed; raises UsageError where one is no number."""
    held = _mapping(info, "free_dimensions", path)
    return {name: int(_matching(_SIZE, size, f"free_dimensions: {name}", "4", path)) for name, size in held.items()}


def _shape(name: str, written: Any, path: Path) -> tuple[int, ...]:  # noqa: ANN401 - whatever YAML holds
    # A list comes as the mapping of its elements by number.
    text = "x".join(map(str, written.values())) if isinstance(written, Mapping) else str(written or "")
    if not text:
        return ()
    return tuple(map(int, re.findall(r"\d+", _matching(_SHAPE, text, f"shapes: {name}", "1x3x640x640", path))))


def _mapping(info: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    held = info.get(name) or {}
    if not isinstance(held, Mapping):
        message = (
            f"benchmark_info of {path} says {name}: {held}, which is no mapping of names: write {name}: {{x: ...}}, or "
            "leave it out."
        )
        raise UsageError(message)
    return held


def _matching(wanted: re.Pattern[str], written: Any, what: str, example: str, path: Path) -> str:  # noqa: ANN401
    if not wanted.fullmatch(str(written)):
        message = f"benchmark_info of {path} says {what}: {written}, which has to be as in {example}: write it so."
        raise UsageError(message)
    return str(written)
