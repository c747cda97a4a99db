"""Ways to wait for the next call of a schedule, and to keep host and GPU ready meanwhile: a table of functions."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.device import Device
from rtmo_optuna.types.request import Settings

Wait: TypeAlias = Callable[[int], None]
"""Returns at the given time, in ns of time.perf_counter_ns, or as soon after it as it can."""

SYNCS = {"auto": 0, "spin": 1, "blocking": 4}
"""How the host waits for the GPU: CU_CTX_SCHED_AUTO, _SPIN and _BLOCKING_SYNC. AUTO spins where there are cores."""
_SPUN_NS = 2_000_000
_BEFORE_NS = 1_000_000
_FIFO = 50
_CORES = os.cpu_count() or 1
_BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True:\n    pass"


@dataclass(frozen=True, slots=True)
class Tools:
    """What a way of waiting may use: the model's own call, a light session's and a small copy on the same device.

    `cores` are those that the process may use.
    """

    call: Callable[[], object]
    light: Callable[[], object]
    copy: Callable[[], object]
    cores: frozenset[int]


@dataclass(frozen=True, slots=True)
class Way:
    """One way: what is done from a call to the next. Entering it raises OSError where this machine does not allow it.

    `sync` is how the host waits for the GPU, which holds for a whole process; `paced` is False where nothing is waited
    for.
    """

    enter: Callable[[Tools], AbstractContextManager[Wait]]
    sync: str = "auto"
    paced: bool = True


def sleep_until(due_ns: int) -> None:
    """Sleep."""
    left_ns = due_ns - time.perf_counter_ns()
    if left_ns > 0:
        time.sleep(left_ns / 1e9)


def spin_until(due_ns: int) -> None:
    """Keep the core busy."""
    while time.perf_counter_ns() < due_ns:
        pass


def sleep_then_spin_until(due_ns: int) -> None:
    """Sleep, but for the last 2 ms."""
    sleep_until(due_ns - _SPUN_NS)
    spin_until(due_ns)


def _each(call: Callable[[], object], period_ms: float, due_ns: int) -> None:
    """Sleep, and `call` each `period_ms` as long as the next one would be over in time."""
    period_ns = round(period_ms * 1e6)
    while time.perf_counter_ns() + 2 * period_ns < due_ns:
        time.sleep(period_ns / 1e9)
        call()
    sleep_until(due_ns)


def _just_before(call: Callable[[], object], lead_ns: int, due_ns: int) -> None:
    """Sleep, `call` `lead_ns` before the time, and spin for what is left."""
    sleep_until(due_ns - lead_ns)
    call()
    spin_until(due_ns)


@contextlib.contextmanager
def plainly(wait: Wait, _tools: Tools) -> Iterator[Wait]:
    """Wait with `wait`, and nothing else."""
    yield wait


@contextlib.contextmanager
def light_calls(period_ms: float, tools: Tools) -> Iterator[Wait]:
    """Add up eight numbers on the device each `period_ms`."""
    yield partial(_each, tools.light, period_ms)


@contextlib.contextmanager
def copies(period_ms: float, tools: Tools) -> Iterator[Wait]:
    """Copy 4 KiB to the device each `period_ms`."""
    yield partial(_each, tools.copy, period_ms)


@contextlib.contextmanager
def light_call_before(tools: Tools) -> Iterator[Wait]:
    """Add up eight numbers on the device 1 ms before the time."""
    yield partial(_just_before, tools.light, _BEFORE_NS)


@contextlib.contextmanager
def whole_call_before(tools: Tools) -> Iterator[Wait]:
    """Call the model twice, the first time for nothing: what is left then is not the pause's doing."""
    tools.call()
    begun = time.perf_counter_ns()
    tools.call()
    lead_ns = 2 * (time.perf_counter_ns() - begun)
    yield partial(_just_before, tools.call, lead_ns)


@contextlib.contextmanager
def busy_neighbour(tools: Tools) -> Iterator[Wait]:
    """Keep another core busy, by a process of its own."""
    here = min(os.sched_getaffinity(0))
    others = sorted(tools.cores - {here}, key=lambda core: (core - here) % _CORES)
    if not others:
        raise OSError(None, "there is no other core")
    core = others[len(others) // 4]  # no hyperthread twin, as they are numbered: next to each other, or by halves
    with subprocess.Popen([sys.executable, "-c", _BUSY, str(core)]) as process:  # noqa: S603 - our own program
        try:
            yield sleep_until
        finally:
            process.kill()


@contextlib.contextmanager
def first_in_line(_tools: Tools) -> Iterator[Wait]:
    """Run the calling thread under SCHED_FIFO."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIFO))
    try:
        yield sleep_until
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def not_nice(_tools: Tools) -> Iterator[Wait]:
    """Run the calling thread at nice -20."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield sleep_until
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@contextlib.contextmanager
def awake_cores(_tools: Tools) -> Iterator[Wait]:
    """Keep all cores out of the deeper idle states (Linux's PM QoS), as long as the file is open."""
    with Path("/dev/cpu_dma_latency").open("r+b", buffering=0) as file:
        file.write(struct.pack("i", 0))
        yield sleep_until


SLEEP = partial(plainly, sleep_until)
WAYS: Mapping[str, Way] = {
    "back to back": Way(SLEEP, paced=False),
    "sleep": Way(SLEEP),
    "sleep, spin the last 2 ms": Way(partial(plainly, sleep_then_spin_until)),
    "spin": Way(partial(plainly, spin_until)),
    **{f"sleep, a light call each {ms} ms": Way(partial(light_calls, ms)) for ms in (1, 2, 5)},
    **{f"sleep, a small copy each {ms} ms": Way(partial(copies, ms)) for ms in (1, 5)},
    "sleep, a light call 1 ms before": Way(light_call_before),
    "sleep, a whole call before": Way(whole_call_before),
    "sleep, another core kept busy": Way(busy_neighbour),
    "sleep, SCHED_FIFO": Way(first_in_line),
    "sleep, nice -20": Way(not_nice),
    "sleep, cores kept awake": Way(awake_cores),
    "sleep, CUDA's wait spins": Way(SLEEP, sync="spin"),
    "sleep, CUDA's wait blocks": Way(SLEEP, sync="blocking"),
}


def choose_sync(name: str, device: int = 0) -> None:
    """Have this process wait for the GPU in the way `name`; before its first session. Raises OSError."""
    driver, handle = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(handle), device)
        or driver.cuDevicePrimaryCtxSetFlags_v2(handle, ctypes.c_uint(SYNCS[name]))
    )
    if failed:
        raise OSError(failed, f"the driver does not take the flag (CUresult {failed})")


def tools_for(call: Callable[[], object], provider: str) -> Tools:
    """Return what ways of waiting may use beside the model's `call`."""
    runtime = ort.load(provider)
    device = Device(runtime.ort, runtime.provider.memory, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "add.onnx")
        onnx.save(_adding(), path)
        session = runtime.open(str(path), Settings())
    binding: Any = session.io_binding()
    given, found = (device.value(np.float32, (8,)) for _ in range(2))
    given.update_inplace(np.ones(8, np.float32))
    binding.bind_ortvalue_input("x", given)
    binding.bind_ortvalue_output("y", found)
    block, source = device.value(np.float32, (1024,)), np.ones(1024, np.float32)
    light, copy = partial(session.run_with_iobinding, binding), partial(block.update_inplace, source)
    return Tools(call, light, copy, frozenset(os.sched_getaffinity(0)))


def _adding() -> onnx.ModelProto:
    sizes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "add", sizes[:1], sizes[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
