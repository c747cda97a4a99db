"""The arrays that a study runs its model on: made from the signature, or the user's own, checked and kept in one file.

`prepare` is for the parent, which has the model's signature and never opens the model; `load` is for its children.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rtmo_optuna.cache import replacing
from rtmo_optuna.engine.arrays import read_npy, read_npz
from rtmo_optuna.engine.feed import DTYPES, is_fixed
from rtmo_optuna.engine.inputs import images
from rtmo_optuna.engine.inputs.guesses import FIRST, Guess, is_batch
from rtmo_optuna.engine.inputs.pixels import as_pictures, settled
from rtmo_optuna.engine.inputs.shapes import batched, bound, dims_text, fits, named, nearest, quoted, told
from rtmo_optuna.errors import LostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rtmo_optuna.types.request import Pixels, TensorSpec
    from rtmo_optuna.types.subject import InputFacts

    Arrays: TypeAlias = dict[str, NDArray[Any]]
    Shape: TypeAlias = tuple[int, ...]
    Reader: TypeAlias = Callable[[Path, Sequence[TensorSpec], float], tuple[Arrays, str]]

_MOST_BYTES = 4 * 2**30
_MOST_SAMPLES = 32


def prepare(
    specs: Sequence[TensorSpec],
    *,
    source: Path | None,
    shapes: Mapping[str, Shape],
    scale: float,
    target: Path,
    batch: int | None = None,
    guess: Guess = FIRST,
    pixels: Pixels | None = None,
) -> InputFacts:
    """Write the model's input arrays to `target`, and return what they are.

    `specs` is the model's signature, `shapes` what `parse_shapes` returned (a dynamic dimension's name stands for one
    size in all inputs), `batch` the size of leading dimensions that neither gives, `scale` what pixels are multiplied
    by. Without a `source` the arrays are made: a drawn picture (0 to 255) where an input looks like one, else normally
    distributed floats, alternating booleans, and for integers and dynamic dimensions what `guess` says: at first ones
    (valid as index, mask and length alike), 640 for a picture's height and width, 1 for a batch, 64 for others. A
    `source` is an .npz file with one array for each input, an .npy file for a model with one input, or a picture or
    folder of pictures (the first 32 by name), letterboxed, for a model with one input that takes pictures. Arrays with
    one more axis than the inputs have hold up to 32 samples along it. Pictures, and arrays of one item, are repeated to
    fill the batch. One picture in a file of arrays may lack its batch. With `pixels` that input's arrays are uint8, as
    they are fed, and `scale` is left to the session.

    `target` becomes, atomically, an uncompressed .npz file with one array for each input, each with a leading axis of
    samples. The facts' shapes are those of one sample; their hash covers names, types, shapes and values. Raises
    UsageError where the signature, the source, a shape or the scale cannot be used, LostError where there is no room.
    """
    bounded = [batched(spec, batch) for spec in bound(specs, shapes)]
    fed = bounded
    if pixels:
        bounded, pixels = settled(bounded, pixels)
        fed = [as_pictures(spec) if spec.name == pixels.input else spec for spec in bounded]
        scale = 1.0
    wanting = "a session that takes pixels (--pixels) wants" if pixels else "the model or --shape wants"
    arrays, words = _made(fed, scale, guess) if source is None else _reader(source, wanting)(source, fed, scale)
    sizes = {name: array.shape[1:] for name, array in arrays.items()}
    if pixels:
        batch, height, width, channels = sizes[pixels.input]
        sizes[pixels.input] = (batch, channels, height, width)
        arrays |= {pixels.input: arrays[pixels.input][:, 0]} if batch == 1 else {}
        words = f"{words}, as pixels"
    _write(arrays, target)
    from rtmo_optuna.types.subject import InputFacts  # noqa: PLC0415 - a child needs `load` only

    return InputFacts(
        path=str(target),
        sha256=_sha256(arrays),
        shapes=sizes,
        samples=_samples(arrays),
        source=words,
        real=source is not None,
        free_dimensions=named(specs, bounded),
        fixed=all(is_fixed(spec.shape) and len(sizes[spec.name]) == len(spec.shape) for spec in bounded),
        pixels=pixels,
    )


def load(path: Path | str) -> list[Arrays]:
    """Return the samples that `prepare` wrote to `path`, each as contiguous arrays by input name."""
    arrays = _unpack(path)
    return [{name: array[n, ...] for name, array in arrays.items()} for n in range(_samples(arrays))]


def _completed(specs: Sequence[TensorSpec], guess: Guess = FIRST) -> tuple[dict[str, Shape], str]:
    """Return each input's shape, and the words for the sizes that its dynamic dimensions were given."""
    sizes: dict[str, int] = {}
    shapes: dict[str, Shape] = {}
    for spec in specs:
        roles = _roles(spec, guess)
        shape = [
            d if isinstance(d, int) else sizes.setdefault(d or roles[n][0], roles[n][1])
            for n, d in enumerate(spec.shape)
        ]
        shapes[spec.name] = tuple(shape)
    needed = sum(math.prod(shapes[spec.name]) * DTYPES[spec.dtype].itemsize for spec in specs)
    if needed > _MOST_BYTES:
        message = f"Inputs of the shapes {shapes} take {needed / 2**30:.1f} GB: choose smaller ones with --shape."
        raise UsageError(message)
    words = ", ".join(f"{name}={size}" for name, size in sizes.items())
    return shapes, f"; dynamic dimensions: {words}" if words else ""


