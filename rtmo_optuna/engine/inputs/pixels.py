"""Pixels in place of an input's array: which input can have them, and their shape beside the model's.

A picture is height x width x 3, uint8, as cameras and OpenCV have it. So it is fed where the model takes one at a time,
as it does too where it leaves the number open; a batch of a fixed number is batch x height x width x 3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.engine.inputs import images
from rtmo_optuna.engine.inputs.shapes import told
from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rtmo_optuna.types.request import Pixels, TensorSpec

DTYPE = "tensor(uint8)"
_WANTED = images.Layout(channels=3, channel_axis=1)
_FLOATS = ("tensor(float16)", "tensor(float)", "tensor(double)")


def picture_of(specs: Sequence[TensorSpec]) -> TensorSpec:
    """Return the one input of a model's that pixels can take the place of.

    Raises UsageError where none, or more than one, holds pictures, or where it is not batch x 3 x height x width of
    floats.
    """
    pictures = [spec for spec in specs if images.layout_of(spec)]
    if len(pictures) == 1 and images.layout_of(pictures[0]) == _WANTED and pictures[0].dtype in _FLOATS:
        return pictures[0]
    raise UsageError(
        "Pixels need a model with one input of pictures, batch x 3 x height x width of floats, and this one takes "
        f"{', '.join(map(told, specs))}: leave --pixels out (input: pixels, in a study definition)."
    )


def as_pictures(spec: TensorSpec) -> TensorSpec:
    """Return what takes the place of `spec`, always with its batch in front: batch x height x width x 3, uint8.

    A batch that is left open is 1.
    """
    batch, channels, height, width = spec.shape
    return replace(spec, dtype=DTYPE, shape=(batch if isinstance(batch, int) else 1, height, width, channels))


def as_arrays(sample: Mapping[str, NDArray[Any]], pixels: Pixels | None) -> dict[str, NDArray[Any]]:
    """Return what the model itself gets where `sample` holds pictures: what the nodes in front make of `pixels`."""
    if pixels is None:
        return dict(sample)
    fed = sample[pixels.input]
    mean, std = (np.array(values, np.float32) for values in (pixels.mean, pixels.std))
    made = (fed.reshape(-1, *fed.shape[-3:]).astype(np.float32) * np.float32(pixels.scale) - mean) / std
    return {**sample, pixels.input: np.ascontiguousarray(np.moveaxis(made, 3, 1))}


def settled(specs: Sequence[TensorSpec], pixels: Pixels) -> tuple[list[TensorSpec], Pixels]:
    """Return a model's inputs with the batch that pixels are fed in, 1 where it is open; and `pixels` with it."""
    found = [
        replace(spec, shape=(as_pictures(spec).shape[0], *spec.shape[1:])) if spec.name == pixels.input else spec
        for spec in specs
    ]
    batches = [spec.shape[0] for spec in found if spec.name == pixels.input]
    return found, replace(pixels, batch=next((size for size in batches if isinstance(size, int)), 1))
