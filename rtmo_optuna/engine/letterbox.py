"""A frame of any size, scaled to fit into a picture of a session's size, in place."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.engine.feed import shown
from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

PADDING = 114
_RANK = 3


def letterbox(frame: Pixels, buffer: Pixels) -> float:
    """Write `frame` into `buffer` as RTMO wants it: scaled to fit, its proportions kept, at the top left, the rest 114.

    Both are uint8, height x width x 3, of any order of colours; the buffer is what `Session.input_buffer` returns, or a
    picture of its batch. Returns the ratio of lengths in the buffer to those in the frame: a place in the buffer
    divided by it is the place in the frame, in pixels from the top left corner. OpenCV scales where it is installed, in
    linear interpolation, so that the result is rtmlib's to the last bit; elsewhere NumPy does, slower, within 1 of it.

    Raises UsageError for another type, shape or memory layout of either.
    """
    for name, array in (("frame", frame), ("buffer", buffer)):
        _check(name, array)
    if frame.shape == buffer.shape:
        buffer[...] = frame
        return 1.0
    (height, width), (high, wide) = buffer.shape[:2], frame.shape[:2]
    ratio = float(min(height / high, width / wide))
    bottom, right = max(1, int(high * ratio)), max(1, int(wide * ratio))
    resize(frame, buffer[:bottom, :right])
    buffer[bottom:] = PADDING
    buffer[:bottom, right:] = PADDING
    return ratio


def resize(frame: Pixels, target: Pixels) -> None:
    """Write `frame` into all of `target`, in linear interpolation between the centres of pixels."""
    _resizer()(frame, target)


def _check(name: str, array: Any) -> None:  # noqa: ANN401 - whatever a user passes
    is_array = isinstance(array, np.ndarray)
    fits = is_array and array.dtype == np.uint8 and array.ndim == _RANK and array.shape[2] == _RANK and array.size > 0
    if fits and array.flags.c_contiguous:
        return
    what = f"{array.dtype} {shown(array.shape)}" if is_array else type(array).__name__
    how = ", not contiguous (numpy.ascontiguousarray makes it so)" if fits else ""
    raise UsageError(f"The {name} must be a contiguous array of uint8, height x width x 3, and this is {what}{how}.")


@functools.cache
def _resizer() -> Callable[[Pixels, Pixels], None]:
    try:
        import cv2  # noqa: PLC0415 - clients have it, and nothing else here needs it
    except ImportError:
        return by_numpy
    return lambda frame, target: cv2.resize(frame, target.shape[1::-1], dst=target, interpolation=cv2.INTER_LINEAR)


def by_numpy(frame: Pixels, target: Pixels) -> None:
    """Do as `resize` does, a row after the other, so that it stays in the processor's cache."""
    above, below, down = _taps(frame.shape[0], target.shape[0])
    left, right, across = _taps(frame.shape[1], target.shape[1])
    bytes_left, bytes_right = (np.add.outer(_RANK * places, range(_RANK)).ravel() for places in (left, right))
    shares = np.repeat(across, _RANK)
    rows = frame.reshape(len(frame), -1)
    for place, share in enumerate(down):
        row = rows[above[place]] * (1 - share) + rows[below[place]] * share
        start = row[bytes_left]
        target[place] = (start + (row[bytes_right] - start) * shares + np.float32(0.5)).reshape(-1, _RANK)


def _taps(size: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the two places of `size` that each of `wanted` lies between, and how far from the first one, 0 to 1."""
    at = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(size / wanted) - np.float32(0.5)
    first = np.floor(at)
    places = first.astype(np.intp)
    return places.clip(0, size - 1), (places + 1).clip(0, size - 1), at - first
