"""References are made once and kept by their content: found again, never believed when damaged, bounded."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rtmo_optuna.child import references
from rtmo_optuna.child.protocol import ReferenceRequest
from rtmo_optuna.errors import ChildError
from rtmo_optuna.types.request import Limits
from scripted import request

LIMITS = Limits()
CONTENT = {"model": "aa", "input": "bb", "onnxruntime": "1.0"}


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReferenceRequest:
    """Return a request for a script's outputs, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain = request(tmp_path)
    return ReferenceRequest(plain.session, plain.inputs, str(tmp_path / "reference.npz"))


def kept(tmp_path: Path) -> list[Path]:
    """Return the files in the cache."""
    return sorted((tmp_path / "cache").rglob("*.npz"))


def gone(wanted: ReferenceRequest) -> bool:
    """Whether a child is needed for the reference: without its model that fails."""
    model = Path(wanted.session.model)
    held = model.read_bytes()
    model.unlink()
    Path(wanted.target).unlink(missing_ok=True)
    try:
        references.reference(wanted, LIMITS, CONTENT)
    except ChildError:
        return True
    finally:
        model.write_bytes(held)
    return False


def test_a_reference_is_made_once(tmp_path: Path, wanted: ReferenceRequest) -> None:
    """The second time no child is started, and the file is the same to the last bit."""
    assert references.reference(wanted, LIMITS, CONTENT).finite
    first = Path(wanted.target).read_bytes()
    assert len(kept(tmp_path)) == 1
    assert not gone(wanted)
    assert Path(wanted.target).read_bytes() == first
    assert not list((tmp_path / "cache").rglob(".new-*"))


@pytest.mark.slow
def test_what_follows_from_something_else_is_made_anew(tmp_path: Path, wanted: ReferenceRequest) -> None:
    """Another model, input, version, shape or rule of the gate has another reference; another path has not."""
    references.reference(wanted, LIMITS, CONTENT)
    for name in CONTENT:
        references.reference(wanted, LIMITS, CONTENT | {name: "other"})
    references.reference(replace(wanted, session=replace(wanted.session, shapes={"input": (1,)})), LIMITS, CONTENT)
    references.reference(replace(wanted, gate={"mode": "elementwise"}), LIMITS, CONTENT)
    assert len(kept(tmp_path)) == 6
    moved = Path(wanted.session.model).rename(tmp_path / "moved.json")
    references.reference(replace(wanted, session=replace(wanted.session, model=str(moved))), LIMITS, CONTENT)
    assert len(kept(tmp_path)) == 6


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "gone"])
def test_a_damaged_reference_is_made_anew(tmp_path: Path, wanted: ReferenceRequest, damage: str) -> None:
    """What is not as it was written is thrown away, and nothing of it is left at the target."""
    references.reference(wanted, LIMITS, CONTENT)
    (file,) = kept(tmp_path)
    held = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        flipped = held[:200] + bytes([held[200] ^ 1]) + held[201:]
        file.write_bytes({"cut": held[:-9], "flipped": flipped, "emptied": b""}[damage])
    assert gone(wanted)
    assert not Path(wanted.target).exists()
    references.reference(wanted, LIMITS, CONTENT)
    assert not gone(wanted)
    assert len(kept(tmp_path)) == 1


def test_the_least_used_ones_make_room(tmp_path: Path, wanted: ReferenceRequest) -> None:
    """Room for three of five: the three that were used last stay."""
    for place in range(3):
        references.reference(wanted, LIMITS, CONTENT | {"input": str(place)})
        os.utime(max(kept(tmp_path), key=os.path.getmtime), (place, place))
    references.reference(wanted, LIMITS, CONTENT | {"input": "0"})
    reference = partial(references.reference, most_bytes=3 * kept(tmp_path)[0].stat().st_size)
    reference(wanted, LIMITS, CONTENT | {"input": "3"})
    assert len(kept(tmp_path)) == 3
    before = set(kept(tmp_path))
    reference(wanted, LIMITS, CONTENT | {"input": "0"})
    reference(wanted, LIMITS, CONTENT | {"input": "2"})
    assert set(kept(tmp_path)) == before
    reference(wanted, LIMITS, CONTENT | {"input": "1"})
    assert len(set(kept(tmp_path)) & before) == 2


def test_a_large_one_and_one_that_is_not_finite_are_not_kept(tmp_path: Path, wanted: ReferenceRequest) -> None:
    """They are made each time: the one would fill the cache, of the other the user is told."""
    np.savez(wanted.inputs, input=np.full((1, 1), np.nan, np.float32))
    assert not references.reference(wanted, LIMITS, CONTENT).finite
    np.savez(wanted.inputs, input=np.zeros((1, 1), np.float32))
    assert references.reference(wanted, LIMITS, CONTENT, largest_bytes=100).finite
    assert not kept(tmp_path)


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_without_a_cache_it_is_made_each_time(
    tmp_path: Path, wanted: ReferenceRequest, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A cache that cannot be written costs time, nothing else."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / folder))
    assert references.reference(wanted, LIMITS, CONTENT).finite
    assert Path(wanted.target).stat().st_size > 0
    assert gone(wanted)
