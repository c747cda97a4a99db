"""Records to JSON and back, through real JSON text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtmo_optuna.codec import decode, encode
from rtmo_optuna.types.findings import Claim, Decided, FinalsRecord, Status
from rtmo_optuna.types.measurement import Measurement, Outcome, StageTimes
from rtmo_optuna.types.request import (
    BenchmarkRequest,
    Choice,
    Dimension,
    EngineKind,
    Limits,
    Measuring,
    ModelFacts,
    SessionSpec,
    Settings,
    Stage,
    TensorSpec,
)
from rtmo_optuna.types.study import Origin, StudyRecord, TrialRecord, Verdict
from rtmo_optuna.types.subject import Frozen, Gpu, InputFacts, Machine, SearchSpace, StudyDefinition

SETTINGS = Settings.of({"prefer_nhwc": True, "gpu_mem_limit_gb": 4.5, "cudnn_conv_algo_search": "DEFAULT", "x": None})
MEASUREMENT = Measurement(
    Outcome.FAILED,
    Stage.FIRST_RUN,
    "it crashed",
    latency_ns=1.5e6,
    windows_ns=(1.4e6, 1.6e6),
    quantiles_ns={"p50": 1.5e6},
    calls=40,
    stages=StageTimes(start_ns=1, build_ns=2),
    samples_ns=((1, 2), (3,)),
)
TRIAL = TrialRecord(3, 2, SETTINGS, Origin.CONFIG, MEASUREMENT, value=1.5)
STUDY = StudyRecord(
    name="s",
    definition=StudyDefinition("s", "cuda", {"prefer_nhwc": None, "gpu_mem_limit_gb": (None, 4, "90%")}),
    space=SearchSpace(
        "cuda",
        (Dimension("prefer_nhwc", (Choice("off", (("prefer_nhwc", False),)), Choice(None, (("prefer_nhwc", True),)))),),
        SETTINGS,
        (Frozen("a", "b"),),
    ),
    machine=Machine("Linux", "CPU", 2, 3, "3.11", Gpu(0, "u", "H200", 5, "1", "9.0")),
    model=ModelFacts(
        (TensorSpec("i", "tensor(float)", (1, "n", None)),), (), 17, {"Conv": 2}, {"cuda": 3}, "cuda", {"a": "1"}
    ),
    model_path="m.onnx",
    model_sha256="00",
    inputs=InputFacts("in.npz", "11", {"i": (1, 3)}, 2, "made", real=False),
    trials=(TRIAL,),
    verdict=Verdict(Status.CONFIRMED, TRIAL),
    finals=FinalsRecord(SETTINGS, claims=(Claim(SETTINGS, Settings(), Decided.FASTER, 1.25, (1.2, 1.3), 10),)),
    storage="sqlite://",
)


@pytest.mark.parametrize("record", [
    STUDY,
    TRIAL,
    MEASUREMENT,
    BenchmarkRequest(SessionSpec("m", "cpu", SETTINGS, EngineKind.SCRIPTED), "in.npz", Measuring(runs=5), Limits(1.5)),
    Settings(),
], ids=lambda record: type(record).__name__)  # fmt: skip
def test_records_survive_json(record: Any) -> None:  # noqa: ANN401 - any record
    """What comes back is equal, down to tuples, enums and the types of values."""
    again = decode(type(record), json.loads(json.dumps(encode(record))))
    assert again == record
    assert repr(again) == repr(record)


def test_missing_fields_take_their_defaults() -> None:
    """Records that an older version wrote can be read."""
    assert decode(Measuring, {"windows_min": 2}) == Measuring(windows_min=2)


@pytest.mark.parametrize(("kind", "plain"), [
    (Measuring, {"windows": 2}),
    (Measuring, []),
    (Measuring, {"window_calls": "2"}),
    (Measuring, {"runs": "few"}),
    (TensorSpec, {"name": "a"}),
    (SessionSpec, {"model": "m", "provider": "cpu", "engine": "nobody"}),
    (Choice, {"label": 1, "values": [["a", 1, 2]]}),
])  # fmt: skip
def test_what_does_not_fit_is_refused(kind: type, plain: object) -> None:
    """Unknown fields, wrong types, missing fields, unknown members of an enum, tuples of another length."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        decode(kind, plain)


def test_what_json_cannot_hold_is_refused() -> None:
    """A sentence instead of a record that cannot be read back."""
    with pytest.raises(TypeError, match="JSON cannot hold a complex"):
        encode({"a": [1j]})
