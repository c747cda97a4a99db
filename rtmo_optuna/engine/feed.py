"""What a model takes: arrays checked, and brought to the memory layout that ONNX Runtime reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rtmo_optuna.types.request import TensorSpec

_TYPES = "bool complex64 complex128 double float float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
DTYPES = {f"tensor({name})": np.dtype({"float": "float32"}.get(name, name)) for name in _TYPES.split()}
"""NumPy's types by ONNX Runtime's names for those that NumPy has too."""
OPTIONAL = "optional("
"""How the types of inputs begin that may be left out."""


class Signature:
    """The inputs of a model, and what is expected of each of them."""

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        overridable: Sequence[TensorSpec] = (),
        *,
        plain: bool = False,
        pixels: str = "",
    ) -> None:
        """Expect a value for each of `specs`, and perhaps for some of `overridable`, the weights that may be fed.

        With `plain`, for `InferenceSession.run`, optional inputs may be left out, and OrtValues stay where they are.
        The input `pixels` is told as what it is where something else is fed.
        """
        self._plain, self._pixels = plain, pixels
        self._taken = {spec.name: (DTYPES.get(spec.dtype), spec.shape) for spec in (*specs, *overridable)}
        self._wanted = {spec.name: None for spec in specs if not (plain and spec.dtype.startswith(OPTIONAL))}

    def checked(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of `feed` by input, in the model's order; arrays contiguous, in the machine's byte order.

        Arrays that already are so come back themselves; lists become arrays, as for `InferenceSession`. Raises
        UsageError for a missing or unknown input, a wrong type or a shape that the model does not take. Types that
        NumPy lacks are left to ONNX Runtime.
        """
        if feed.keys() == self._wanted.keys():
            return {name: self._one(name, feed[name]) for name in self._wanted}
        given = {name: value for name, value in feed.items() if value is not None}
        if not self._wanted.keys() <= given.keys() <= self._taken.keys():
            raise UsageError(_names(given, self._wanted, self._taken))
        return {name: self._one(name, given[name]) for name in self._taken if name in given}

    def _one(self, name: str, given: Any) -> Any:  # noqa: ANN401 - whatever the user feeds
        dtype, shape = self._taken[name]
        if is_ort_value(given):
            if self._plain:
                return given
            given = given.numpy()
        if dtype is None:
            return given
        array = _array(name, given, dtype)
        if name == self._pixels and not (array.dtype == dtype and takes(shape, array.shape)):
            message = (
                f"The input {name!r} takes pixels, uint8 of the shape {shown(shape)}, not {array.dtype} of the shape "
                f"{shown(array.shape)}: rtmo_optuna.letterbox(frame, session.input_buffer({name!r})) makes them of a "
                "frame of any size."
            )
            raise UsageError(message)
        if array.dtype != dtype:
            if array.dtype.newbyteorder("=") != dtype:
                how = (
                    f": convert it with .astype(numpy.{dtype})" if array.dtype.kind != "O" else ", an array of numbers"
                )
                message = f"The input {name!r} must be {dtype}, not {array.dtype}{how}."
                raise UsageError(message)
            array = array.astype(dtype)
        if array.shape != shape and not takes(shape, array.shape):
            message = f"The input {name!r} must have the shape {shown(shape)}, not {shown(array.shape)}."
            raise UsageError(message)
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def is_ort_value(given: Any) -> bool:  # noqa: ANN401 - whatever the user feeds
    """Whether `given` is an `onnxruntime.OrtValue`."""
    return hasattr(given, "is_tensor_sequence")


def shape_of(given: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Return the shape of what a user feeds, () for what has none."""
    if is_ort_value(given):
        return tuple(given.shape()) if given.is_tensor() else ()
    try:
        return np.shape(given)
    except ValueError:  # a list of lists of several lengths
        return ()


def is_fixed(shape: Sequence[int | str | None]) -> bool:
    """Whether every dimension is a number."""
    return all(isinstance(size, int) for size in shape)


def shown(shape: Sequence[int | str | None]) -> str:
    """Return a shape as 1x3x640x640, `?` for a dimension without a name, "scalar" where there is none."""
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


def takes(wanted: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    """Whether an input that the model declares as `wanted` takes an array of `shape`.

    An empty one stands for a scalar and for an unknown rank alike, so ONNX Runtime takes any shape there.
    """
    return not wanted or (
        len(shape) == len(wanted)
        and all(not isinstance(want, int) or size == want for size, want in zip(shape, wanted, strict=True))
    )


def _array(name: str, given: Any, dtype: np.dtype[Any]) -> NDArray[Any]:  # noqa: ANN401
    """Return `given` as an array: an array as it is, a list converted to `dtype`."""
    if isinstance(given, np.ndarray):
        return np.asarray(given)
    if not isinstance(given, list):
        message = (
            f"The input {name!r} must be an array, a list or an OrtValue, not {type(given).__name__}: convert it with "
            f"numpy.asarray(..., numpy.{dtype})."
        )
        raise UsageError(message)
    try:
        return np.array(given, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        message = f"The input {name!r} must be {dtype}, and the list that was fed makes no such array: {error}."
        raise UsageError(message) from error


def _names(feed: Mapping[str, Any], wanted: Mapping[str, object], taken: Mapping[str, object]) -> str:
    missing = ", ".join(name for name in wanted if name not in feed)
    extra = ", ".join(str(name) for name in feed if name not in taken)
    parts = [f"lacks {missing}"] * bool(missing) + [f"has {extra}, which the model does not take"] * bool(extra)
    may = ", ".join(name for name in taken if name not in wanted)
    return f"The feed {' and '.join(parts)}: give exactly {', '.join(wanted)}{f', and at will {may}' * bool(may)}."
