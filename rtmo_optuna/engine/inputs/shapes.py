"""The shapes of a model's inputs: what `--shape` and a study's batch make of the signature, and how shapes are told."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from rtmo_optuna.engine.feed import DTYPES
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import TensorSpec

Shape: TypeAlias = tuple[int, ...]

_SIZES = re.compile(r"(0|[1-9][0-9]{0,11})(x(0|[1-9][0-9]{0,11}))*", re.IGNORECASE)


def parse_shape(text: str) -> tuple[str, Shape]:
    """Return (input name, shape) of a `--shape` such as `input=1x3x640x640`; the name is empty where it is left out.

    A dimension may be 0, as a decoder's past is that has none yet. Raises UsageError where `text` is no shape.
    """
    name, _, sizes = text.rpartition("=")
    if not _SIZES.fullmatch(sizes):
        message = f"--shape {text!r} is not a shape of whole numbers: write name=1x3x640x640, or 1x3x640x640 alone."
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
            names = quoted(spec.name for spec in specs)
            raise UsageError(f"--shape {text!r} does not say which input it is for, out of {names}: write name={text}.")
        name = name or specs[0].name
        if name in shapes:
            raise UsageError(f"--shape is given twice for the input {name!r}: leave one of them out.")
        shapes[name] = shape
    return shapes


def bound(specs: Sequence[TensorSpec], shapes: Mapping[str, Shape], option: str = "--shape") -> list[TensorSpec]:
    """Return the signature with the dimensions that `shapes` gives, by position or by a shared name.

    Raises UsageError where it cannot have them; `option` is what gave them.
    """
    specs = [replace(spec, shape=tuple(_size_or_name(dim) for dim in spec.shape)) for spec in specs]
    names = [spec.name for spec in specs]
    for name in shapes:
        if name not in names:
            message = f"{option} is given for {name!r}{nearest(name, names)}, but the model takes {quoted(names)}."
            raise UsageError(message)
    sizes: dict[str, int] = {}
    for spec in specs:
        _check_usable(spec)
        given = shapes.get(spec.name, spec.shape)
        if not fits(given, spec.shape):
            wanted = told(replace(spec, shape=given))
            message = f"{option} asks for {wanted}, but the model takes {told(spec)}: keep its rank and fixed sizes."
            raise UsageError(message)
        for dim, size in zip(spec.shape, given, strict=False):
            if isinstance(dim, str) and isinstance(size, int) and sizes.setdefault(dim, size) != size:
                message = f"{option} makes the dimension {dim!r} both {sizes[dim]} and {size}: give it one size."
                raise UsageError(message)
    shared = {spec.name: tuple(sizes.get(d, d) if isinstance(d, str) else d for d in spec.shape) for spec in specs}
    return [replace(spec, shape=shapes.get(spec.name, shared[spec.name])) for spec in specs]


def batched(spec: TensorSpec, batch: int | None) -> TensorSpec:
    """Return `spec` with `batch` for its leading dimension, where that is open."""
    if batch is None or not spec.shape or spec.shape[0] == batch:
        return spec
    if isinstance(spec.shape[0], int):
        raise UsageError(
            f"The study wants a batch of {batch}, but the model takes {told(spec)}: export it with an open batch, or "
            "choose another study."
        )
    return replace(spec, shape=(batch, *spec.shape[1:]))


def named(specs: Sequence[TensorSpec], fixed: Sequence[TensorSpec]) -> dict[str, int]:
    """Return the sizes that the signature's symbolic dimensions were bound to, by their names.

    A name that is not bound everywhere, or to several sizes, stands for nothing: some exporters call every one `?`.
    """
    sizes: dict[str, set[int | str | None]] = {}
    for one, other in zip(specs, fixed, strict=True):
        for name, size in zip(one.shape, other.shape, strict=False):
            if isinstance(name, str):
                sizes.setdefault(name, set()).add(size)
    single = {name: next(iter(found)) for name, found in sizes.items() if len(found) == 1}
    return {name: size for name, size in single.items() if isinstance(size, int)}


def _size_or_name(dim: int | str | None) -> int | str | None:
    """Return a dimension's size or name, None for what is neither: some exporters call every unknown one `?`."""
    return dim if isinstance(dim, int) or (dim and dim.isidentifier()) else None


def _check_usable(spec: TensorSpec) -> None:
    if spec.dtype not in DTYPES:
        fault = f"is of none of the types {', '.join(DTYPES)}"
        raise UsageError(f"The input {told(spec)} {fault}, so it cannot be fed: export the model with another input.")


def fits(shape: Sequence[int | str | None], dims: Sequence[int | str | None]) -> bool:
    """Whether `shape` has the rank and the fixed sizes of `dims`, and no negative size.

    Empty `dims` stand for a scalar and for an unknown rank alike: any shape may fit.
    """
    same = all(size == dim for size, dim in zip(shape, dims, strict=False) if isinstance(dim, int))
    known = not dims or len(shape) == len(dims)
    return same and known and all(size >= 0 for size in shape if isinstance(size, int))


def dims_text(dims: Iterable[int | str | None]) -> str:
    """Return a shape in words."""
    return f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def told(spec: TensorSpec) -> str:
    """Return an input in words: name, type and shape."""
    return f"{spec.name!r} ({spec.dtype} {dims_text(spec.shape)})"


def quoted(names: Iterable[str]) -> str:
    """Return `names` as a list in words."""
    return ", ".join(map(repr, names)) or "nothing"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return what to say of a `name` that is none of `names`; empty where none is near."""
    import difflib  # noqa: PLC0415

    return "".join(f" (did you mean {near!r}?)" for near in difflib.get_close_matches(name, list(names), 1))
