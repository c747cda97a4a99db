"""Provoke accidents on whole studies, and count what they cost: `python scripts/provoke.py --help`.

Each round tunes a scripted model of a second or two in a folder of its own, kills what is to be killed, runs the same
command again until it is done, and looks at what is left: settings that are lost or ran twice, trials that are RUNNING,
files that nobody owns, a study or a configuration that cannot be used.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from sqlalchemy.orm import Session

from rtmo_optuna import cli
from rtmo_optuna.records import Settings
from rtmo_optuna.search.library import load_study

if TYPE_CHECKING:
    from collections.abc import Callable

DEFINITION = """
provider: cpu
knobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all}
sampler: exhaustive
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""
SETTINGS = 4
STORAGE: list[str] = []
"""The server that the studies are kept on; none: SQLite."""
SCRIPT = {"base_ms": 1.0, "effects": {"enable_cpu_mem_arena=False": 0.5}}
COMMAND = (
    *("tune", "script.json", "--engine", "scripted", "--study", "small.yaml", "--provider", "cpu"),
    *("--timeout", "60s", "--quick", "--output", "results"),
)
_IMPORTS = ("rtmo_optuna.workflow", "rtmo_optuna.show.page", "rtmo_optuna.show.pictures", "onnx")
"""What each tune need not import again."""
COMMITS = 120
"""About as many as a study of this size takes."""
STEPS = 6
"""Steps of replacing a configuration."""
MOST_TRIES = 4


def place(folder: Path) -> tuple[str, str]:
    """Return the storage and the name of the study that is tuned in `folder`: on a server each has its own name."""
    return (STORAGE[0], folder.name) if STORAGE else (f"sqlite:///{folder}/studies.db", "s")


