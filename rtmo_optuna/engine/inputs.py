"""The arrays that a study runs its model on: made from the signature, or the user's own, checked and kept in one file.

`prepare` is for the parent, which has the model's signature and never opens the model; `load` is for its children.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rtmo_optuna.engine import images
from rtmo_optuna.errors import UsageError
from rtmo_optuna.records import InputFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rtmo_optuna.records import TensorSpec

Arrays: TypeAlias = dict[str, NDArray[Any]]

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(complex64)": np.dtype(np.complex64),
    "tensor(complex128)": np.dtype(np.complex128),
}
_SHAPE = re.compile(r"-?\d{1,12}(x-?\d{1,12})*", re.ASCII | re.IGNORECASE)
_PICTURE_SIDE = 640
_OTHER_SIZE = 64
_MOST_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class _Input:
    """An input of a type that NumPy has; a dimension that is still dynamic is a name or None."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype.name} {_shown(self.dims)})"

    @property
    def layout(self) -> images.Layout | None:
        return images.layout_of(self.dims, self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(dim for dim in self.dims if isinstance(dim, int))


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Return (input name, shape) of a `--shape` such as `input=1x3x640x640`; the name is empty where it is left out.

    Raises UsageError where `text` is no shape, or a dimension is under 1.
    """
    name, _, sizes = text.rpartition("=")
    if not _SHAPE.fullmatch(sizes):
        message = (
            f"--shape {text!r} is not a shape: write name=1x3x640x640, "
            "or 1x3x640x640 alone for a model with a single input."
        )
        raise UsageError(message)
    shape = tuple(int(size) for size in sizes.lower().split("x"))
    if min(shape) < 1:
        message = f"--shape {text!r} has a dimension of {min(shape)}: every dimension has to be at least 1."
        raise UsageError(message)
    return name, shape


def parse_shapes(texts: Iterable[str], specs: Sequence[TensorSpec]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all `--shape` options by input name, for `prepare`.

    Raises UsageError where one is no shape, is given twice, or names no input of a model that has several.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, shape = parse_shape(text)
        if not name and len(specs) != 1:
            names = _quoted(spec.name for spec in specs)
            message = f"--shape {text!r} does not say which input it is for, out of {names}: write name={text}."
            raise UsageError(message)
        name = name or specs[0].name
        if name in shapes:
            message = f"--shape is given twice for the input {name!r}: leave one of them out."
            raise UsageError(message)
        shapes[name] = shape
    return shapes


def prepare(
    specs: Sequence[TensorSpec],
    *,
    source: Path | None,
    shapes: Mapping[str, tuple[int, ...]],
    scale: float,
    target: Path,
) -> InputFacts:
    """Write the model's input arrays to `target`, and return what they are.

    `specs` is the model's signature, `shapes` what `parse_shapes` returned (a dynamic dimension's name stands for one
    size in all inputs), `scale` what pixels are multiplied by. Without a `source` the arrays are made: a drawn picture
    (0 to 255) where an input looks like one, else normally distributed floats, ones for integers (valid as an index,
    a mask, a length and a count), alternating booleans; dynamic dimensions are then 1 for the first, 640 for a
    picture's height and width, 64 for others. A `source` is an .npz file with one array for each input, an .npy file
    for a model with one input, or a picture or folder of pictures (the first 16 by name) for a model with one input
    that takes pictures: those are letterboxed, and repeated to fill the batch.

    `target` becomes an uncompressed .npz file with one array for each input, each with a leading axis of samples; it
    is replaced as a whole. The facts' shapes are those of one sample, and their hash covers names, types, shapes and
    values. Raises UsageError where the signature, the source, a shape or the scale cannot be used.
    """
    inputs = _bound(specs, shapes)
    arrays, told = _made(inputs, scale) if source is None else _reader(source)(source, inputs, scale)
    _write(arrays, target)
    return InputFacts(
        path=str(target),
        sha256=_sha256(arrays),
        shapes={name: array.shape[1:] for name, array in arrays.items()},
        samples=_samples(arrays),
        source=told,
        real=source is not None,
    )


def load(path: Path | str) -> list[Arrays]:
    """Return the samples that `prepare` wrote to `path`, each as contiguous arrays by input name."""
    arrays = _unpack(path)
    return [{name: array[n, ...] for name, array in arrays.items()} for n in range(_samples(arrays))]


def _bound(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> tuple[_Input, ...]:
    """Return the inputs with the dimensions that `shapes` gives, by position or by a shared name."""
    unknown = [name for name in shapes if name not in {spec.name for spec in specs}]
    if unknown:
        names = [spec.name for spec in specs]
        message = (
            f"--shape is given for {unknown[0]!r}{_nearest(unknown[0], names)}, "
            f"but the model's inputs are {_quoted(names)}: write one of those."
        )
        raise UsageError(message)
    sizes: dict[str, int] = {}
    for spec in specs:
        given = shapes.get(spec.name, spec.shape)
        if not _fits(given, spec.shape):
            message = (
                f"--shape gives {_shown(given)} for {spec.name!r}, but the model takes {_shown(spec.shape)}: "
                "keep its rank and its fixed dimensions."
            )
            raise UsageError(message)
        for dim, size in zip(spec.shape, given, strict=True):
            if isinstance(dim, str) and isinstance(size, int) and sizes.setdefault(dim, size) != size:
                message = f"--shape makes the dimension {dim!r} both {sizes[dim]} and {size}: give it one size."
                raise UsageError(message)
    return tuple(
        _Input(
            spec.name,
            _dtype(spec),
            shapes.get(spec.name) or tuple(sizes.get(d, d) if isinstance(d, str) else d for d in spec.shape),
        )
        for spec in specs
    )


def _dtype(spec: TensorSpec) -> np.dtype[Any]:
    if spec.dtype not in _DTYPES:
        message = (
            f"The input {spec.name!r} is a {spec.dtype}, which NumPy cannot hold: "
            f"export the model with inputs of {', '.join(_DTYPES)}."
        )
        raise UsageError(message)
    if 0 in spec.shape:
        message = f"The input {spec.name!r} has the shape {_shown(spec.shape)}, of no elements: export it with another."
        raise UsageError(message)
    return _DTYPES[spec.dtype]


def _fits(shape: Sequence[int | str | None], dims: Sequence[int | str | None]) -> bool:
    fixed = [(size, dim) for size, dim in zip(shape, dims, strict=False) if isinstance(dim, int)]
    return len(shape) == len(dims) and 0 not in shape and all(size == dim for size, dim in fixed)


def _completed(inputs: Iterable[_Input]) -> tuple[tuple[_Input, ...], str]:
    """Return the inputs without dynamic dimensions, and the words for the sizes that these were given."""
    sizes: dict[str, int] = {}
    done: list[_Input] = []
    for one in inputs:
        defaults = {0: ("batch", 1)}
        if one.layout:
            height, width = one.layout.plane
            defaults |= {height: ("height", _PICTURE_SIDE), width: ("width", _PICTURE_SIDE)}
        dims = list(one.dims)
        for axis, dim in enumerate(dims):
            if not isinstance(dim, int):
                role, size = defaults.get(axis, (f"{one.name}[{axis}]", _OTHER_SIZE))
                dims[axis] = sizes.setdefault(dim or role, size)
        done.append(replace(one, dims=tuple(dims)))
    needed = sum(math.prod(one.shape) * one.dtype.itemsize for one in done)
    if needed > _MOST_BYTES:
        inputs_ = ", ".join(map(str, done))
        message = f"The model's input, {inputs_}, would take {needed / 2**30:.1f} GB: choose a smaller --shape."
        raise UsageError(message)
    told = ", ".join(f"{name}={size}" for name, size in sizes.items())
    return tuple(done), f"; dynamic dimensions: {told}" if told else ""


def _made(inputs: Sequence[_Input], scale: float) -> tuple[Arrays, str]:
    completed, note = _completed(inputs)
    if not any(one.layout for one in completed):
        _refuse_scale(scale, "no input of the model takes pictures")
    rng = np.random.default_rng(0)
    arrays = {one.name: _values(one, scale, rng)[np.newaxis] for one in completed}
    return arrays, f"made from the signature{note}"


def _values(one: _Input, scale: float, rng: np.random.Generator) -> NDArray[Any]:
    if one.layout:
        return images.as_tensor(images.drawn(one.shape, one.layout, rng), one.layout, one.dtype, scale)
    values: Mapping[str, Callable[[], NDArray[Any]]] = {
        "f": lambda: np.asarray(rng.standard_normal(one.shape)),
        "c": lambda: np.asarray(rng.standard_normal(one.shape) + 1j * rng.standard_normal(one.shape)),
        "b": lambda: np.arange(math.prod(one.shape)).reshape(one.shape) % 2 == 0,
    }
    return values.get(one.dtype.kind, lambda: np.ones(one.shape))().astype(one.dtype)


def _refuse_scale(scale: float, reason: str) -> None:
    if scale != 1:
        message = f"--input-scale {scale:g} cannot be applied, since {reason}: leave it out."
        raise UsageError(message)


def _reader(source: Path) -> Callable[[Path, Sequence[_Input], float], tuple[Arrays, str]]:
    readers = {".npz": _read_arrays, ".npy": _read_arrays, **dict.fromkeys(images.SUFFIXES, _read_pictures)}
    if not source.exists():
        message = f"There is no file or folder {source} to take the input from: check --input."
        raise UsageError(message)
    if not source.is_dir() and source.suffix.lower() not in readers:
        message = f"{source} cannot be used as input: give a folder of pictures, or a file of {', '.join(readers)}."
        raise UsageError(message)
    return _read_pictures if source.is_dir() else readers[source.suffix.lower()]


def _read_pictures(source: Path, inputs: Sequence[_Input], scale: float) -> tuple[Arrays, str]:
    layout = inputs[0].layout if len(inputs) == 1 else None
    if not layout:
        message = (
            f"{source} is for a model with one input that takes pictures (rank 4, 1 or 3 channels, floats or uint8), "
            f"and this model takes {', '.join(map(str, inputs)) or 'nothing'}: give an .npz file."
        )
        raise UsageError(message)
    (one,), note = _completed(inputs)
    pixels, told = images.read(source, one.shape, layout)
    tensor = images.as_tensor(pixels, layout, one.dtype, scale)
    return {one.name: tensor.reshape(-1, *one.shape)}, f"{told}{note}"


def _read_arrays(source: Path, inputs: Sequence[_Input], scale: float) -> tuple[Arrays, str]:
    _refuse_scale(scale, f"the arrays in {source} are used as they are")
    names = [one.name for one in inputs]
    try:
        arrays = _unpack(source) if source.suffix.lower() == ".npz" else _single(source, names)
    except Exception as error:  # NumPy and zipfile may raise anything on a broken file
        message = f"{source} cannot be read ({error}): save plain arrays with numpy.savez, or one with numpy.save."
        raise UsageError(message) from error
    missing = [name for name in names if name not in arrays]
    strange = [f"{name!r} is none of its inputs{_nearest(name, missing)}" for name in arrays if name not in names]
    if missing or strange:
        faults = "; ".join([f"{name!r} is missing" for name in missing] + strange)
        message = f"{source} holds {_quoted(arrays)}, and the model takes {_quoted(names)}: {faults}."
        raise UsageError(message)
    return {one.name: _checked(arrays[one.name], one, source)[np.newaxis] for one in inputs}, str(source)


def _single(source: Path, names: Sequence[str]) -> Arrays:
    if len(names) != 1:
        message = f"an .npy file holds one array, and the model's inputs are {_quoted(names)}"
        raise ValueError(message)
    with source.open("rb") as stream:
        return {names[0]: np.lib.format.read_array(stream, allow_pickle=False)}


def _checked(array: NDArray[Any], one: _Input, source: Path) -> NDArray[Any]:
    """Return `array` in C order and this machine's byte order, where its type and shape are those of `one`."""
    if array.dtype.name != one.dtype.name:
        message = (
            f"{source} holds {one.name!r} as {array.dtype.name}, and the model takes {one.dtype.name}: "
            f"convert it with astype('{one.dtype.name}')."
        )
        raise UsageError(message)
    if not _fits(array.shape, one.dims):
        message = (
            f"{source} holds {one.name!r} in the shape {_shown(array.shape)}, and the model (with --shape, where given) "
            f"takes {_shown(one.dims)}: change one of them."
        )
        raise UsageError(message)
    return np.asarray(array, one.dtype, order="C")


def _unpack(path: Path | str) -> Arrays:
    import zipfile  # noqa: PLC0415 - NumPy, too, imports it late

    arrays: Arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                arrays[member.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _write(arrays: Arrays, target: Path) -> None:
    import zipfile  # noqa: PLC0415

    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        partial.replace(target)
    except OSError as error:
        message = f"The input arrays cannot be written to {target} ({error.strerror}): make room, or the folder."
        raise UsageError(message) from error
    finally:
        partial.unlink(missing_ok=True)


def _sha256(arrays: Arrays) -> str:
    import hashlib  # noqa: PLC0415

    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.name, array.shape)).encode())
        digest.update(array)
    return digest.hexdigest()


def _samples(arrays: Arrays) -> int:
    return next((len(array) for array in arrays.values()), 1)


def _shown(dims: Iterable[int | str | None]) -> str:
    return f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _nearest(name: str, names: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415

    return "".join(f" (did you mean {near!r}?)" for near in difflib.get_close_matches(name, list(names), 1))
