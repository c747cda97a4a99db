"""The first look at a model, before a study: what it is, and its outputs on the CPU, for reference."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from rtmo_optuna.child import measure as bench
from rtmo_optuna.child import references
from rtmo_optuna.child.protocol import DescribeRequest, ReferenceMade, ReferenceRequest, RoundingRequest
from rtmo_optuna.codec import encode
from rtmo_optuna.engine.feed import shown
from rtmo_optuna.engine.inputs import guesses
from rtmo_optuna.errors import ChildError, UsageError
from rtmo_optuna.providers.table import PROVIDERS, REFERENCE
from rtmo_optuna.types.measurement import GateMode, GateRequest
from rtmo_optuna.types.request import Limits, ModelFacts, SessionSpec, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rtmo_optuna.engine.inputs.guesses import Guess
    from rtmo_optuna.types.measurement import Rounding
    from rtmo_optuna.types.subject import InputFacts, StudyDefinition

_LEAST_LOOK_S = 30.0
_MOST_GUESSING_S = 30.0
_LOGGED = re.compile(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
"""How a line of ONNX Runtime's log begins, which some of its errors quote."""
_VARIABLES = (
    "ORT_INTRA_OP_NUM_THREADS ORT_INTER_OP_NUM_THREADS OMP_NUM_THREADS OMP_WAIT_POLICY KMP_AFFINITY "
    "NVIDIA_TF32_OVERRIDE CUDA_MODULE_LOADING CUDA_LAUNCH_BLOCKING CUBLAS_WORKSPACE_CONFIG "
    "ORT_DISABLE_FLASH_ATTENTION ORT_DISABLE_MEMORY_EFFICIENT_ATTENTION ORT_DISABLE_FUSED_ATTENTION"
)
_INTEGERS = re.compile(r"int(16|32|64)")


def describe(session: SessionSpec, chosen: StudyDefinition, *, least_s: float = _LEAST_LOOK_S) -> ModelFacts:
    """Return what the model is; looking at it takes `least_s` or as long as the study may, whichever is more.

    Raises UsageError where it cannot be opened or run with default settings.
    """
    try:
        return bench.describe(DescribeRequest(session), _patience(chosen, least_s))
    except ChildError as error:
        raise _as_usage(error, session) from error


def _patience(chosen: StudyDefinition, least_s: float = _LEAST_LOOK_S) -> Limits:
    """Return for how long a model may be looked at before the study: not much longer than all of it may take."""
    most_s = max(least_s, chosen.timeout_s)
    limits = chosen.limits
    return replace(limits, build_s=min(limits.build_s, most_s), first_run_s=min(limits.first_run_s, most_s))


def reference(  # noqa: PLR0917 - what a plan has at hand
    session: SessionSpec,
    inputs: InputFacts,
    chosen: StudyDefinition,
    gate: GateRequest,
    content: Mapping[str, str],
    remake: Callable[[Guess], InputFacts],
    widths: Sequence[int] = (),
) -> tuple[InputFacts, tuple[str, ...]]:
    """Run the model once on the CPU, so that an input it refuses is known before anything is written.

    Where that was done before, with the same `content`, its outputs are known. A made input that the model refuses is
    made again by `remake`, from other guesses (the model's `widths` among them), for half a minute at most. Returns the
    input that runs, and warnings; raises UsageError where the model cannot be run on the CPU and has to be.
    """
    rules = {} if gate.rules.mode is GateMode.OFF else encode(gate.rules)
    request = ReferenceRequest(replace(session, provider=REFERENCE), inputs.path, gate.reference, rules)

    def run(candidate: InputFacts) -> ReferenceMade:
        return references.reference(request, _patience(chosen), {**content, "input": candidate.sha256})

    try:
        try:
            made = run(inputs)
        except ChildError as refused:
            if inputs.real or refused.stage != Stage.FIRST_RUN:
                raise
            inputs, made = _again(inputs, refused, run, remake, widths)
    except ChildError as error:
        if error.bad_input or chosen.provider == REFERENCE:
            raise _as_usage(error, session) from error
        sentence = f"The model does not run on the CPU, so its outputs have no reference and were not compared: {error}"
        return inputs, (sentence,)
    infinite = ("The model's outputs for this input are not all finite (NaN or infinity).",)
    return inputs, () if made.finite else infinite


