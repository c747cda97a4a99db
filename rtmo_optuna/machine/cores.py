"""The cores of this machine: how fast each one is now, how the kernel sets their clocks, and which may be used."""

import os
from collections.abc import Mapping
from pathlib import Path

from rtmo_optuna.machine.canary import spin

ROUNDS = 8
_SYSTEM = Path("/sys/devices/system/cpu")


def spins(rounds: int = ROUNDS) -> Mapping[int, tuple[int, ...]]:
    """Return how long the canary's spin takes on each core that this thread may use, in ns, in so many rounds.

    A round takes a millisecond a core. Empty where threads cannot be pinned.
    """
    if not hasattr(os, "sched_setaffinity"):
        return {}
    allowed = os.sched_getaffinity(0)
    taken: dict[int, list[int]] = {core: [] for core in sorted(allowed)}
    try:
        for _ in range(rounds):
            for core, times in taken.items():
                os.sched_setaffinity(0, {core})
                times.append(spin())
    except OSError:  # a core was taken away, or pinning is forbidden
        return {}
    finally:
        os.sched_setaffinity(0, allowed)
    return {core: tuple(times) for core, times in taken.items()}


def governors(system: Path = _SYSTEM) -> tuple[str, ...]:
    """Return by what rules the kernel sets the cores' clocks, each once; none where it does not, as in most VMs."""
    files = system.glob("cpu[0-9]*/cpufreq/scaling_governor")
    return tuple(sorted({file.read_text().strip() for file in files}))


def present() -> int:
    """Return how many cores the machine has, whoever may use them."""
    return os.cpu_count() or 1
