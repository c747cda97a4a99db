"""What a model takes: arrays checked, and brought to the memory layout that ONNX Runtime reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rtmo_optuna.wire import TensorSpec

_TYPES = "bool complex64 complex128 double float float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
DTYPES = {f"tensor({name})": np.dtype({"float": "float32"}.get(name, name)) for name in _TYPES.split()}
"""NumPy's types by ONNX Runtime's names for those that NumPy has too."""


class Signature:
    """The inputs of a model, and what is expected of each array."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        """Expect one array for each of `specs`."""
        self._wanted = {spec.name: (DTYPES.get(spec.dtype), spec.shape) for spec in specs}

    def checked(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arrays of `feed` by input, in the model's order, contiguous and in the machine's byte order.

        Arrays that already are so come back themselves. Raises UsageError for a missing or unknown input, a wrong type
        or a shape that the model does not take. Types that NumPy lacks are left to ONNX Runtime.
        """
        if feed.keys() != self._wanted.keys():
            raise UsageError(_names(feed, self._wanted))
        return {name: self._one(name, feed[name]) for name in self._wanted}

    def _one(self, name: str, given: Any) -> Any:  # noqa: ANN401 - whatever the user feeds
        dtype, shape = self._wanted[name]
        if dtype is None:
            return given
        array = given if type(given) is np.ndarray else np.asarray(given)
        if array.dtype != dtype:
            if array.dtype.newbyteorder("=") != dtype:
                how = (
                    f": convert it with .astype(numpy.{dtype})" if array.dtype.kind != "O" else ", an array of numbers"
                )
                message = f"The input {name!r} must be {dtype}, not {array.dtype}{how}."
                raise UsageError(message)
            array = array.astype(dtype)
        if array.shape != shape and not _fits(array.shape, shape):
            message = f"The input {name!r} must have the shape {shown(shape)}, not {shown(array.shape)}."
            raise UsageError(message)
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def is_fixed(shape: Sequence[int | str | None]) -> bool:
    """Whether every dimension is a number."""
    return all(isinstance(size, int) for size in shape)


def shown(shape: Sequence[int | str | None]) -> str:
    """Return a shape as 1x3x640x640, `?` for a dimension without a name, "scalar" where there is none."""
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


def _fits(shape: Sequence[int], wanted: Sequence[int | str | None]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(want, int) or size == want for size, want in zip(shape, wanted, strict=True)
    )


def _names(feed: Mapping[str, NDArray[Any]], wanted: Mapping[str, object]) -> str:
    missing, extra = ", ".join(wanted.keys() - feed.keys()), ", ".join(feed.keys() - wanted.keys())
    parts = [f"lacks {missing}"] * bool(missing) + [f"has {extra}, which the model does not take"] * bool(extra)
    return f"The feed {' and '.join(parts)}: give exactly {', '.join(wanted)}."
