"""`make` with stand-ins for Python and nvidia-smi, and whether the pins fit what the project asks for."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scratch_make import ROOT, Make

PARALLEL = ("-n", "auto", "--dist", "loadgroup")
TUNE = ("tune", "MODEL=a.onnx")
INSTALLED = [".[cpu,openvino]"]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a project in a folder whose name has a space."""
    return Make(tmp_path / "a folder")


def test_help_is_the_default_and_names_every_target(make: Make) -> None:
    """Plain `make` lists all public targets and starts nothing."""
    status, printed = make()
    assert status == 0
    listed = re.findall(r"^  (\S+) +\S", printed, re.MULTILINE)
    assert listed == [
        "help",
        "venv",
        "tune",
        "model",
        "dashboard",
        "test",
        "check",
        "docs",
        "count",
        "dist",
        "lock",
        "clean",
    ]
    assert make.log.read_text() == ""


def test_tune_makes_the_environment_once_and_runs_the_program_in_it(make: Make) -> None:
    """The first run says what is to come, creates and installs with one line each, the second only runs.

    Paths and options arrive whole.
    """
    arguments = ("tune", "MODEL=my models/a b.onnx", "CONFIG=my config.yaml", "ARGS=--quick --study-name 'x y'")
    status, printed = make(*arguments)
    assert status == 0
    first, second, *lines = printed.splitlines()
    assert first == "First an environment is made, once (about a minute). Then"
    assert second.startswith("the model is tuned, in ten minutes at most")
    assert [line.split(" ...")[0] for line in lines] == [
        "Creating .venv with Python 3.12",
        "Installing rtmo_optuna with the extras cpu,openvino into .venv (about a minute)",
    ]
    assert make.installs() == INSTALLED
    words = ["my models/a b.onnx", "--config", "my config.yaml", "--quick", "--study-name", "x y"]
    ran = ["python", "-m", "rtmo_optuna", "tune", *words]
    assert make.calls()[-1] == ran
    assert make(*arguments) == (0, "")
    assert make.calls() == [ran]


def test_tools_are_added_for_tests_and_suffice_for_tune(make: Make) -> None:
    """`make test` installs the tools too, after `make tune` or before it; then nothing is left to install."""
    make(*TUNE)
    make("test", "ARGS=-k some")
    assert make.installs() == [".[cpu,openvino,dev]"]
    assert make.calls()[-1] == ["python", "-m", "pytest", *PARALLEL, "-k", "some"]
    shutil.rmtree(make.root / ".venv")
    make("test")
    make(*TUNE)
    assert make.installs() == []


def test_check_runs_every_tool_and_stops_at_the_first_complaint(make: Make) -> None:
    """Ruff twice, mypy, import-linter, the site's links; a tool's failure is make's."""
    assert make("check")[0] == 0
    tools = [call[2:] for call in make.calls() if "pip" not in call and "venv" not in call]
    documents = ["mkdocs", "build", "--site-dir", ".cache/site"]
    assert tools == [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], documents]
    assert "lint_imports" in make.calls("-c")[-1][2]
    assert make("check", STATUS="1")[0] == 2
    assert [call[2:] for call in make.calls()] == [["ruff", "check"]]


@pytest.mark.parametrize("file", ["pyproject.toml", "requirements.lock"])
def test_changed_requirements_are_installed(make: Make, file: str) -> None:
    """The environment follows what the project asks for, without being made anew; touching a file changes nothing."""
    make(*TUNE)
    (make.root / file).touch()
    make(*TUNE)
    assert make.installs() == []
    with (make.root / file).open("a") as text:
        text.write("# changed\n")
    make(*TUNE)
    assert make.installs() == INSTALLED
    assert not [call for call in make.calls() if "venv" in call]


