"""The `cuda` provider on a real GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

import build_rtmo
from rtmo_optuna.child import protocol
from rtmo_optuna.child.measure import Decision, describe, measure
from rtmo_optuna.cli import main
from rtmo_optuna.engine.inputs.inputs import prepare
from rtmo_optuna.machine.gpu import gpus, process_memory
from rtmo_optuna.space.knobs import canonical, knob_table
from rtmo_optuna.study.library import load_study
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import BenchmarkRequest, Limits, Measuring, Scope, SessionSpec, Settings
from rtmo_optuna.types.study import Origin

pytestmark = pytest.mark.gpu
RULES = Measuring(warmup_s=0.1, window_s=0.05, runs=30)


@pytest.fixture(scope="module")
def rtmo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of an RTMO-t, its input beside it."""
    folder = tmp_path_factory.mktemp("rtmo")
    built = build_rtmo.build("t")
    onnx.save(built.model, folder / "rtmo-t.onnx")
    np.savez(folder / "rtmo-t.npz", input=built.image)
    return folder / "rtmo-t.onnx"


def benchmark(model: Path, folder: Path, settings: Settings) -> Measurement:
    """Measure one process of 30 calls."""
    session = SessionSpec(str(model), "cuda")
    facts = describe(protocol.DescribeRequest(session), Limits())
    source, target = model.with_suffix(".npz"), folder / "inputs.npz"
    prepare(facts.inputs, source=source, shapes={}, scale=1.0, target=target)
    request = BenchmarkRequest(replace(session, settings=settings), str(target), RULES)
    gpu = gpus()[0]
    return measure(
        request,
        log=folder / "log.txt",
        decide=lambda windows: Decision.ENOUGH if sum(len(w.samples_ns) for w in windows) >= 30 else Decision.GO_ON,
        memory_of=lambda pid: process_memory(gpu, pid),
    )


def test_all_of_the_model_runs_on_the_gpu(rtmo: Path) -> None:
    """The child says where the nodes went, and which libraries it loaded."""
    facts = describe(protocol.DescribeRequest(SessionSpec(str(rtmo), "cuda")), Limits())
    assert facts.nodes_by_provider["CUDAExecutionProvider"] > 100
    assert facts.nodes_by_provider.get("CPUExecutionProvider", 0) < 10
    assert facts.versions["cudnn"].startswith("9.")
    assert facts.versions["cuda"]


def test_a_benchmark_reads_its_options_back(rtmo: Path, tmp_path: Path) -> None:
    """The default runs on CUDA, holds GPU memory, and every option off its default is read back."""
    settings = canonical("cuda", {"cudnn_conv_algo_search": "HEURISTIC", "gpu_mem_limit_gb": 4, "use_tf32": False})
    found = benchmark(rtmo, tmp_path, settings)
    assert found.outcome is Outcome.MEASURED, found.reason
    assert found.provider_options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert found.provider_options["gpu_mem_limit"] == str(4 * 2**30)
    assert found.provider_options["use_tf32"] == "0"
    assert (found.gpu_memory_bytes or 0) > 100 * 2**20


@pytest.mark.parametrize("name", sorted(knob_table("cuda")))
def test_every_knob_of_the_table_is_taken(rtmo: Path, tmp_path: Path, name: str) -> None:
    """Each knob's last choice, with all that it needs, opens a session and runs; only a raw model is captured whole."""
    table = knob_table("cuda")
    knob, wanted = table[name], {name: table[name].choices[-1]}
    if name == "enable_cuda_graph":
        onnx.save(build_rtmo.build("t", raw=True).model, tmp_path / "raw.onnx")
        tmp_path.joinpath("raw.npz").write_bytes(rtmo.with_suffix(".npz").read_bytes())
        rtmo = tmp_path / "raw.onnx"
    facts = describe(protocol.DescribeRequest(SessionSpec(str(rtmo), "cuda")), Limits())
    if knob.scope is Scope.PROVIDER and name.removesuffix("_gb") not in facts.provider_options:
        pytest.skip(f"ONNX Runtime {facts.versions['onnxruntime']} has no option {name}")
    while knob.needs:
        wanted |= dict([knob.needs])
        knob = table[knob.needs[0]]
    settings = canonical("cuda", wanted)
    assert dict(settings) == wanted
    found = benchmark(rtmo, tmp_path, settings)
    assert found.outcome is Outcome.MEASURED, found.reason


def test_too_small_a_memory_limit_fails_its_trial_only(rtmo: Path, tmp_path: Path) -> None:
    """Out of memory is a FAILED measurement with the stage and ONNX Runtime's own words."""
    found = benchmark(rtmo, tmp_path, Settings.of({"gpu_mem_limit_gb": 0.001}))
    assert found.outcome is Outcome.FAILED
    assert found.stage is not None
    assert "memory" in found.reason.lower()


def test_tune_on_the_gpu(rtmo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--provider auto` takes the GPU; the settings it ran are CUDA's. After two trials there may be no verdict."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main.main(["tune", str(rtmo), "--input", str(rtmo.with_suffix(".npz")), "--trials", "2", "--timeout", "1m"])
    assert ended.value.code in {0, 4}
    record = load_study("sqlite:///studies/studies.db", "rtmo-t-cuda").record()
    assert 1 <= sum(trial.origin in {Origin.DEFAULT, Origin.SAMPLER} for trial in record.runs) <= 2
    assert record.machine.gpu
    if ended.value.code == 0:
        held = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))["onnx"]
        assert held["benchmark_info"]["gpu_name"] == record.machine.gpu.name
        assert "cudnn_conv_algo_search" in held
