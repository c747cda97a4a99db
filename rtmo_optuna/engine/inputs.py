"""The arrays that a study runs its model on: made from the signature, or the user's own, checked and kept in one file.

`prepare` is for the parent, which has the model's signature and never opens the model; `load` is for its children.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rtmo_optuna.engine import images
from rtmo_optuna.engine.feed import DTYPES, is_fixed
from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rtmo_optuna.records import InputFacts
    from rtmo_optuna.wire import TensorSpec

    Arrays: TypeAlias = dict[str, NDArray[Any]]
    Shape: TypeAlias = tuple[int, ...]

_SIZES = re.compile(r"[1-9][0-9]{0,11}(x[1-9][0-9]{0,11})*", re.IGNORECASE)
_OTHER_SIZE = 64
_MOST_BYTES = 4 * 2**30


def parse_shape(text: str) -> tuple[str, Shape]:
    """Return (input name, shape) of a `--shape` such as `input=1x3x640x640`; the name is empty where it is left out.

    Raises UsageError where `text` is no shape of positive dimensions.
    """
    name, _, sizes = text.rpartition("=")
    if not _SIZES.fullmatch(sizes):
        message = f"--shape {text!r} is not a shape of positive numbers: write name=1x3x640x640, or 1x3x640x640 alone."
        raise UsageError(message)
    return name, tuple(int(size) for size in sizes.lower().split("x"))


def parse_shapes(texts: Iterable[str], specs: Sequence[TensorSpec]) -> dict[str, Shape]:
    """Return the shapes of all `--shape` options by input name, as `prepare` takes them.

    Raises UsageError where one is no shape, is given twice, or names no input of a model that has several.
    """
    shapes: dict[str, Shape] = {}
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
    shapes: Mapping[str, Shape],
    scale: float,
    target: Path,
    batch: int | None = None,
) -> InputFacts:
    """Write the model's input arrays to `target`, and return what they are.

    `specs` is the model's signature, `shapes` what `parse_shapes` returned (a dynamic dimension's name stands for one
    size in all inputs), `batch` the size of leading dimensions that neither gives, `scale` what pixels are multiplied
    by. Without a `source` the arrays are made: a drawn picture
    (0 to 255) where an input looks like one, else normally distributed floats, ones for integers (valid as index, mask
    and length alike), alternating booleans; dynamic dimensions are then 1 for the first, 640 for a picture's height
    and width, 64 for others. A `source` is an .npz file with one array for each input, an .npy file for a model with
    one input, or a picture or folder of pictures (the first 16 by name), letterboxed, for a model with one input that
    takes pictures. Pictures, and arrays of one item, are repeated to fill the batch.

    `target` becomes, atomically, an uncompressed .npz file with one array for each input, each with a leading axis of
    samples. The facts' shapes are those of one sample; their hash covers names, types, shapes and values. Raises
    UsageError where the signature, the source, a shape or the scale cannot be used.
    """
    bound = [_batched(spec, batch) for spec in _bound(specs, shapes)]
    arrays, told = _made(bound, scale) if source is None else _reader(source)(source, bound, scale)
    _write(arrays, target)
    from rtmo_optuna.records import InputFacts  # noqa: PLC0415 - a child needs `load` only

    return InputFacts(
        path=str(target),
        sha256=_sha256(arrays),
        shapes={name: array.shape[1:] for name, array in arrays.items()},
        samples=_samples(arrays),
        source=told,
        real=source is not None,
        free_dimensions=_named(specs, bound),
        fixed=all(is_fixed(spec.shape) for spec in bound),
    )


def load(path: Path | str) -> list[Arrays]:
    """Return the samples that `prepare` wrote to `path`, each as contiguous arrays by input name."""
    arrays = _unpack(path)
    return [{name: array[n, ...] for name, array in arrays.items()} for n in range(_samples(arrays))]


def _bound(specs: Sequence[TensorSpec], shapes: Mapping[str, Shape]) -> list[TensorSpec]:
    """Return the signature with the dimensions that `shapes` gives, by position or by a shared name."""
    specs = [replace(spec, shape=tuple(_size_or_name(dim) for dim in spec.shape)) for spec in specs]
    names = [spec.name for spec in specs]
    for name in shapes:
        if name not in names:
            message = f"--shape is given for {name!r}{_nearest(name, names)}, but the model takes {_quoted(names)}."
            raise UsageError(message)
    sizes: dict[str, int] = {}
    for spec in specs:
        _check_usable(spec)
        given = shapes.get(spec.name, spec.shape)
        if not _fits(given, spec.shape):
            wanted = _told(replace(spec, shape=given))
            message = f"--shape asks for {wanted}, but the model takes {_told(spec)}: keep its rank and fixed sizes."
            raise UsageError(message)
        for dim, size in zip(spec.shape, given, strict=True):
            if isinstance(dim, str) and isinstance(size, int) and sizes.setdefault(dim, size) != size:
                message = f"--shape makes the dimension {dim!r} both {sizes[dim]} and {size}: give it one size."
                raise UsageError(message)
    shared = {spec.name: tuple(sizes.get(d, d) if isinstance(d, str) else d for d in spec.shape) for spec in specs}
    return [replace(spec, shape=shapes.get(spec.name, shared[spec.name])) for spec in specs]


def _batched(spec: TensorSpec, batch: int | None) -> TensorSpec:
    """Return `spec` with `batch` for its leading dimension, where that is open."""
    if batch is None or not spec.shape or spec.shape[0] == batch:
        return spec
    if isinstance(spec.shape[0], int):
        message = (
            f"The study wants a batch of {batch}, but the model takes {_told(spec)}: export it with an open batch, or "
            "choose another study."
        )
        raise UsageError(message)
    return replace(spec, shape=(batch, *spec.shape[1:]))


def _named(specs: Sequence[TensorSpec], bound: Sequence[TensorSpec]) -> dict[str, int]:
    """Return the sizes that the signature's symbolic dimensions were bound to, by their names.

    A name that is not bound everywhere, or to several sizes, stands for nothing: some exporters call every one `?`.
    """
    sizes: dict[str, set[int | str | None]] = {}
    for one, other in zip(specs, bound, strict=True):
        for name, size in zip(one.shape, other.shape, strict=True):
            if isinstance(name, str):
                sizes.setdefault(name, set()).add(size)
    single = {name: next(iter(found)) for name, found in sizes.items() if len(found) == 1}
    return {name: size for name, size in single.items() if isinstance(size, int)}


def _size_or_name(dim: int | str | None) -> int | str | None:
    """Return a dimension's size or name, None for what is neither: some exporters call every unknown one `?`."""
    return dim if isinstance(dim, int) or (dim and dim.isidentifier()) else None


