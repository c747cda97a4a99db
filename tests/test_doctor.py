"""Whether this machine is fit: what each check says of facts, and a really broken environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from models import dense, save
from rtmo_optuna.child import measure
from rtmo_optuna.child.protocol import PlacementRequest
from rtmo_optuna.cli import main
from rtmo_optuna.doctor.facts import Card, Facts, Folder, Host, Level, Model, Software, folder
from rtmo_optuna.doctor.table import judged
from rtmo_optuna.engine.placement import alone
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine.gpu import GpuProcess, Vitals, cards
from rtmo_optuna.machine.load import Load
from rtmo_optuna.providers.cudalibs import wanted
from rtmo_optuna.providers.elf import needed
from rtmo_optuna.types.placement import Alone, HostNode, Placement
from rtmo_optuna.types.request import Limits, SessionSpec
from rtmo_optuna.types.subject import ClockReason, Gpu, GpuState, Machine
from rtmo_optuna.verbs.doctor import examine

GIB = 2**30
GPU = Gpu(0, "GPU-1", "NVIDIA T4", 16 * GIB, "580.1", "7.5")
LIBRARIES = {"libcudart.so.13": "/a", "libcudnn.so.9": "/b", "libcuda.so.1": ""}
SOFTWARE = Software(
    packages={"onnxruntime-gpu": "1.31.1"},
    nvidia={"nvidia-cudnn-cu13": "9.28"},
    versions={"onnxruntime": "1.31.1", "cuda": "13.0"},
    libraries=LIBRARIES,
    convolved=True,
)
VITALS = Vitals(15 * GIB, 1590, 70.0, 70.0, persistent=True)
CARD = Card(1, serves=(13, 0), vitals=VITALS, state=GpuState(585, 1, 40))
HOST = Host(2, {0: (100,) * 8, 1: (105,) * 8}, ("performance",), folders=(Folder("cache", "/c", 50 * GIB),))
PLACEMENT = Placement({"CUDAExecutionProvider": 12}, 17)
FIT = Facts(
    provider="cuda",
    on_gpu=True,
    machine=Machine("Linux", "EPYC", 2, 8 * GIB, "3.12", GPU),
    software=SOFTWARE,
    card=CARD,
    host=HOST,
    model=Model("m", PLACEMENT),
)


def found(facts: Facts) -> dict[str, list[tuple[Level, str]]]:
    """Return level and words of each check's findings that are not fine."""
    told: dict[str, list[tuple[Level, str]]] = {}
    for one in judged(facts):
        if one.level is not Level.OK:
            told.setdefault(one.check, []).append((one.level, f"{one.seen} {one.todo}"))
    return told


def test_a_fit_machine_has_nothing_to_mend() -> None:
    """All checks are fine, each with something seen and nothing to do."""
    assert found(FIT) == {}
    assert all(one.seen and not one.todo for one in judged(FIT))
    assert len({one.check for one in judged(FIT)}) == 18


def soft(**changes: object) -> Facts:
    """Return a fit machine but for its software."""
    return replace(FIT, software=replace(SOFTWARE, **changes))  # type: ignore[arg-type]


def carded(**changes: object) -> Facts:
    """Return a fit machine but for its GPU."""
    return replace(FIT, card=replace(CARD, **changes))  # type: ignore[arg-type]


def hosted(**changes: object) -> Facts:
    """Return a fit machine but for its processor and disks."""
    return replace(FIT, host=replace(HOST, **changes))  # type: ignore[arg-type]


NO_GPU = replace(FIT.machine, gpu=None)
FAIL, WARN = Level.FAIL, Level.WARN


