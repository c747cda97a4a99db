"""Dataclasses to JSON-ready values and back, driven by their type hints."""

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def encode(value: object) -> Any:  # noqa: ANN401 - JSON has no better type
    """Return `value` as dicts, lists, strings, numbers, booleans and None.

    A class with a `to_plain` method and a `from_plain` class method speaks for itself. Raises TypeError for anything
    that JSON cannot hold.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, enum.Enum) else value
    if hasattr(value, "to_plain"):
        return value.to_plain()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    raise TypeError(f"JSON cannot hold a {type(value).__name__}.")


def decode(kind: type[T], plain: object) -> T:
    """Return the `kind` that `encode` wrote as `plain`; fields that `plain` lacks take their defaults.

    Raises KeyError, TypeError or ValueError where `plain` does not fit.
    """
    return typing.cast("T", _decode(kind, plain))


def _decode(kind: Any, plain: Any) -> Any:  # noqa: ANN401, C901, PLR0911 - a case for each kind of type hint
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is object:
        return plain
    if origin in {typing.Union, types.UnionType}:
        return _decode_union(arguments, plain)
    if hasattr(kind, "from_plain"):
        return kind.from_plain(plain)
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast("type", kind))
        if not isinstance(plain, dict) or not plain.keys() <= hints.keys():
            raise TypeError(f"{plain!r} is no {typing.cast('type', kind).__name__}.")
        return typing.cast("Any", kind)(**{name: _decode(hints[name], item) for name, item in plain.items()})
    if origin is tuple:
        if not isinstance(plain, list | tuple):
            raise TypeError(f"{plain!r} is no list.")
        if arguments[-1] is Ellipsis:
            return tuple(_decode(arguments[0], item) for item in plain)
        return tuple(_decode(one, item) for one, item in zip(arguments, plain, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {key: _decode(arguments[1], item) for key, item in plain.items()}
    if issubclass(kind, enum.Enum):
        return kind(plain)
    fits = isinstance(plain, kind) or (kind is float and isinstance(plain, int))
    if not fits or (isinstance(plain, bool) and kind is not bool):
        raise TypeError(f"{plain!r} is no {kind.__name__}.")
    return plain


def _decode_union(kinds: tuple[Any, ...], plain: object) -> object:
    if plain is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is type(plain):
            return plain
    for kind in kinds:
        if kind is not type(None):
            try:
                return _decode(kind, plain)
            except (TypeError, ValueError, KeyError, AttributeError):
                continue
    raise TypeError(f"{plain!r} fits none of {kinds}.")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