class Deadline:
    """Kills this process at the call after `left` others of what it is put around, before it or after it."""

    def __init__(self, left: int, *, after: bool, about: str = "") -> None:
        """Count the calls with an argument that has `about` in it."""
        self.left, self.after, self.about = left, after, about

    def around(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Return `plain` with a death planted."""

        def call(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - whatever it takes
            counted = any(self.about in str(one) for one in arguments)
            self.left -= counted
            if counted and self.left < 0 and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = plain(*arguments, **more)
            if counted and self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def plant(kind: str, dice: random.Random) -> None:
    """Plant a death in this process: at one of its commits, or at a step of the configuration's replacement."""
    after = dice.random() < 0.5  # noqa: PLR2004 - as often as not
    if kind == "commit":
        Session.commit = Deadline(dice.randrange(COMMITS), after=after).around(Session.commit)  # type: ignore[method-assign]
    if kind == "export":
        deadline = Deadline(dice.randrange(STEPS), after=after, about="config.yaml")
        for name in ("open", "replace", "unlink"):
            setattr(Path, name, deadline.around(getattr(Path, name)))


class Tune:
    """A tune in `folder`, in a process that has its imports already; `kind` is what is planted in it."""

    def __init__(self, folder: Path, *more: str, kind: str = "", dice: random.Random | None = None) -> None:
        """Start it with the options `more`."""
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.chdir(folder)
            os.environ |= {"TMPDIR": str(folder / "tmp"), "XDG_RUNTIME_DIR": str(folder / "run")}
            tempfile.tempdir = None
            log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            plant(kind, dice or random.Random())  # noqa: S311 - no secret
            storage, name = place(folder)
            cli.main([*COMMAND, "--storage", storage, "--study-name", name, *more])
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        finally:
            os._exit(99)

    def poll(self) -> int | None:
        """Return the exit code, a signal's as a negative one; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self) -> int:
        """Return the exit code, once there is one."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal, and return whether there was still somebody to send it to."""
        if self.poll() is not None:
            return False
        os.kill(self.pid, number)
        return True


def workers(folder: Path) -> list[int]:
    """Return the process ids of the benchmarks that run in `folder`."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            if b"rtmo_optuna.bench.worker" in (one / "cmdline").read_bytes() and (one / "cwd").readlink() == folder:
                found.append(int(one.name))
        except OSError:
            continue
    return found


def strike(kind: str, folder: Path, dice: random.Random, whole_s: float) -> bool:
    """Run the tune once with an accident of `kind`; return whether it came before the tune was over."""
    more = () if kind == "export" else ("--search-only",)
    tune = Tune(folder, *more, kind=kind, dice=dice)
    if kind in {"commit", "export"}:
        return tune.wait() == -signal.SIGKILL
    end, came = time.monotonic() + dice.uniform(0, whole_s), False
    while time.monotonic() < end and tune.poll() is None:
        time.sleep(0.01)
    if kind == "parent":
        came = tune.signal(signal.SIGKILL)
    if kind == "ctrl-c":
        came = tune.signal(signal.SIGINT)
        time.sleep(dice.uniform(0, 0.5))
        tune.signal(signal.SIGINT)
    while kind == "child" and not came and tune.poll() is None:
        for pid in workers(folder)[:1]:
            os.kill(pid, signal.SIGKILL)
            came = True
    tune.wait()
    return came


def cost(folder: Path, *, exported: bool) -> Counter[str]:
    """Return what is wrong in `folder` after the last run, by kind; it `exported` settings."""
    found: Counter[str] = Counter()
    study = load_study(*place(folder))
    held = study._study.get_trials(deepcopy=False)  # noqa: SLF001 - the trials as Optuna has them
    ran = Counter(json.dumps(trial.settings.to_plain()) for trial in study.trials if trial.run)
    found["lost"] = SETTINGS - len(ran)
    found["doubled"] = ran.total() - len(ran)
    found["running"] = sum(trial.state.name == "RUNNING" for trial in held)
    found["failed"] = sum(study.failed(Settings.from_plain(json.loads(one))) for one in ran)
    left = [*folder.glob(".*"), *folder.glob("results/.*"), *folder.glob("results/plots/.*"), *folder.glob("tmp/*")]
    found["files left"] = len(left)
    for path in left:
        sys.stderr.write(f"left: {path}\n")
    configuration = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    found["configuration lost"] = configuration.get("other") != 1 or (exported and "onnx" not in configuration)
    found["no report"] = not (folder / "results/report.md").exists()
    return found


def prepared(folder: Path, kind: str) -> None:
    """Fill `folder` with what a tune takes; where its export is to be killed the study in it is done already."""
    for name in ("tmp", "run"):
        (folder / name).mkdir()
    (folder / "script.json").write_text(json.dumps(SCRIPT), encoding="utf-8")
    (folder / "small.yaml").write_text(DEFINITION, encoding="utf-8")
    if kind == "export" and Tune(folder).wait():
        sys.exit((folder / "log.txt").read_text(encoding="utf-8"))
    (folder / "config.yaml").write_text("# mine\nother: 1\n", encoding="utf-8")


def once(kind: str, ready: Path, dice: random.Random, whole_s: float) -> tuple[bool, Counter[str]]:
    """Return whether an accident of `kind` came in a copy of the folder `ready`, and what it cost in the end."""
    with tempfile.TemporaryDirectory(prefix="provoke-") as name:
        folder = Path(name).resolve()
        shutil.copytree(ready, folder, dirs_exist_ok=True)
        came = strike(kind, folder, dice, whole_s)
        more = () if kind == "export" else ("--search-only",)
        for _ in range(MOST_TRIES):
            if Tune(folder, *more).wait() == 0:
                return came, cost(folder, exported=kind == "export")
        sys.stderr.write((folder / "log.txt").read_text(encoding="utf-8")[-3000:])
        return came, Counter({"unusable": 1})


def main() -> None:
    """Provoke what the command line asks for, and print the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("parent", "child", "commit", "export", "ctrl-c"), help="What is killed.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.0, help="Stop after so long.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", type=float, default=5.0, help="How long an undisturbed tune takes, in seconds.")
    parser.add_argument("--storage", help="A database server's URL in place of SQLite; not for 'export'.")
    asked = parser.parse_args()
    STORAGE.extend([asked.storage] if asked.storage else [])
    dice, begun, came, sums = random.Random(asked.seed), time.monotonic(), 0, Counter[str]()  # noqa: S311 - no secret
    for name in _IMPORTS:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="provoke-") as ready:
        prepared(Path(ready), asked.kind)
        for rounds in range(1, asked.rounds + 1):
            struck, found = once(asked.kind, Path(ready), dice, asked.whole)
            came += struck
            sums.update(found)
            told = {"kind": asked.kind, "rounds": rounds, "came": came, **{k: v for k, v in sums.items() if v}}
            print(json.dumps(told), flush=True)
            if asked.seconds and time.monotonic() - begun > asked.seconds:
                break


if __name__ == "__main__":
    main()
