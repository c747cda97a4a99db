"""Providers as objects: one that is made up, plugins, and two that race for the host's processor."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import rtmo_optuna
from models import facts, save
from rtmo_optuna.engine import ort
from rtmo_optuna.engine.gate.outputs import judge
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine.host import half_precision, host
from rtmo_optuna.providers import openvino, tensorrt_rtx
from rtmo_optuna.providers.base import Knob, Provider, Untyped
from rtmo_optuna.providers.plugin import Plugin
from rtmo_optuna.providers.table import PROVIDERS, automatic
from rtmo_optuna.search.decide.ladder import next_rung
from rtmo_optuna.space import configfile, resolve
from rtmo_optuna.space.knobs import canonical, knob_table
from rtmo_optuna.types.measurement import GateMode, GateRules
from rtmo_optuna.types.request import Scope, SessionSpec, Settings, Value
from rtmo_optuna.types.subject import Gpu, Machine, StudyDefinition
from rtmo_optuna.verbs import tune as verb
from scripted import tune_options

SPINNING = "session.intra_op.allow_spinning"
MACHINE = Machine("Linux", "CPU", 8, 2**34, "3.11.7", instructions=("avx512_fp16",))
H100 = Gpu(0, "GPU-0", "NVIDIA H100 80GB HBM3", 80 * 2**30, "595.1", "9.0")
needs_openvino = pytest.mark.skipif(
    bool(openvino.PROVIDER.missing()), reason=f"{openvino.PROVIDER.missing()}, which is for x86-64"
)
BFLOAT16 = {"avx512_bf16", "amx_bf16"}
FAR = Plugin("far", "FarExecutionProvider", (), package="json", module="json", extra="far")


@dataclass(frozen=True, slots=True)
class _MadeUp(Provider):
    """The CPU provider under another name, which notes in its list what is asked of it."""

    asked: list[str] | None = None

    def load(self, ort: Untyped) -> None:
        """Note it."""
        Provider.load(self, ort)
        (self.asked if self.asked is not None else []).append("load")

    def versions(self, ort: Untyped) -> dict[str, str]:
        """Return one more version."""
        return Provider.versions(self, ort) | {"made up": "1.2"}


def _patience(value: Value, _device: int) -> str:
    return {"patient": "0", "restless": "1"}[str(value)]


def made_up() -> _MadeUp:
    """Return a provider with a knob that spells its own value into an option of another name."""
    temper = Knob("temper", Scope.ENTRY, ("restless", "patient"), "how it waits", option=SPINNING, spell=_patience)
    return _MadeUp("made_up", "CPUExecutionProvider", (temper,), asked=[])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model that doubles."""
    shape: tuple[int, list[int | str]] = (int(TensorProto.FLOAT), ["batch", 4])
    return save(tmp_path / "double.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], {"x": shape}, {"y": shape})


def resolved(of: str, **knobs: tuple[Value, ...] | None) -> tuple[dict[str, list[Value]], dict[str, str]]:
    """Return the choices that a study of the provider `of` has here, and what was left out and why."""
    space = resolve.resolve(StudyDefinition("s", of, knobs), MACHINE, facts(), fixed_shapes=True)
    left_out = {one.name: one.reason for one in space.left_out}
    return {one.name: [choice.label for choice in one.choices] for one in space.dimensions}, left_out


@pytest.mark.slow
def test_a_provider_that_is_made_up_is_tuned_and_opened(model: Path, tmp_path: Path) -> None:
    """Nothing else knows its name: study, search, confirmation, configuration file and session take it as it is."""
    provider = made_up()
    study = "provider: made_up\nknobs: {temper: all}\nsampler: exhaustive\n"
    study += "measuring: {warmup_s: 0, warmup_calls: 1, window_s: 0.01, window_calls: 3, windows_max: 4}\n"
    script = {"base_ms": 2, "effects": {"temper=patient": 0.5}}
    with PROVIDERS.having(provider):
        options = replace(tune_options(tmp_path, study, script=script, quick=True, timeout_s=600.0), provider="made_up")
        told = verb.tune(options, lambda _: None).record
        assert told.verdict.confirmed
        assert configfile.read(options.config, "made_up").settings == Settings.of({"temper": "patient"})
        assert configfile.read_info(options.config)["provider"] == "made_up"
        opened = OnnxRuntimeEngine(SessionSpec(str(model), "made_up", Settings.of({"temper": "patient"})))
    assert provider.asked == ["load"]
    assert opened.versions()["made up"] == "1.2"
    assert opened.session.get_session_options().get_session_config_entry(SPINNING) == "0"
    assert "made_up" not in PROVIDERS


def test_each_file_is_imported_when_its_provider_is_asked_for() -> None:
    """The table knows names only; every row is the object of its own name."""
    assert {name: provider.name for name, provider in PROVIDERS.items()} == {name: name for name in PROVIDERS}


@pytest.mark.parametrize(("name", "knob", "value", "option"), [
    ("cuda", "gpu_mem_limit_gb", 4, ("gpu_mem_limit", str(4 * 2**30))),
    ("cuda", "prefer_nhwc", True, ("prefer_nhwc", "1")),
    ("tensorrt_rtx", "rtx_cuda_graph", True, ("enable_cuda_graph", "1")),
    ("openvino", "NUM_STREAMS", 2, ("NUM_STREAMS", "2")),
])  # fmt: skip
def test_values_are_spelled_by_their_knobs(name: str, knob: str, value: Value, option: tuple[str, str]) -> None:
    """Under ONNX Runtime's name of the option, where it is another one."""
    found = knob_table(name)[knob]
    assert (found.option or found.name, found.spell(value, 0)) == option


def test_what_auto_stands_for() -> None:
    """A GPU is CUDA's; without one the processor's providers race, where there are two."""
    assert automatic(H100) == "cuda"
    assert automatic(None) == ("cpu" if openvino.PROVIDER.missing() else "host")


def test_a_plugin_that_is_missing_says_what_to_install() -> None:
    """Before anything is registered."""
    plugin = replace(FAR, package="onnxruntime-ep-far", module="onnxruntime_ep_far")
    with pytest.raises(UsageError, match=r"far cannot be used: .*ep-far is not installed: pip install .*\[far\]'"):
        plugin.load(onnxruntime)


def test_a_plugin_without_a_device_is_refused() -> None:
    """As TensorRT for RTX is on a GPU for which it is not made; a library that does not load is told as well."""
    with pytest.raises(UsageError, match=r"1\.9 does not load json: .*no attribute"):
        FAR.load(SimpleNamespace(__version__="1.9"))
    devices = [SimpleNamespace(ep_name="FarExecutionProvider", ep_metadata={"ov_device": "GPU"})]
    there = SimpleNamespace(__version__="1.9", get_ep_devices=lambda: devices)
    FAR.load(there)
    with pytest.raises(UsageError, match="does not load"):
        replace(FAR, where={"ov_device": "CPU"}).load(there)
    assert "json finds no device that the provider far can use" in FAR.why_missing(there)


@pytest.mark.parametrize(("capability", "taken"), [
    ("7.5", False), ("8.6", True), ("8.9", True), ("9.0", False), ("12.0", True), ("12.1", True),
])  # fmt: skip
def test_tensorrt_rtx_names_the_gpus_that_it_takes(capability: str, *, taken: bool) -> None:
    """By compute capability, as the header of its package has it."""
    gpu = replace(H100, compute_capability=capability)
    assert tensorrt_rtx.takes(gpu) is taken
    assert (f"NVIDIA H100 80GB HBM3 ({capability})" in tensorrt_rtx.refusal([gpu])) is not taken
    assert "none answers" in tensorrt_rtx.refusal([])


def test_the_processor_tells_its_instructions_on_half_precision() -> None:
    """Those that end in bf16 or fp16; nothing where there is no such line."""
    assert half_precision("flags\t: sse avx512_bf16 amx_bf16 f16c avx512_fp16\nflags\t: x\n") == (
        "amx_bf16", "avx512_bf16", "avx512_fp16",
    )  # fmt: skip
    assert half_precision("Features : fp asimd") == ()


def test_what_the_processor_lacks_is_left_out() -> None:
    """A hint that it would ignore would be a setting that says nothing."""
    choices, left_out = resolved("openvino", INFERENCE_PRECISION_HINT=None)
    assert choices == {"INFERENCE_PRECISION_HINT": ["f32", "f16"]}
    assert left_out == {"INFERENCE_PRECISION_HINT=bf16": "needs a processor that has avx512_bf16 or amx_bf16"}


def test_the_host_has_the_rivals_in_one_space() -> None:
    """Who runs is a choice; what only one of them has means nothing beside the other, and is not handed to it."""
    choices, left_out = resolved("host", provider=None, threads=None)
    assert choices["threads"] == [0, 1, 2, 4, 8]
    there = [] if openvino.PROVIDER.missing() else ["openvino", "openvino+f16"]
    assert choices.get("provider", ["cpu"]) == ["cpu", *there]
    assert "provider=openvino+bf16" in left_out
    of_cpu: dict[str, Value] = {"intra_op_num_threads": 1, "enable_mem_pattern": False}
    both = canonical("host", {"host_provider": "openvino", "INFERENCE_PRECISION_HINT": "f16", **of_cpu})
    assert both == Settings.of({"INFERENCE_PRECISION_HINT": "f16", "host_provider": "openvino"})
    assert canonical("host", {"intra_op_num_threads": 1, "NUM_STREAMS": 2}) == Settings.of({"intra_op_num_threads": 1})
    rival, settings = PROVIDERS["host"].chosen(both)
    assert (rival.name, settings) == ("openvino", Settings.of({"INFERENCE_PRECISION_HINT": "f16"}))
    assert PROVIDERS["host"].chosen(Settings())[0].name == "cpu"


def test_settings_of_either_rival_are_a_place_in_the_space() -> None:
    """What means something for one of them is found beside it, whoever comes first."""
    study = StudyDefinition("s", "host", {"threads": None, "provider": ("cpu", "openvino"), "enable_mem_pattern": None})
    space = resolve.resolve(study, MACHINE, facts(), fixed_shapes=True)
    one: dict[str, Value] = {"provider": "openvino", "threads": 2, "enable_mem_pattern": True}
    if openvino.PROVIDER.missing():
        one = {"threads": 2, "enable_mem_pattern": False}
    assert resolve.params_of(space, resolve.settings_of(space, one)) == one


@needs_openvino
def test_openvino_is_tried_first_in_the_precision_that_gains_most() -> None:
    """And in float32 where the outputs do not bear that, before anything is flipped."""
    study = StudyDefinition("s", "host", {"provider": None, "enable_cpu_mem_arena": None})
    space = resolve.resolve(study, replace(MACHINE, instructions=("amx_bf16",)), facts(), fixed_shapes=True)
    plain = Settings.of({"host_provider": "openvino"})
    wrong = Settings.of({"INFERENCE_PRECISION_HINT": "bf16", **dict(plain)})
    costs = {Settings(): 10.0}
    assert next_rung(space, costs.get) == wrong
    costs[wrong] = math.inf
    assert next_rung(space, costs.get) == plain
    costs[plain] = 8.0
    assert next_rung(space, costs.get) is None


def _config(folder: Path, knobs: str, provider: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(f"onnx:\n  {knobs}\n  benchmark_info: {{provider: {provider}}}\n", encoding="utf-8")
    return path


@needs_openvino
@pytest.mark.parametrize("provider", ["openvino", "host"])
def test_openvino_runs_what_was_tuned(provider: str, model: Path, tmp_path: Path) -> None:
    """`open_session` opens the plugin, its options in the one that it reads; plain sessions cannot be told by name."""
    path = _config(tmp_path, "host_provider: openvino\n  NUM_STREAMS: 1", provider)
    session = rtmo_optuna.open_session(model, path)
    assert session.get_providers()[0] == "OpenVINOExecutionProvider"
    given = session.get_provider_options()["OpenVINOExecutionProvider"]
    assert json.loads(given["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}}
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert np.array_equal(session.run(None, {"x": x})[0], 2 * x)
    with pytest.raises(UsageError, match=r"is a plugin, which InferenceSession does not know .*: call open_session"):
        rtmo_optuna.provider_options(path)
    options = rtmo_optuna.session_options(path)
    assert onnxruntime.InferenceSession(str(model), options).get_providers()[0] == "OpenVINOExecutionProvider"


@needs_openvino
def test_the_host_tells_the_versions_of_all_rivals(model: Path) -> None:
    """Whoever runs the default: a study is of both, and goes on with both as they were only."""
    told = OnnxRuntimeEngine(SessionSpec(str(model), "host")).versions()
    assert told == OnnxRuntimeEngine(SessionSpec(str(model), "openvino")).versions()
    assert set(told) == {"onnxruntime", openvino.PROVIDER.package}


@needs_openvino
def test_openvino_refuses_what_it_does_not_know(model: Path) -> None:
    """What is in `load_config` is checked by it, so that no setting is measured that is not in force."""
    runtime = ort.load("openvino")
    wrong = replace(runtime, provider=replace(runtime.provider, knobs=(Knob("NO_KNOB", Scope.PROVIDER, (0, 1), ""),)))
    with pytest.raises(RuntimeError, match="Unsupported property NO_KNOB"):
        wrong.open(str(model), Settings.of({"NO_KNOB": 1}))


@pytest.mark.slow
@needs_openvino
def test_openvinos_own_precision_is_refused_and_ours_is_exact(
    rtmo_t: Callable[[str], tuple[Path, NDArray[np.float32]]],
) -> None:
    """bfloat16 finds other people in RTMO-t; in float32 the default is as near as the CPU provider is to itself."""
    path, image = rtmo_t("opset17")
    outputs: dict[str, list[Mapping[str, Any]]] = {}
    for name, provider, precision in (("cpu", "cpu", ""), ("f32", "openvino", ""), ("bf16", "openvino", "bf16")):
        settings = Settings.of({"INFERENCE_PRECISION_HINT": precision} if precision else {})
        engine = OnnxRuntimeEngine(SessionSpec(str(path), provider, settings))
        outputs[name] = [dict(zip(engine.output_names, engine.run({engine.inputs[0].name: image}), strict=True))]
    rules = GateRules(mode=GateMode.DETECTIONS)
    own = judge(outputs["cpu"], outputs["f32"], rules)
    assert own.passed
    assert max(value for error in own.errors for values in error.figures.values() for value in values) < 0.01
    if BFLOAT16 & set(host().instructions):
        assert "confident rows" in judge(outputs["cpu"], outputs["bf16"], rules, own).reason
