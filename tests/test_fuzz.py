"""Inputs mutated at random, the same ones each time: whatever comes, a value or an error of ours comes back."""

from __future__ import annotations

import pytest

import fuzz


@pytest.mark.parametrize("kind", list(fuzz.KINDS))
def test_nothing_escapes(kind: str) -> None:
    """`benchmarks/fuzz.py` runs many more; here some hundreds of each kind."""
    found = fuzz.fuzz(kind, 200)
    assert found.escaped == {}
    assert found.accepted > 5
    assert found.refused > 100
    assert found.accepted + found.refused == 200
