"""Outputs of any kind as arrays that can be hashed, kept in a file and compared: NumPy alone.

ONNX Runtime hands over tensors as arrays (strings as objects), sequences as lists, maps as dictionaries, and None for
an optional output that is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


def flat(names: Iterable[str], values: Iterable[Any]) -> Arrays:
    """Return the outputs `values` as arrays, by name; one that is no array has several, `name[0]` and so on."""
    return {name: array for pair in zip(names, values, strict=True) for name, array in _one(*pair).items()}


def even(runs: list[Arrays]) -> list[Arrays]:
    """Return `runs`, one mapping a sample; `together` where names differ, as with sequences of several lengths."""
    return runs if len({frozenset(run) for run in runs}) == 1 else [together(runs)]


def together(runs: Sequence[Arrays]) -> Arrays:
    """Return all samples as one, whose names begin with the sample's number."""
    return {f"{n}/{name}": array for n, run in enumerate(runs) for name, array in run.items()}


def _one(name: str, value: Any) -> Arrays:  # noqa: ANN401 - whatever ONNX Runtime hands over
    if value is None:
        return {f"{name} (none)": np.zeros(1, bool)}
    if isinstance(value, Mapping):
        return _one(f"{name} keys", list(value)) | _one(name, list(value.values()))
    if not isinstance(value, list):
        array = np.asarray(value)
        return {name: array.astype(str) if array.dtype.kind == "O" else array}
    if value and all(isinstance(element, Mapping) and element.keys() == value[0].keys() for element in value):
        keys = list(value[0])
        return _one(f"{name} keys", keys) | _one(name, [[element[key] for key in keys] for element in value])
    if value and not any(isinstance(element, np.ndarray | Mapping | None) for element in value):
        return {name: np.asarray(value)}
    parts = {part: array for n, element in enumerate(value) for part, array in _one(f"{name}[{n}]", element).items()}
    return {f"{name} length": np.array([len(value)])} | parts
