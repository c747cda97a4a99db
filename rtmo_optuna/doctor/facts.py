"""What the checks judge, gathered once: by looking here, and by children that load, run and open things."""

import enum
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rtmo_optuna import cache
from rtmo_optuna.machine import cores, host, load
from rtmo_optuna.machine import gpu as gpus
from rtmo_optuna.machine.gpu import GpuProcess, Vitals
from rtmo_optuna.machine.load import Load
from rtmo_optuna.types.placement import Placement
from rtmo_optuna.types.subject import GpuState, Machine


class Level(enum.StrEnum):
    """How bad a finding is."""

    FAIL = "fail"
    WARN = "warn"
    OK = "ok"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says: what was seen, and what to do about it (empty where there is nothing to do)."""

    check: str
    level: Level
    seen: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Software:
    """What is installed. `packages` are those that fill the folder `onnxruntime`, `nvidia` NVIDIA's, by version.

    `versions` are those that a child told, with `libraries` by name and where each was found ("": nowhere); `broken` is
    what went wrong in it instead. `convolved` says that a convolution ran on the provider and came out as on the CPU,
    `not_convolved` why it did not.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    nvidia: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    broken: str = ""
    convolved: bool = False
    not_convolved: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """The GPUs that the machine has, and what the driver says of the one at hand; `serves` is its newest CUDA."""

    cards: int = 0
    hidden: str = ""
    serves: tuple[int, int] | None = None
    vitals: Vitals = field(default_factory=Vitals)
    state: GpuState | None = None
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that files go to: the bytes that are free there (None: not told), or why nothing can be written."""

    what: str
    path: str
    free_bytes: int | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """The processor. `spins_ns` is how long a fixed piece of work took on each core, in several rounds."""

    present: int = 1
    spins_ns: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    governors: tuple[str, ...] = ()
    loads: tuple[Load, ...] = ()
    folders: tuple[Folder, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """The model on the provider: where its nodes went, ONNX Runtime's log of why; or why it does not open."""

    path: str
    placement: Placement | None = None
    log: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was gathered; `on_gpu` says whether the provider computes on a GPU."""

    provider: str
    on_gpu: bool
    machine: Machine
    software: Software = Software()
    card: Card = Card()
    host: Host = Host()
    model: Model | None = None


def packages() -> tuple[dict[str, str], dict[str, str]]:
    """Return the packages that fill the folder `onnxruntime`, and NVIDIA's, by name, with their versions."""
    ours, nvidia = {}, {}
    for found in importlib.metadata.distributions():
        name, tops = str(found.metadata["Name"]).lower(), (found.read_text("top_level.txt") or "").split()
        if "onnxruntime" in tops:
            ours[name] = found.version
        if name.startswith("nvidia-") and name != "nvidia-ml-py":
            nvidia[name] = found.version
    return ours, nvidia


def card(machine: Machine) -> Card:
    """Return what is known of the GPUs; on a machine without any, whether there is a card without a driver."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = Card(gpus.cards(), "" if hidden is None else f"CUDA_VISIBLE_DEVICES={hidden}", gpus.driver_cuda())
    if machine.gpu is None:
        return found
    here = tuple(one for one in gpus.processes(machine.gpu) if one.pid != os.getpid())
    return Card(found.cards, found.hidden, found.serves, gpus.vitals(machine.gpu), gpus.state(machine.gpu), here)


def processor(machine: Machine) -> Host:
    """Return what is known of cores, load and folders."""
    return Host(
        present=cores.present(),
        spins_ns=cores.spins(),
        governors=cores.governors(),
        loads=load.busy_with(machine.cores)[1],
        folders=(
            folder("cache", cache.folder("")),
            folder("studies", Path("studies")),
            folder("temporary files", Path(tempfile.gettempdir())),
        ),
    )


def folder(what: str, path: Path) -> Folder:
    """Return how much room there is in a folder, or in the one that it would be made in."""
    path = path.absolute()
    standing = next(one for one in (path, *path.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=standing):
            pass
        return Folder(what, str(path), shutil.disk_usage(standing).free)
    except OSError as error:
        return Folder(what, str(path), refused=f"{error.strerror} ({standing})")


def machine_for(on_gpu: bool) -> Machine:  # noqa: FBT001 - a provider's own word
    """Return this machine, with its first GPU where the provider computes on one."""
    return host.host(next(iter(gpus.gpus()), None) if on_gpu else None)
