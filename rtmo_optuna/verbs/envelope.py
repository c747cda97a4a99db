"""What every answer to machines begins with, whichever verb it is of."""

from importlib.metadata import version
from typing import Any

from rtmo_optuna.codec import encode

SCHEMA = 2
"""Grows when a field changes its meaning or goes; 1 was that of `bench --json` in 0.2.0."""


def answer(kind: str, told: object = None) -> dict[str, Any]:
    """Return `told`, a record of ours, as one JSON object: what schema, of which kind, by which version, its fields."""
    return {"schema": SCHEMA, "kind": kind, "version": version("rtmo-optuna"), **(encode(told) or {})}
