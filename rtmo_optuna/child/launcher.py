"""Spawns a child in a process group of its own, talks to it in lock-step, times it out and kills it."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from rtmo_optuna.child import protocol

_CHUNK = 1 << 20
_LONGEST_LINE = 32 << 20
_SEND_S = 60.0
_BY_OTHERS = {-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)}


class ChildGoneError(Exception):
    """The child died, hung past its limit or broke the protocol; the message says which.

    `killed` says that somebody else ended it, or the kernel, for want of memory: no proof against its settings.
    """

    def __init__(self, message: str, *, killed: bool = False) -> None:
        """Keep who ended it beside what is to be said."""
        super().__init__(message)
        self.killed = killed


class Child(contextlib.AbstractContextManager["Child"]):
    """A running child. Use it as a context manager: its process group never outlives the block."""

    def __init__(self, log: Path, provider: str = "") -> None:
        """Spawn the child; its stdout and stderr go to the file `log`.

        With a `provider` it imports ONNX Runtime and loads that provider's libraries before it greets.
        """
        self.log = log
        self.started_ns = time.perf_counter_ns()
        self.ended_ns: int | None = None
        read_end, write_end = os.pipe()
        self._answers = read_end
        self._pending = bytearray()
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [sys.executable, "-m", "rtmo_optuna.child.worker", str(write_end), str(os.getpid()), provider],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(write_end,),
                    start_new_session=True,
                    bufsize=0,
                )
            os.set_blocking(self._orders.fileno(), False)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)

    @property
    def pid(self) -> int:
        """The child's process id, which is its process group's too."""
        return self._process.pid

    @property
    def _orders(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: it was opened as a pipe
        return self._process.stdin

    @property
    def greeted(self) -> bool:
        """Whether the child has said something, or is gone."""
        return bool(self._pending) or bool(select.select([self._answers], [], [], 0)[0])

    def send(self, line: bytes) -> None:
        """Send one line; a child that is gone, or does not read it, is noticed by the next `receive`."""
        orders, end = self._orders.fileno(), time.monotonic() + _SEND_S
        with contextlib.suppress(BrokenPipeError):
            while line and select.select([], [orders], [], max(0.0, end - time.monotonic()))[1]:
                line = line[os.write(orders, line) :]

    def receive(self, limit_s: float) -> protocol.Answer:
        """Sleep until the next answer is there and return it.

        Raises ChildGoneError when the child dies, `limit_s` seconds pass, or the line is not of the protocol.
        """
        end = time.monotonic() + limit_s
        while (cut := self._pending.find(b"\n")) < 0:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise ChildGoneError(f"took longer than {round(limit_s, 1):g} s and was killed")
            chunk = os.read(self._answers, _CHUNK)
            if not chunk:
                raise self._gone()
            self._pending += chunk
            if len(self._pending) > _LONGEST_LINE:
                raise ChildGoneError("answered with an endless line")
        line = bytes(self._pending[:cut])
        del self._pending[: cut + 1]
        try:
            return protocol.load_answer(line)
        except protocol.ProtocolError as error:
            raise ChildGoneError(str(error)) from error

    def finish(self, limit_s: float) -> None:
        """Ask the child to stop and wait for its end, at most `limit_s` seconds before it is killed."""
        self.send(protocol.STOP)
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(limit_s)
        self._kill()

    def _gone(self) -> ChildGoneError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return ChildGoneError("closed its answers without ending")
        if code >= 0:
            return ChildGoneError(f"ended with exit code {code}")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (out of memory, or killed by someone)" if -code == signal.SIGKILL else ""
        return ChildGoneError(f"was killed by {name}{hint}", killed=code in _BY_OTHERS)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.ended_ns = self.ended_ns or time.perf_counter_ns()

    def __exit__(self, *_error: object) -> None:
        """Kill the whole process group, whatever happened."""
        self._kill()
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        os.close(self._answers)
