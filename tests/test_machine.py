"""What the host and its GPUs are, who runs on them, and whose turn it is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from program import ROOT, python
from rtmo_optuna.errors import HeldError, UsageError
from rtmo_optuna.machine import gpu, host
from rtmo_optuna.types.subject import Gpu, GpuState

UUIDS = ("GPU-aa11-0", "GPU-aa22-1", "GPU-bb33-2")
GONE = Gpu(0, "GPU-00000000-0000-0000-0000-000000000000", "none", 0, "", "")


def _python(code: str, **environment: str) -> subprocess.Popen[str]:
    pipe, where = subprocess.PIPE, os.environ | environment
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=where, cwd=ROOT)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize(("value", "shown"), [
    (None, (0, 1, 2)),
    ("", ()),
    ("2,0", (2, 0)),
    (" 1 , 2 ", (1, 2)),
    ("0,7,1", (0,)),
    ("1,-1,2", (1,)),
    ("-1", ()),
    ("0,1,0", ()),
    ("1gpu,2", (1, 2)),
    ("NoDevFiles", ()),
    ("GPU-bb,GPU-aa11", (2, 0)),
    ("GPU-bb33-2", (2,)),
    ("GPU-aa", ()),
    ("GPU-bb,GPU-cc,GPU-aa11", (2,)),
    ("GPU-bb,0", (2,)),
    ("GPU-bb,GPU-bb33", ()),
    ("MIG-aa11-0", ()),
])  # fmt: skip
def test_visible_gpus_are_those_that_cuda_shows(value: str | None, shown: tuple[int, ...]) -> None:
    """Order, invalid entries, repetitions, numbers with tails, UUIDs and their beginnings count as for CUDA."""
    assert gpu.visible(value, UUIDS) == shown


def test_an_empty_entry_names_no_gpu() -> None:
    """A trailing comma does not stand for the only GPU, though its UUID begins with nothing, too."""
    assert gpu.visible("GPU-aa11,", UUIDS[:1]) == (0,)


def test_without_a_visible_gpu_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """With none let through, as without a driver, no GPU is found, and asking for one's memory says what there is."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.gpus() == ()
    assert gpu.processes(GONE) == ()
    assert gpu.process_memory(GONE, os.getpid()) is None
    assert gpu.state(GONE) == GpuState(None, 0)
    with pytest.raises(UsageError, match=r"There is no GPU 0 here; visible to CUDA are: none at all\."):
        gpu.free_bytes(0)


def test_importing_the_module_loads_no_driver() -> None:
    """A benchmark child that needs no NVML does not pay for it."""
    assert python("import sys, rtmo_optuna.machine.gpu; print('pynvml' in sys.modules)").strip() == "False"


@pytest.mark.gpu
def test_gpus_are_described() -> None:
    """A real GPU has a name, memory, a driver, a capability and a UUID that finds it again."""
    for index, one in enumerate(gpu.gpus()):
        assert one.index == index
        assert one.name
        assert one.driver.split(".")[0].isdecimal()
        assert float(one.compute_capability) >= 5
        assert 0 < gpu.free_bytes(one.uuid) <= one.memory_bytes
        assert one.memory_bytes > 2**30


