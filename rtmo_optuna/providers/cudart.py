"""The CUDA runtime that ONNX Runtime loaded: streams, graphs captured on them, copies, page-locked memory.

ONNX Runtime captures graphs too, but in CUDA's global mode, in which every other thread of the process is forbidden to
allocate, copy or wait meanwhile, and anew in each thread that calls. Here a graph is captured once, in the mode
`thread local`, on a stream that ONNX Runtime was given (`user_compute_stream`), and launched from any thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.errors import SettingsRefusedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAPS = "/proc/self/maps"
_LIBRARY = "libcudart.so"
_SONAMES = ("libcudart.so.13", "libcudart.so.12")
_PORTABLE = 1  # cudaHostAllocPortable: page-locked for every context of this process
_NON_BLOCKING = 1  # cudaStreamNonBlocking: what others do on the default stream is no matter
_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal
_WHEREVER = 4  # cudaMemcpyDefault: the addresses tell the direction


class HostStream:
    """Where copies and sessions take their turns, in order; as it stands the host's: all is done at once."""

    handle = 0

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes from one address to another; with memory that is not page-locked it has left `source`."""
        ctypes.memmove(target, source, size)

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Return what does again all that `work` put on the stream; None where there are no graphs, as on the host."""
        del work
        return None

    def synchronize(self) -> None:
        """Wait until everything is done."""

    def another(self) -> HostStream:
        """Return a new stream of the same device, on which work goes on beside that on this one."""
        return HostStream()

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a zeroed array in memory that copies are fast to and from."""
        return np.zeros(shape, dtype)


class CudaStream(HostStream):
    """A CUDA stream of the GPU `device`, which is never destroyed: a session may outlive whoever asked for it."""

    def __init__(self, device: int) -> None:
        """Make the stream; raise SettingsRefusedError where the CUDA runtime is not to be found."""
        runtime = cuda_runtime()
        if runtime is None:
            message = f"CUDA graphs need the CUDA runtime ({_LIBRARY}), which ONNX Runtime did not load."
            raise SettingsRefusedError(message)
        # What waits lets other threads of Python run meanwhile; what does not would wait longer for its turn again.
        self._waiting, self._prompt = runtime, ctypes.PyDLL(runtime._name)  # noqa: SLF001 - the path of a CDLL
        self._copy = runtime["cudaMemcpyAsync"]
        self._copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
        self._device = device
        stream = ctypes.c_void_p()
        self._do("cudaSetDevice", device)
        self._do("cudaStreamCreateWithFlags", ctypes.byref(stream), _NON_BLOCKING)
        self._stream = stream
        self.handle = stream.value or 0

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes from one address to another, of the host or of the GPU."""
        self._check(self._copy(target, source, size, _WHEREVER, self._stream))

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what launches the graph of all that `work` put on the stream.

        Raises whatever `work` raises, and RuntimeError where the capture was broken: by work that no graph can hold, or
        by another thread of the process that waited for the whole device meanwhile.
        """
        self._do("cudaSetDevice", self._device)
        self._do("cudaStreamBeginCapture", self._stream, _THREAD_LOCAL)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            work()
        except Exception:
            self._prompt.cudaStreamEndCapture(self._stream, ctypes.byref(graph))
            self._prompt.cudaGetLastError()
            raise
        self._do("cudaStreamEndCapture", self._stream, ctypes.byref(graph))
        self._do("cudaGraphInstantiate", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        self._do("cudaGraphDestroy", graph)

        def launch() -> None:
            self._do("cudaSetDevice", self._device)
            self._do("cudaGraphLaunch", executable, self._stream)

        return launch

    def synchronize(self) -> None:
        """Wait until everything on this stream is done, on no other."""
        self._check(self._waiting.cudaStreamSynchronize(self._stream))

    def another(self) -> CudaStream:
        """Return a new stream of the same GPU."""
        return CudaStream(self._device)

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a zeroed array, page-locked where there is such memory."""
        return page_locked_or_not(shape, dtype, self._device)

    def _do(self, name: str, *arguments: object) -> None:
        self._check(getattr(self._prompt, name)(*arguments))

    def _check(self, code: int) -> None:
        if code:
            self._prompt.cudaGetLastError()  # else the next call of anybody in this thread would be told of it
            self._prompt.cudaGetErrorString.restype = ctypes.c_char_p
            raise RuntimeError(f"CUDA says: {self._prompt.cudaGetErrorString(code).decode()}")


def page_locked_or_not(shape: Sequence[int], dtype: np.dtype[Any], device: int) -> NDArray[Any]:
    """Return a zeroed array, in page-locked memory of the GPU `device` where there is such memory."""
    locked = page_locked(shape, dtype, device)
    return np.zeros(shape, dtype) if locked is None else locked


def page_locked(shape: Sequence[int], dtype: np.dtype[Any], device: int) -> NDArray[Any] | None:
    """Return a zeroed array in page-locked memory of the GPU `device`, freed with its last view.

    None where this process has no CUDA runtime loaded, or where that gives no such memory.
    """
    runtime = cuda_runtime()
    size = max(1, math.prod(shape) * dtype.itemsize)
    address = ctypes.c_void_p()
    if (
        runtime is None
        or runtime.cudaSetDevice(device)
        or runtime.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), _PORTABLE)
    ):
        return None
    memory = (ctypes.c_byte * size).from_address(address.value or 0)
    weakref.finalize(memory, runtime.cudaFreeHost, address).atexit = False
    array: NDArray[Any] = np.frombuffer(memoryview(memory), np.uint8)[: math.prod(shape) * dtype.itemsize].view(dtype)
    array[...] = 0
    return array.reshape(shape)


def cuda_runtime() -> Any:  # noqa: ANN401 - a library
    """Return the CUDA runtime that ONNX Runtime loaded or will load, None where there is none."""
    with contextlib.suppress(OSError), open(_MAPS, encoding="utf-8") as maps:  # noqa: PTH123 - not a file of ours
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if _LIBRARY in line}
        if paths:
            return ctypes.CDLL(min(paths))
    for name in _SONAMES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None
