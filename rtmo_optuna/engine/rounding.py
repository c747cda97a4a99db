"""What rounding to float16 does to a model, region by region, found on the CPU; and which regions had better not.

The CPU provider has hardly a kernel of float16: it computes in float32, and drops the casts between two nodes, so that
a converted model rounds next to nothing there. Here each tensor that float16 would hold is rounded by casts of our own,
which stay, in a model that is float32 otherwise; as on a GPU, whose products of float16 are summed in float32.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.gate.flat import flat
from rtmo_optuna.engine.gate.outputs import judge, strain
from rtmo_optuna.engine.precision import LARGEST, float_tensors, half, halved
from rtmo_optuna.engine.regions import REGIONS, regions, written
from rtmo_optuna.errors import SettingsRefusedError
from rtmo_optuna.providers.table import REFERENCE
from rtmo_optuna.types.measurement import Region, Rounding
from rtmo_optuna.types.request import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    from rtmo_optuna.types.measurement import GateResult, GateRules

    Arrays: TypeAlias = dict[str, NDArray[Any]]

FEW = 4
"""So many samples tell what each part does: those on which float16 of the whole does most."""
MOST_RUNS = 12
_MOST_S = 8.0
"""For so long a run of float32 may take on the samples that the whole model is judged by; FEW in any case."""
_GROUPS = 5
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NAMED = 3


def find(
    path: Path,
    samples: Sequence[Mapping[str, NDArray[Any]]],
    reference: Sequence[Arrays],
    rules: GateRules,
    free_dimensions: Mapping[str, int],
    *,
    tf32: bool,
) -> Rounding:
    """Return what float16 does to the model at `path` on `samples`, and a mixed precision where the gate refuses it.

    `reference` are the model's outputs. With `tf32` the default settings multiply in TF32 and limits grow with what
    that does. At most a dozen runs: the range of all tensors, TF32, float16; where that fails, without the regions that
    overflow; then each of five parts alone, and float16 without the worst of them, as many as it takes.
    """
    import onnx  # noqa: PLC0415 - takes 0.2 s

    try:
        half(str(path))
    except SettingsRefusedError as error:
        return Rounding(error=str(error))
    model = onnx.load(path)
    trial = _Trial(model, samples, reference, rules, free_dimensions)
    begun, few = time.monotonic(), trial.of(range(len(samples))[:FEW])
    overflows = few.overflows()
    each_s = (time.monotonic() - begun) / few.pictures
    trial = trial.of(range(len(samples))[: max(FEW, int(_MOST_S / each_s))])
    if tf32:
        trial.own = trial.judged(frozenset(), products=True)
    whole = trial.judged(trial.names)
    told = tuple(f"{node.name} reaches {value:.2g}" for node, value in overflows[:_NAMED])
    if whole.passed:
        return Rounding(runs=trial.runs, pictures=trial.pictures)
    few = trial.of(trial.worst(whole, FEW))
    kept, found = _search(trial, few, {node.output[0] for node, _ in overflows}, tf32=tf32)
    return Rounding(
        refusal=whole.reason,
        overflows=told,
        regions=found,
        precision=written(kept) if kept else "",
        kept=kept,
        runs=trial.runs,
        pictures=trial.pictures,
    )


def _search(
    trial: _Trial, few: _Trial, overflowing: Collection[str], *, tf32: bool
) -> tuple[tuple[int, ...], tuple[Region, ...]]:
    """Return the places of the regions that stay float32, none where nothing helps, and what each part alone does.

    Parts are measured on `few` samples.
    """
    every = [frozenset(name for node in region for name in node.output) & trial.names for region in trial.regions]
    over = {place for place, names in enumerate(every) if not names.isdisjoint(overflowing)}

    def passes(kept: Collection[int]) -> bool:
        return trial.judged(trial.names.difference(*(every[place] for place in kept))).passed

    if over and passes(over):
        return tuple(sorted(over)), ()
    if tf32:
        few.own = few.judged(frozenset(), products=True)
    found = []
    for places in np.array_split(np.arange(len(every)), min(_GROUPS, len(every))):
        free = [int(place) for place in places if place not in over]
        if free:
            found.append(few.region(free, frozenset().union(*(every[place] for place in free))))
    worst, kept = sorted(found, key=lambda region: -region.strain), set(over)
    for place, region in enumerate(worst):
        kept.update(region.places)
        left = math.hypot(*(other.strain for other in worst[place + 1 :])) if worst[place + 1 :] else 0.0
        if trial.runs == MOST_RUNS or len(kept) == len(every):
            break
        if left < 1 and passes(kept):
            return tuple(sorted(kept)), tuple(found)
    return (), tuple(found)


class _Trial:
    """Runs of a model on the CPU, rounded here and there; `own` is what the default settings' rounding does."""

    def __init__(
        self,
        model: ModelProto,
        samples: Sequence[Mapping[str, NDArray[Any]]],
        reference: Sequence[Arrays],
        rules: GateRules,
        free_dimensions: Mapping[str, int],
    ) -> None:
        self.names = halved(model)
        self.regions = regions(model.graph, self.names, REGIONS)
        self.own: GateResult | None = None
        self._runs = [0]
        self._model, self._free_dimensions = model, free_dimensions
        self._samples, self._reference, self._rules = samples, reference, rules

    @property
    def pictures(self) -> int:
        """How many samples are run."""
        return len(self._samples)

    @property
    def runs(self) -> int:
        """How many runs there were, of whatever samples."""
        return self._runs[0]

    def of(self, places: Iterable[int]) -> _Trial:
        """Return the same of the samples at `places` only; their runs count together, what is its own does not."""
        other = copy.copy(self)
        other.own, chosen = None, list(places)
        other._samples = [self._samples[place] for place in chosen]  # noqa: SLF001 - its own class
        other._reference = [self._reference[place] for place in chosen]  # noqa: SLF001
        return other

    def worst(self, told: GateResult, count: int) -> list[int]:
        """Return the places of the samples on which most is lost or added, the first ones where nobody can tell."""
        found = told.found.pictures if told.found else ()
        if len(found) != self.pictures:
            return list(range(self.pictures))[:count]
        return sorted(range(self.pictures), key=lambda n: (-found[n].lost - found[n].added, -(found[n].px or 0)))[
            :count
        ]

    def judged(self, names: Collection[str], *, products: bool = False) -> GateResult:
        """Return what the gate says of the model with `names` in float16, or with what its products read rounded."""
        outputs = self._run(rounded(self._model, names, products=products))
        return judge(self._reference, outputs, self._rules, self.own)

    def region(self, places: Sequence[int], names: Collection[str]) -> Region:
        """Return what rounding the regions at `places`, which write `names`, does alone."""
        nodes = [node for place in places for node in self.regions[place]]
        strained = strain(self.judged(names), self._rules, self.own)
        return Region(nodes[0].name, nodes[-1].name, len(nodes), tuple(places), float(f"{strained:.3g}"))

    def overflows(self) -> list[tuple[NodeProto, float]]:
        """Return the nodes that write, or are handed, numbers that float16 lacks, in order, and the largest of each."""
        from onnx import shape_inference  # noqa: PLC0415 - likewise

        nodes = [node for region in self.regions for node in region]
        floats = float_tensors(shape_inference.infer_shapes(self._model).graph)
        floats -= {one.name for one in self._model.graph.initializer}
        ends = [(node, floats.intersection([*node.output, *{*node.input} - self.names])) for node in nodes]
        with suppress(RuntimeError):  # an empty tensor has no largest number
            names = sorted(frozenset[str]().union(*(touched for _, touched in ends)))
            found = self._run(_ranged(self._model, names))
            largest = {name: max(float(one[_range(name)]) for one in found) for name in names}
            each = ((node, max((largest[name] for name in touched), default=0.0)) for node, touched in ends)
            return [(node, value) for node, value in each if LARGEST < value < math.inf]
        return []

    def _run(self, model: ModelProto) -> list[Arrays]:
        self._runs[0] += 1
        content = model.SerializeToString()
        session = ort.load(REFERENCE).open(content, Settings(), free_dimensions=self._free_dimensions)
        names = [output.name for output in session.get_outputs()]
        return [flat(names, session.run(None, dict(sample))) for sample in self._samples]


