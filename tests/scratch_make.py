"""A scratch copy of what `make` needs, with stand-ins for Python and nvidia-smi."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Make:
    """A copy of what `make` needs in a folder of its own, and nothing else on its path but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        """Fill `folder`; PATH has a python3 of today, the tools of the system, and no nvidia-smi."""
        self.root, self.bin, self.log = folder / "project", folder / "bin", folder / "calls"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        self.log.touch()
        for name in ("Makefile", "pyproject.toml", "requirements.lock", "scripts/setup_venv.sh"):
            shutil.copy(ROOT / name, self.root / name)
        for tool in ("awk", "cat", "cksum", "grep", "ls", "mkdir", "mv", "rm", "rmdir", "sh", "touch"):
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.skip(f"there is no {tool}"))
        self.make = shutil.which("make") or pytest.skip("there is no make")
        self.python("python3")

    def python(self, name: str, version: tuple[int, ...] = (3, 12, 1), *, venv: bool = True) -> None:
        """Put an interpreter on the path, or replace it."""
        program = (ROOT / "tests/stand_in_python.py").read_text()
        (self.bin / name).write_text(f"#!{sys.executable}\n{program}")
        (self.bin / name).chmod(0o755)
        (self.bin / f"{name}.json").write_text(json.dumps({"version": version, "venv": venv}))

    def nvidia_smi(self, answer: str) -> None:
        """Put an nvidia-smi on the path that prints `answer`."""
        (self.bin / "nvidia-smi").write_text(f"#!/bin/sh\necho '{answer}'\n")
        (self.bin / "nvidia-smi").chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start make in a process group of its own."""
        return subprocess.Popen(
            [self.make, *arguments],
            cwd=self.root,
            env={"PATH": str(self.bin), "CALLS": str(self.log), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run make; return its status and what it printed."""
        self.log.write_text("")
        process = self.start(*arguments, **environment)
        printed, _ = process.communicate(timeout=60)
        return process.returncode, printed

    def calls(self, first: str = "-m") -> list[list[str]]:
        """Return how the interpreters were called since the last run of make, where `first` was the first argument."""
        calls = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [call for call in calls if call[1] == first]

    def installs(self) -> list[str]:
        """Return what pip was asked to install since the last run of make."""
        return [call[-1] for call in self.calls() if "install" in call]
