"""The host: what it is made of, which processes live on it, and whose turn it is on a device."""

import contextlib
import fcntl
import math
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from rtmo_optuna.errors import HeldError, UsageError
from rtmo_optuna.types.subject import Gpu, Machine

PROCESSOR = "cpu"
"""The name of the processor as a device that is held; a GPU's is its UUID."""
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDED = frozenset("ZXx")
"""Process states of the kernel in which nothing runs any more: zombie, dead."""


def host(gpu: Gpu | None = None) -> Machine:
    """Return what this machine is, with `gpu` as the one that a study runs on.

    `cores` and `memory_bytes` are what this process may use: its affinity and the limits of its control groups count.
    """
    cpuinfo = _read(_PROC / "cpuinfo")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    groups = control_groups(_read(_PROC / "self/cgroup"), _CGROUPS)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        system=_system(),
        cpu=cpu_model(cpuinfo) or _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine(),
        cores=min([affinity, *(math.ceil(limit) for limit in core_limits(groups))]),
        memory_bytes=min([memory, *memory_limits(groups)]),
        python=platform.python_version(),
        gpu=gpu,
        instructions=half_precision(cpuinfo),
    )


def half_precision(cpuinfo: str) -> tuple[str, ...]:
    """Return the instructions on numbers of 16 bits that the text of /proc/cpuinfo names; none where it names none."""
    named = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return tuple(sorted(set(re.findall(r"\w*(?:bf|fp)16\b", named[1])))) if named else ()


def cpu_model(cpuinfo: str) -> str | None:
    """Return the processor's name from the text of /proc/cpuinfo; None where it has none, as on most Arm machines."""
    named = re.search(r"^(?:model name|Model|cpu model|cpu)\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE)
    return " ".join(named[1].split()) if named else None


def control_groups(membership: str, mounted: Path) -> tuple[Path, ...]:
    """Return the folders of a process's control groups and of all groups around them, under the mount point `mounted`.

    `membership` is the text of /proc/<pid>/cgroup: a line `0::/path` for version 2, lines such as `4:cpu,cpuacct:/path`
    for version 1. Every group on the way up limits too. A container may be shown paths of the host that it cannot see:
    those folders do not exist, and the mount point itself is its group.
    """
    found: dict[Path, None] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            top = mounted / controller
            inner = top / path.lstrip("/")
            found.update(dict.fromkeys(folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)))
    return tuple(found)


def core_limits(groups: tuple[Path, ...]) -> tuple[float, ...]:
    """Return each limit that control groups set on processor time, in cores."""
    texts = [_read(folder / "cpu.max") for folder in groups]
    texts += [f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}" for folder in groups]
    pairs = [re.fullmatch(r"\s*(\d+)\s+(\d+)\s*", text) for text in texts]  # "max" and -1 mean: no limit
    return tuple(int(pair[1]) / int(pair[2]) for pair in pairs if pair)


def memory_limits(groups: tuple[Path, ...]) -> tuple[int, ...]:
    """Return each limit that control groups set on memory, in bytes."""
    texts = [_read(folder / name).strip() for folder in groups for name in ("memory.max", "memory.limit_in_bytes")]
    return tuple(int(text) for text in texts if text.isdecimal())


def started(pid: int) -> str | None:
    """Return when process `pid` of this host was started, in a form that no later process of this id can have.

    To be compared with an earlier answer, not to be read. None where no such process runs; a zombie does not run.
    Process ids mean the same to two processes only where `process_space` says the same.
    """
    if not _PROC.joinpath("self/stat").exists():
        return _started_by_ps(pid)
    text = _read(_PROC / str(pid) / "stat")
    ticks = start_ticks(text) if text else None
    return None if ticks is None else f"{_read(_PROC / 'sys/kernel/random/boot_id').strip()} {ticks}"


def start_ticks(text: str) -> int | None:
    """Return the start time in the text of /proc/<pid>/stat, in clock ticks since boot; None for a zombie.

    The program's name, in parentheses, may itself hold spaces and parentheses, so fields count from the last one; the
    start time is field 22 (proc(5)).
    """
    state, *fields = text.rpartition(")")[2].split()
    return None if state in _ENDED else int(fields[18])


