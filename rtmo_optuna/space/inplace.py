"""Files that no other one can take the place of: mounted by themselves, as containers have them, or locked."""

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\(\d{3})")


def is_mounted(path: Path) -> bool:
    """Return whether the file `path` is a mount point, which the kernel lets nobody rename another file onto."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return False
    points = (line.split(b" ")[4] for line in lines)
    return os.fsencode(path) in {_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), point) for point in points}


def check_replaceable(path: Path) -> None:
    """Raise OSError where the system would refuse to put another file in place of `path`, and it is not mounted.

    A folder's removal asks the same of the system (is it immutable, append-only, another user's in a sticky folder?)
    and then fails, since this is a file.
    """
    if is_mounted(path):
        return
    try:
        path.rmdir()
    except NotADirectoryError:
        return


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Write `new` over what the file `path` holds, which is `old`; broken off, `old` is put back. Raises OSError."""
    with path.open("r+b") as file:
        try:
            fill(file.fileno(), new)
        except BaseException:
            fill(file.fileno(), old)
            raise


def fill(descriptor: int, data: bytes) -> None:
    """Have the file hold `data`, on the disk: what is longer first takes its room, and is cut last."""
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], done)
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)
