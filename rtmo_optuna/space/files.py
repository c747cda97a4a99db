"""Files that the user writes and reads: as UTF-8 text, places in it, and replaced in one step."""

from __future__ import annotations

import codecs
import contextlib
import glob
import itertools
import os
import secrets
import shutil
import tempfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from rtmo_optuna.errors import UsageError
from rtmo_optuna.scratch import sweep
from rtmo_optuna.space import inplace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_YAML = {  # what PyYAML and ruamel.yaml let through, and why
    RecursionError: "it is nested too deeply",
    ValueError: "an escape stands for no character",
    OverflowError: "an escape stands for no character",
}

_BACKUPS = 10
_STAMP = "%Y%m%d-%H%M%S"


class Mark(NamedTuple):
    """A place in a text, counted from 0; the marks of PyYAML and ruamel.yaml will do as well."""

    line: int
    column: int


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
        _check_name(path, real)
        with tempfile.TemporaryFile(dir=real.parent):
            pass
        if real.exists():
            inplace.check_replaceable(real)


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
            if old is not None and inplace.is_mounted(real):
                inplace.rewrite(real, old, bom + text.encode())
            else:
                fresh.replace(real)
        finally:
            fresh.unlink(missing_ok=True)
        sweep(real.parent, f".{glob.escape(real.name)}.????????.tmp")
        _leave_latest(real)
    return backup


def _check_name(path: Path, real: Path) -> None:
    """Raise UsageError where the name leaves no room for that of a backup."""
    most = os.pathconf(real.parent, "PC_NAME_MAX") - len(f".bak-{datetime.now(UTC):{_STAMP}}-99")
    if len(os.fsencode(real.name)) > most:
        message = f"The name of {path} is too long for a backup beside it: give one of at most {most} bytes."
        raise UsageError(message)


@contextlib.contextmanager
def _as_usage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}. Name a file in a folder that can be."
        raise UsageError(message) from error


def _copy(path: Path, data: bytes) -> Path:
    stamp = datetime.now(UTC).astimezone().strftime(_STAMP)
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak-{stamp}{f'-{number}' if number > 1 else ''}")
        with contextlib.suppress(FileExistsError):
            _write_new(backup, data)
            break
    shutil.copystat(path, backup)
    return backup


def _leave_latest(path: Path) -> None:
    """Remove all backups of `path` but the latest ones."""
    backups = path.parent.glob(f"{glob.escape(path.name)}.bak-{'[0-9]' * 8}-{'[0-9]' * 6}*")
    for old in sorted(backups, key=lambda one: one.stat().st_ctime_ns)[:-_BACKUPS]:
        old.unlink(missing_ok=True)


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