def process_space() -> str:
    """Return the place in which process ids mean the same: the host, and the container where it has ids of its own."""
    namespace = _PROC / "self/ns/pid"
    inode = namespace.stat().st_ino if namespace.exists() else ""
    return f"{platform.node()} {inode}".strip()


@contextlib.contextmanager
def device_lock(
    name: str,
    waiting: Callable[[int | None, float | None], None] | None = None,
    until: float | None = None,
    wait_until: float = math.inf,
) -> Iterator[None]:
    """Hold the device `name` (a GPU's UUID, or `PROCESSOR`) against this user's other processes while the body runs.

    Where another process has it, `waiting` is called once with that process's id and the end of its run (each None
    where unknown), then the lock is waited for. `until` is the end of this run, in seconds since the epoch, for others
    to know. The kernel releases it when the holder dies. It is not reentrant. Raises HeldError where it is not to be
    had before `wait_until` (monotonic seconds), UsageError where no folder for the lock file can be had.
    """
    path = _runtime_folder() / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held, end, *_ = (*path.read_text().split(), "", "")
            holder = int(held) if held.isdecimal() else None
            if waiting:
                waiting(holder, float(end) if end.isdecimal() else None)
            turn = threading.Thread(target=_await_turn, args=(os.dup(file.fileno()),), daemon=True)
            turn.start()
            turn.join(min(wait_until - time.monotonic(), threading.TIMEOUT_MAX))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HeldError(holder) from None
        try:
            file.truncate(0)
            file.write(f"{os.getpid()}" if until is None else f"{os.getpid()} {until:.0f}")
            file.flush()
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing would leave it to a forked child that still has the file


def _await_turn(descriptor: int) -> None:
    """Lock a file in the kernel's queue, in which nobody is passed over; the lock goes when nobody has it open."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], None]]:
    """Have SIGINT, SIGTERM, SIGHUP raise KeyboardInterrupt while the body runs; yield what raises it again.

    Only the first one does: what it set going (a trial put back, the report) a second one must not break off. Where
    SIGHUP is ignored, as under nohup, it stays ignored. Python swallows an exception that falls into a finaliser or a
    callback: whoever has something long to begin asks first, and what is yielded raises if one has come. Outside of the
    main thread, where no handler can be set, nothing is raised.
    """
    came = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        first, came = not came, True
        if first:
            raise KeyboardInterrupt

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    heard = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _runtime_folder() -> Path:
    """Return this user's own folder for files that need not outlive a reboot; other users cannot write to it.

    A cron job has no XDG_RUNTIME_DIR, and must find the folder that the same user's shell has; hence its usual place.
    """
    uid = os.getuid()
    session = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    for parent in (Path(session), Path(tempfile.gettempdir())):
        folder = parent / f"rtmo_optuna-{uid}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = folder.lstat()
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == uid:
                return folder
    message = f"Neither {session} nor {tempfile.gettempdir()} can hold lock files: set TMPDIR to a folder of your own."
    raise UsageError(message)


def _system() -> str:
    name = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
        return f"{name} ({' '.join(filter(None, (release['NAME'], release.get('VERSION_ID'))))})"
    return f"{name} (macOS {platform.mac_ver()[0]})" if platform.mac_ver()[0] else name


def _read(path: Path) -> str:
    """Return a file's text, or "" where there is none to be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _started_by_ps(pid: int) -> str | None:
    """Ask ps, as on systems without /proc: to the second only."""
    state, _, begun = _output("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
    return begun.strip() if state and state[0] not in _ENDED else None


def _output(program: str, *arguments: str) -> str:
    """Return what a program of the system prints, or "" where there is no such program or it fails."""
    found = shutil.which(program)
    if found is None:
        return ""
    done = subprocess.run(  # noqa: S603 - programs of the system, with arguments of ours
        [found, *arguments], capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
    )
    return done.stdout.strip() if done.returncode == 0 else ""