def test_a_failed_install_is_begun_again(make: Make) -> None:
    """Nothing runs in a half-made environment, the user is told, and the next call installs."""
    status, printed = make(*TUNE, PIP_STATUS="1")
    assert status == 2
    assert "The install into .venv failed; the same command tries again. All" in printed
    assert not [call for call in make.calls() if "rtmo_optuna" in call]
    assert make(*TUNE)[0] == 0
    assert make.installs() == INSTALLED


def test_where_there_is_no_wheel_of_openvino_there_is_the_rest(make: Make) -> None:
    """It is tried once, said, and done without."""
    status, printed = make(*TUNE, NO_WHEEL="openvino")
    assert status == 0
    assert "Trying without OpenVINO ...\n" in printed
    assert make.installs() == [".[cpu,openvino]", ".[cpu]"]


def test_a_failed_update_does_not_leave_the_old_stamp(make: Make) -> None:
    """After an update that failed, going back to the old requirements installs too."""
    make(*TUNE)
    old = (make.root / "requirements.lock").read_text()
    (make.root / "requirements.lock").write_text(old + "# changed\n")
    make(*TUNE, PIP_STATUS="1")
    (make.root / "requirements.lock").write_text(old)
    make(*TUNE)
    assert make.installs() == INSTALLED


def test_an_environment_whose_interpreter_is_gone_is_made_anew(make: Make) -> None:
    """As after an upgrade of the system's Python."""
    make(*TUNE)
    (make.root / ".venv/bin/python").unlink()
    assert make(*TUNE)[0] == 0
    assert make.installs() == INSTALLED


@pytest.mark.parametrize(("answer", "extra", "size"), [
    ("GPU 0: NVIDIA H200 (UUID: GPU-aa11)", "gpu", "s"),
    ("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", "cpu", "t"),
    ("No devices found.", "cpu", "t"),
])  # fmt: skip
def test_the_extra_and_the_default_model_follow_the_gpu(make: Make, answer: str, extra: str, size: str) -> None:
    """A GPU that nvidia-smi lists gets CUDA's libraries and RTMO-s, any other answer means no GPU."""
    make.nvidia_smi(answer)
    assert make("tune", "ARGS=--quick")[0] == 0
    assert make.installs() == [f".[{extra}{',openvino' if extra == 'cpu' else ''}]"]
    model, side = f"models/rtmo-{size}-exported", {"s": 640, "t": 416}[size]
    words = f"rtmo_optuna tune {model}.onnx --input {model}.npz --shape 1x3x{side}x{side} --config config.yaml --quick"
    assert make.calls()[-1][2:] == words.split()
    made = sorted(path.name for path in (make.root / "models").iterdir())
    assert made == [f"rtmo-{size}-exported.npz", f"rtmo-{size}-exported.onnx"]


def test_a_new_gpu_replaces_onnx_runtime(make: Make) -> None:
    """The two kinds of ONNX Runtime share a folder, so both are removed before the other one comes."""
    make("test")
    make.nvidia_smi("GPU 0: NVIDIA H200 (UUID: GPU-aa11)")
    assert make(*TUNE, INSTALLED="onnxruntime", PIP_STATUS="1")[0] == 2
    make.nvidia_smi("No devices found.")  # and what was there before is there no more
    make("test", INSTALLED="onnxruntime-gpu")
    assert make.installs() == [".[cpu,openvino,dev]"]
    make.nvidia_smi("GPU 0: NVIDIA H200 (UUID: GPU-aa11)")
    assert make(*TUNE, INSTALLED="onnxruntime")[0] == 0
    pip = [call[-2:] for call in make.calls() if "pip" in call]
    assert pip[-2:] == [["onnxruntime", "onnxruntime-gpu"], ["-e", ".[gpu]"]]


def test_the_default_model_is_built_once_and_whole(make: Make) -> None:
    """A build that was cut off leaves no model behind; one that is there is kept."""
    assert make("model", CUT_OFF="1")[0] == 2
    assert not (make.root / "models/rtmo-t-exported.onnx").exists()
    assert make("model")[1].startswith("Building models/rtmo-t-exported.onnx")
    assert make("model") == (0, "")
    assert make.calls("scripts/build_rtmo.py") == []


