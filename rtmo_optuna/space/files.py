"""Files that the user writes and reads: as UTF-8 text, places in it, and replaced in one step."""

import codecs
import contextlib
import glob
import itertools
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rtmo_optuna.errors import UsageError
from rtmo_optuna.scratch import sweep
from rtmo_optuna.space import inplace

NOT_YAML = {  # what PyYAML and ruamel.yaml let through, and why
    RecursionError: "it is nested too deeply",
    ValueError: "an escape stands for no character",
    OverflowError: "an escape stands for no character",
}

_BACKUPS = 10
_STAMP = "%Y%m%d-%H%M%S"

_MOST_BYTES = 1 << 20
_MOST_EVENTS = 20_000
_MOST_DEEP = 64


class Mark(NamedTuple):
    """A place in a text, counted from 0; the marks of PyYAML and ruamel.yaml will do as well."""

    line: int
    column: int


def read_bytes(path: Path) -> bytes | None:
    """Return what the file `path` holds, None where there is none; raise UsageError where it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file.")
        return read_all(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def read_all(path: Path) -> bytes:
    """Return what `path` holds; raise UsageError for more than a megabyte, which nobody wrote by hand, else OSError."""
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MB, too much for settings: name another file.")
    return data


def bounded(path: Path, events: Iterable[Any]) -> Iterator[Any]:
    """Yield the events of a YAML text; raise UsageError once there are more than a reader should go through.

    Those of PyYAML and ruamel.yaml will do; 20,000 of them take about half a second.
    """
    depth = 0
    for number, event in enumerate(events):
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > _MOST_DEEP:
            raise complaint(path, event.start_mark, "this is nested too deeply")
        if number > _MOST_EVENTS:
            raise complaint(path, event.start_mark, "there is too much before this for a file of settings")
        yield event


def check_writable(path: Path) -> None:
    """Raise UsageError where `replace` could not write the file `path`; leave nothing behind."""
    with _as_usage_error(path):
        real = path.resolve()
        if real.exists() and not os.access(real, os.W_OK):
            raise UsageError(f"{path} is read-only: allow writing to it, or name another file.")
        _check_name(path, real)
        with tempfile.TemporaryFile(dir=real.parent):
            pass
        if real.exists():
            inplace.check_replaceable(real)


def replace(path: Path, old: bytes | None, text: str) -> Path | None:
    """Put `text` in place of `old`, which is what `path` holds (None: there is no file), at once.

    A link stays a link; owner, mode, extended attributes and a byte order mark stay, and neither the new file nor the
    copy of the old one can be read by anybody else at any moment. A file that has other names (hard links), or whose
    owner only root could keep, is written where it lies, once its copy is safe. Returns the copy of the old file,
    `<name>.bak-<time>`, None where there was none; raises UsageError where the file cannot be written.
    """
    with _as_usage_error(path):
        real = path.resolve()
        if old is None:
            _put(real, text.encode(), None)
            return None
        data = (codecs.BOM_UTF8 if old.startswith(codecs.BOM_UTF8) else b"") + text.encode()
        backup = _copy(real, old)
        try:
            _put(real, data, old)
        except OSError:
            if real.read_bytes() == old:
                backup.unlink()
            raise
        sweep(real.parent, f".{glob.escape(real.name)}.????????.tmp")
        _leave_latest(real)
        return backup


def _put(path: Path, data: bytes, old: bytes | None) -> None:
    """Put `data` into the file `path`, by a new file that takes its name where such a one can be all that it was.

    A file that is mounted, or has other names, stays the file that it is.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write_new(fresh, data, private=old is not None)
        stays = old is not None and (inplace.is_mounted(path) or path.stat().st_nlink > 1)
        if old is None or (not stays and _made_alike(fresh, path)):
            fresh.replace(path)
        else:
            inplace.rewrite(path, old, data)
    finally:
        fresh.unlink(missing_ok=True)


def _made_alike(fresh: Path, model: Path) -> bool:
    """Give the private file `fresh` the owner, mode and extended attributes of `model`; return whether it has them.

    Where its owner or group cannot be given to it, it stays private.
    """
    wanted = model.stat()
    with contextlib.suppress(OSError):  # only root may give a file away
        os.chown(fresh, wanted.st_uid, wanted.st_gid)
        for name in _attributes(fresh).keys() - _attributes(model).keys():  # a folder may hand down who may read
            os.removexattr(fresh, name)
        shutil.copystat(model, fresh)
        os.utime(fresh)
    about = fresh.stat()
    same = (about.st_uid, about.st_gid, about.st_mode) == (wanted.st_uid, wanted.st_gid, wanted.st_mode)
    return same and _attributes(fresh) == _attributes(model)


def _attributes(path: Path) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path)} if sys.platform == "linux" else {}
    except OSError:  # a file system without them
        return {}


def _check_name(path: Path, real: Path) -> None:
    """Raise UsageError where the name leaves no room for that of a backup."""
    most = os.pathconf(real.parent, "PC_NAME_MAX") - len(f".bak-{datetime.now(UTC):{_STAMP}}-99")
    if len(os.fsencode(real.name)) > most:
        raise UsageError(f"The name of {path} is too long for a backup beside it: give one of at most {most} bytes.")


@contextlib.contextmanager
def _as_usage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}. Name a file in a folder that can be.") from error


def _copy(path: Path, data: bytes) -> Path:
    stamp = datetime.now(UTC).astimezone().strftime(_STAMP)
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak-{stamp}{f'-{number}' if number > 1 else ''}")
        with contextlib.suppress(FileExistsError):
            _write_new(backup, data, private=True)
            break
    _made_alike(backup, path)
    return backup


def _leave_latest(path: Path) -> None:
    """Remove all backups of `path` but the latest ones."""
    backups = path.parent.glob(f"{glob.escape(path.name)}.bak-{'[0-9]' * 8}-{'[0-9]' * 6}*")
    for old in sorted(backups, key=lambda one: one.stat().st_ctime_ns)[:-_BACKUPS]:
        old.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes, *, private: bool) -> None:
    """Write a file that was not there, which nobody else can open where it is to be `private`."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        try:
            inplace.fill(file.fileno(), data)
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
