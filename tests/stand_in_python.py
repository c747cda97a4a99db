"""Stands in for a Python interpreter in the tests of the Makefile, under whatever name it is copied to.

Writes down how it was called in the file CALLS. Answers `-c` with the true interpreter, dressed up as its sidecar
`<name>.json` says (`version`; `venv`: whether it can make environments). What it is asked to install or to run it only
pretends to, and ends with PIP_STATUS or STATUS; INSTALLED is the package that pip shows, NO_WHEEL one of which pip
finds none. With CUT_OFF it dies between the two files of a model, with SLOW a program takes its time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def _dressed_up(me: Path, code: str) -> None:
    facts = json.loads(Path(f"{me}.json").read_text(encoding="utf-8"))
    setattr(sys, "version_info", tuple(facts["version"]))  # noqa: B010 - its type is one of the interpreter's own
    if not facts["venv"]:
        sys.modules["ensurepip"] = None  # type: ignore[assignment] # importing it fails
    exec(code)  # noqa: S102 - code of this project's own scripts


def _make_venv(me: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    shutil.copy(me, folder / "bin/python")
    shutil.copy(f"{me}.json", folder / "bin/python.json")


def _build_model(output: Path) -> int:
    output.touch()
    if "CUT_OFF" not in os.environ:
        output.with_suffix(".npz").touch()
    return int("CUT_OFF" in os.environ)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run_slowly() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
    try:
        _say("running")
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)
        _say("report written")
        return 130
    return 0


def main(me: Path, arguments: list[str]) -> int:
    """Do as told; return the exit status."""
    with Path(os.environ["CALLS"]).open("a", encoding="utf-8") as calls:
        calls.write(json.dumps([me.name, *arguments]) + "\n")
    match arguments:
        case ["-c", code] if "importlinter" not in code:
            _dressed_up(me, code)
            return 0
        case ["-m", "venv", *_, folder]:
            _make_venv(me, Path(folder))
            return 0
        case ["-m", "pip", *_, "show", package]:
            return int(package != os.environ.get("INSTALLED"))
        case ["-m", "pip", *_, target]:
            return int(os.environ.get("NO_WHEEL", " ") in target or os.environ.get("PIP_STATUS", "0"))
        case ["scripts/build_rtmo.py", _, "--exported", "--output", output]:
            return _build_model(Path(output))
    return _run_slowly() if "SLOW" in os.environ else int(os.environ.get("STATUS", "0"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[0]), sys.argv[1:]))
