"""Checks of the host: its cores, who else is on them, and where files go."""

import statistics
from collections.abc import Iterator

from rtmo_optuna.doctor.facts import Facts, Finding, Level
from rtmo_optuna.machine.canary import BUSY
from rtmo_optuna.show.words import count, gib, listed

_SELDOM = 0.2
"""The share of its spins that may be slow before a core is called noisy: one of five is a neighbour's burst."""
_NAMED = 3
_LITTLE_BYTES = 2 * 2**30
_NOTHING_BYTES = 100 * 2**20
_SLOW_GOVERNORS = {"powersave", "conservative", "ondemand"}


def governor(facts: Facts) -> Iterator[Finding]:
    """Yield by what rules the kernel sets the cores' clocks."""
    found = facts.host.governors
    if not found:
        yield Finding(
            "governor", Level.SKIPPED, "The kernel does not set the clocks here, as in most virtual machines."
        )
        return
    seen = f"The cores' clocks are set by {listed(found)}."
    if slow := _SLOW_GOVERNORS.intersection(found):
        todo = "sudo cpupower frequency-set -g performance, while it matters."
        yield Finding("governor", Level.WARN, f"{seen} {listed(sorted(slow))} lets them fall between calls.", todo)
    else:
        yield Finding("governor", Level.OK, seen)


def cores(facts: Facts) -> Iterator[Finding]:
    """Yield which cores are slow now, by the time that a fixed piece of work takes on each."""
    spins = facts.host.spins_ns
    if not spins:
        yield Finding("cores", Level.SKIPPED, "Threads cannot be pinned here, so no core is tried by itself.")
        return
    best = min(min(times) for times in spins.values())
    slow = {core: sum(time > BUSY * best for time in times) / len(times) for core, times in spins.items()}
    noisy = sorted((part, core) for core, part in slow.items() if part > _SELDOM)[::-1]
    typical = [statistics.median(times) / 1e6 for times in spins.values()]
    span = f"{min(typical):.2f} to {max(typical):.2f} ms"
    seen = f"{count(len(spins), 'core')}: {span} for what takes {best / 1e6:.2f} at best"
    if noisy:
        named = ", ".join(f"{core} ({100 * part:.0f} % of the time)" for part, core in noisy[:_NAMED])
        more = f" and {len(noisy) - _NAMED} more" if len(noisy) > _NAMED else ""
        todo = "Wait until the host is quiet; on a GPU, a tune then times single calls on quiet cores."
        yield Finding("cores", Level.WARN, f"{seen}; slow by {BUSY - 1:.0%} or more: core {named}{more}.", todo)
    else:
        yield Finding("cores", Level.OK, f"{seen}; none is slow.")


def affinity(facts: Facts) -> Iterator[Finding]:
    """Yield how many of the machine's cores this process may use."""
    usable, pinned = facts.machine.cores, len(facts.host.spins_ns) or facts.machine.cores
    seen = f"{usable} of {facts.host.present} cores may be used"
    if usable < pinned:
        todo = "Give the container whole cores (--cpuset-cpus) in place of a share of their time (--cpus)."
        held = "a control group stops everything where their time is used up"
        yield Finding("affinity", Level.WARN, f"{seen}: {held}.", todo)
    elif usable == 1:
        todo = "Give it two at least: a call and what the system does meanwhile take turns on one."
        yield Finding("affinity", Level.WARN, f"{seen}.", todo)
    else:
        yield Finding("affinity", Level.OK, f"{seen}.")


def load(facts: Facts) -> Iterator[Finding]:
    """Yield who else computes on the processor."""
    loads = facts.host.loads
    if not loads:
        yield Finding("load", Level.OK, "Others take less than a quarter of the cores.")
        return
    who = listed(f"{one.name} (pid {one.pid}, {one.cores:.1f} cores)" for one in loads[:_NAMED])
    seen = f"Others take {sum(one.cores for one in loads):.1f} of {facts.machine.cores} cores: {who}."
    yield Finding("load", Level.WARN, seen, "End them before you measure, or believe the figures less.")


def disk(facts: Facts) -> Iterator[Finding]:
    """Yield how much room there is where files go; a finding for each folder that has too little."""
    fine = []
    for one in facts.host.folders:
        free = one.free_bytes
        if one.refused or free is None:
            todo = "Let it be written to, or name another: XDG_CACHE_HOME, --storage, TMPDIR."
            yield Finding("disk", Level.FAIL, f"{one.what}: {one.path} cannot be written: {one.refused}.", todo)
        elif free < _LITTLE_BYTES:
            level = Level.FAIL if free < _NOTHING_BYTES else Level.WARN
            yield Finding("disk", level, f"{one.what}: {gib(free)} are free in {one.path}.", "Make room there.")
        else:
            fine.append(f"{one.what} {gib(free)}")
    if fine:
        yield Finding("disk", Level.OK, f"Free: {', '.join(fine)}.")