def _check_usable(spec: TensorSpec) -> None:
    if spec.dtype not in DTYPES or 0 in spec.shape:
        fault = "has no elements" if spec.dtype in DTYPES else f"is of none of the types {', '.join(DTYPES)}"
        message = f"The input {_told(spec)} {fault}, so it cannot be fed: export the model with another input."
        raise UsageError(message)


def _fits(shape: Sequence[int | str | None], dims: Sequence[int | str | None]) -> bool:
    """Whether `shape` has the rank and the fixed sizes of `dims`, and no size under 1."""
    same = all(size == dim for size, dim in zip(shape, dims, strict=False) if isinstance(dim, int))
    return same and len(shape) == len(dims) and all(size > 0 for size in shape if isinstance(size, int))


def _completed(specs: Sequence[TensorSpec]) -> tuple[dict[str, Shape], str]:
    """Return each input's shape, and the words for the sizes that its dynamic dimensions were given."""
    sizes: dict[str, int] = {}
    shapes: dict[str, Shape] = {}
    for spec in specs:
        layout = images.layout_of(spec)
        defaults = {0: ("batch", 1)} | (layout.defaults if layout else {})
        shape: list[int] = []
        for axis, dim in enumerate(spec.shape):
            role, size = defaults.get(axis, (f"{spec.name}[{axis}]", _OTHER_SIZE))
            shape.append(dim if isinstance(dim, int) else sizes.setdefault(dim or role, size))
        shapes[spec.name] = tuple(shape)
    needed = sum(math.prod(shapes[spec.name]) * DTYPES[spec.dtype].itemsize for spec in specs)
    if needed > _MOST_BYTES:
        message = f"Inputs of the shapes {shapes} take {needed / 2**30:.1f} GB: choose smaller ones with --shape."
        raise UsageError(message)
    told = ", ".join(f"{name}={size}" for name, size in sizes.items())
    return shapes, f"; dynamic dimensions: {told}" if told else ""


def _made(specs: Sequence[TensorSpec], scale: float) -> tuple[Arrays, str]:
    if not any(map(images.layout_of, specs)):
        _refuse_scale(scale, "no input of the model takes pictures")
    shapes, note = _completed(specs)
    rng = np.random.default_rng(0)
    arrays = {spec.name: _values(spec, shapes[spec.name], scale, rng)[np.newaxis] for spec in specs}
    return arrays, f"made from the signature{note}"