def rounding(
    session: SessionSpec, inputs: InputFacts, chosen: StudyDefinition, gate: GateRequest, content: Mapping[str, str]
) -> tuple[Rounding | None, tuple[str, ...]]:
    """Return what float16 does to the model on the CPU, beside its reference, and warnings; None where nobody knows."""
    tf32 = PROVIDERS[chosen.provider].on_gpu and bool(chosen.fixed.get("use_tf32", True))
    request = RoundingRequest(
        replace(session, provider=REFERENCE), inputs.path, gate.reference, encode(gate.rules), tf32=tf32
    )
    try:
        return references.rounding(request, _patience(chosen), {**content, "input": inputs.sha256}), ()
    except ChildError as error:
        return None, (f"What float16 does to the model could not be found, so mixed is not tried: {error}",)


def _again(
    first: InputFacts,
    refused: ChildError,
    run: Callable[[InputFacts], ReferenceMade],
    remake: Callable[[Guess], InputFacts],
    widths: Sequence[int],
) -> tuple[InputFacts, ReferenceMade]:
    """Return the first input of other guesses that the model takes; raise ChildError where it takes none of them."""
    tried, end_s = {first.sha256}, time.monotonic() + _MOST_GUESSING_S
    for guess in guesses.others(str(refused), widths):
        candidate = remake(guess)
        if candidate.sha256 in tried or time.monotonic() > end_s:
            continue
        tried.add(candidate.sha256)
        with suppress(ChildError):
            made = run(candidate)
            return replace(candidate, source=f"{candidate.source} (after {len(tried) - 1} that it refused)"), made
    remake(guesses.FIRST)
    raise ChildError(_refusal(first, refused, len(tried)), stage=refused.stage, bad_input=True) from refused


def _refusal(first: InputFacts, refused: ChildError, tried: int) -> str:
    assumed = ", ".join(f"{name} {shown(shape)}" for name, shape in first.shapes.items())
    shapes = _shape_options(first)
    others = f", and {tried - 1} others with other sizes and values" if tried > 1 else ""
    why = _LOGGED.split(str(refused).rpartition("Status Message: ")[2])[0].strip().rstrip(".")
    change = f"give real sizes, as in {shapes}, or real" if shapes else "give real"
    return (
        f"The model refuses the input that was made for it ({assumed}; {first.source}){others}: {why}. Instead, "
        f"{change} arrays: --input FILE.npz, with {', '.join(first.shapes)} in it."
    )


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
    return (*made_up(model, inputs), *_open_shapes(inputs, chosen))


def fixed_options(session: SessionSpec, left_out: Sequence[str]) -> tuple[str, ...]:
    """Return what is to be known of options that the configuration holds and no knob stands for."""
    held = ", ".join(f"{name}={value}" for name, value in session.extras.items())
    told = (
        (held, "Every session here, the default's too, has what the configuration holds beside its settings:"),
        (", ".join(left_out), "No session here has these, which the configuration holds beside its settings:"),
    )
    return tuple(f"{sentence} {names}." for names, sentence in told if names)


def environment() -> dict[str, str]:
    """Return the variables that are set and change what ONNX Runtime does, as a part of a study's identity."""
    return {name: os.environ[name] for name in _VARIABLES.split() if name in os.environ}


def _open_shapes(inputs: InputFacts, chosen: StudyDefinition) -> tuple[str, ...]:
    if inputs.fixed or "capture" not in chosen.knobs:
        return ()
    shapes = _shape_options(inputs)
    return (f"The model leaves shapes open, so no CUDA graph is tried, which gains most. To fix them: {shapes}",)


def _shape_options(inputs: InputFacts) -> str:
    """Return the options that fix the shapes of all inputs; scalars have none."""
    return " ".join(f"--shape {name}={shown(shape)}" for name, shape in inputs.shapes.items() if shape)


_BY_VALUES = {
    "NonMaxSuppression": "NonMaxSuppression's cost follows the number of boxes",
    "Loop": "what Loop repeats may follow the values",
    "Scan": "what Scan repeats follows the sizes",
    "If": "If may take another branch",
}
"""Operators whose cost depends on the input, and how."""


def made_up(model: ModelFacts, inputs: InputFacts) -> tuple[str, ...]:
    """Return what is to be known of an input that was made; nothing where the user gave one."""
    if inputs.real:
        return ()
    reasons = [why for operator, why in _BY_VALUES.items() if operator in model.operators]
    if any(spec.shape and _INTEGERS.search(spec.dtype) for spec in model.inputs):
        reasons.append("integers (token ids, indices) are all the same in it")
    speed = f" In this model speed depends on it too: {'; '.join(reasons)}." if reasons else ""
    return (f"The input is {inputs.source}: the outputs say nothing about real ones.{speed} Give --input.",)
