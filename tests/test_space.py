"""Knobs, and the space of a definition on a machine: canonical settings, parameters and back, what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models import facts
from program import there
from rtmo_optuna.errors import UsageError
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.space import definition, resolve
from rtmo_optuna.space.knobs import canonical, dimension_table, knob_table
from rtmo_optuna.types.request import ModelFacts, Settings, Value
from rtmo_optuna.types.subject import Frozen, Gpu, InputFacts, Machine, SearchSpace, StudyDefinition
from rtmo_optuna.verbs import first_look

SAMPLERS = ("auto", "gp", "tpe", "random", "exhaustive")
GPU = Gpu(0, "GPU-0", "NVIDIA H200", 141 * 2**30, "570.1", "9.0")
FACTS = facts()
MACHINE = Machine("Linux", "CPU", 64, 64 * 2**30, "3.11.7", GPU)
SHIPPED = {path.stem: path for path in definition.shipped()}


def resolved(study: StudyDefinition, machine: Machine = MACHINE, model: ModelFacts = FACTS) -> SearchSpace:
    """Return what a study searches there, for a model of fixed shapes."""
    return resolve.resolve(study, machine, model, fixed_shapes=True)


def space_of(name: str) -> SearchSpace:
    """Return the whole space of a definition that ships, on a machine that holds all of it."""
    return resolved(definition.load(SHIPPED[name], SAMPLERS))


def small(provider: str = "cuda", **knobs: tuple[Value, ...] | None) -> StudyDefinition:
    """Return a definition that searches `knobs`."""
    return StudyDefinition("small", provider, knobs)


@pytest.mark.parametrize("provider", list(PROVIDERS))
def test_the_tables_hold_together(provider: str) -> None:
    """Names are unique, what a knob needs is there, and each knob is searched in exactly one dimension."""
    table = knob_table(provider)
    assert len(table) == len(PROVIDERS[provider].knobs)
    for knob in table.values():
        assert len(set(map(repr, knob.choices))) == len(knob.choices) > 1
        if knob.needs:
            needed, value = knob.needs
            assert value in table[needed].choices
    dimensions = dimension_table(provider).values()
    members = [{knob for choice in dimension.choices for knob, _ in choice.values} for dimension in dimensions]
    assert sorted(knob for names in members for knob in names) == sorted(table)


@pytest.mark.parametrize("provider", list(PROVIDERS))
def test_the_first_choice_of_every_dimension_is_the_default(provider: str) -> None:
    """So the first combination of a space is the default settings."""
    for dimension in dimension_table(provider).values():
        assert canonical(provider, dict(dimension.choices[0].values)) == Settings()


def test_settings_are_canonical() -> None:
    """Defaults and knobs without meaning are dropped, whatever the order; what matters stays."""
    assert canonical("cuda", {"use_tf32": True, "gpu_mem_limit_gb": None}) == Settings()
    assert canonical("cuda", {"tunable_op_tuning_enable": True}) == Settings()
    tuned = {"tunable_op_tuning_enable": True, "tunable_op_enable": True}
    assert canonical("cuda", tuned) == Settings.of(tuned)
    assert canonical("cuda", dict(reversed(tuned.items()))) == canonical("cuda", tuned)
    assert canonical("cpu", {"inter_op_num_threads": 2, "execution_mode": "ORT_SEQUENTIAL"}) == Settings()
    parallel: dict[str, Value] = {"execution_mode": "ORT_PARALLEL", "enable_mem_pattern": False}
    assert canonical("cpu", parallel) == Settings.of({"execution_mode": "ORT_PARALLEL"})
    assert canonical("cpu", {"enable_mem_pattern": False}) == Settings.of({"enable_mem_pattern": False})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "cuda", "guide-grid"])
def test_parameters_and_settings_lead_to_each_other(name: str) -> None:
    """For every combination: settings give parameters of the space, and these give the same settings."""
    space = space_of(name)
    default, *_ = every = list(resolve.every_params(space))
    assert len(every) == resolve.size(space) == len({tuple(params.items()) for params in every})
    assert resolve.settings_of(space, default) == Settings()
    for params in every:
        settings = resolve.settings_of(space, params)
        assert resolve.settings_of(space, there(resolve.params_of(space, settings))) == settings
        assert canonical(space.provider, dict(settings)) == settings


def test_parameters_of_the_largest_space() -> None:
    """`cuda-full` has no knob that makes another one meaningless: each flip from the default comes back as itself."""
    space = space_of("cuda-full")
    default = next(resolve.every_params(space))
    for dimension in space.dimensions:
        for choice in dimension.choices:
            params = {**default, dimension.name: choice.label}
            assert resolve.params_of(space, resolve.settings_of(space, params)) == params


def test_the_guides_grid_is_the_guides() -> None:
    """3 x 4 x 2 x 2 = 48."""
    space = space_of("guide-grid")
    assert [len(dimension.choices) for dimension in space.dimensions] == [3, 4, 2, 2]
    assert resolve.size(space) == 48


def test_settings_outside_the_space_have_no_parameters() -> None:
    """Another value, another knob, or a fixed knob that differs."""
    space = resolved(replace(small(gpu_mem_limit_gb=(None, 4)), fixed={"prefer_nhwc": True}))
    inside = Settings.of({"gpu_mem_limit_gb": 4, "prefer_nhwc": True})
    assert resolve.params_of(space, inside) == {"gpu_mem_limit_gb": 4}
    assert resolve.settings_of(space, {"gpu_mem_limit_gb": None}) == Settings.of({"prefer_nhwc": True})
    for outside in (
        {**dict(inside), "gpu_mem_limit_gb": 5},
        {**dict(inside), "use_tf32": False},
        {"gpu_mem_limit_gb": 4},
    ):
        assert resolve.params_of(space, Settings.of(outside)) is None


def test_choices_of_ones_own_are_searched() -> None:
    """A number that the table does not have is a choice like any other."""
    space = resolved(small(gpu_mem_limit_gb=(None, 2.5, 4)))
    assert [choice.label for choice in space.dimensions[0].choices] == [None, 4, 2.5]
    assert resolve.settings_of(space, {"gpu_mem_limit_gb": 2.5}) == Settings.of({"gpu_mem_limit_gb": 2.5})


def test_what_onnxruntime_does_not_know_is_left_out() -> None:
    """A knob younger than the installed version leaves the space, with a reason."""
    study = small(fuse_conv_bias=None, prefer_nhwc=None)
    space = resolved(study, model=facts("1.19.2"))
    assert [dimension.name for dimension in space.dimensions] == ["prefer_nhwc"]
    reason = "needs ONNX Runtime 1.20, installed is 1.19.2"
    assert space.left_out == tuple(Frozen(f"fuse_conv_bias={value}", reason) for value in (False, True))
    assert len(resolved(study, model=facts("1.20.0")).dimensions) == 2


def test_what_the_machine_cannot_hold_is_left_out() -> None:
    """More memory than the GPU has, more threads than there are cores."""
    laptop = replace(MACHINE, cores=4, gpu=replace(GPU, memory_bytes=8 * 2**30))
    space = resolved(small(gpu_mem_limit_gb=None), laptop)
    assert [choice.label for choice in space.dimensions[0].choices] == [None, 4, 8, "90%"]
    assert space.left_out == (Frozen("gpu_mem_limit_gb=16", "more than this machine's GPU memory (8.0 GiB)"),)
    space = resolved(small("cpu", execution=None, intra_op_num_threads=(0, 4, 5)), replace(laptop, gpu=None))
    assert {d.name: [c.label for c in d.choices] for d in space.dimensions} == {
        "execution": ["sequential", "parallel", "parallel+2", "parallel+4"],
        "intra_op_num_threads": [0, 4],
    }


def test_a_single_choice_is_no_dimension() -> None:
    """Where only the default is left, there is nothing to search, and what left is told."""
    one_core = replace(MACHINE, cores=1, gpu=None)
    space = resolved(small("cpu", intra_op_num_threads=(0, 2), enable_cpu_mem_arena=None), one_core)
    assert [dimension.name for dimension in space.dimensions] == ["enable_cpu_mem_arena"]
    assert space.left_out == (Frozen("intra_op_num_threads=2", "more than this machine's cores (1)"),)


def test_nothing_left_to_search_is_refused() -> None:
    """The sentence names the study and says what to do."""
    with pytest.raises(UsageError, match=r"'small' leaves nothing .*\(fuse_conv_bias=False: needs .*\): name at least"):
        resolved(small(fuse_conv_bias=None), model=facts("1.18.0"))


def test_definitions_are_found_whatever_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that ship lie beside the package, not in the folder one is in."""
    monkeypatch.chdir(tmp_path)
    assert {path.stem for path in definition.shipped()} == SHIPPED.keys()