def test_a_plain_default_model_of_before_is_left_alone(make: Make) -> None:
    """What `make model` built once, and studies tell of, stays as it is; the default of now is built beside it."""
    (make.root / "models").mkdir()
    for suffix in (".onnx", ".npz"):
        (make.root / f"models/rtmo-t{suffix}").write_bytes(b"before")
    assert make("tune")[0] == 0
    assert make.calls()[-1][4] == "models/rtmo-t-exported.onnx"
    assert (make.root / "models/rtmo-t.onnx").read_bytes() == b"before"
    assert len(list((make.root / "models").iterdir())) == 4


@pytest.mark.parametrize("arguments", ["--shape 4x3x416x416", "--study throughput --quick"])
def test_the_default_model_takes_another_batch(make: Make, arguments: str) -> None:
    """A shape of the user's, or a study with a batch of its own, takes the place of one image."""
    assert make("tune", f"ARGS={arguments}")[0] == 0
    call = make.calls()[-1]
    assert call[-len(arguments.split()) :] == arguments.split()
    assert "1x3x416x416" not in call


def test_an_old_python3_makes_way_for_a_newer_python_on_the_path(make: Make) -> None:
    """Only where PYTHON is left at python3: another name is the user's choice, and is refused."""
    make.python("python3", (3, 9, 18))
    make.python("python3.12", (3, 9, 0))  # a shim that runs something else
    make.python("python3.13", (3, 13, 2))
    status, printed = make("tune", "PYTHON=python3.12", "MODEL=a.onnx")
    assert status == 2
    assert "needs Python 3.11 or newer, and python3.12 is 3.9: install a newer one, or name it with" in printed
    assert "\nCreating .venv with Python 3.13 ...\n" in make("tune", "MODEL=a.onnx")[1]


@pytest.mark.parametrize(("version", "found"), [((3, 10, 4), "3.10"), (None, "not found")])
def test_without_a_new_python_one_sentence_says_so(make: Make, version: tuple[int, ...] | None, found: str) -> None:
    """Too old, or none at all: one line, failure, and nothing made."""
    (make.bin / "python3").unlink()
    if version:
        make.python("python3", version)
    status, printed = make(*TUNE)
    told, _of_make = printed.splitlines()
    needs = f"rtmo_optuna needs Python 3.11 or newer, and python3 is {found}: install a newer one, or name it with"
    assert (status, told) == (2, f"{needs} make PYTHON=/path/to/python3.")
    assert not (make.root / ".venv").exists()


