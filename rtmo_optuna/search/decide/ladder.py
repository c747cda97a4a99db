"""What won elsewhere, tried part upon part: what comes next follows from what was measured, and nothing else."""

from collections.abc import Callable

from rtmo_optuna.space.hints import LADDER
from rtmo_optuna.space.resolve import params_of, settings_of
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.subject import SearchSpace


def next_rung(space: SearchSpace, cost_of: Callable[[Settings], float | None]) -> Settings | None:
    """Return the settings of `hints.LADDER` to be tried next; None where none are, or the default was not tried.

    `cost_of` gives what settings cost: None where they were not tried, infinite where they failed or were given up. A
    part is kept where it costs less than what was kept before it; the next rung is tried upon that. So a part that
    fails or makes things slower here hides no other one. What the space lacks is passed over.
    """
    kept = params_of(space, space.fixed)
    least = cost_of(space.fixed)
    if kept is None or least is None:
        return None
    choices = {(dimension.name, choice.label) for dimension in space.dimensions for choice in dimension.choices}
    for rung in LADDER:
        for part in rung:
            if not part.items() <= choices or part.items() <= kept.items():
                continue
            settings = settings_of(space, {**kept, **part})
            cost = cost_of(settings)
            if cost is None:
                return settings
            if cost < least:
                kept, least = {**kept, **part}, cost
                break
    return None
