"""How the values of options may be spelt; whatever else is given is refused with one sentence that names the option."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtmo_optuna.errors import UsageError
from rtmo_optuna.space.values import parse_choice

_CHANNELS = 3
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Spelling:
    """A kind of value: how help calls it, and what reads it from an option's name and text (else UsageError)."""

    metavar: str
    read: Callable[[str, str], Any]

    def parser(self, option: str) -> Callable[[object], Any]:
        """Return what reads the values of `option`."""
        return lambda raw: self.read(option, str(raw))


def whole(least: int, most: int | None = None) -> Spelling:
    """Return the whole numbers from `least` on, up to `most`."""
    span = f"of at least {least}" if most is None else f"from {least} to {most}"
    return _number("N", f"a whole number {span}", int, lambda n: least <= n and (most is None or n <= most))


def one_of(*known: str) -> Spelling:
    """Return the words `known`, one of them."""
    return Spelling("|".join(known), lambda option, given: parse_choice(option, known, given))


def text(metavar: str) -> Spelling:
    """Return any text that is not empty."""
    return Spelling(metavar, _some)


def path(metavar: str) -> Spelling:
    """Return any path that is not empty: Python takes an empty one for the current folder."""
    return Spelling(metavar, lambda option, given: Path(_some(option, given)))


def _some(option: str, given: str) -> str:
    if not given.strip():
        message = f"{option} is empty: give it a value, or leave it out."
        raise UsageError(message)
    return given


def _number(metavar: str, words: str, parse: Callable[[str], float], fits: Callable[[float], bool]) -> Spelling:
    def read(option: str, given: str) -> float:
        try:
            number = parse(given)
        except ValueError:
            number = math.nan
        if not fits(number):
            message = f"{option} must be {words}, not {given!r}."
            raise UsageError(message)
        return number

    return Spelling(metavar, read)


def _seconds(given: str) -> float:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", given)
    return float(parts[1]) * _UNITS[parts[2]] if parts else math.nan


def _is_positive(number: float) -> bool:
    return 0 < number < math.inf


def _share(given: str) -> float:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", given)
    return float(parts[1]) / (100 if parts[2] else 1) if parts else math.nan


def _channels(words: str, fits: Callable[[float], bool]) -> Spelling:
    """Return a number for each of three channels, or one for all of them."""

    def read(option: str, given: str) -> tuple[float, ...]:
        try:
            numbers = tuple(float(part) for part in given.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in {1, _CHANNELS} or not all(map(fits, numbers)):
            message = f"{option} must be {words} for each of {_CHANNELS} channels, or one for all, not {given!r}."
            raise UsageError(message)
        return numbers if len(numbers) == _CHANNELS else numbers * _CHANNELS

    return Spelling("F[,F,F]", read)


MEAN = _channels("a number", math.isfinite)
DEVIATION = _channels("a number above 0", _is_positive)


def _percent(option: str, given: str) -> float:
    parts = re.fullmatch(r"slower(?::(\d+(?:\.\d+)?) ?%?)?", given.strip().lower())
    if not parts:
        message = f"{option} must be slower, or slower:PCT with a percentage (such as slower:5), not {given!r}."
        raise UsageError(message)
    return float(parts[1] or 0)


SLOWER_BY = Spelling("slower[:PCT]", _percent)
FACTOR = _number("F", "a number above 0", float, _is_positive)
RATE = _number("HZ", "a number of calls a second, above 0", float, _is_positive)
SHARE = _number("SHARE", "a share above 0, such as 10% or 0.1", _share, _is_positive)
TIME = _number("TIME", "a time above 0, in seconds or with s, m or h (such as 10m)", _seconds, _is_positive)
