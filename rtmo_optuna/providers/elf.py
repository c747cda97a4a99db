"""What a shared library asks the loader for, read from the file: a library that lacks one of these cannot be loaded.

The layout is that of the System V ABI (elf(5)); of its kinds only the one of today's Linux machines is read.
"""

import struct
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"
"""64 bits, the lower byte first."""
_LOADED, _DYNAMIC = 1, 2
_END, _NEEDED, _NAMES = 0, 1, 5


def needed(library: Path) -> tuple[str, ...]:
    """Return the names of the libraries that `library` needs, in order; none where it is no ELF file of 64 bits."""
    with library.open("rb") as file:
        head = file.read(64)
        if not head.startswith(_MAGIC):
            return ()
        (start,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(start)
        table = file.read(size * count)
        # Of each: type, flags, offset in the file, address, another address, bytes in the file.
        segments = [struct.unpack_from("<IIQQQQ", table, size * number) for number in range(count)]
        pairs: list[tuple[int, int]] = []
        for kind, _, offset, _, _, length in segments:
            if kind == _DYNAMIC:
                file.seek(offset)
                pairs = list(struct.iter_unpack("<QQ", file.read(length - length % 16)))
        pairs = pairs[: next((n for n, (tag, _) in enumerate(pairs) if tag == _END), len(pairs))]
        names = next((value for tag, value in pairs if tag == _NAMES), 0)
        within = (s[2] + names - s[3] for s in segments if s[0] == _LOADED and s[3] <= names < s[3] + s[5])
        place = next(within, None)
        found = []
        for tag, value in pairs:
            if tag == _NEEDED and place is not None:
                file.seek(place + value)
                found.append(file.read(256).split(b"\0")[0].decode())
    return tuple(found)
