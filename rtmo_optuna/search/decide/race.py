"""The race: which settings get another fresh process, which are dropped, which win. Pure functions of the blocks.

A race errs cheaply, since only the confirmation's fresh pairs claim anything (search/decide/confirm.py). So it need not
prove that a loser is slower; it spends its processes where the best may be.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from rtmo_optuna.search.decide import noise
from rtmo_optuna.types.request import Settings

Block: TypeAlias = Mapping[Settings, float | None]

_LEAST_BLOCKS = 5


@dataclass(frozen=True, slots=True)
class RaceRules:
    """How a race narrows: first it drops who is clearly behind, then who is most likely behind.

    Block b, from 0, is run by the best `widest` * `narrowing`**b at most, and by no one who is further behind the
    leader than luck alone would put it: of k equal contenders with normal values the luckiest is about sqrt(2 ln k)
    standard errors ahead (David and Nagaraja, Order Statistics, section 4.5), of which `luck` is the share that drops.
    But two stay until `least_blocks`, so that no single process decides, and no one drops within `tie` of the leader.
    `failures` failed processes drop as well. At the end the simplest settings within `tie` of the best win.

    A `plain` contender has a place in the field and stays until `least_blocks` too. It wins within one standard error,
    from five blocks on `plain_tie` at the most, so that what it lacks has to show its worth. Before five blocks, which
    tell little, whoever else is simpler than the leader wins within one standard error, `early_tie` at the most (the
    rule of one standard error: Breiman and others, Classification and Regression Trees, 1984, section 3.4.3), but no
    `rival`: whether one is beaten is for the confirmation to say.

    It is successive halving on all values so far (Karnin, Koren and Somekh, ICML 2013) in small steps. The figures are
    from simulated studies (benchmarks/simulated.py): a gain as large as the spread between processes is the tenth of 40
    single values on average, so that a race of the best six would lack it in every second study.
    """

    widest: int = 40
    narrowing: float = 0.82
    blocks: int = 16
    least_blocks: int = _LEAST_BLOCKS
    luck: float = 0.9
    tie: float = 0.005
    plain_tie: float = 0.01
    early_tie: float = 0.03
    failures: int = 2

    def field(self, block: int) -> int:
        """Return how many contenders may run in `block`, counted from 0."""
        return max(2, round(self.widest * self.narrowing**block))

    def most(self, contenders: int) -> int:
        """Return how many processes a race of so many contenders takes at most."""
        return sum(min(contenders, self.field(block)) for block in range(self.blocks))

    def fitted(self, contenders: int, processes: int) -> RaceRules:
        """Return rules for at most `processes` processes: a narrower field, over fewer blocks where it is narrow.

        Half as many blocks as contenders, or a third, or three quarters: simulated, they find as much. Where there is
        not even time for two contenders over `least_blocks` blocks, they run as many as there is time for, or none: the
        race claims nothing, and a claim takes its pairs.
        """
        fits = (
            replace(self, widest=widest, blocks=min(self.blocks, max(self.least_blocks, widest // 2 + 2)))
            for widest in range(self.widest, 1, -1)
        )
        blocks = max(0, min(self.least_blocks, processes // 2))
        least = replace(self, widest=2, blocks=blocks, least_blocks=blocks)
        return next((rules for rules in fits if rules.most(contenders) <= processes), least)


@dataclass(frozen=True, slots=True)
class Contender:
    """Settings that may win, with the process values in ms that are known from before the race, and GPU memory.

    `plain` are the best settings without all that was not seen to matter; a `rival` is what the winner will be
    compared with.
    """

    settings: Settings
    before: tuple[float, ...] = ()
    memory_bytes: int | None = None
    plain: bool = False
    rival: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """A contender in the race: all its process values in ms, and how far it is.

    `relative` holds log(latency) relative to the field, once for the values from before and once for each block that
    it ran. `dropped_after` counts the blocks when it was dropped; None while it runs.
    """

    contender: Contender
    values: tuple[float, ...]
    relative: tuple[float, ...]
    failures: int = 0
    dropped_after: int | None = None

    @property
    def settings(self) -> Settings:
        """The contender's settings."""
        return self.contender.settings

    @property
    def level(self) -> float:
        """The typical log(latency) relative to the field; -inf where nothing is known yet, so that it gets a run."""
        return noise.location(self.relative) if self.relative else -math.inf


@dataclass(frozen=True, slots=True)
class RaceState:
    """Where a race stands after `blocks` blocks; `spread` is s_b as far as it is known."""

    rules: RaceRules
    lanes: tuple[Lane, ...]
    blocks: int = 0
    spread: float | None = None

    @property
    def running(self) -> tuple[Settings, ...]:
        """Who runs in the next block, or did to the end; the best first."""
        return tuple(lane.settings for lane in _best_first(self._left))

    @property
    def over(self) -> bool:
        """Whether there is nothing left to run: all blocks are run, or at most one contender is left."""
        return self.blocks >= self.rules.blocks or len(self._left) <= 1

    @property
    def winner(self) -> Settings | None:
        """The leader so far: of those that are no worse than it the simplest settings, then the least memory.

        None where all contenders failed, or none has a value.
        """
        ranked = _best_first(lane for lane in self._left if lane.relative)
        near = (lane for lane in ranked if lane.level - ranked[0].level <= self._tie(lane, ranked[0]))
        return min(near, key=_plainness).settings if ranked else None

    def _tie(self, lane: Lane, first: Lane) -> float:
        """Return how far behind `first` is no difference for `lane`."""
        rules, early, plain = self.rules, self.blocks < _LEAST_BLOCKS, lane.contender.plain
        tie = math.log1p(rules.tie)
        if self.spread is None or lane.contender.rival or not (early or plain):
            return tie
        most = math.log1p(rules.early_tie if early else rules.plain_tie)
        error = _error(self.spread, lane, first)
        return max(tie, error if early and plain else min(most, error))

    @property
    def _left(self) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes if lane.dropped_after is None)


