"""From a study definition and a machine to a search space, and between its parameters and settings."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from rtmo_optuna.errors import UsageError
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.space.knobs import canonical, dimension_table, knob_table
from rtmo_optuna.types.measurement import Rounding
from rtmo_optuna.types.request import Choice, Dimension, ModelFacts, Scope, Settings, Value
from rtmo_optuna.types.subject import Frozen, Machine, SearchSpace, StudyDefinition


def resolve(
    definition: StudyDefinition,
    machine: Machine,
    model: ModelFacts,
    *,
    fixed_shapes: bool,
    real: bool = True,
    rounding: Rounding | None = None,
) -> SearchSpace:
    """Return what the study searches for this model on this machine.

    Knobs that this ONNX Runtime does not know, choices that the machine cannot hold and ways of calling that the model
    rules out leave the space, with a reason; a dimension left with one choice is fixed at it. `fixed_shapes` says
    whether all shapes of the model's inputs are fixed, `real` whether the input is the user's: what rounds otherwise is
    never exported on an input that was made up. `rounding` is what float16 does to the model, which tells what mixed
    means. Raises UsageError where nothing is left to search, or where the
    definition fixes what cannot be had.
    """
    table = dimension_table(definition.provider)
    obstacle = _Obstacles(definition.provider, machine, model, fixed_shapes, real, rounding)
    left_out: list[Frozen] = []
    dimensions: list[Dimension] = []
    fixed = dict(definition.fixed)
    if why := obstacle(fixed.items()):
        message = f"The study definition {definition.name!r} fixes {', '.join(fixed)}, but this cannot be had: {why}."
        raise UsageError(message)
    for name, labels in definition.knobs.items():
        whole = table[name]
        known = [choice.label for choice in whole.choices]
        wanted = [choice for choice in whole.choices if labels is None or choice.label in labels]
        wanted += [Choice(label, ((name, label),)) for label in labels or () if label not in known]
        if rounding and rounding.precision:
            mixed = (("precision", rounding.precision),)
            wanted = [replace(one, values=mixed) if one.values == MIXED else one for one in wanted]
        told = [(choice, obstacle(choice.values)) for choice in wanted]
        possible = [choice for choice, why in told if not why]
        left_out += [Frozen(f"{name}={choice.label}", why) for choice, why in told if why]
        if len(possible) > 1:
            dimensions.append(Dimension(name, tuple(possible)))
        elif possible:
            fixed |= dict(possible[0].values)
    if not dimensions:
        why = "; ".join(f"{one.name}: {one.reason}" for one in left_out)
        reasons = f" ({why})" if why else ""
        raise UsageError(
            f"The study definition {definition.name!r} leaves nothing to search on this machine{reasons}: name at "
            "least one knob with two choices that it can hold."
        )
    return SearchSpace(
        provider=definition.provider,
        dimensions=tuple(dimensions),
        fixed=canonical(definition.provider, fixed),
        left_out=tuple(left_out),
    )


MIXED: tuple[tuple[str, Value], ...] = (("precision", "mixed"),)
MADE_UP = "never taken on an input that was made up: give --input"
_QUANTIZED = re.compile("[Qq]uantize|Integer|^QLinear|NBits$")
PRECISIONS = frozenset({"precision", "INFERENCE_PRECISION_HINT"})
"""Knobs that say in which type a model computes."""
_AMOUNTS = {"cores": "cores ({:g})", "gpu_memory_gb": "GPU memory ({:.1f} GiB)"}


@dataclass(frozen=True, slots=True)
class _Obstacles:
    """Says why this machine or this ONNX Runtime cannot have some values; nothing where it can."""

    provider: str
    machine: Machine
    model: ModelFacts
    fixed_shapes: bool
    real: bool
    rounding: Rounding | None

    def __call__(self, values: Iterable[tuple[str, Value]]) -> str:
        values = tuple(values)
        return self._capture(dict(values)) or next(filter(None, (self._one(*value) for value in values)), "")

    def _capture(self, values: Mapping[str, Value]) -> str:
        """Say why the model cannot be captured in this way."""
        uncapturable = ", ".join(self.model.uncapturable)
        if not values.get("enable_cuda_graph"):
            return ""
        if not self.fixed_shapes:
            return "a CUDA graph needs fixed shapes: give --shape for every input"
        if values.get("split_capture"):
            return "" if uncapturable else "all of the model can be captured"
        return f"a CUDA graph cannot hold {uncapturable}" if uncapturable else ""

    def _one(self, name: str, value: Value) -> str:
        """Say why one knob cannot have its value."""
        knob, version, gpu = knob_table(self.provider)[name], self.model.versions["onnxruntime"], self.machine.gpu
        if name in PRECISIONS and value != knob.default and (why := self._precision(name, value)):
            return why
        if knob.since > tuple(int(part) for part in version.split(".")[:2]):
            return f"needs ONNX Runtime {'.'.join(map(str, knob.since))}, installed is {version}"
        options = self.model.provider_options
        if knob.scope is Scope.PROVIDER and options and (knob.option or name) not in options:
            return f"ONNX Runtime {version} has no such option"
        if (any_of := knob.instructions.get(value)) and not set(any_of).intersection(self.machine.instructions):
            return f"needs a processor that has {' or '.join(any_of)}"
        amounts = {"cores": self.machine.cores, "gpu_memory_gb": gpu.memory_bytes / 2**30 if gpu else math.inf}
        most = amounts.get(knob.ceiling or "", math.inf)
        if isinstance(value, int | float) and value > most:
            return f"more than this machine's {_AMOUNTS[knob.ceiling or ''].format(most)}"
        return PROVIDERS[self.provider].lacks(name, value)

    def _precision(self, name: str, value: Value) -> str:
        """Say why nothing is computed in a precision other than float32."""
        if not self.real:
            return MADE_UP
        if name != "precision":
            return ""
        found = self.rounding or Rounding()
        if why := unconvertible(self.model) or found.error:
            return why
        if value != "mixed":
            return ""
        if self.rounding is None:
            return "which regions would stay float32 is not known: the output gate has to tell"
        return f"too much of the model is to blame: {found.refusal}" if found.refusal else "float16 passes as it is"


def unconvertible(model: ModelFacts) -> str:
    """Say why a model is left in the types that it has; nothing where it can be converted to float16."""
    if quantized := sorted(filter(_QUANTIZED.search, model.operators)):
        return f"the model is quantized ({', '.join(quantized)})"
    if model.weights and "float32" not in model.weights:
        return f"the model's weights are {', '.join(model.weights)}, not float32"
    return ""


def settings_of(space: SearchSpace, params: Mapping[str, Value]) -> Settings:
    """Return the settings that the parameters `params` (dimension to label) stand for, with what is fixed."""
    values: dict[str, Value] = dict(space.fixed)
    for dimension in space.dimensions:
        label = params[dimension.name]
        values |= next(dict(choice.values) for choice in dimension.choices if choice.label == label)
    return canonical(space.provider, values)


def params_of(space: SearchSpace, settings: Settings) -> dict[str, Value] | None:
    """Return the parameters that stand for `settings`, or None where they lie outside the space."""
    if not dict(settings).keys() <= knob_table(space.provider).keys():
        return None
    params: dict[str, Value] = {}
    for dimension in space.dimensions:
        names = {name for choice in dimension.choices for name, _ in choice.values}
        rest = {name: value for name, value in settings if name not in names}
        fits = [c for c in dimension.choices if canonical(space.provider, {**rest, **dict(c.values)}) == settings]
        if not fits:
            return None
        params[dimension.name] = fits[0].label
    return params if settings_of(space, params) == settings else None


def every_params(space: SearchSpace) -> Iterator[dict[str, Value]]:
    """Yield each combination of the space's choices, the first choices first."""
    names = [dimension.name for dimension in space.dimensions]
    for labels in itertools.product(*([c.label for c in dimension.choices] for dimension in space.dimensions)):
        yield dict(zip(names, labels, strict=True))


def size(space: SearchSpace) -> int:
    """Return how many combinations of choices there are."""
    return math.prod(len(dimension.choices) for dimension in space.dimensions)
