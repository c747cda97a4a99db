"""What to flip, what the flips say, and which dimensions may be frozen: pure decisions (search/screen.py runs them)."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rtmo_optuna import stats
from rtmo_optuna.search.decide import noise
from rtmo_optuna.search.decide.equivalence import InertTest, Option
from rtmo_optuna.space.hints import TOGETHER, WHY, gained, worth
from rtmo_optuna.space.resolve import params_of, settings_of, size
from rtmo_optuna.types.findings import KnobEffect, Reading
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import ModelFacts, Settings, Value
from rtmo_optuna.types.subject import Frozen, SearchSpace, StudyDefinition

AGAIN = 6
"""So many flips are a block, before and after which the default runs again: a host grows faster or slower by several
percent within minutes."""
NEAR = 3
"""How many standard errors a flip may be from the default to be tested for doing nothing."""
FAR = 0.2
"""A larger difference (of logs) is no change of the host's within the minutes of a screening (docs/lab/claims.md)."""
LEAST = 0.01
"""A smaller difference is no reading, however quiet the host seemed in the few processes that told."""
SMALL = 60
"""Up to so many live settings the search measures all of them, if it has the trials and the time (docs/design.md)."""
LEVEL = 0.98
_MATTERS = {Reading.FASTER, Reading.SLOWER, Reading.FAILED}


@dataclass(frozen=True, slots=True)
class Flip:
    """One choice off the default, or two that matter only together."""

    options: tuple[Option, ...]
    settings: Settings


@dataclass(frozen=True, slots=True)
class Level:
    """The default settings: their processes' costs, their outputs' hashes, and the costs of those among the flips.

    `again[n]` and `again[n + 1]` ran right before and right after the flips of block n. What another run of the program
    added has numbers further on.
    """

    costs: tuple[float, ...]
    outputs: frozenset[str]
    again: Mapping[int, float] = field(default_factory=dict)

    @property
    def noise(self) -> tuple[float | None, int]:
        """s_b and its degrees of freedom, from the default's own processes and neighbours among the flips.

        None for fewer than two. Neighbours share processes, so that k pairs tell as much as two thirds of k (von
        Neumann's ratio, 2 k^2 / (3 k - 1)).
        """
        beside = [(cost, self.again[block + 1]) for block, cost in self.again.items() if block + 1 in self.again]
        spread, freedom = noise.pooled([self.costs, *beside])
        return spread, freedom - len(beside) // 3

    def beside(self, block: int | None) -> tuple[float, ...]:
        """Return the costs of the processes right before and after the flips of `block`; none where none ran there."""
        places = () if block is None else (block, block + 1)
        return tuple(self.again[place] for place in places if place in self.again)


def flips(space: SearchSpace, model: ModelFacts | None = None) -> tuple[Flip, ...]:
    """Return each choice off the default, alone, and those of `hints.TOGETHER` with the one that they need.

    What may be worth most to `model` (None: a model with any operator) comes first (`hints.WORTH`), of equals the
    larger number, and what is known to do nothing on many machines (`hints.WHY`) last, since time and trials may not do
    for all. A choice that means nothing alone is left out. Empty where the default settings lie outside of the space.
    """
    default = params_of(space, space.fixed)
    if default is None:
        return ()

    def order(flip: Flip) -> tuple[bool, float, float]:
        name, label = flip.options[0]
        times = 1.0 if len(flip.options) == 1 and flip.options[0] in TOGETHER else worth(name, label, model)
        return name in WHY, -times, -label if isinstance(label, int) else 0

    options = (
        (d.name, choice.label) for d in space.dimensions for choice in d.choices if choice.label != default[d.name]
    )
    return tuple(sorted((flip for option in options for flip in _flips(space, default, option)), key=order))


