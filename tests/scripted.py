"""Scripts for the scripted engine, and short rules for measuring it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.records import BenchmarkRequest, EngineKind, Limits, Measuring, SessionSpec, Settings

if TYPE_CHECKING:
    from pathlib import Path

SHORT = Measuring(warmup_s=0.01, warmup_calls=2, window_s=0.01, window_calls=3, windows_min=3, windows_max=4)
STRICT = Limits(start_s=20.0, build_s=2.0, first_run_s=2.0, window_s=2.0, exit_s=5.0)


def write_script(folder: Path, **script: Any) -> Path:  # noqa: ANN401 - a script is JSON
    """Write a script and return its path."""
    path = folder / "script.json"
    path.write_text(json.dumps({"base_ms": 1.0, **script}), encoding="utf-8")
    return path


def request(folder: Path, settings: Settings | None = None, **script: Any) -> BenchmarkRequest:  # noqa: ANN401
    """Return a request to benchmark a script, with its input written."""
    np.savez(folder / "inputs.npz", input=np.zeros((1, 1), np.float32))
    session = SessionSpec(str(write_script(folder, **script)), "cpu", settings or Settings(), EngineKind.SCRIPTED)
    return BenchmarkRequest(session, str(folder / "inputs.npz"), SHORT, STRICT)
