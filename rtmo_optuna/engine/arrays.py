"""Arrays out of files that others wrote: what a file claims is looked at before any of it is read."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BYTES = 2**30
"""The most that a file's arrays may take; those of an input are a few megabytes, sixteen large pictures 80."""
_MOST_MEMBERS = 1000
_HEAD = 2**16
"""An honest header takes some hundred bytes, and says itself how long it is: up to 4 GB."""


def read_npy(source: Path) -> NDArray[Any]:
    """Return the array of an .npy file; raises whatever NumPy does, ValueError for one that claims too much."""
    with source.open("rb") as stream:
        _check(_claimed(stream, source.stat().st_size))
    return np.array(np.lib.format.open_memmap(source, mode="r"))


def read_npz(source: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name; raises whatever zipfile and NumPy do, ValueError as `read_npy`."""
    import zipfile  # noqa: PLC0415 - NumPy, too, imports it late

    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        packed = {member.compress_type for member in members} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
        if packed or len(members) > _MOST_MEMBERS:
            raise ValueError("it is packed as numpy packs nothing" if packed else f"it has {len(members)} members")
        claimed, arrays = 0, {}
        for member in members:
            with archive.open(member) as stream:
                claimed += _claimed(stream, member.file_size)
        _check(claimed)
        for member in members:
            with archive.open(member) as stream:
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _claimed(stream: IO[bytes], size: int) -> int:
    """Return the bytes of the array at the head of `stream`, of which there are `size` with its header."""
    head = io.BytesIO(stream.read(_HEAD))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    claimed, held = dtype.itemsize * math.prod(shape), size - head.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if min(shape, default=0) < 0 or claimed > held:
        raise ValueError(f"it claims {dtype} {list(shape)}, which is {claimed} bytes, and holds {held}")
    return claimed


def _check(claimed: int) -> None:
    if claimed > MOST_BYTES:
        raise ValueError(f"it takes {claimed / 2**30:.1f} GB, and may take {MOST_BYTES / 2**30:g}")
