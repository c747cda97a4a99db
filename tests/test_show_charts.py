"""Charts and the pictures made of them; also the studies that the tests of the report use."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from rtmo_optuna.records import (
    Gpu,
    InputFacts,
    Machine,
    Measurement,
    ModelFacts,
    Origin,
    Outcome,
    SearchSpace,
    Settings,
    Stage,
    StageTimes,
    StudyDefinition,
    StudyRecord,
    TensorSpec,
    TrialRecord,
    Value,
    Verdict,
)
from rtmo_optuna.space.resolve import resolve, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KNOBS: Mapping[str, tuple[Value, ...] | None] = {
    "cudnn_conv_algo_search": None,
    "gpu_mem_limit_gb": (None, 4, 8, 16, "90%"),
    "arena_extend_strategy": None,
    "do_copy_in_default_stream": None,
    "cudnn_conv_use_max_workspace": None,
    "tunable_op": None,
    "prefer_nhwc": None,
    "fuse_conv_bias": None,
    "use_tf32": None,
    "graph_optimization_level": ("ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED"),
    "session.use_device_allocator_for_initializers": None,
}
EFFECTS = {
    "cudnn_conv_algo_search=HEURISTIC": 1.03,
    "cudnn_conv_algo_search=DEFAULT": 2.7,
    "prefer_nhwc=1": 0.86,
    "fuse_conv_bias=1": 0.97,
    "use_tf32=0": 1.32,
}
WRONG = "Wrong output: 1 of 46 rows matches | the reference <dets>, at *most* 5 % may differ."
MEMORY = "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc($size, `bytes`)"
H200 = Machine(
    hostname="gpu-node-7",
    system="Debian GNU/Linux 12, Linux 6.1.0",
    cpu="Intel(R) Xeon(R) Platinum 8558",
    cores=16,
    memory_bytes=128 << 30,
    python="3.11.7",
    gpu=Gpu(0, "GPU-5f2a", "NVIDIA H200", 150_754_820_096, "580.82.07", "9.0"),
)
MODEL = ModelFacts(
    inputs=(TensorSpec("input", "tensor(float)", ("batch", 3, 640, 640)),),
    outputs=(TensorSpec("dets", "tensor(float)", ("batch", None, 5)),),
    opset=11,
    operators={"Conv": 72, "NonMaxSuppression": 1},
    nodes_by_provider={"CUDAExecutionProvider": 431, "CPUExecutionProvider": 6},
    provider="cuda",
    versions={"onnxruntime": "1.31.1", "cuda": "13.0", "cudnn": "9.19.0"},
)


def measured(latency_ms: float, outcome: Outcome = Outcome.MEASURED, seed: int = 0, windows: int = 8) -> Measurement:
    """Return a measurement whose windows lie within some per cent of `latency_ms`."""
    noise = random.Random(seed)  # noqa: S311 - no secret
    medians = tuple(latency_ms * 1e6 * noise.lognormvariate(0, 0.008) for _ in range(windows))
    middle = sorted(medians)[windows // 2]
    calls = round(windows * 120 / latency_ms)
    return Measurement(
        outcome=outcome,
        latency_ns=middle,
        windows_ns=medians,
        quantiles_ns={"p50": middle, **({"p90": 1.04 * middle, "p99": 1.2 * middle} if calls > 64 else {})},
        calls=calls,
        stages=StageTimes(
            70_000_000,
            250_000_000,
            68_000_000,
            520_000_000,
            900_000_000,
            340_000_000,
            windows * 120_000_000,
            3_300_000_000,
        ),
        gpu_memory_bytes=712 << 20,
    )


def failed(reason: str, stage: Stage) -> Measurement:
    """Return the measurement of a child that died in `stage`."""
    stages = StageTimes(70_000_000, 250_000_000, 68_000_000, None, None, None, None, 900_000_000)
    return Measurement(outcome=Outcome.FAILED, stage=stage, reason=reason, stages=stages)


def study(
    measurements: Iterable[tuple[Settings, Measurement]] = (),
    *,
    name: str = "rtmo-s-cuda",
    space: SearchSpace | None = None,
    knobs: Mapping[str, tuple[Value, ...] | None] = KNOBS,
    objective: str = "latency",
    storage: str = "sqlite:///studies/studies.db",
    confirmed: bool = False,
) -> StudyRecord:
    """Return a study of these runs, the settings without any item being the default."""
    definition = StudyDefinition(name="cuda", provider="cuda", knobs=knobs, objective=objective)
    trials = tuple(
        TrialRecord(
            number=run - 1,
            run=run,
            settings=settings,
            origin=Origin.SAMPLER if len(settings) else Origin.DEFAULT,
            measurement=measurement,
            value=measurement.latency_ms if measurement.outcome is Outcome.MEASURED else None,
            wall_s=(measurement.stages.total_ns or 0) / 1e9 + 0.4,
        )
        for run, (settings, measurement) in enumerate(measurements, start=1)
    )
    valued = [trial for trial in trials if trial.value is not None]
    best = min(valued, key=lambda trial: trial.value or 0, default=None)
    default = next((trial for trial in trials if not len(trial.settings)), None)
    speedup = default.value / best.value if best and default and default.value and best.value else None
    return StudyRecord(
        name=name,
        definition=definition,
        space=space or resolve(definition, H200, "1.31.1"),
        machine=H200,
        model=MODEL,
        model_path="models/rtmo-s.onnx",
        model_sha256="9f2c4a71" * 8,
        inputs=InputFacts("inputs.npz", "ab" * 32, {"input": (1, 3, 640, 640)}, 4, "people.jpg", real=True),
        trials=trials,
        verdict=Verdict(
            f"Best measured, not confirmed: {best.value:.2f} ms." if best else "No settings could be measured.",
            best,
            default,
            speedup,
            confirmed,
        ),
        storage=storage,
        warnings=("The host is noisy: windows of the default differ by 4 %.",),
        complete=True,
    )


def latency_of(params: Mapping[str, Value], noise: random.Random) -> float:
    """Return the planted latency in ms of one process with these parameters."""
    value = 3.95 * noise.lognormvariate(0, 0.02)
    for name, label in params.items():
        value *= EFFECTS.get(str(Settings(((name, label),))), 1.0)
    return value


def realistic(runs: int = 40, seed: int = 4) -> StudyRecord:
    """Return a study as on an H200: measured, pruned and failed runs."""
    empty = study()
    noise = random.Random(seed)  # noqa: S311 - no secret
    made: dict[Settings, Measurement] = {}
    while len(made) < runs:
        params = {
            d.name: d.choices[0].label if not made or noise.random() < 0.5 else noise.choice(d.choices).label
            for d in empty.space.dimensions
        }
        settings = settings_of(empty.space, params)
        latency = latency_of(params, noise)
        if settings in made:
            continue
        if settings.get("fuse_conv_bias") and not settings.get("prefer_nhwc"):
            made[settings] = failed(WRONG, Stage.WINDOW)
        elif settings.get("gpu_mem_limit_gb") == 4 and noise.random() < 0.4:
            made[settings] = failed(MEMORY, Stage.FIRST_RUN)
        elif latency > 1.5 * 3.95:
            made[settings] = measured(latency, Outcome.PRUNED, len(made), 3)
        else:
            made[settings] = measured(latency, Outcome.MEASURED, len(made))
    return study(made.items())