def rounded(model: ModelProto, names: Collection[str], *, products: bool = False) -> ModelProto:
    """Return a copy of `model` in which nodes that write any of `names` read and write numbers of float16 only.

    With `products` it is what convolutions and matrix products read that is rounded, as TF32 does: it has as many bits.
    """
    from onnx import shape_inference  # noqa: PLC0415 - takes 0.2 s

    other = type(model)()
    other.CopyFrom(model)
    floats = float_tensors(shape_inference.infer_shapes(model).graph)
    nodes = list(_rounding_nodes(other.graph, frozenset(names), floats, products=products))
    del other.graph.node[:], other.graph.value_info[:]
    other.graph.node.extend(nodes)
    return other


def _rounding_nodes(
    graph: GraphProto, names: frozenset[str], floats: frozenset[str], *, products: bool
) -> Iterator[NodeProto]:
    made: dict[str, str] = {}
    for node in graph.node:
        writes = names.intersection(node.output)
        if writes or (products and node.op_type in _PRODUCTS):
            for place, name in enumerate(node.input):
                if name in floats and name not in names:
                    if name not in made:
                        made[name] = f"{name}/rounded"
                        yield from _casts(name, made[name])
                    node.input[place] = made[name]
        for place, name in enumerate(node.output):
            if name in writes:
                node.output[place] = f"{name}/exact"
        yield node
        for name in writes:
            yield from _casts(f"{name}/exact", name)


def _casts(source: str, target: str) -> Iterator[NodeProto]:
    from onnx import TensorProto, helper  # noqa: PLC0415

    yield helper.make_node("Cast", [source], [f"{target}/half"], to=TensorProto.FLOAT16)
    yield helper.make_node("Cast", [f"{target}/half"], [target], to=TensorProto.FLOAT)


def _range(name: str) -> str:
    return f"{name}/range"


def _ranged(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return a copy of `model` that gives the largest absolute number of each of `names`, and nothing else."""
    from onnx import TensorProto, helper  # noqa: PLC0415

    other = type(model)()
    other.CopyFrom(model)
    del other.graph.output[:]
    for name in names:
        other.graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"]))
        other.graph.node.append(helper.make_node("ReduceMax", [f"{name}/abs"], [_range(name)], keepdims=0))
        other.graph.output.append(helper.make_tensor_value_info(_range(name), TensorProto.FLOAT, ()))
    return other
