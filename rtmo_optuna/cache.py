"""The user's cache folder, files that are put in place in one step, and hashes of what files hold."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from rtmo_optuna.errors import UsageError


def folder(name: str) -> Path:
    """Return this program's folder `name` in the user's cache, which need not be there.

    It is below XDG_CACHE_HOME, else ~/.cache (XDG Base Directory Specification). Raises UsageError where there is no
    home.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (cache if cache.is_absolute() else Path.home() / ".cache") / "rtmo_optuna" / name
    except RuntimeError as error:
        message = f"There is no home folder to keep {name} in: set XDG_CACHE_HOME to a folder that can be written."
        raise UsageError(message) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a new file beside `path`, which takes its place in one step when the body is done.

    Where the body raises, `path` stays what it was, and the new file goes.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def file_hash(*files: Path) -> str:
    """Return the SHA-256, in hex, of what `files` hold, one after the other, never all in memory."""
    import hashlib  # noqa: PLC0415 - a child needs it only after its first run

    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()
