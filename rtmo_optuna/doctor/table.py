"""The table of checks: each judges the facts, and yields what it finds."""

from collections.abc import Callable, Iterable

from rtmo_optuna.doctor import card, model, processor, software
from rtmo_optuna.doctor.facts import Facts, Finding

CHECKS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
    software.packages,
    software.runtime,
    software.driver,
    software.libraries,
    software.convolution,
    model.opened,
    model.nodes,
    model.copies,
    card.memory,
    card.processes,
    card.clocks,
    card.power,
    card.persistence,
    processor.governor,
    processor.cores,
    processor.affinity,
    processor.load,
    processor.disk,
)


def judged(facts: Facts) -> tuple[Finding, ...]:
    """Return what all checks find, in the table's order."""
    return tuple(finding for check in CHECKS for finding in check(facts))