def test_ways_of_calling_that_a_model_rules_out_are_left_out() -> None:
    """A whole model is captured or cut, never both, and neither without fixed shapes."""
    study = small(capture=None)

    def labels(model: ModelFacts, *, fixed_shapes: bool = True) -> list[Value]:
        space = resolve.resolve(study, MACHINE, model, fixed_shapes=fixed_shapes)
        return [choice.label for choice in space.dimensions[0].choices]

    assert labels(FACTS) == ["off", "binding", "graph"]
    assert labels(facts(uncapturable={"NonMaxSuppression": 1})) == ["off", "binding", "split", "split+host"]
    assert labels(FACTS, fixed_shapes=False) == ["off", "binding"]
    space = resolved(study, model=facts(uncapturable={"NonMaxSuppression": 1}))
    assert space.left_out == (Frozen("capture=graph", "a CUDA graph cannot hold NonMaxSuppression"),)


def test_a_graph_without_binding_means_nothing() -> None:
    """What needs another knob, which itself needs a third, is dropped without that."""
    values: dict[str, Value] = {"split_capture": True, "enable_cuda_graph": True}
    assert canonical("cuda", values) == Settings()
    assert len(canonical("cuda", {**values, "io_binding": True})) == 3


@pytest.mark.parametrize(("fixed", "name", "told"), [(False, "cuda", 1), (True, "cuda", 0), (False, "cpu", 0)])
def test_open_shapes_that_keep_graphs_out_are_told(name: str, told: int, *, fixed: bool) -> None:
    """Who leaves the batch open learns what it costs, and what to say; nobody else does."""
    inputs = InputFacts("", "", {"input": (1, 3, 640, 640), "scalar": ()}, 1, "photos", real=True, fixed=fixed)
    chosen = definition.load(definition.find(name), samplers=SAMPLERS)
    found = first_look.warnings(FACTS, inputs, chosen)
    assert len(found) == told
    assert all(sentence.endswith("To fix them: --shape input=1x3x640x640") for sentence in found)
