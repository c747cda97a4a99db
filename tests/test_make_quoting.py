"""What stands in a variable of `make` is a path, not a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratch_make import Make

_NAMES = (
    "a$(shell touch ran).onnx",
    "a${shell touch ran}$(eval $(shell touch ran)).onnx",
    "a`touch ran`$(touch ran).onnx",
    'a"; touch ran; ".onnx',
    "a'; touch ran; '.onnx",
    "$HOME $$ # a\\.onnx",
    "-a;b|c>ran&(d)*.onnx",
)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a project whose tools include `touch`."""
    made = Make(tmp_path / "a folder")
    (made.bin / "touch").symlink_to("/usr/bin/touch")
    return made


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
    make("tune", "MODEL=a.onnx", "ARGS=--study-name '$(shell touch ran) $$'")
    assert make.calls()[-1][-2:] == ["--study-name", "$(shell touch ran) $$"]
    assert not list(make.root.rglob("ran"))