@pytest.mark.gpu
def test_a_hidden_gpu_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA_VISIBLE_DEVICES hides cannot be asked for; the others are counted anew."""
    last = gpu.gpus()[-1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", last.uuid)
    assert [(one.index, one.uuid) for one in gpu.gpus()] == [(0, last.uuid)]
    with pytest.raises(UsageError, match="no GPU 1 here"):
        gpu.free_bytes(1)


@pytest.mark.gpu
def test_a_process_on_the_gpu_is_known_and_its_memory_counted() -> None:
    """A process that allocates on the GPU appears with at least that much memory; afterwards it is gone."""
    code = (
        "import ctypes, sys\n"
        "cuda, context, memory = ctypes.CDLL('libcuda.so.1'), ctypes.c_void_p(), ctypes.c_void_p()\n"
        "codes = [cuda.cuInit(0), cuda.cuCtxCreate_v2(ctypes.byref(context), 0, 0),\n"
        "         cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(1 << 30))]\n"
        "print(codes, flush=True); sys.stdin.read()\n"
    )
    target = gpu.gpus()[0]
    before = gpu.free_bytes(0)
    holder = _python(code, CUDA_VISIBLE_DEVICES=target.uuid)
    try:
        assert _line(holder) == "[0, 0, 0]"
        assert before - gpu.free_bytes(0) >= 2**30
        held = gpu.process_memory(target, holder.pid)
        if held is None:
            pytest.skip("the driver knows this process by another id: a container with process ids of its own")
        assert held >= 2**30
        assert holder.pid in [process.pid for process in gpu.processes(target)]
    finally:
        holder.communicate(timeout=60)
    assert gpu.process_memory(target, holder.pid) is None


def test_the_host_is_described_by_what_this_process_may_use() -> None:
    """Cores and memory are within what the kernel reports, and texts are filled in."""
    machine = host.host(GONE)
    assert machine.gpu is GONE
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert 2**28 < machine.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.system.startswith(os.uname().sysname)
    assert all((machine.system, machine.cpu, machine.python))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_limits_the_cores() -> None:
    """A process pinned to one core has one."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from rtmo_optuna.machine.host import host; print(host().cores)"
    assert python(code).strip() == "1"


