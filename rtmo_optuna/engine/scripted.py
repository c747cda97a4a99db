"""An engine that takes real time with planted behaviour: for tests, power studies and A/A studies.

Its model is a JSON file: `base_ms`, `within` and `between` (relative spread of calls, and of processes),
`effects` ({"knob=value": factor on the latency}), `warmup` ({"calls": n, "factor": f}), `start_ms`, `build_ms`,
`first_run_ms`, `notes` (sentences), and `faults` ([{"when": {"knob": value}, "fault": name}]; an empty `when` always
fits).
"""

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmo_optuna.errors import SettingsRefusedError, UsageError
from rtmo_optuna.types.request import SessionSpec, TensorSpec

_FOR_EVER_S = 3600.0
_SPIN_S = 0.0005


class ScriptedEngine:
    """Sleeps as long as its script says; raises, hangs or dies where its script says."""

    def __init__(self, spec: SessionSpec) -> None:
        """Read the script and pass through its start and build stages; raises UsageError for a broken script."""
        try:
            self._script: dict[str, Any] = json.loads(Path(spec.model).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"The script {spec.model} cannot be read: {error}.") from error
        held = spec.settings.to_plain()
        faults = [f["fault"] for f in self._script.get("faults", ()) if f["when"].items() <= held.items()]
        self._faults = {stage: [act for name in faults if (act := acts.get(name))] for stage, acts in _FAULTS.items()}
        random = np.random.default_rng()
        factor = 1 + self._script.get("between", 0.0) * random.standard_normal()
        for name, value in spec.settings:
            factor *= self._script.get("effects", {}).get(f"{name}={value}", 1.0)
        self._call_s = self._script.get("base_ms", 5.0) / 1e3 * factor
        self._random = random
        self._calls = 0
        self.import_ns = self._stage("start", "start_ms")
        self.preload_ns = 0
        self.build_ns = self._stage("build", "build_ms")
        self.provider_options: Mapping[str, str] = {}
        self.inputs = (TensorSpec("input", "tensor(float)", (1,)),)
        self.outputs = (TensorSpec("output", "tensor(float)", (1,)),)
        self.output_names = ["output"]
        self.notes = tuple(self._script.get("notes", ()))

    def _stage(self, stage: str, duration: str) -> int:
        start = time.perf_counter_ns()
        for act in self._faults.get(stage, ()):
            act()
        time.sleep(self._script.get(duration, 0.0) / 1e3)
        return time.perf_counter_ns() - start

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the input unchanged, after the time that the script plans for this call."""
        if self._calls == 0:
            self._stage("first run", "first_run_ms")
        if self._calls == self._script.get("faulty_call", 1):
            self._stage("run", "")
        warmup = self._script.get("warmup", {"calls": 0, "factor": 1.0})
        slow = warmup["factor"] if self._calls < warmup["calls"] else 1.0
        _wait(self._call_s * slow * (1 + self._script.get("within", 0.0) * abs(self._random.standard_normal())))
        self._calls += 1
        return [feed["input"]]

    def nodes_by_provider(self) -> dict[str, int]:
        """Return one node on a provider of its own."""
        return {"Scripted": 1}

    def versions(self) -> dict[str, str]:
        """Return a version that knows every knob."""
        return {"onnxruntime": "99.0"}


def _wait(seconds: float) -> None:
    end = time.perf_counter() + seconds
    if seconds > _SPIN_S:
        time.sleep(seconds - _SPIN_S)
    while time.perf_counter() < end:
        pass


def _kill(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _hang() -> None:
    time.sleep(_FOR_EVER_S)


def _refuse() -> None:
    raise SettingsRefusedError("The script refuses these settings.")


def _raise() -> None:
    raise RuntimeError("The script raises here.")


def _fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_FAULTS: Mapping[str, Mapping[str, Callable[[], object]]] = {
    "start": {"exit": lambda: sys.exit(7)},
    "build": {
        "hang in build": _hang,
        "refuse": _refuse,
        "full disk": _fill_disk,
        "out of memory": _kill(signal.SIGKILL),
        "print megabytes": lambda: os.write(1, b"noise " * 2_000_000),
        "print JSON": lambda: os.write(1, b'{"protocol": 3, "kind": "timed", "body": {"samples_ns": [1]}}\n'),
    },
    "first run": {"crash": _kill(signal.SIGSEGV), "raise": _raise},
    "run": {"hang in run": _hang, "crash in run": _kill(signal.SIGSEGV)},
}
