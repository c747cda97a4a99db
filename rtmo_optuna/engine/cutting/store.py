"""Cut models, kept by content in a folder of the user's cache. Needs no `onnx`.

A cut is a folder of files with a `cut.json` that is written last and tells the size, time and SHA-256 of the others.
Each file is written elsewhere and moved into place, so that whoever reads sees a whole file, and two processes that
make the same cut replace each other's files by equal ones.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rtmo_optuna.cache import file_hash, folder, replacing
from rtmo_optuna.engine.graph import hash_model, read_graph
from rtmo_optuna.errors import UsageError

Parts = Mapping[str, Any]

_ABOUT = "cut.json"
_SETTLED_NS = 2 * 10**9  # a file that changed later may change again without its times telling


def usual_folder() -> Path:
    """Return the user's folder for cut models, as `cache.folder` does."""
    return folder("cuts")


def content_hash(model: Path, cache: Path | None = None) -> str:
    """Return the SHA-256, in hex, of the model file and the weights beside it.

    The result is kept in `cache`, by default `usual_folder()`, under the model's path, together with the size, times
    and inode of each file: as long as these stay, another call costs a stat per file. Raises UsageError where the model
    cannot be read.
    """
    note = (cache or usual_folder()) / "hashes" / f"{hashlib.sha256(os.fsencode(model.absolute())).hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_bytes())
        if known["files"] == [_stamp(Path(stamp[0])) for stamp in known["files"]]:
            return str(known["sha256"])
    external = read_graph(model).external_files
    files = [model.absolute(), *(model.parent.absolute() / name for name in external)]
    stamps = [_stamp(file) for file in files]
    digest = hash_model(model, external)
    changed = max(time_ns for _, _, *times, _ in stamps for time_ns in times if isinstance(time_ns, int))
    if changed + _SETTLED_NS < time.time_ns() and stamps == [_stamp(file) for file in files]:
        with suppress(OSError):
            _write(note, {"files": stamps, "sha256": digest})
    return digest


def place_of(digest: str, shapes: Mapping[str, Sequence[int]], version: int, cache: Path) -> Path:
    """Return the folder, not made yet, of the cut of a model's content at `shapes` by a version of the algorithm."""
    key = json.dumps([version, digest, sorted((name, list(map(int, shape))) for name, shape in shapes.items())])
    return cache / hashlib.sha256(key.encode()).hexdigest()[:32]


def load(place: Path) -> Parts | None:
    """Return what `store` was told of the cut at `place`, or None where it is missing or a file is not as written.

    A file is hashed only where its time is not the one it was written at.
    """
    try:
        about = json.loads((place / _ABOUT).read_bytes())
        whole = all(_is_as_written(place / name, *stamp) for name, stamp in about["files"].items())
        parts: Parts = {**about["parts"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return parts if whole else None


def store(place: Path, parts: Parts, write: Callable[[Path], None]) -> None:
    """Keep at `place` the files that `write` puts into the folder it is given, and `parts`, which describe them.

    Raises UsageError where the cache cannot be written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=".new-") as scratch:
            write(Path(scratch))
            files = {}
            for file in sorted(Path(scratch).iterdir()):
                files[file.name] = (file.stat().st_size, file.stat().st_mtime_ns, file_hash(file))
                file.replace(place / file.name)
        _write(place / _ABOUT, {"parts": parts, "files": files})
    except OSError as error:
        raise UsageError(
            f"What is made of the model cannot be kept in {place.parent} ({error.strerror}): make room or give the "
            "right to write there, or set XDG_CACHE_HOME to a folder that can be written."
        ) from error


def copy_bytes(source: Path, offset: int, length: int, target: Path) -> int:
    """Append `length` bytes of `source` from `offset` on to `target`, never all in memory; return where they begin."""
    with source.open("rb") as reader, target.open("ab") as writer:
        start = writer.tell()
        reader.seek(offset)
        while length > 0 and (chunk := reader.read(min(length, 2**20))):
            length -= writer.write(chunk)
        return start


def _stamp(file: Path) -> list[str | int]:
    found = file.stat()
    return [str(file), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _is_as_written(file: Path, size: int, mtime_ns: int, digest: str) -> bool:
    found = file.stat()
    if found.st_size != size:
        return False
    if found.st_mtime_ns == mtime_ns:
        return True
    return file_hash(file) == digest


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(content), encoding="utf-8")
