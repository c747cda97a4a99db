"""How a knob's value may be spelt, and how it is written."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import Value

if TYPE_CHECKING:
    from rtmo_optuna.providers.base import Knob

_WORDS: dict[Value, set[str]] = {
    None: {"none", "null", "0"},
    True: {"true", "yes", "on", "1"},
    False: {"false", "no", "off", "0"},
}
_ENUMS = {
    "ort_disable_all": "0",
    "ort_enable_basic": "1",
    "ort_enable_extended": "2",
    "ort_enable_layout": "3",
    "ort_enable_all": "99",
    "ort_sequential": "0",
    "ort_parallel": "1",
}
"""The numbers of ONNX Runtime's enumerations."""
_RESERVED = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
_PLAIN = re.compile(r"[A-Za-z_]([A-Za-z0-9_ ./+%()@-]*[A-Za-z0-9_./+%()@-])?|[0-9]+%")
_BARE_EXPONENT = re.compile(r"^(-?[0-9]+)e")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


def parse_value(knob: Knob, raw: object) -> Value:
    """Return the value of `knob` that `raw`, a scalar or its text, stands for.

    Case does not matter, `ORT_` and `ORT_ENABLE_` may be left out, an enumeration's number stands for its name, true,
    yes, on and 1 are one, and so are none, null and 0 where a knob may be None. An `open` knob takes other positive
    numbers than its choices too: whole ones where its default is one; a knob with a pattern takes texts that fit it.
    Raises UsageError, without a place, for anything else.
    """
    number = _number(raw)
    whole = isinstance(knob.default, int)
    if knob.pattern and re.fullmatch(knob.pattern, str(raw)):
        return str(raw)
    if knob.open and number and not (whole and isinstance(number, float)):
        return number
    other = f", or another {'whole ' if whole else ''}number" if knob.open else ""
    return parse_choice(knob.name, (*knob.choices, *knob.also), raw if number is None else number, other)


def parse_choice(name: str, choices: Iterable[Value], raw: object, other: str = "") -> Value:
    """Return the one of `choices` that `raw` spells.

    Raises UsageError, without a place, where there is none; `other` says what else `name` could be.
    """
    known = list(choices)
    text = shown(raw).strip().lower()
    for choice in known:
        if text in _spellings(choice):
            return choice
    raise UsageError(f"{name} cannot be {shown(raw)!r}. {advice(text, known, other)}")


def advice(given: str, known: Iterable[Value], other: str = "") -> str:
    """Return a sentence that names the one of `known` nearest to `given`, or all of them and `other`."""
    values = list(known)
    near = nearest(given, values)
    return f"Did you mean {near!r}?" if near else f"Known: {', '.join(map(shown, values))}{other}."


def nearest(given: str, known: Iterable[Value]) -> str:
    """Return the one of `known` that is spelled most like `given`, nothing where none is near."""
    names = {spelling: shown(value) for value in known for spelling in (shown(value).lower(), *_spellings(value))}
    return next((names[near] for near in difflib.get_close_matches(given.lower(), names, n=1)), "")


def shown(raw: object) -> str:
    """Return a value as YAML writes it, None as `none`."""
    return "none" if raw is None else str(raw).lower() if isinstance(raw, bool) else str(raw)


def as_yaml(value: object) -> str:
    """Return `value` (a scalar, a list or a mapping) on one line, so that YAML 1.1 and 1.2 read it alike."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{as_yaml(key)}: {as_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text if isinstance(value, str) else _BARE_EXPONENT.sub(r"\1.0e", text)


def _number(raw: object) -> int | float | None:
    text = str(raw).strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return int(number) if number.is_integer() else number


def _spellings(value: Value) -> set[str]:
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    text = str(value).lower()
    return {text, text.removeprefix("ort_"), text.removeprefix("ort_enable_"), _ENUMS.get(text, text)}
