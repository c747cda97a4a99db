"""The first look at a model, before a study: what it is, and its outputs on the CPU, for reference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rtmo_optuna.bench import references
from rtmo_optuna.bench import run as bench
from rtmo_optuna.bench.protocol import DescribeRequest, ReferenceRequest
from rtmo_optuna.codec import encode
from rtmo_optuna.errors import ChildError, UsageError
from rtmo_optuna.records import GateMode, GateRequest, InputFacts, Limits, ModelFacts, SessionSpec, StudyDefinition

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAST_LOOK_S = 30.0


def describe(session: SessionSpec, chosen: StudyDefinition) -> ModelFacts:
    """Return what the model is. Raises UsageError where it cannot be opened or run with default settings."""
    try:
        return bench.describe(DescribeRequest(session), _patience(chosen))
    except ChildError as error:
        raise _as_usage(error, session) from error


def _patience(chosen: StudyDefinition) -> Limits:
    """Return for how long a model may be looked at before the study: not much longer than all of it may take."""
    most_s = max(_LEAST_LOOK_S, chosen.timeout_s)
    limits = chosen.limits
    return replace(limits, build_s=min(limits.build_s, most_s), first_run_s=min(limits.first_run_s, most_s))


def reference(
    session: SessionSpec, inputs: InputFacts, chosen: StudyDefinition, gate: GateRequest, content: Mapping[str, str]
) -> tuple[str, ...]:
    """Run the model once on the CPU, so that an input it refuses is known before anything is written.

    Where that was done before, with the same `content`, its outputs are known. Returns warnings; raises UsageError
    where the model cannot be run on the CPU and has to be.
    """
    rules = {} if gate.rules.mode is GateMode.OFF else encode(gate.rules)
    request = ReferenceRequest(replace(session, provider="cpu"), inputs.path, gate.reference, rules)
    try:
        made = references.reference(request, _patience(chosen), content)
    except ChildError as error:
        if error.bad_input or chosen.provider == "cpu":
            raise _as_usage(error, session) from error
        return (f"The model does not run on the CPU, so its outputs have no reference and were not compared: {error}",)
    return () if made.finite else ("The model's outputs for this input are not all finite (NaN or infinity).",)


def _as_usage(error: ChildError, session: SessionSpec) -> UsageError:
    if error.bad_input:
        return UsageError(str(error))
    last = error.log.strip().splitlines()[-1:]
    return UsageError(
        f"The model {session.model} cannot be run on {session.provider} with default settings ({error.stage}): "
        f"{' '.join([str(error), *last])}"
    )


def warnings(model: ModelFacts, inputs: InputFacts, chosen: StudyDefinition) -> tuple[str, ...]:
    """Return what the user should know of the inputs: that they are made up, that their shapes keep graphs out."""
    return (*_made_up(model, inputs), *_open_shapes(inputs, chosen))


def _open_shapes(inputs: InputFacts, chosen: StudyDefinition) -> tuple[str, ...]:
    if inputs.fixed or "capture" not in chosen.knobs:
        return ()
    shapes = " ".join(f"--shape {name}={'x'.join(map(str, shape))}" for name, shape in inputs.shapes.items())
    return (f"The model leaves shapes open, so no CUDA graph is tried, which gains most. To fix them: {shapes}",)


def _made_up(model: ModelFacts, inputs: InputFacts) -> tuple[str, ...]:
    if inputs.real:
        return ()
    speed = " In this model speed depends on it too: NonMaxSuppression's cost follows the number of boxes." * (
        model.suppresses
    )
    return (f"The input is {inputs.source}: the outputs say nothing about real ones.{speed} Give --input.",)
