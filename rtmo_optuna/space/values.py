"""Below study definitions and config.yaml: files as UTF-8 text, places in it, and spellings of a knob's value."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import itertools
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rtmo_optuna.records import Value
    from rtmo_optuna.space.knobs import Knob

_WORDS: dict[Value, set[str]] = {
    None: {"none", "null", "0"},
    True: {"true", "yes", "on", "1"},
    False: {"false", "no", "off", "0"},
}
_RESERVED = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
_PLAIN = re.compile(r"[A-Za-z_]([A-Za-z0-9_ ./+%()@-]*[A-Za-z0-9_./+%()@-])?|[0-9]+%")
_BARE_EXPONENT = re.compile(r"^(-?[0-9]+)e")
NOT_YAML = {  # what PyYAML and ruamel.yaml let through, and why
    RecursionError: "it is nested too deeply",
    ValueError: "an escape stands for no character",
    OverflowError: "an escape stands for no character",
}
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


class Mark(NamedTuple):
    """A place in a text, counted from 0; the marks of PyYAML and ruamel.yaml will do as well."""

    line: int
    column: int


def parse_value(knob: Knob, raw: object) -> Value:
    """Return the value of `knob` that `raw`, a scalar or its text, stands for.

    Case does not matter, `ORT_` and `ORT_ENABLE_` may be left out, true, yes, on and 1 are one, and so are none, null
    and 0 where a knob may be None. An `open` knob takes other positive numbers than its choices too: whole ones where
    its default is one. Raises UsageError, without a place, for anything else.
    """
    number = _number(raw)
    whole = isinstance(knob.default, int)
    if knob.open and number and not (whole and isinstance(number, float)):
        return number
    other = f", or another {'whole ' if whole else ''}number" if knob.open else ""
    return parse_choice(knob.name, knob.choices, raw if number is None else number, other)


def parse_choice(name: str, choices: Iterable[Value], raw: object, other: str = "") -> Value:
    """Return the one of `choices` that `raw` spells.

    Raises UsageError, without a place, where there is none; `other` says what else `name` could be.
    """
    known = list(choices)
    text = shown(raw).strip().lower()
    for choice in known:
        if text in _spellings(choice):
            return choice
    message = f"{name} cannot be {shown(raw)!r}. {advice(text, known, other)}"
    raise UsageError(message)


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


def read_bytes(path: Path) -> bytes | None:
    """Return what the file `path` holds, None where there is none; raise UsageError where it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            message = f"{path} is not a file."
            raise UsageError(message)
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise UsageError(message) from error


def check_writable(path: Path) -> None:
    """Raise UsageError where `replace` could not write the file `path`; leave nothing behind."""
    with _as_usage_error(path):
        real = path.resolve()
        if real.exists() and not os.access(real, os.W_OK):
            message = f"{path} is read-only: allow writing to it, or name another file."
            raise UsageError(message)
        with tempfile.TemporaryFile(dir=real.parent):
            pass


def replace(path: Path, old: bytes | None, text: str) -> Path | None:
    """Put `text` in place of `old`, which is what `path` holds (None: there is no file), at once.

    A link stays a link; permissions and a byte order mark stay. Returns the copy of the old file, `<name>.bak-<time>`,
    None where there was none; raises UsageError where the file cannot be written.
    """
    with _as_usage_error(path):
        real = path.resolve()
        backup = None
        bom = codecs.BOM_UTF8 if (old or b"").startswith(codecs.BOM_UTF8) else b""
        fresh = real.with_name(f".{real.name}.{secrets.token_hex(4)}.tmp")
        try:
            _write_new(fresh, bom + text.encode())
            if old is not None:
                shutil.copymode(real, fresh)
                with contextlib.suppress(PermissionError):  # only root may give a file away
                    os.chown(fresh, real.stat().st_uid, real.stat().st_gid)
                backup = _copy(real, old)
            fresh.replace(real)
        finally:
            fresh.unlink(missing_ok=True)
    return backup


@contextlib.contextmanager
def _as_usage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}. Name a file in a folder that can be."
        raise UsageError(message) from error


def _copy(path: Path, data: bytes) -> Path:
    stamp = datetime.now(UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak-{stamp}{f'-{number}' if number > 1 else ''}")
        with contextlib.suppress(FileExistsError):
            _write_new(backup, data)
            break
    shutil.copystat(path, backup)
    return backup


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise


def decode(path: Path, data: bytes) -> str:
    """Return `data`, which is what `path` holds, as text without a byte order mark; UsageError if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        mark = Mark(before.count(b"\n"), error.start - before.rfind(b"\n") - 1)
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise complaint(path, mark, message) from error


def not_yaml(path: Path, text: str, error: Exception) -> UsageError:
    """Return what PyYAML or ruamel.yaml found wrong with `text`, or one of NOT_YAML, as one sentence."""
    position: int = getattr(error, "position", 0)
    mark = Mark(text.count("\n", 0, position), position - text.rfind("\n", 0, position) - 1)
    marked = (getattr(error, "context", None), getattr(error, "problem", None))
    why = ", ".join(part for part in marked if part) or NOT_YAML.get(type(error)) or getattr(error, "reason", "")
    return complaint(path, getattr(error, "problem_mark", None) or mark, f"this is not YAML: {why}")


def complaint(path: Path, mark: Mark, message: str) -> UsageError:
    """Return the error that says `message` of a place in `path`."""
    stop = "" if message.endswith((".", "?")) else "."
    return UsageError(f"{path}, line {mark.line + 1}, column {mark.column + 1}: {message}{stop}")


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
    return {text, text.removeprefix("ort_"), text.removeprefix("ort_enable_")}