def _values(spec: TensorSpec, shape: Shape, scale: float, rng: np.random.Generator) -> NDArray[Any]:
    dtype = DTYPES[spec.dtype]
    if layout := images.layout_of(spec):
        return images.as_tensor(images.drawn(shape, layout, rng), layout, dtype, scale)
    values: Mapping[str, Callable[[], Any]] = {
        "f": lambda: rng.standard_normal(shape),
        "c": lambda: rng.standard_normal(shape) + 1j * rng.standard_normal(shape),
        "b": lambda: np.arange(math.prod(shape)).reshape(shape) % 2 == 0,
    }
    return np.asarray(values.get(dtype.kind, lambda: np.ones(shape))(), dtype)


def _refuse_scale(scale: float, reason: str) -> None:
    if scale != 1:
        message = f"--input-scale {scale:g} cannot be applied, since {reason}: leave it out."
        raise UsageError(message)


def _reader(source: Path) -> Callable[[Path, Sequence[TensorSpec], float], tuple[Arrays, str]]:
    pictures = dict.fromkeys(("a folder", *images.SUFFIXES), _read_pictures)
    readers = {".npz": _read_arrays, ".npy": _read_arrays, **pictures}
    kind = "a folder" if source.is_dir() else source.suffix.lower()
    if kind not in readers or not source.exists():
        fault = "cannot be used as input" if source.exists() else "does not exist"
        message = f"{source} {fault}: give --input one of {', '.join(readers)}."
        raise UsageError(message)
    return readers[kind]


def _read_pictures(source: Path, specs: Sequence[TensorSpec], scale: float) -> tuple[Arrays, str]:
    if len(specs) != 1 or not (layout := images.layout_of(specs[0])):
        taken = ", ".join(map(_told, specs)) or "nothing"
        needed = "one input of rank 4, with 1 or 3 channels of floats or uint8"
        message = f"Pictures ({source}) need {needed}, but the model takes {taken}: give an .npz file."
        raise UsageError(message)
    (spec,), (shapes, note) = specs, _completed(specs)
    pixels, told = images.read(source, shapes[spec.name], layout)
    tensor = images.as_tensor(pixels, layout, DTYPES[spec.dtype], scale)
    return {spec.name: tensor.reshape(-1, *shapes[spec.name])}, f"{told}{note}"


def _read_arrays(source: Path, specs: Sequence[TensorSpec], scale: float) -> tuple[Arrays, str]:
    _refuse_scale(scale, f"the arrays in {source} are used as they are")
    names = [spec.name for spec in specs]
    single = source.suffix.lower() == ".npy"
    if single and len(specs) != 1:
        message = f"{source} holds one array, but the model takes {_quoted(names)}: give an .npz file."
        raise UsageError(message)
    try:
        arrays = {names[0]: np.array(np.lib.format.open_memmap(source, mode="r"))} if single else _unpack(source)
    except Exception as error:  # NumPy and zipfile may raise anything on a broken file
        why = " ".join(str(error).split())
        message = f"{source} cannot be read ({why}): save plain arrays with numpy.savez, or one with numpy.save."
        raise UsageError(message) from error
    missing = [name for name in names if name not in arrays]
    faults = [f"{name!r} is missing" for name in missing]
    faults += [f"{name!r} is none of its inputs{_nearest(name, missing)}" for name in arrays if name not in names]
    if faults:
        message = f"{source} holds {_quoted(arrays)}, but the model takes {_quoted(names)}: {'; '.join(faults)}."
        raise UsageError(message)
    return {spec.name: _checked(arrays[spec.name], spec, source)[np.newaxis] for spec in specs}, str(source)


def _checked(array: NDArray[Any], spec: TensorSpec, source: Path) -> NDArray[Any]:
    """Return `array` in C order and this machine's byte order, where its type and shape are those of `spec`."""
    dtype = DTYPES[spec.dtype]
    if array.shape[:1] == (1,) and spec.shape and isinstance(spec.shape[0], int):
        array = np.repeat(array, spec.shape[0], axis=0)
    if array.dtype.name != dtype.name or not _fits(array.shape, spec.shape):
        held = f"{source} holds {spec.name!r} as {array.dtype.name} {_dims(array.shape)}"
        message = f"{held}, but the model or --shape wants {dtype.name} {_dims(spec.shape)}: convert the array."
        raise UsageError(message)
    return np.asarray(array, dtype, order="C")


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
        digest.update(array.data)
    return digest.hexdigest()


def _samples(arrays: Arrays) -> int:
    return next((len(array) for array in arrays.values()), 1)


def _dims(dims: Iterable[int | str | None]) -> str:
    return f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def _told(spec: TensorSpec) -> str:
    return f"{spec.name!r} ({spec.dtype} {_dims(spec.shape)})"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _nearest(name: str, names: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415

    return "".join(f" (did you mean {near!r}?)" for near in difflib.get_close_matches(name, list(names), 1))