def _roles(spec: TensorSpec, guess: Guess) -> list[tuple[str, int]]:
    """Return what each dimension of an input is called, and its size, where the model leaves it open."""
    layout = images.layout_of(spec)
    planes = dict(zip(layout.plane, (("height", guess.height), ("width", guess.width)), strict=True)) if layout else {}
    return [
        planes.get(axis) or (("batch", 1) if is_batch(spec, axis) else (f"{spec.name}[{axis}]", guess.size))
        for axis in range(len(spec.shape))
    ]


def _made(specs: Sequence[TensorSpec], scale: float, guess: Guess) -> tuple[Arrays, str]:
    if not any(map(images.layout_of, specs)):
        _refuse_scale(scale, "no input of the model takes pictures")
    shapes, note = _completed(specs, guess)
    rng = np.random.default_rng(0)
    arrays = {spec.name: _values(spec, shapes[spec.name], scale, rng, guess)[np.newaxis] for spec in specs}
    return arrays, f"made from the signature{note}"


def _values(spec: TensorSpec, shape: Shape, scale: float, rng: np.random.Generator, guess: Guess) -> NDArray[Any]:
    dtype = DTYPES[spec.dtype]
    if layout := images.layout_of(spec):
        return images.as_tensor(images.drawn(shape, layout, rng), layout, dtype, scale)
    values: Mapping[str, Callable[[], Any]] = {
        "f": lambda: rng.standard_normal(shape),
        "c": lambda: rng.standard_normal(shape) + 1j * rng.standard_normal(shape),
        "b": lambda: np.arange(math.prod(shape)).reshape(shape) % 2 == 0,
        **dict.fromkeys("iu", lambda: np.full(shape, guess.integer)),
    }
    return np.asarray(values[dtype.kind](), dtype)


def _refuse_scale(scale: float, reason: str) -> None:
    if scale != 1:
        message = f"--input-scale {scale:g} cannot be applied, since {reason}: leave it out."
        raise UsageError(message)


def _reader(source: Path, wanting: str) -> Reader:
    pictures = dict.fromkeys(("a folder", *images.SUFFIXES), _read_pictures)
    arrays = dict.fromkeys((".npz", ".npy"), partial(_read_arrays, wanting))
    readers: dict[str, Reader] = {**arrays, **pictures}
    kind = "a folder" if source.is_dir() else source.suffix.lower()
    if kind not in readers or not source.exists():
        fault = "cannot be used as input" if source.exists() else "does not exist"
        message = f"{source} {fault}: give --input one of {', '.join(readers)}."
        raise UsageError(message)
    return readers[kind]


