"""Which choices of the race's winner does nothing speak for? Pure decisions on pairs of fresh processes.

They are put back to their defaults, group by group, and each time what is left is compared with the winner itself, so
that small losses cannot add up. Like the race this claims nothing: what is left is confirmed in pairs of its own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from rtmo_optuna.search.decide import noise
from rtmo_optuna.space.hints import TOGETHER, WHY, gained, worth
from rtmo_optuna.space.resolve import params_of, settings_of
from rtmo_optuna.types.findings import KnobEffect, Reading
from rtmo_optuna.types.request import ModelFacts, Settings, Value
from rtmo_optuna.types.subject import SearchSpace

Group: TypeAlias = tuple[str, ...]

CLEAR = 0.1
"""A choice that was faster by more (of logs), tried alone beside the default, is not put back."""


@dataclass(frozen=True, slots=True)
class PlainRules:
    """When the settings without some choices are as fast as the winner, and when they are slower.

    A block is a fresh process of both. With n blocks the standard error of their gap is s_b sqrt(2/n). As fast is whose
    gap is within that error, `tie` at the least and `most_tie` at the most, after so many blocks that the error is
    `error` at the most, `least_blocks` in any case. Slower is whose gap is further than the tie by one error then, by
    `sure` errors from two blocks on, or by anything after `longer` times as many blocks. `failures` failed processes of
    the winner end it all.
    """

    tie: float = 0.005
    most_tie: float = 0.01
    error: float = 0.013
    least_blocks: int = 5
    longer: int = 2
    sure: float = 3.0
    failures: int = 3

    def blocks(self, spread: float) -> int:
        """Return how many blocks tell that settings are as fast, at this s_b."""
        return max(self.least_blocks, math.ceil(2 * (spread / self.error) ** 2))


@dataclass(frozen=True, slots=True)
class Plain:
    """How far putting back is: `back` are the dimensions that are, `groups` those to be tried next, in order.

    `winner` and `default` are parameters; `gaps` are log(cost without the first group / cost of the winner) by block.
    """

    space: SearchSpace
    winner: Mapping[str, Value]
    default: Mapping[str, Value]
    spread: float
    rules: PlainRules
    groups: tuple[Group, ...]
    back: Group = ()
    gaps: tuple[float, ...] = ()
    failures: int = 0

    @property
    def settings(self) -> Settings:
        """The winner without what was put back."""
        return self._without(self.back)

    @property
    def candidate(self) -> Settings | None:
        """What is to be compared with the winner next; None where nothing is left to compare."""
        return self._without((*self.back, *self.groups[0])) if self.groups else None

    @property
    def blocks_left(self) -> int:
        """How many blocks it takes at least until the candidate may be found as fast."""
        return max(1, self.rules.blocks(self.spread) - len(self.gaps))

    def _without(self, names: Iterable[str]) -> Settings:
        return settings_of(self.space, {**self.winner, **{name: self.default[name] for name in names}})


def start(
    space: SearchSpace, winner: Settings, effects: Sequence[KnobEffect], model: ModelFacts, spread: float
) -> Plain | None:
    """Return the state before the first block; None where the winner or the default lies outside the space.

    What nothing speaks for is one group, and the first. Then comes by itself what is known to have been worth something
    elsewhere or means nothing alone, then what was faster alone; what was by more than `CLEAR` stays. What another
    choice needs (`hints.TOGETHER`) comes after that one.
    """
    won, default = params_of(space, winner), params_of(space, space.fixed)
    if won is None or default is None:
        return None
    off = {name: label for name, label in won.items() if label != default[name]}
    speaks = {name: _speaking((name, label), effects, model) for name, label in off.items()}
    for name, label in off.items():
        needed, _ = TOGETHER.get((name, label), (name, label))
        if needed in off and needed != name:
            speaks[needed] = max(speaks[needed], (speaks[name][0], math.inf))
    order = sorted((how, name) for name, how in speaks.items() if how[0] < _CLEARLY)
    silent = tuple(name for (kind, _), name in order if kind == _NOTHING)
    alone = ((name,) for (kind, _), name in order if kind != _NOTHING)
    groups = tuple(group for group in (silent, *alone) if group)
    return _settled(Plain(space, won, default, spread, PlainRules(), groups))


_NOTHING, _SOMETHING, _FASTER, _CLEARLY = range(4)


def _speaking(option: tuple[str, Value], effects: Sequence[KnobEffect], model: ModelFacts) -> tuple[int, float]:
    """Return what speaks for `option`, and how much: the larger the more."""
    alone = next((found for found in effects if found.options == (option,)), None)
    reading, ratio = (alone.reading, alone.ratio) if alone else (None, None)
    much = -math.log(ratio) if ratio else 0.0
    if reading is Reading.FASTER:
        return _CLEARLY if much > CLEAR else _FASTER, much
    if any(option in found.options and found.reading is Reading.FASTER for found in effects):
        return _FASTER, much
    if option in TOGETHER or (gained(*option, model) and reading is not Reading.INERT):
        return _SOMETHING, worth(*option, model)
    return _NOTHING, much - (option[0] in WHY)


def after(state: Plain, winner: float | None, candidate: float | None) -> Plain:
    """Return the state after one more block, with the costs of both; None where a process failed.

    A group that makes the winner slower without it, or fail, is parted in two, or stays where it is one dimension.
    """
    if winner is None:
        failed = replace(state, failures=state.failures + 1)
        return replace(failed, groups=()) if failed.failures >= state.rules.failures else failed
    if candidate is None:
        return _slower(state)
    rules, gaps = state.rules, (*state.gaps, math.log(candidate / winner))
    gap, count, blocks = noise.location(gaps), len(gaps), rules.blocks(state.spread)
    error = state.spread * math.sqrt(2 / count)
    tie = max(math.log1p(rules.tie), min(math.log1p(rules.most_tie), error))
    if count >= blocks and gap <= tie:
        first, *others = state.groups
        return _settled(replace(state, back=(*state.back, *first), groups=tuple(others), gaps=()))
    sure = error if count >= blocks else rules.sure * error if count > 1 else math.inf
    if gap > tie + sure or count >= rules.longer * blocks:
        return _slower(state)
    return replace(state, gaps=gaps)


def _slower(state: Plain) -> Plain:
    first, *others = state.groups
    half = (len(first) + 1) // 2
    parts = (first[:half], first[half:]) if len(first) > 1 else ()
    return _settled(replace(state, groups=(*parts, *others), gaps=()))


def _settled(state: Plain) -> Plain:
    """Return `state` with a first group that may be compared: not the default itself, nothing that a choice needs.

    Whether the last choice off the default is worth anything is what the confirmation tells.
    """
    while state.groups:
        needed = {TOGETHER.get(option, ("", None))[0] for option in state.winner.items() if option[0] not in state.back}
        if state.candidate != state.space.fixed and not needed.intersection(state.groups[0]):
            break
        state = _parted(state)
    return state


def _parted(state: Plain) -> Plain:
    first, *others = state.groups
    parts = (first[:-1], first[-1:]) if len(first) > 1 else ()
    return replace(state, groups=(*parts, *others))