def order(block: int, contenders: Sequence[Settings], seed: int) -> tuple[Settings, ...]:
    """Return `contenders` in the random order of `block`: the same for the same seed, whatever order they came in."""
    shuffled = sorted(contenders, key=str)
    random.Random(f"{seed}/{block}").shuffle(shuffled)  # noqa: S311 - no secret
    return tuple(shuffled)


def start(contenders: Iterable[Contender], rules: RaceRules) -> RaceState:
    """Return a race before its first block: the values from before are its first standing.

    Contenders with equal settings are one: the first, with the values of all.
    """
    merged: dict[Settings, Contender] = {}
    for one in contenders:
        first = merged.setdefault(one.settings, replace(one, before=()))
        before, plain, rival = first.before + one.before, first.plain or one.plain, first.rival or one.rival
        merged[one.settings] = replace(first, before=before, plain=plain, rival=rival)
    lanes = [Lane(contender, contender.before, ()) for contender in merged.values()]
    known = {lane.settings: noise.location(lane.values) for lane in lanes if lane.values}
    return _narrowed(RaceState(rules, _with(lanes, known)))


def after(state: RaceState, block: Block) -> RaceState:
    """Return the race after one more block: a latency in ms for each contender that ran, None where it failed.

    Contenders that `block` lacks were not run, which costs them nothing; others than the running ones are ignored.
    """
    running = set(state.running)
    ran = {settings: value for settings, value in block.items() if settings in running}
    values = {settings: value for settings, value in ran.items() if value is not None}
    lanes = [
        replace(
            lane,
            values=(*lane.values, values[lane.settings]) if lane.settings in values else lane.values,
            failures=lane.failures + (lane.settings in ran and lane.settings not in values),
        )
        for lane in state.lanes
    ]
    return _narrowed(replace(state, lanes=_with(lanes, values), blocks=state.blocks + 1))


def _with(lanes: Iterable[Lane], values: Mapping[Settings, float]) -> tuple[Lane, ...]:
    """Return `lanes` with the logarithms of `values`, relative to their median, so that a slow spell hits nobody."""
    logs = {settings: math.log(value) for settings, value in values.items()}
    middle = statistics.median(logs.values()) if logs else 0.0
    return tuple(
        replace(lane, relative=(*lane.relative, logs[lane.settings] - middle)) if lane.settings in logs else lane
        for lane in lanes
    )


def _narrowed(state: RaceState) -> RaceState:
    """Return `state` without those who failed too often, do not fit into the next block, or are too far behind."""
    rules = state.rules
    ranked = _best_first(lane for lane in state.lanes if lane.dropped_after is None)
    out = {lane.settings for lane in ranked if lane.failures >= rules.failures}
    sound = [lane for lane in ranked if lane.settings not in out]
    valued = [lane for lane in sound if lane.relative]
    spread, freedom = noise.pooled(lane.values for lane in state.lanes)
    plain = {lane.settings for lane in sound if lane.contender.plain}
    safe = {lane.settings for lane in sound[:1]}
    if state.blocks < rules.least_blocks:
        safe = plain.union(lane.settings for lane in sound[:2])
    if state.blocks < rules.blocks:
        others = [lane for lane in sound if not lane.contender.plain]
        out.update(lane.settings for lane in others[rules.field(state.blocks) - len(plain) :])
    if spread is not None and valued:
        first, tie = valued[0], math.log1p(rules.tie)
        cautious = spread * (1 + 1 / math.sqrt(2 * freedom))  # one standard error more: the spread is an estimate
        luck = rules.luck * math.sqrt(2 * math.log(len(valued)))
        behind = (lane for lane in sound if lane.level - first.level > max(tie, luck * _error(cautious, lane, first)))
        out |= {lane.settings for lane in behind} - safe
    lanes = tuple(replace(lane, dropped_after=state.blocks) if lane.settings in out else lane for lane in state.lanes)
    return replace(state, lanes=lanes, spread=spread)


def _error(spread: float, lane: Lane, other: Lane) -> float:
    """Return the standard error of the difference of two lanes' levels; 0 where one has no value."""
    counts = (len(lane.relative), len(other.relative))
    return spread * math.sqrt(sum(1 / count for count in counts)) if all(counts) else 0.0


def _best_first(lanes: Iterable[Lane]) -> list[Lane]:
    return sorted(lanes, key=lambda lane: (lane.level, *_plainness(lane)))


def _plainness(lane: Lane) -> tuple[float, float, str]:
    memory = lane.contender.memory_bytes
    return len(lane.settings), math.inf if memory is None else memory, str(lane.settings)
