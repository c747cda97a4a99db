"""NVIDIA GPUs as NVML tells them: which ones CUDA programs started here see, their memory, who else is on them."""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.subject import Gpu, GpuState

_NVIDIA, _DISPLAY = "0x10de", "0x03"


class GpuProcess(NamedTuple):
    """A process that computes on a GPU; its name is "" and its memory None where NVML does not know them."""

    pid: int
    name: str
    memory_bytes: int | None


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES lets through; none where there is no driver or no nvidia-ml-py.

    `index` is the ordinal that CUDA and ONNX Runtime's `device_id` give a GPU. NVML, like CUDA with
    CUDA_DEVICE_ORDER=PCI_BUS_ID, counts in PCI order. By default CUDA counts the fastest first, which is PCI order too
    where all GPUs are of one kind: where they are not, set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name one by its UUID in
    CUDA_VISIBLE_DEVICES. `memory_bytes` is 0 where a GPU has no memory of its own.
    """
    nvml = _nvml()
    if nvml is None:
        return ()
    handles = [_ask(nvml, nvml.nvmlDeviceGetHandleByIndex, number) for number in range(nvml.nvmlDeviceGetCount())]
    present = [handle for handle in handles if handle is not None]  # some may be out of reach, for CUDA too
    uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in present]
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    return tuple(
        _gpu(nvml, present[number], ordinal, uuids[number], driver)
        for ordinal, number in enumerate(visible(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids))
    )


def free_bytes(device: int | str) -> int:
    """Return the free memory, in bytes, of a GPU given by its index among `gpus()` or by its UUID.

    Raises UsageError where there is no such GPU, or where it has no memory of its own.
    """
    here = gpus()
    found = next((gpu for gpu in here if device in {gpu.index, gpu.uuid}), None)
    if found is None:
        there = ", ".join(f"{gpu.index} ({gpu.name}, {gpu.uuid})" for gpu in here) or "none at all"
        raise UsageError(f"There is no GPU {device} here; visible to CUDA are: {there}.")
    nvml = _nvml()
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlDeviceGetHandleByUUID(found.uuid))
    if memory is None:
        message = f"The driver does not tell how much memory {found.name} has: choose a memory limit in gigabytes."
        raise UsageError(message)
    return int(memory.free)


def processes(gpu: Gpu) -> tuple[GpuProcess, ...]:
    """Return the processes that have a CUDA context on `gpu`, this one included, by process id; none without a driver.

    Programs that only draw on it (a desktop) are left out. In a container NVML may tell the host's process ids, or no
    process at all.
    """
    running = _told(gpu, "nvmlDeviceGetComputeRunningProcesses") or ()
    found = sorted(((process.pid, process.usedGpuMemory) for process in running), key=lambda one: one[0])
    return tuple(GpuProcess(pid, _process_name(_nvml(), pid), used) for pid, used in found)


def process_memory(gpu: Gpu, pid: int) -> int | None:
    """Return the bytes that process `pid` holds on `gpu`, its CUDA context included.

    None where NVML does not know: there is no driver, the process is not on this GPU, or it is known to the driver by
    another process id, as in a container with process ids of its own.
    """
    return next((process.memory_bytes for process in processes(gpu) if process.pid == pid), None)


def state(gpu: Gpu) -> GpuState:
    """Return clock, temperature and the reasons why clocks are held down, now; None and 0 where the driver is mute."""
    clock = _told(gpu, "nvmlDeviceGetClockInfo", "NVML_CLOCK_SM")
    reasons = _told(gpu, "nvmlDeviceGetCurrentClocksThrottleReasons")
    return GpuState(clock, int(reasons or 0), _told(gpu, "nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"))


def power_w(gpu: Gpu) -> float | None:
    """Return the power that `gpu` draws now, in watts; None where the driver is mute."""
    drawn = _told(gpu, "nvmlDeviceGetPowerUsage")
    return None if drawn is None else drawn / 1e3


@dataclass(frozen=True, slots=True)
class Vitals:
    """What may keep a GPU from its best, None where the driver is mute: memory in bytes, clocks in MHz, power in W.

    `persistent` says whether the driver stays loaded while nobody uses the GPU.
    """

    free_bytes: int | None = None
    most_sm_mhz: int | None = None
    power_limit_w: float | None = None
    default_limit_w: float | None = None
    persistent: bool | None = None


def vitals(gpu: Gpu) -> Vitals:
    """Return what may keep `gpu` from its best."""
    nvml = _nvml()
    handle = _ask(nvml, nvml.nvmlDeviceGetHandleByUUID, gpu.uuid) if nvml else None
    if handle is None:
        return Vitals()
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    limit = _ask(nvml, nvml.nvmlDeviceGetPowerManagementLimit, handle)
    default = _ask(nvml, nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
    persistent = _ask(nvml, nvml.nvmlDeviceGetPersistenceMode, handle)
    return Vitals(
        free_bytes=int(memory.free) if memory else None,
        most_sm_mhz=_ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
        power_limit_w=None if limit is None else limit / 1e3,
        default_limit_w=None if default is None else default / 1e3,
        persistent=None if persistent is None else bool(persistent),
    )


def driver_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA version that the driver serves, as (13, 0); None where there is no driver."""
    nvml = _nvml()
    number = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2) if nvml else None
    return None if number is None else (number // 1000, number % 1000 // 10)


def cards(devices: Path = Path("/sys/bus/pci/devices")) -> int:
    """Return how many NVIDIA graphics cards the machine has, with a driver or without; 0 where Linux does not tell.

    They are the PCI devices of NVIDIA's number whose class is a display's (linux/pci_ids.h).
    """
    found = 0
    for device in devices.glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = (device.joinpath(name).read_text().strip() for name in ("vendor", "class"))
            found += vendor == _NVIDIA and kind.startswith(_DISPLAY)
    return found


def visible(value: str | None, uuids: Sequence[str]) -> tuple[int, ...]:
    """Return which of the GPUs with `uuids` CUDA shows, by position in `uuids`, in CUDA's order.

    `value` is CUDA_VISIBLE_DEVICES: None shows all. As CUDA does, and as PyTorch's `torch.cuda._parse_visible_devices`
    retells it: the first entry that names no GPU ends the list, an entry given twice empties it, an entry counts up to
    where it stops being a number, and numbers and UUIDs (whole, or a beginning that only one GPU has) do not mix.
    Parts of a GPU (`MIG-...`) are not supported, and show none.
    """
    if value is None:
        return tuple(range(len(uuids)))
    named = value.strip().startswith("GPU-")
    shown: list[int] = []
    for entry in value.split(","):
        number = _by_uuid(entry.strip(), uuids) if named else _by_number(entry.strip(), len(uuids))
        if number is None:
            break
        if number in shown:
            return ()
        shown.append(number)
    return tuple(shown)


def _by_uuid(entry: str, uuids: Sequence[str]) -> int | None:
    fitting = [number for number, uuid in enumerate(uuids) if entry.startswith("GPU-") and uuid.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


def _by_number(entry: str, count: int) -> int | None:
    digits = re.match(r"\+?(\d+)", entry)
    return int(digits[1]) if digits and int(digits[1]) < count else None


@functools.cache
def _nvml() -> Any:  # noqa: ANN401 - nvidia-ml-py has no types
    """Return pynvml, ready to be asked; None without a driver. The driver is woken up once in a process."""
    try:
        import pynvml  # noqa: PLC0415 - a benchmark child is spared it

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None
    return pynvml


def _ask(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """Return the driver's answer, or None where it has none (not supported, not permitted, gone meanwhile)."""
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None


def _told(gpu: Gpu, question: str, *constants: str) -> Any:  # noqa: ANN401
    """Return what the driver says of `gpu`, asked by the names of a function and of what it takes; None where mute."""
    nvml = _nvml()
    handle = _ask(nvml, nvml.nvmlDeviceGetHandleByUUID, gpu.uuid) if nvml else None
    given = (getattr(nvml, name) for name in constants)
    return None if handle is None else _ask(nvml, getattr(nvml, question), handle, *given)


def _gpu(nvml: Any, handle: Any, index: int, uuid: str, driver: str) -> Gpu:  # noqa: ANN401
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Gpu(
        index=index,
        uuid=uuid,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(memory.total) if memory else 0,
        driver=driver,
        compute_capability=".".join(str(part) for part in capability or ()),
    )


def _process_name(nvml: Any, pid: int) -> str:  # noqa: ANN401
    told = _ask(nvml, nvml.nvmlSystemGetProcessName, pid)
    return Path(_text(told)).name if told else ""


def _text(told: str | bytes) -> str:
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)