@pytest.mark.parametrize(
    ("facts", "check", "level", "words"),
    [
        (soft(packages={"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}), "packages", FAIL, "break each other"),
        (soft(packages={}), "packages", FAIL, "pip install 'rtmo-optuna[gpu]'"),
        (soft(broken="has no CUDA"), "runtime", FAIL, "has no CUDA"),
        (replace(FIT, machine=NO_GPU, card=Card(cards=1)), "driver", FAIL, "1 NVIDIA card without a driver"),
        (replace(FIT, machine=NO_GPU, card=Card()), "driver", FAIL, "No NVIDIA driver answers"),
        (replace(FIT, machine=NO_GPU, card=Card(1, "X=9", (13, 0))), "driver", FAIL, "shows no GPU (X=9)"),
        (carded(serves=(12, 8)), "driver", FAIL, "ONNX Runtime was built for CUDA 13"),
        (
            soft(libraries={**LIBRARIES, "libcudart.so.13": "", "libcudart.so.12": "/a"}),
            "libraries",
            FAIL,
            "libcudart.so.13 is not found, only libcudart.so.12.",
        ),
        (soft(nvidia={"nvidia-cudnn-cu12": "9.1"}), "libraries", WARN, "for another CUDA than ONNX Runtime's, 13"),
        (soft(convolved=False, not_convolved="session build: no"), "convolution", FAIL, "session build: no"),
        (replace(FIT, model=Model("m", refused="m does not open")), "model", FAIL, "m does not open"),
        (carded(vitals=replace(VITALS, free_bytes=GIB)), "memory", WARN, "1.00\N{NO-BREAK SPACE}GiB of 16.0"),
        (carded(processes=(GpuProcess(7, "python", None),)), "processes", WARN, "python (pid 7)"),
        (carded(state=GpuState(300, ClockReason.HEAT_HARDWARE)), "clocks", WARN, "held down by heat (hardware)"),
        (carded(vitals=replace(VITALS, power_limit_w=60.0)), "power", WARN, "60 W, 70 W by default"),
        (carded(vitals=replace(VITALS, persistent=False)), "persistence", WARN, "nvidia-smi -pm 1"),
        (hosted(governors=("powersave",)), "governor", WARN, "cpupower"),
        (hosted(spins_ns={0: (100,) * 8, 1: (100,) * 6 + (150,) * 2}), "cores", WARN, "core 1 (25 % of the time)"),
        (hosted(spins_ns={0: (1,), 1: (1,), 2: (1,)}, present=4), "affinity", WARN, "2 of 4 cores"),
        (hosted(loads=(Load(5, "cc1", 1.5),)), "load", WARN, "1.5 of 2 cores: cc1 (pid 5, 1.5 cores)"),
        (hosted(folders=(Folder("cache", "/c", GIB),)), "disk", WARN, "/c"),
        (hosted(folders=(Folder("cache", "/c", 9),)), "disk", FAIL, "/c"),
        (hosted(folders=(Folder("cache", "/c", refused="No (/)"),)), "disk", FAIL, "cannot be written: No (/)"),
    ],
)
def test_what_is_unfit_is_told_with_what_to_do(facts: Facts, check: str, level: Level, words: str) -> None:
    """By the check whose matter it is; where all else is fit, by no other one that would have something to do."""
    ((told, text),) = found(facts)[check]
    assert told is level
    assert words in text
    mended = [one for one in judged(facts) if one.todo]
    assert mended
    assert {one.check for one in mended} == {check}


def test_without_a_gpu_its_checks_are_skipped() -> None:
    """A processor's provider needs none; nothing fails for it."""
    software = replace(SOFTWARE, libraries={})
    facts = replace(FIT, provider="cpu", on_gpu=False, machine=NO_GPU, software=software, card=Card())
    told = found(facts)
    assert {level for findings in told.values() for level, _ in findings} == {Level.SKIPPED}
    assert set(told) == {"driver", "libraries", "memory", "processes", "clocks", "power", "persistence"}


LOG = """
26 [I:onnxruntime:, fallback_cpu_capability.cc:167 operator()] ORT optimization- Force fallback to CPU execution \
for node: Gather_7 because the CPU execution path is deemed faster than overhead involved with execution on other EPs
26 [I:onnxruntime:, cuda_execution_provider.cc:3 GetCapability] CUDA kernel not found in registries for Op type: \
Tan node name: tan
26 [W:onnxruntime:, cuda_execution_provider.cc:4 GetCapability] Fallback to CPU execution provider for Op type: \
LSTM node name: lstm 1
26 [I:onnxruntime:, transformer_memcpy.cc:4 AddCopyNode] Add MemcpyToHost before x for CUDAExecutionProvider
26 [I:onnxruntime:, transformer_memcpy.cc:4 AddCopyNode] Add MemcpyFromHost after y for CUDAExecutionProvider
"""


def test_nodes_on_the_host_have_their_reasons_and_their_price() -> None:
    """By ONNX Runtime's log where it speaks, else by what a node does alone; shape arithmetic is nothing to mend."""
    nodes = (
        HostNode("Gather_7", "Gather", alone=Alone.PLACED),
        HostNode("tan", "Tan", 7, ("float",), Alone.NEVER, tensors={"x": GIB, "y": GIB}),
        HostNode("lstm 1", "LSTM", alone=Alone.NEVER),
        HostNode("roi", "RoiAlign", 22, ("float",), Alone.OLDER, 21),
        HostNode("a", "Mod", 13, ("int8", "int8"), Alone.FLOAT),
        HostNode("fused", "FusedThing"),
    )
    facts = replace(FIT, model=Model("m", replace(PLACEMENT, on_host=nodes), LOG))
    told = {one.seen: one for one in judged(facts) if one.check == "nodes"}
    assert list(told) == [
        "On the host: 1 Gather: shape arithmetic, which is cheaper where its inputs are.",
        "On the host: 1 Tan: no kernel for the operator.",
        "On the host: 1 LSTM: a kernel, but not for these attributes or inputs.",
        "On the host: 1 RoiAlign: no kernel for version 22 of the operator, one up to opset 21.",
        "On the host: 1 Mod: no kernel for int8, one for float32.",
        "On the host: 1 FusedThing: ONNX Runtime does not say why.",
    ]
    levels = [one.level for one in told.values()]
    assert levels == [Level.OK, *[Level.WARN] * 5]
    assert list(told.values())[3].todo == "Export the model with opset 21 at most."
    (copies,) = [one for one in judged(facts) if one.check == "copies"]
    assert copies.seen.startswith("Each call copies 2 tensors between GPU and host, 2.00\N{NO-BREAK SPACE}GiB of those")


def opens(content: bytes) -> bool:
    """Return whether the CPU provider has kernels for all of a model: another provider that lacks some."""
    try:
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - ONNX Runtime has many
        return False
    return True


@pytest.mark.parametrize(
    ("operator", "kind", "opset", "expected"),
    [
        ("Relu", TensorProto.FLOAT, 17, (Alone.PLACED, 0)),
        ("RoiAlign", TensorProto.FLOAT, 22, (Alone.OLDER, 21)),
        ("Acos", TensorProto.DOUBLE, 22, (Alone.FLOAT, 0)),
        ("GlobalLpPool", TensorProto.DOUBLE, 2, (Alone.FLOAT, 0)),
        ("RegexFullMatch", TensorProto.INT32, 20, (Alone.NEVER, 0)),
    ],
)
def test_what_a_node_does_alone_tells_opset_and_type(
    operator: str, kind: int, opset: int, expected: tuple[Alone, int]
) -> None:
    """Against the real kernels of ONNX Runtime: the newest opset that has one, or float32, where that is what lacks."""
    node = helper.make_node(operator, ["x", "rois", "batch"][: 3 if operator == "RoiAlign" else 1], ["y"], name="n")
    shapes = {"x": (kind, [1, 2, 8, 8]), "rois": (kind, [1, 4]), "batch": (TensorProto.INT64, [1])}
    values = {name: helper.make_tensor_value_info(name, *given) for name, given in shapes.items()}
    assert alone(node, opset, values, {}, opens) == expected


@pytest.mark.slow
def test_a_child_tells_where_nodes_went_and_what_was_logged(tmp_path: Path) -> None:
    """On the CPU provider all nodes are where they were asked to be, and none is left to the host."""
    spec = SessionSpec(str(dense(tmp_path / "m.onnx")), "cpu")
    placement, log = measure.placement(PlacementRequest(spec), Limits())
    assert set(placement.nodes_by_provider) == {"CPUExecutionProvider"}
    assert (placement.opset > 0, placement.on_host) == (True, ())
    assert "Session successfully initialized" in log


def test_what_a_library_needs_is_read_from_its_file(tmp_path: Path) -> None:
    """As the loader would; of what is no library nothing is read, and without CUDA's file nothing is wanted."""
    library = next(Path(onnxruntime.__file__).parent.glob("capi/onnxruntime_pybind11_state*.so"))
    assert {"libc.so.6", "libstdc++.so.6"} <= set(needed(library))
    text = tmp_path / "text.so"
    text.write_text("no library")
    assert needed(text) == ()
    assert [name for name in wanted(str(tmp_path)) if "cuda" in name] == []


def test_cards_are_counted_without_a_driver(tmp_path: Path) -> None:
    """By the numbers of the PCI bus: NVIDIA's displays, neither its sound nor another vendor's display."""
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x1002", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert cards(tmp_path) == 1
    assert cards(tmp_path / "nowhere") == 0


def test_a_folder_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    """A file stands where a folder should be; a folder that is not there yet is judged by the one above it."""
    (tmp_path / "file").write_text("")
    assert "Not a directory" in folder("x", tmp_path / "file").refused
    assert folder("x", tmp_path / "new/deep").free_bytes


@pytest.mark.slow
def test_this_machine_is_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the CPU nothing fails: exit code 0, JSON for machines, a model that opens; a missing one is refused."""
    with pytest.raises(SystemExit) as ended:
        main.main(["doctor", str(dense(tmp_path / "m.onnx")), "--provider", "cpu", "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    levels = {one["check"]: one["level"] for one in told["findings"]}
    assert (levels["convolution"], levels["model"], told["kind"], told["provider"]) == ("ok", "ok", "doctor", "cpu")
    with pytest.raises(UsageError, match=r"nowhere\.onnx does not exist"):
        examine(tmp_path / "nowhere.onnx", "cpu", lambda _event: None)


@pytest.mark.slow
def test_a_broken_environment_is_told(tmp_path: Path, gpu_package: Path) -> None:
    """Both packages, no library of CUDA's and no driver: each is a failure; 80 columns at most, and exit code 1."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "both.pth").write_text(f"{gpu_package}\n{sysconfig.get_path('purelib')}\n")
    command = [str(tmp_path / "venv/bin/python"), "-m", "rtmo_optuna", "doctor"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "LD_LIBRARY_PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 1, done.stderr
    failed = " ".join(done.stdout.split())
    assert "fail packages onnxruntime-gpu" in failed
    assert "fill the same folder" in failed
    assert "fail libraries libcublasLt.so" in failed
    assert "fail convolution session build: CUDAExecutionProvider does not load: lib" in failed
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.gpu
def test_a_gpu_leaves_an_operator_without_a_kernel_to_the_host(tmp_path: Path) -> None:
    """Tan has no CUDA kernel: the check names it, and the copies on either side of it."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Tan", ["a"], ["b"], name="tan"),
        helper.make_node("Relu", ["b"], ["y"], name="last"),
    ]
    shape: tuple[int, list[int | str]] = (int(TensorProto.FLOAT), [1, 64])
    told = examine(save(tmp_path / "m.onnx", nodes, {"x": shape}, {"y": shape}), "cuda", lambda _event: None)
    seen = {one.check: one.seen for one in told.findings}
    assert "1 Tan: no kernel for the operator" in seen["nodes"]
    assert "Each call copies 2 tensors" in seen["copies"]
    assert np.all([one.level is not Level.FAIL for one in told.findings if one.check in {"driver", "convolution"}])
