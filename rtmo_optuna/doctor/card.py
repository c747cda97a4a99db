"""Checks of the GPU: what it has left, who else is on it, and what holds it back."""

from collections.abc import Iterator

from rtmo_optuna.doctor.facts import Facts, Finding, Level
from rtmo_optuna.show.sections.machine import held_down
from rtmo_optuna.show.words import count, gib, listed, share
from rtmo_optuna.types.subject import ClockReason

_LITTLE_FREE = 0.25
_HELD_BACK = (
    ClockReason.HARDWARE
    | ClockReason.HEAT_SOFTWARE
    | ClockReason.HEAT_HARDWARE
    | ClockReason.POWER_BRAKE
    | ClockReason.POWER_CAP
)
_NAMED = 3


def memory(facts: Facts) -> Iterator[Finding]:
    """Yield how much of the GPU's memory is free."""
    gpu, free = facts.machine.gpu, facts.card.vitals.free_bytes
    if gpu is None or free is None or not gpu.memory_bytes:
        yield _untold("memory", facts)
        return
    seen = f"{gib(free)} of {gib(gpu.memory_bytes)} are free ({share(free, gpu.memory_bytes)})."
    if free < _LITTLE_FREE * gpu.memory_bytes:
        todo = "End who holds it (nvidia-smi lists them), or fix gpu_mem_limit_gb in a study definition."
        yield Finding("memory", Level.WARN, seen, todo)
    else:
        yield Finding("memory", Level.OK, seen)


def processes(facts: Facts) -> Iterator[Finding]:
    """Yield who else computes on the GPU."""
    if facts.machine.gpu is None:
        yield _untold("processes", facts)
        return
    others = facts.card.processes
    if not others:
        yield Finding("processes", Level.OK, "Nobody else computes on the GPU.")
        return
    who = listed(f"{one.name or 'a process'} (pid {one.pid})" for one in others[:_NAMED])
    seen = f"{count(len(others), 'other process', 'other processes')} on the GPU: {who}."
    yield Finding("processes", Level.WARN, seen, "End them before you measure, or believe the figures less.")


def clocks(facts: Facts) -> Iterator[Finding]:
    """Yield how fast the GPU runs, and what holds it back now."""
    state, most = facts.card.state, facts.card.vitals.most_sm_mhz
    if state is None or state.sm_mhz is None:
        yield _untold("clocks", facts)
        return
    heat = "" if state.celsius is None else f", {state.celsius} °C"
    seen = f"{state.sm_mhz}{f' of {most}' if most else ''} MHz now{heat}"
    held = held_down(state.reasons)
    if state.reasons & _HELD_BACK:
        todo = "Cool it, or raise its power limit: what is measured now is not what it can do."
        yield Finding("clocks", Level.WARN, f"{seen}: held down by {held}.", todo)
    elif held:
        yield Finding(
            "clocks", Level.OK, f"{seen}: held down by {held}, which somebody chose (nvidia-smi -rgc undoes it)."
        )
    else:
        yield Finding("clocks", Level.OK, f"{seen}; nothing holds it back. At rest its clock says no more.")


def power(facts: Facts) -> Iterator[Finding]:
    """Yield whether the GPU's power limit is its default."""
    limit, default = facts.card.vitals.power_limit_w, facts.card.vitals.default_limit_w
    if limit is None or default is None:
        yield _untold("power", facts)
    elif limit < default:
        todo = f"sudo nvidia-smi -pl {default:.0f}, unless it was lowered on purpose."
        yield Finding("power", Level.WARN, f"The limit is {limit:.0f} W, {default:.0f} W by default.", todo)
    else:
        yield Finding("power", Level.OK, f"The limit is {limit:.0f} W, which is not lower than the default.")


def persistence(facts: Facts) -> Iterator[Finding]:
    """Yield whether the driver stays loaded while nobody uses the GPU."""
    persistent = facts.card.vitals.persistent
    if persistent is None:
        yield _untold("persistence", facts)
    elif persistent:
        yield Finding("persistence", Level.OK, "The driver stays loaded between processes.")
    else:
        seen = "The driver unloads while nobody uses the GPU, so that each process starts later."
        yield Finding("persistence", Level.WARN, seen, "sudo nvidia-smi -pm 1, or run nvidia-persistenced.")


def _untold(check: str, facts: Facts) -> Finding:
    """Return that nothing is known to judge by: the driver is mute, or there is no GPU, or none is needed."""
    seen = (
        f"The provider {facts.provider} needs no GPU."
        if not facts.on_gpu
        else "The driver does not tell."
        if facts.machine.gpu
        else "There is no GPU at hand."
    )
    return Finding(check, Level.SKIPPED, seen)