@pytest.mark.parametrize(("text", "name"), [
    (
        "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7B13   64-Core\n",
        "AMD EPYC 7B13 64-Core",
    ),
    (
        "processor\t: 0\nBogoMIPS\t: 108.00\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B\n",
        "Raspberry Pi 4 Model B",
    ),
    ("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
    ("processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n", None),
    ("", None),
])  # fmt: skip
def test_the_processors_name_is_found(text: str, name: str | None) -> None:
    """On x86, Arm and POWER; None on Arm servers, whose kernel tells no name."""
    assert host.cpu_model(text) == name


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_limits_of_control_groups_version_2(tmp_path: Path) -> None:
    """The limits of a group and of all groups around it count; `max` is none."""
    _write(tmp_path, {
        "user.slice/cpu.max": "250000 100000\n", "user.slice/memory.max": "max\n",
        "user.slice/run.scope/cpu.max": "max 100000\n", "user.slice/run.scope/memory.max": "4294967296\n",
        "other.slice/cpu.max": "1000 100000\n",
    })  # fmt: skip
    groups = host.control_groups("0::/user.slice/run.scope\n", tmp_path)
    assert host.core_limits(groups) == (2.5,)
    assert host.memory_limits(groups) == (2**32,)


def test_limits_of_control_groups_version_1(tmp_path: Path) -> None:
    """Each controller has its own tree; -1 is no limit; a container's own files lie at the top of the tree."""
    _write(tmp_path, {
        "cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n",
        "cpuacct/cpu.cfs_quota_us": "-1\n", "cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "1073741824\n",
    })  # fmt: skip
    membership = "9:name=systemd:/\n4:memory:/docker/4f0e\n3:cpu,cpuacct:/docker/4f0e\n0::/\n"
    groups = host.control_groups(membership, tmp_path)
    assert host.core_limits(groups) == (1.5,)
    assert host.memory_limits(groups) == (2**30,)


@pytest.mark.parametrize(("begin", "ticks"), [("(python3) S", 22), ("(a) R (b c)) R", 22), ("(python3) Z", None)])
def test_the_start_time_is_field_22(begin: str, ticks: int | None) -> None:
    """Whatever the program is called; a zombie has none."""
    assert host.start_ticks(f"4242 {begin} {' '.join(str(field) for field in range(4, 53))}\n") == ticks


def test_a_process_is_known_by_its_start() -> None:
    """The same while it runs, different for a later process, None once it ended, even before it is waited for."""
    first = _python("input()")
    known = host.started(first.pid)
    time.sleep(0.05)  # longer than a clock tick, in which start times are counted
    second = _python("input()")
    try:
        assert known == host.started(first.pid)
        assert None is not known != host.started(second.pid)
        first.kill()
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        assert host.started(first.pid) is None
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert host.started(first.pid) is None


def test_two_processes_side_by_side_share_the_space_of_their_ids() -> None:
    """It is told by the host's name, and the same for both."""
    told = python("from rtmo_optuna.machine.host import process_space; print(process_space())")
    assert told.strip() == host.process_space()
    assert os.uname().nodename in host.process_space()


_HOLD = """
from rtmo_optuna.machine.host import device_lock
with device_lock("{name}", lambda *holder: print("waiting for", *holder, flush=True), 1e9):
    print("held", flush=True)
    input()
"""


def test_a_device_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    """The second waits, is told for whom and until when at most, and gets it when the first is killed."""
    first = _python(_HOLD.format(name="GPU-aa11"), XDG_RUNTIME_DIR=str(tmp_path))
    assert _line(first) == "held"
    second = _python(_HOLD.format(name="GPU-aa11"), XDG_RUNTIME_DIR=str(tmp_path))
    try:
        assert _line(second) == f"waiting for {first.pid} 1000000000.0"
        first.kill()
        assert _line(second) == "held"
    finally:
        first.kill()
        first.communicate()
        second.communicate("\n", timeout=60)
    assert second.returncode == 0


def test_different_devices_do_not_wait_for_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second device is free at once, and the first one is again after its body ended."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    waited: list[tuple[int | float | None, ...]] = []

    def wait(*holder: float | None) -> None:
        waited.append(holder)

    with host.device_lock("cpu", wait), host.device_lock("GPU-1/2", wait):
        pass
    with host.device_lock("cpu", wait):
        pass
    assert waited == []
    assert sorted(path.name for path in tmp_path.rglob("*.lock")) == ["GPU-1_2.lock", "cpu.lock"]


def test_a_device_that_stays_with_another_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is up, with who has it; whose turn was given up does not keep it from others."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with host.device_lock("cpu"):
        begun = time.monotonic()
        told = pytest.raises(HeldError, match=f"while process {os.getpid()} measured .* a longer --timeout")
        with told, host.device_lock("cpu", wait_until=begun + 0.2):
            pass
        assert time.monotonic() - begun >= 0.2
    with host.device_lock("cpu", wait_until=time.monotonic() + 60.0):
        pass


def test_a_lock_folder_that_is_not_ours_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted link and another user's folder are passed over; where nothing is left, the error says what to do."""
    name = f"rtmo_optuna-{os.getuid()}"
    spare, planted = tmp_path / "spare", tmp_path / "planted"
    spare.mkdir()
    planted.mkdir()
    (planted / name).symlink_to(spare)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(planted))
    with pytest.raises(UsageError, match="set TMPDIR"), host.device_lock("cpu"):
        pass
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    with host.device_lock("cpu"):
        assert (spare / name / "cpu.lock").read_text() == str(os.getpid())
    monkeypatch.setattr("os.getuid", lambda: 12345)  # so that what this user makes is another user's
    with pytest.raises(UsageError, match="set TMPDIR"), host.device_lock("cpu"):
        pass


class _Swallows:
    """Python ignores whatever a finaliser raises."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_was_swallowed_is_not_forgotten() -> None:
    """It falls into a finaliser here; whoever asks afterwards is told. The handlers of before come back."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with host.interruptions() as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):
            _Swallows()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_interruptions_are_raised_at_once() -> None:
    """Ctrl-C ends what is going on, as it does everywhere else."""
    with pytest.raises(KeyboardInterrupt), host.interruptions():
        signal.raise_signal(signal.SIGINT)
