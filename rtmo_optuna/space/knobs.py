"""What the table of providers says of their knobs: by name, as dimensions, and which settings are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.types.request import Choice, Dimension, Settings, Value

if TYPE_CHECKING:
    from rtmo_optuna.providers.base import Knob


def knob_table(provider: str) -> dict[str, Knob]:
    """Return the provider's knobs by name."""
    return {knob.name: knob for knob in PROVIDERS[provider].knobs}


def dimension_table(provider: str) -> dict[str, Dimension]:
    """Return every dimension that a study definition may search, by name, with all its choices.

    A knob that belongs to a combined dimension has none of its own: one flat parameter searches better than two of
    which one depends on the other.
    """
    table = PROVIDERS[provider]
    inside = {knob for combined in table.combined for choice in combined.choices for knob, _ in choice.values}
    single = (
        Dimension(knob.name, tuple(Choice(value, ((knob.name, value),)) for value in knob.choices))
        for knob in table.knobs
        if knob.name not in inside
    )
    return {dimension.name: dimension for dimension in (*single, *table.combined)}


def canonical(provider: str, values: Mapping[str, Value]) -> Settings:
    """Return settings without default values and without knobs that another one makes meaningless."""
    table = knob_table(provider)

    def means(name: str) -> bool:
        need = table[name].needs
        return need is None or (means(need[0]) and values.get(need[0], table[need[0]].default) == need[1])

    return Settings.of({n: value for n, value in values.items() if value != table[n].default and means(n)})