def test_a_python_without_venv_is_named_with_its_remedy(make: Make) -> None:
    """Debian ships Python without it."""
    make.python("python3", (3, 11, 2), venv=False)
    status, printed = make(*TUNE)
    assert status == 2
    assert printed.startswith(
        "python3 (Python 3.11) cannot make virtual environments: install what it lacks (on Debian"
    )
    assert "apt install python3.11-venv" in printed
    assert not (make.root / ".venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(make: Make) -> None:
    """VENV may name a folder by mistake; neither making an environment nor cleaning up may empty it."""
    (make.root / "precious").mkdir()
    (make.root / "precious/file").touch()
    status, printed = make("tune", "VENV=precious", "MODEL=a.onnx")
    assert status == 2
    assert "precious is there and is no virtual environment" in printed
    (make.bin / "find").symlink_to("/bin/true")
    make("clean", "VENV=precious")
    assert (make.root / "precious/file").exists()


def test_an_empty_venv_installs_nothing(make: Make) -> None:
    """`make VENV= tune` takes the interpreter as it is, and the program from this folder."""
    assert make("VENV=", *TUNE) == (0, "")
    assert make.calls() == [["python3", "-m", "rtmo_optuna", "tune", "a.onnx", "--config", "config.yaml"]]
    assert make("VENV=", "test")[0] == 0
    assert make.calls() == [["python3", "-m", "pytest", *PARALLEL]]
    (make.root / "rtmo_optuna.py").write_text("import os; print(os.environ['PYTHONPATH'])")
    made = make.start("VENV=", f"PYTHON={sys.executable}", *TUNE, PYTHONPATH="/nowhere")
    assert made.communicate(timeout=60)[0] == f"{make.root}:/nowhere\n"


def test_the_programs_failure_is_makes(make: Make) -> None:
    """Whatever status the program ends with, make fails."""
    assert make("VENV=", *TUNE, STATUS="3")[0] == 2


def test_an_interrupted_program_may_finish(make: Make) -> None:
    """After Ctrl-C make waits for the report that the program still writes."""
    process = make.start("VENV=", *TUNE, SLOW="1")
    assert process.stdout
    assert process.stdout.readline() == "running\n"
    os.killpg(process.pid, signal.SIGINT)
    assert "report written\n" in process.communicate(timeout=60)[0]
    assert process.returncode != 0


def test_every_requirement_is_pinned_to_a_version_that_fits() -> None:
    """requirements.lock pins what pyproject.toml asks for, names no address, and has one version of ONNX Runtime."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(pin.name): str(pin.specifier) for pin in map(Requirement, lines)}
    assert len(pins) == len(lines)
    for asked in map(Requirement, chain(project["dependencies"], *project["optional-dependencies"].values())):
        pinned = pins[canonicalize_name(asked.name)]
        assert pinned.startswith("==")
        assert asked.specifier.contains(pinned.removeprefix("==")), f"{asked} is pinned {pinned}"
    assert not [line for line in lines if "/" in line or line.startswith("-")]
    assert pins[canonicalize_name("onnxruntime")] == pins[canonicalize_name("onnxruntime-gpu")]


_NAMES = (
    "a$(shell touch ran).onnx",
    "a${shell touch ran}$(eval $(shell touch ran)).onnx",
    "a`touch ran`$(touch ran).onnx",
    'a"; touch ran; ".onnx',
    "a'; touch ran; '.onnx",
    "$HOME $$ # a\\.onnx",
    "-a;b|c>ran&(d)*.onnx",
)


@pytest.mark.parametrize(("by", "name"), [*(("command line", n) for n in _NAMES), ("environment", "".join(_NAMES))])
def test_a_path_arrives_as_it_is(make: Make, name: str, by: str) -> None:
    """Nothing in the names of model and configuration runs, whether make or a shell would have expanded it."""
    named = {"MODEL": name, "CONFIG": f"{name}.yaml"}
    arguments = [f"{variable}={value}" for variable, value in named.items()] if by == "command line" else []
    status, printed = make("tune", *arguments, **(named if by == "environment" else {}))
    assert status == 0, printed
    assert make.calls()[-1] == ["python", "-m", "rtmo_optuna", "tune", name, "--config", f"{name}.yaml"]
    assert not list(make.root.rglob("ran"))


@pytest.mark.parametrize("name", ["".join(_NAMES[:2]), _NAMES[3]])
@pytest.mark.parametrize("target", ["help", "tune", "clean"])
def test_the_interpreters_name_is_none_either(make: Make, name: str, target: str) -> None:
    """Nor is that of the virtual environment."""
    make(target, f"PYTHON={name}", f"VENV={name}", "MODEL=a.onnx")
    assert not list(make.root.rglob("ran"))


def test_make_expands_nothing_in_options(make: Make) -> None:
    """They are words of a shell, as everywhere: `$$` is no way to write a dollar, `$(shell ...)` no function."""
    make(*TUNE, "ARGS=--study-name '$(shell touch ran) $$'")
    assert make.calls()[-1][-2:] == ["--study-name", "$(shell touch ran) $$"]
    assert not list(make.root.rglob("ran"))
