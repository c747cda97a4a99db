"""Folders for files that nobody needs afterwards: locked by whoever uses them, swept where that one has died."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "rtmo_optuna-scratch-"
_PROBE = 4096
_YOUNG_S = 2.0
"""What is younger may be about to be locked, or is a file that is being written."""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Hold a new folder in the system's place for such while the body runs; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name, locked(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file or folder `path` against `sweep` while the body runs, or until this process dies."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks, whose folders are swept when they are old
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def check_kept(folder: Path, *files: Path) -> None:
    """Raise OSError where one of `files` is gone, or nothing can be written to `folder` any more."""
    for file in files:
        file.stat()
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(_PROBE))


def lost_file(error: Exception) -> str:
    """Return in a sentence or two what the system says of a file or folder, and what to do where it is temporary.

    An error that is none of the system's is a sentence already.
    """
    if not isinstance(error, OSError):
        return str(error)
    where, why = error.filename, (error.strerror or str(error)).rstrip(".")
    held = tempfile.tempdir
    said = f"{where} cannot be used any more: {why}." if where else f"A file could not be written: {why}."
    if where and not (held and Path(os.fsdecode(where)).is_relative_to(held)):
        return said
    place = f"Temporary files lie in {held}: make room there, or name" if held else "Name"
    return f"{said} {place} another folder as TMPDIR."


def sweep_scratch() -> None:
    """Remove this user's folders whose owners have died."""
    sweep(Path(tempfile.gettempdir()), f"{PREFIX}*")


def sweep(folder: Path, pattern: str) -> None:
    """Remove what fits `pattern` in `folder`, is this user's, and is held by nobody."""
    with contextlib.suppress(OSError):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if _is_left(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_left(path: Path) -> bool:
    facts = path.lstat()
    if path.is_symlink() or facts.st_uid != os.getuid() or time.time() - facts.st_mtime < _YOUNG_S:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
