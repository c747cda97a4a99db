"""References that were made before: the CPU's outputs, kept in the user's cache folder by what they follow from.

A reference follows from the model, the input and the version of ONNX Runtime, which are a part of every study's
identity, and is kept by their hash: whoever resumes a study finds the reference that it began with. It does not lie
beside the study's database, since that may be on another host; a host that lacks a reference makes its own, which
differs in rounding at most, far less than what the output gate allows.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rtmo_optuna import cache
from rtmo_optuna.cache import file_hash, replacing
from rtmo_optuna.child import measure, protocol
from rtmo_optuna.codec import decode, encode
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.measurement import Rounding
from rtmo_optuna.types.request import Limits
from rtmo_optuna.types.study import key

_VERSION = 1
_FOLDER = "references"
_ROUNDING_VERSION = 1
_ROUNDINGS = "roundings"


def reference(
    request: protocol.ReferenceRequest,
    limits: Limits,
    content: Mapping[str, str],
    *,
    most_bytes: int = 2**30,
    largest_bytes: int = 2**28,
) -> protocol.ReferenceMade:
    """Do as `child.measure.reference` does, or put a kept reference in the target's place where there is one.

    `content` says what `request` names by path only: hashes of the model and of the input, and whose outputs they are.
    A reference that is not finite or not under `largest_bytes` is made each time; where the user has no cache folder,
    all are. Together they take up no more than `most_bytes`.
    """
    named = {"session": encode(replace(request.session, model="")), "gate": dict(request.gate), **content}
    name = hashlib.sha256(f"{_VERSION} {key(named)}".encode()).hexdigest()[:32]
    target = Path(request.target)
    if _take(name, target):
        return protocol.ReferenceMade(finite=True)
    made = measure.reference(request, limits)
    if made.finite and target.stat().st_size < largest_bytes:
        with suppress(OSError, UsageError):
            _keep(name, target, most_bytes)
    return made


def rounding(request: protocol.RoundingRequest, limits: Limits, content: Mapping[str, str]) -> Rounding:
    """Do as `child.measure.rounding` does, or return what was found before; `content` is as in `reference`."""
    named = {"tf32": request.tf32, "gate": dict(request.gate), "free": dict(request.session.free_dimensions), **content}
    name = hashlib.sha256(f"{_ROUNDING_VERSION} {key(named)}".encode()).hexdigest()[:32]
    with suppress(OSError, UsageError, *protocol.MISFITS):
        return decode(Rounding, json.loads((cache.folder(_ROUNDINGS) / f"{name}.json").read_bytes()))
    found = measure.rounding(request, limits)
    with suppress(OSError, UsageError):
        folder = cache.folder(_ROUNDINGS)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{name}.json") as fresh:
            fresh.write_text(json.dumps(encode(found)), encoding="utf-8")
    return found


def _take(name: str, target: Path) -> bool:
    """Copy the reference `name` to `target`; the copy is what stays, whoever empties the cache meanwhile.

    A file's name ends in its hash: one that is not as it was written is taken for missing.
    """
    with suppress(OSError, UsageError):
        for kept in cache.folder(_FOLDER).glob(f"{name}-*"):
            shutil.copyfile(kept, target)
            if kept.name == f"{name}-{file_hash(target)[:32]}.npz":
                kept.touch()
                return True
            kept.unlink()
    target.unlink(missing_ok=True)
    return False


def _keep(name: str, source: Path, most_bytes: int) -> None:
    """Keep `source` as the reference `name`, in one step; the least used ones make room."""
    folder = cache.folder(_FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}-{file_hash(source)[:32]}.npz") as fresh:
        shutil.copyfile(source, fresh)
    left = most_bytes
    for kept in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True):
        left -= kept.stat().st_size
        if left < 0:
            kept.unlink()