def _flips(space: SearchSpace, default: Mapping[str, Value], option: Option) -> Iterator[Flip]:
    settings = settings_of(space, {**default, **dict([option])})
    if settings != space.fixed:
        yield Flip((option,), settings)
    needed = TOGETHER.get(option)
    labels = {(dimension.name, choice.label) for dimension in space.dimensions for choice in dimension.choices}
    if needed in labels and default[needed[0]] != needed[1]:
        both = (option, needed)
        yield Flip(both, settings_of(space, {**default, **dict(both)}))


def room(definition: StudyDefinition, count: int) -> int:
    """Return how many of `count` flips a study has room for: beside few trials, fewer than half as many as those."""
    return count if definition.trials >= 2 * (count + 1) else max(0, definition.trials // 2 - 1)


def unfit(definition: StudyDefinition, space: SearchSpace) -> str:
    """Return why a study is not screened; empty where it is.

    A space whose every settings is measured anyway has nothing to gain, nor has a search of hardly any trials.
    """
    count = len(flips(space))
    if definition.sampler == "exhaustive" or size(space) <= min(SMALL, definition.trials):
        return "the search measures every settings anyway"
    if not count:
        return "the space does not hold the default settings"
    if not room(definition, count):
        trials = "one trial" if definition.trials == 1 else f"{definition.trials} trials"
        return f"{count} flips are too many beside {trials}"
    return ""


def plainer(space: SearchSpace, settings: Settings, effects: Sequence[KnobEffect]) -> Settings:
    """Return `settings` with every choice at its default that was not seen to matter alone.

    Left as they are: choices that were faster, slower or failed by themselves; of those that were not tried, or that
    nobody can tell from the default by themselves, what was worth something elsewhere (`hints.WORTH`: HEURISTIC was,
    beside a cut); with one that stays, the one that it needs (`hints.TOGETHER`); and such a pair that was faster
    together. It is a guess, to be measured.
    """
    params, default = params_of(space, settings), params_of(space, space.fixed)
    if params is None or default is None:
        return settings
    read = {found.options[0]: found.reading for found in effects if len(found.options) == 1}

    def matters(option: Option) -> bool:
        reading = read.get(option, Reading.UNDECIDED)
        return reading in _MATTERS or (reading is Reading.UNDECIDED and gained(*option))

    pairs = [dict(found.options) for found in effects if len(found.options) > 1 and found.reading is Reading.FASTER]
    kept = dict(option for option in params.items() if matters(option))
    needed = (TOGETHER.get(option) for option in kept.items())
    kept |= dict(option for option in needed if option and option in params.items())
    kept |= {name: label for pair in pairs if pair.items() <= params.items() for name, label in pair.items()}
    return settings_of(space, {**default, **kept})


def effect(flip: Flip, measured: Measurement, costs: Sequence[float], default: Level, block: int | None) -> KnobEffect:
    """Return what the trial of `flip`, one of `block`, says, with its processes' `costs` (empty where it failed).

    The log of the ratio is the difference of the mean log costs of the flip's k processes and of the location of the n
    of the default beside it. Its standard error is s_b sqrt(1/k + 1/n), with s_b from the default's processes (the
    flip's own spread is taken to be the same), and its interval that times t(0.99) of their degrees of freedom; a
    pruned trial has none. Faster or slower it is called from three standard errors on; what is nearer is undecided
    until the test of search/decide/equivalence.py. So is a trial beside which no default ran (None: it ran before the
    screening, as a rung of the ladder for instance, or for another driver), since the host may have changed; unless it
    was so slow that it was pruned, or is further off than hosts change.
    """
    blank = KnobEffect(flip.options, flip.settings, Reading.FAILED)
    if measured.outcome not in {Outcome.MEASURED, Outcome.PRUNED} or not costs or not default.costs:
        return blank
    beside, (spread, freedom) = default.beside(block), default.noise
    near = beside or default.costs
    gap = sum(math.log(cost) for cost in costs) / len(costs) - noise.location([math.log(cost) for cost in near])
    error = None if spread is None else spread * math.sqrt(1 / len(costs) + 1 / len(near))
    reading = Reading.UNDECIDED
    told = beside or measured.outcome is Outcome.PRUNED or abs(gap) > FAR
    if told and error is not None and abs(gap) > max(NEAR * error, LEAST):
        reading = Reading.SLOWER if gap > 0 else Reading.FASTER
    found = replace(
        blank,
        reading=reading,
        ratio=math.exp(gap),
        equal_outputs=bool(measured.outputs_sha256) and measured.outputs_sha256 in default.outputs,
    )
    if error is None or measured.outcome is Outcome.PRUNED:
        return found
    reach = stats.t_quantile((1 + LEVEL) / 2, freedom) * error
    return replace(found, low=math.exp(gap - reach), high=math.exp(gap + reach))


def candidates(space: SearchSpace, effects: Iterable[KnobEffect]) -> tuple[Option, ...]:
    """Return the options to test for doing nothing: undecided, outputs equal, each meaning the same beside the others.

    A dimension of which a choice is faster, or changes the outputs without being slower, is live anyway; it is not
    tested, nor is one that another candidate would make meaningless.
    """
    alone = [found for found in effects if len(found.options) == 1]
    live = {f.options[0][0] for f in alone if f.reading is Reading.FASTER}
    live |= {f.options[0][0] for f in alone if f.reading is Reading.UNDECIDED and not f.equal_outputs}
    default = params_of(space, space.fixed) or {}
    chosen: list[KnobEffect] = []
    for found in alone:
        near = found.reading is Reading.UNDECIDED and found.ratio is not None
        if near and found.options[0][0] not in live and all(_beside(space, default, found, o) for o in chosen):
            chosen.append(found)
    return tuple(found.options[0] for found in chosen)


def _beside(space: SearchSpace, default: Mapping[str, Value], one: KnobEffect, other: KnobEffect) -> bool:
    if one.options[0][0] == other.options[0][0]:
        return True
    both = settings_of(space, {**default, **dict((*one.options, *other.options))})
    return set(both) == set(one.settings) | set(other.settings)


def with_test(effects: Iterable[KnobEffect], test: InertTest) -> tuple[KnobEffect, ...]:
    """Return `effects` with what the test says of its options in place of their single trials."""
    told = dict(zip(test.options, test.told, strict=True))

    def better(found: KnobEffect) -> KnobEffect:
        said = told.get(found.options[0]) if len(found.options) == 1 else None
        if said is None or said.estimate is None or said.low is None or said.high is None:
            return found
        reading = Reading.INERT if said.inert else Reading.UNDECIDED
        if said.active:
            reading = Reading.SLOWER if said.estimate > 0 else Reading.FASTER
        ratio, low, high = (math.exp(log) for log in (said.estimate, said.low, said.high))
        return replace(found, reading=reading, ratio=ratio, low=low, high=high, pairs=said.count)

    return tuple(better(found) for found in effects)


_HARMLESS = {Reading.INERT, Reading.SLOWER, Reading.FAILED}


def inert(space: SearchSpace, effects: Sequence[KnobEffect], model: ModelFacts) -> tuple[Frozen, ...]:
    """Return the dimensions that may stay at their defaults, with the reason where one is known.

    At least one choice does nothing, and each of the others does nothing, is slower or fails; the same of a choice that
    needs another one, tried with it. A choice that was not tried keeps its dimension in the search.
    """
    found = []
    for dimension in space.dimensions:
        own = [one for one in effects if one.options[0][0] == dimension.name]
        tried = {one.options[0][1] for one in own if len(one.options) == 1}
        readings = {one.reading for one in own}
        if Reading.INERT in readings and readings <= _HARMLESS and len(tried) == len(dimension.choices) - 1:
            why = WHY.get(dimension.name)
            found.append(Frozen(dimension.name, why(model) if why else ""))
    return tuple(found)