def _read_pictures(source: Path, specs: Sequence[TensorSpec], scale: float) -> tuple[Arrays, str]:
    if len(specs) != 1 or not (layout := images.layout_of(specs[0])):
        taken = ", ".join(map(told, specs)) or "nothing"
        needed = "one input of rank 4, with 1 or 3 channels of floats or uint8"
        message = f"Pictures ({source}) need {needed}, but the model takes {taken}: give an .npz file."
        raise UsageError(message)
    (spec,), (shapes, note) = specs, _completed(specs)
    pixels, words = images.read(source, shapes[spec.name], layout)
    tensor = images.as_tensor(pixels, layout, DTYPES[spec.dtype], scale)
    return {spec.name: tensor.reshape(-1, *shapes[spec.name])}, f"{words}{note}"


def _read_arrays(wanting: str, source: Path, specs: Sequence[TensorSpec], scale: float) -> tuple[Arrays, str]:
    _refuse_scale(scale, f"the arrays in {source} are used as they are")
    names = [spec.name for spec in specs]
    single = source.suffix.lower() == ".npy"
    if single and len(specs) != 1:
        message = f"{source} holds one array, but the model takes {quoted(names)}: give an .npz file."
        raise UsageError(message)
    try:
        arrays = {names[0]: read_npy(source)} if single else read_npz(source)
    except Exception as error:  # NumPy and zipfile may raise anything on a broken file
        why = " ".join(str(error).split())
        message = f"{source} cannot be read ({why}): save plain arrays with numpy.savez, or one with numpy.save."
        raise UsageError(message) from error
    missing = [name for name in names if name not in arrays]
    faults = [f"{name!r} is missing" for name in missing]
    faults += [f"{name!r} is none of its inputs{nearest(name, missing)}" for name in arrays if name not in names]
    if faults:
        message = f"{source} holds {quoted(arrays)}, but the model takes {quoted(names)}: {'; '.join(faults)}."
        raise UsageError(message)
    if all(arrays[spec.name].ndim == len(spec.shape) + 1 for spec in specs):
        return _sampled({spec.name: arrays[spec.name] for spec in specs}, specs, source, wanting)
    return {spec.name: _checked(arrays[spec.name], spec, source, wanting)[np.newaxis] for spec in specs}, str(source)


def _sampled(arrays: Arrays, specs: Sequence[TensorSpec], source: Path, wanting: str) -> tuple[Arrays, str]:
    """Return `arrays` that hold samples along an axis before the model's own."""
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or not 0 < max(counts.values()) <= _MOST_SAMPLES:
        held = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise UsageError(f"{source} holds samples ({held}): give each input as many, {_MOST_SAMPLES} at most.")
    each = {spec.name: [_checked(one, spec, source, wanting) for one in arrays[spec.name]] for spec in specs}
    return {name: np.stack(one) for name, one in each.items()}, f"{source} ({max(counts.values())} samples)"


def _checked(array: NDArray[Any], spec: TensorSpec, source: Path, wanting: str) -> NDArray[Any]:
    """Return `array` in C order and this machine's byte order, where its type and shape are those of `spec`."""
    dtype = DTYPES[spec.dtype]
    if images.layout_of(spec) and array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]
    if array.shape[:1] == (1,) and spec.shape and isinstance(spec.shape[0], int):
        array = np.repeat(array, spec.shape[0], axis=0)
    if array.dtype.name != dtype.name or not fits(array.shape, spec.shape):
        held = f"{source} holds {spec.name!r} as {array.dtype.name} {dims_text(array.shape)}"
        message = f"{held}, but {wanting} {dtype.name} {dims_text(spec.shape)}: convert the array."
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

    try:
        with replacing(target) as fresh, zipfile.ZipFile(fresh, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    except OSError as error:
        message = f"The input arrays cannot be written to {target} ({error.strerror}): make room, or the folder."
        raise LostError(message) from error


def _sha256(arrays: Arrays) -> str:
    import hashlib  # noqa: PLC0415

    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.name, array.shape)).encode())
        digest.update(array.data)
    return digest.hexdigest()


def _samples(arrays: Arrays) -> int:
    return next((len(array) for array in arrays.values()), 1)
