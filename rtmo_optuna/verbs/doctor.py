"""Is this machine fit to run and measure a model: the verb `doctor`."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from rtmo_optuna.child import measure
from rtmo_optuna.child.protocol import InstalledRequest, PlacementRequest, ReferenceRequest
from rtmo_optuna.doctor import facts as gathering
from rtmo_optuna.doctor.facts import Facts, Finding, Level, Model, Software
from rtmo_optuna.doctor.table import judged
from rtmo_optuna.engine.probe import alike, write_convolution
from rtmo_optuna.errors import ChildError
from rtmo_optuna.machine import gpu as gpus
from rtmo_optuna.providers.table import PROVIDERS, REFERENCE, automatic
from rtmo_optuna.scratch import scratch
from rtmo_optuna.types.request import Limits, SessionSpec
from rtmo_optuna.types.study import Note, Observer
from rtmo_optuna.verbs.checks import check_model

_CUDA = "cuda"
_COLOURS = re.compile("\\x1b\\[[0-9;]*m")
"""Which ONNX Runtime puts around its warnings."""
_GPU_PACKAGE = "onnxruntime-gpu"


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found, in the order of the table of checks."""

    provider: str
    model: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        """Whether something has to be mended before anything can be run."""
        return any(finding.level is Level.FAIL for finding in self.findings)


def examine(model: Path | None, provider: str, observer: Observer) -> Examination:
    """Gather the facts of this machine, and of `model` on the provider, and judge them.

    "auto" is what a tune would take, or `cuda` where a GPU is meant to be used: there is a card without a driver, or
    onnxruntime-gpu is installed. Raises UsageError where there is no such model.
    """
    if model:
        check_model(model)
    packages, nvidia = gathering.packages()
    if provider == "auto":
        meant = gpus.cards() or _GPU_PACKAGE in packages
        provider = _CUDA if meant else automatic(next(iter(gpus.gpus()), None))
    on_gpu = PROVIDERS[provider].on_gpu
    machine = gathering.machine_for(on_gpu)
    observer(Note("Looking at the machine ..."))
    host, card = gathering.processor(machine), gathering.card(machine)
    observer(Note(f"Loading {provider}, and running a convolution on it ..."))
    software = _software(Software(packages, nvidia), provider)
    found = None
    if model:
        observer(Note(f"Opening {model} ..."))
        found = _model(model, provider) if software.convolved else Model(str(model))
    facts = Facts(provider, on_gpu, machine, software, card, host, found)
    return Examination(provider, str(model or ""), judged(facts))


def _software(known: Software, provider: str) -> Software:
    """Return `known` with what a child loads of the provider, and whether a convolution runs on it."""
    limits = Limits()
    try:
        told = measure.installed(InstalledRequest(provider), limits)
    except ChildError as error:
        return replace(known, broken=str(error))
    known = replace(known, versions=told.versions, libraries=told.libraries)
    with scratch() as folder:
        model, inputs = write_convolution(folder)
        files = {name: folder / f"{name}.npz" for name in (REFERENCE, provider)}
        try:
            for name, target in files.items():
                session = SessionSpec(str(model), name)
                measure.reference(ReferenceRequest(session, str(inputs), str(target)), limits)
        except ChildError as error:
            return replace(known, not_convolved=f"{error.stage}: {error}")
        if not alike(files[provider], files[REFERENCE]):
            return replace(known, not_convolved="It comes out otherwise than on the CPU.")
    return replace(known, convolved=True)


def _model(model: Path, provider: str) -> Model:
    try:
        placement, log = measure.placement(PlacementRequest(SessionSpec(str(model), provider)), Limits())
    except ChildError as error:
        return Model(str(model), refused=f"{model} does not open on {provider} ({error.stage}): {error}")
    return Model(str(model), placement, _COLOURS.sub("", log))
