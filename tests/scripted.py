"""Scripts for the scripted engine, and short rules for measuring it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import simulated
from rtmo_optuna.codec import encode
from rtmo_optuna.machine.host import host
from rtmo_optuna.samplers.attributes import kept, ours
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.runner import Rules
from rtmo_optuna.space.objectives import OBJECTIVES
from rtmo_optuna.study.attributes import Attributes
from rtmo_optuna.study.study import Proposal, Study
from rtmo_optuna.types.measurement import GateMode, GateRequest, GateRules, Measurement, Outcome
from rtmo_optuna.types.request import BenchmarkRequest, EngineKind, Limits, Measuring, ModelFacts, SessionSpec, Settings
from rtmo_optuna.types.study import Observer
from rtmo_optuna.types.subject import Machine, StudyDefinition
from rtmo_optuna.verbs.prepare import TuneOptions

SHORT = Measuring(warmup_s=0.01, warmup_calls=2, window_s=0.01, window_calls=3, windows_min=3, windows_max=4)
BRIEF = (
    "measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}\n"
)
MEASURED = Measurement(Outcome.MEASURED, latency_ns=5e6, windows_ns=(5e6,) * 4, calls=40)
STRICT = Limits(build_s=2.0, first_run_s=2.0, window_s=2.0, exit_s=5.0)
"""Of processes that hang; what does not has the usual limits, on however busy a machine."""


def defined(*knobs: str, more: str = "sampler: exhaustive\n") -> str:
    """Return a study definition for the CPU that searches all choices of `knobs`, and measures for a moment."""
    return f"provider: cpu\nknobs: {{{', '.join(f'{knob}: all' for knob in knobs)}}}\n{BRIEF}{more}"


def finish(study: Study, proposal: Proposal | None, folder: Path) -> Settings:
    """Tell that `proposal` took 5 ms; return its settings."""
    assert proposal
    study.tell(proposal, MEASURED, folder)
    return proposal.settings


def write_script(folder: Path, **script: Any) -> Path:  # noqa: ANN401 - a script is JSON
    """Write a script and return its path."""
    path = folder / "script.json"
    path.write_text(json.dumps({"base_ms": 1.0, **script}), encoding="utf-8")
    return path


def request(folder: Path, settings: Settings | None = None, **script: Any) -> BenchmarkRequest:  # noqa: ANN401
    """Return a request to benchmark a script, with its input written."""
    np.savez(folder / "inputs.npz", input=np.zeros((1, 1), np.float32))
    session = SessionSpec(str(write_script(folder, **script)), "cpu", settings or Settings(), EngineKind.SCRIPTED)
    limits = STRICT if any("hang" in fault["fault"] for fault in script.get("faults", ())) else Limits()
    return BenchmarkRequest(session, str(folder / "inputs.npz"), SHORT, limits)


def runner(folder: Path, observer: Observer = lambda _event: None, **script: Any) -> tuple[ChildRunner, Rules]:  # noqa: ANN401
    """Return what runs the processes of a script, and by which rules: outputs are not compared."""
    wanted = request(folder, **script)
    gate = GateRequest(GateRules(GateMode.OFF), "")
    rules = Rules(wanted.measuring, wanted.limits, gate, OBJECTIVES["latency"])
    return ChildRunner(wanted.session, wanted.inputs, observer), rules


def tune_options(folder: Path, definition: str, *, script: dict[str, Any], **more: Any) -> TuneOptions:  # noqa: ANN401
    """Return options for a tune of a script by the text of a study definition, all within `folder`."""
    (folder / "small.yaml").write_text(definition, encoding="utf-8")
    return TuneOptions(
        model=write_script(folder, **script),
        config=folder / "config.yaml",
        output=folder / "results",
        study=str(folder / "small.yaml"),
        provider="cpu",
        storage=f"sqlite:///{folder}/studies.db",
        engine=EngineKind.SCRIPTED,
        **more,
    )


def opened(
    folder: Path, definition: StudyDefinition, machine: Machine | None = None, model: ModelFacts | None = None
) -> Study:
    """Create or resume a study by `definition` in `folder`, on this machine, of a `model` that nobody runs."""
    model = model or ModelFacts((), (), 0, {}, {}, "cpu", {"onnxruntime": "99.0"})
    return simulated.opened(folder, definition, machine or host(), model, name="s")


class Board(Attributes):
    """The attributes of a study that lies in no database."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._held: dict[str, Any] = {}

    def all(self) -> dict[str, Any]:
        """Return what is held."""
        return dict(self._held)

    def put(self, name: str, value: object) -> None:
        """Hold `value`."""
        self._held[name] = encode(value)

    def remove(self, names: Iterable[str]) -> None:
        """Hold those no more."""
        for name in names:
            self._held.pop(name, None)


def die(proposal: Proposal, **changes: object) -> None:
    """Have the driver of `proposal` be another one, which is no more."""
    storage, trial_id = proposal.trial.storage, proposal.trial._trial_id  # noqa: SLF001 - Optuna's name
    driver = kept(storage.get_trial(trial_id), "driver")
    for name, value in ours(driver={**driver, "started": "another boot 1", **changes}).items():
        storage.set_trial_system_attr(trial_id, name, value)
