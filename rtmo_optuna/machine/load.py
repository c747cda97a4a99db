"""Who else computes on the processor: the time that foreign processes take of it over a short while."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUSY = 0.25
"""The share of the cores from which others' work is told from that of a desktop at rest."""
_PROC = Path("/proc")
_SAMPLE_S = 0.3
_SAMPLES = 3
_OURS = frozenset({"rtmo-optuna", "rtmo_optuna", "rtmo_optuna.child.worker"})
"""How this program, and its children, are called on their command lines."""
_SELDOM = 0.05
"""Who takes less of a core is not named."""


@dataclass(frozen=True, slots=True)
class Load:
    """A process, how many cores it kept busy, and on which it may run: none where that is not told."""

    pid: int
    name: str
    cores: float
    places: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc/<pid>/stat tells it; `ticks` is its processor time, in clock ticks."""

    parent: int
    name: str
    start: int
    ticks: int


def busy_with(cores: int) -> tuple[float, tuple[Load, ...]]:
    """Return how many of this process's `cores` others keep busy, and which processes, the busiest first.

    Nothing and none where that is less than a quarter. Others are what is neither this process, nor its child, nor
    another process of this program: those take turns. They have to be as busy in each of up to three samples of 0.3 s,
    so that what ends within a second is no matter. None where the kernel does not tell, as without /proc.
    """
    taken, found = 0.0, tuple[Load, ...]()
    for _ in range(_SAMPLES):
        before, begun = processes(), time.monotonic()
        time.sleep(_SAMPLE_S)
        found = foreign(before, processes(), time.monotonic() - begun)
        taken = min(cores, crowded(found, _places(0), os.cpu_count() or 1))
        if taken < BUSY * cores:
            return 0.0, ()
    return taken, found


def crowded(found: Sequence[Load], ours: frozenset[int], every: int) -> float:
    """Return how many of the cores `ours` the processes `found` keep busy at the least, on a machine of `every` cores.

    Those that may run elsewhere too do so as long as there is room.
    """
    bound = sum(load.cores for load in found if load.places <= ours)
    others = sum(load.cores for load in found) - bound
    return bound + max(0.0, others - (every - len(ours)))


def foreign(before: dict[int, Process], after: dict[int, Process], spent_s: float) -> tuple[Load, ...]:
    """Return the processes of others that were busy between two looks, the busiest first."""
    second = spent_s * os.sysconf("SC_CLK_TCK")
    loads = []
    for pid, now in after.items():
        then = before.get(pid)
        ticks = now.ticks - (then.ticks if then and then.start == now.start else 0)
        if ticks > _SELDOM * second and not _is_ours(pid, after):
            loads.append(Load(pid, now.name, ticks / second, _places(pid)))
    return tuple(sorted(loads, key=lambda load: -load.cores))


def processes() -> dict[int, Process]:
    """Return every process that this one may see, by its id."""
    entries = _PROC.iterdir() if _PROC.joinpath("self/stat").exists() else ()
    return {int(entry.name): found for entry in entries if entry.name.isdecimal() and (found := _process(entry))}


def _places(pid: int) -> frozenset[int]:
    try:
        return frozenset(os.sched_getaffinity(pid)) if hasattr(os, "sched_getaffinity") else frozenset()
    except OSError:
        return frozenset()


def _process(entry: Path) -> Process | None:
    """Return a process as proc(5) tells it (fields 4, 14, 15 and 22); None where it has ended."""
    try:
        head, _, rest = entry.joinpath("stat").read_text(errors="replace").rpartition(")")
        fields = rest.split()
        return Process(int(fields[1]), head.partition("(")[2], int(fields[19]), int(fields[11]) + int(fields[12]))
    except (OSError, IndexError, ValueError):
        return None


def _is_ours(pid: int, every: dict[int, Process]) -> bool:
    """Whether a process is this one or comes from it, or is one of this program that waits for its turn."""
    known, at = {os.getpid()}, pid
    while at in every and at not in known:
        known.add(at)
        at = every[at].parent
    if at == os.getpid():
        return True
    try:
        command = _PROC.joinpath(str(pid), "cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    return not _OURS.isdisjoint(Path(word).name for word in command)
