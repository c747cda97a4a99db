"""Provoke accidents on whole studies, and count what they cost: `python scripts/provoke.py --help`.

Each round tunes a scripted model of a second or two in a folder of its own, kills what is to be killed, runs the same
command again until it is done, and looks at what is left: settings that are lost or ran twice, trials that are RUNNING,
files that nobody owns, a study or a configuration that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from rtmo_optuna.records import Settings
from rtmo_optuna.search.library import load_study

DEFINITION = """
provider: cpu
knobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all, session.intra_op.allow_spinning: all}
sampler: exhaustive
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""
SETTINGS = 8
SCRIPT = {"base_ms": 1.0, "effects": {"enable_cpu_mem_arena=False": 0.5}}
COMMAND = (
    *("tune", "script.json", "--engine", "scripted", "--study", "small.yaml", "--study-name", "s", "--provider", "cpu"),
    *("--storage", "studies.db", "--timeout", "60s"),
)
COMMITS = 160
"""About as many as a study of this size takes."""
MOST_TRIES = 4
DIES = """
import os, sys
from sqlalchemy.orm import Session

left, after, plain = int(sys.argv[1]), sys.argv[2] == "after", Session.commit


def commit(self):
    global left
    left -= 1
    if left < 0 and not after:
        os.kill(os.getpid(), 9)
    plain(self)
    if left < 0:
        os.kill(os.getpid(), 9)


Session.commit = commit
"""
EXPORTS = """
import os, sys
from pathlib import Path

left = int(sys.argv[1])


def dying(plain):
    def call(*arguments, **more):
        global left
        named = any("config.yaml" in str(one) for one in arguments)
        left -= named
        if left < 0 and named:
            os.kill(os.getpid(), 9)
        return plain(*arguments, **more)
    return call


Path.replace, Path.open, Path.unlink = dying(Path.replace), dying(Path.open), dying(Path.unlink)
"""
RUN = "\nfrom rtmo_optuna.cli import main\nmain(sys.argv[3:])\n"


def start(folder: Path, first: str = "", *arguments: str) -> subprocess.Popen[str]:
    """Start the tune in `folder`; the Python code `first` runs before it with two `arguments`."""
    call = ["-c", first + RUN, *arguments] if first else ["-m", "rtmo_optuna"]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "XDG_RUNTIME_DIR": str(folder / "run")}
    log = (folder / "log.txt").open("a", encoding="utf-8")
    with log:
        return subprocess.Popen(
            [sys.executable, *call, *COMMAND], cwd=folder, env=environment, stdout=log, stderr=log, text=True
        )


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
    if kind == "commit":
        tune = start(folder, DIES, str(dice.randrange(COMMITS)), dice.choice(("before", "after")))
        return tune.wait() == -signal.SIGKILL
    if kind == "export":
        tune = start(folder, EXPORTS, str(dice.randrange(6)), "")
        return tune.wait() == -signal.SIGKILL
    tune = start(folder)
    end, came = time.monotonic() + dice.uniform(0, whole_s), False
    while time.monotonic() < end and tune.poll() is None:
        time.sleep(0.01)
    while kind == "child" and not came and tune.poll() is None:
        for pid in workers(folder)[:1]:
            os.kill(pid, signal.SIGKILL)
            came = True
    if kind == "parent" and tune.poll() is None:
        tune.kill()
        came = True
    if kind == "ctrl-c" and tune.poll() is None:
        tune.send_signal(signal.SIGINT)
        time.sleep(dice.uniform(0, 0.5))
        tune.send_signal(signal.SIGINT)
        came = True
    tune.wait()
    return came


def cost(folder: Path) -> Counter[str]:
    """Return what is wrong in `folder` after the last run, by kind."""
    found: Counter[str] = Counter()
    study = load_study(f"sqlite:///{folder}/studies.db", "s")
    held = study._study.get_trials(deepcopy=False)  # noqa: SLF001 - the trials as Optuna has them
    ran = Counter(json.dumps(trial.settings.to_plain()) for trial in study.trials if trial.run)
    found["lost"] = SETTINGS - len(ran)
    found["doubled"] = ran.total() - len(ran)
    found["running"] = sum(trial.state.name == "RUNNING" for trial in held)
    found["failed"] = sum(study.failed(Settings.from_plain(json.loads(one))) for one in ran)
    left = [*folder.glob(".*"), *folder.glob("results/s/.*"), *folder.glob("results/s/plots/.*"), *folder.glob("tmp/*")]
    found["files left"] = len(left)
    found["no configuration"] = "onnx" not in (yaml.safe_load((folder / "config.yaml").read_text()) or {})
    found["no report"] = not (folder / "results/s/report.md").exists()
    return found


def once(kind: str, dice: random.Random, whole_s: float) -> tuple[bool, Counter[str]]:
    """Return whether an accident of `kind` came, and what it cost in the end."""
    with tempfile.TemporaryDirectory(prefix="provoke-") as name:
        folder = Path(name).resolve()
        (folder / "script.json").write_text(json.dumps(SCRIPT), encoding="utf-8")
        (folder / "small.yaml").write_text(DEFINITION, encoding="utf-8")
        (folder / "config.yaml").write_text("# mine\nother: 1\n", encoding="utf-8")
        (folder / "tmp").mkdir()
        (folder / "run").mkdir()
        came = strike(kind, folder, dice, whole_s)
        for _ in range(MOST_TRIES):
            if start(folder).wait() == 0:
                return came, cost(folder)
        sys.stderr.write((folder / "log.txt").read_text(encoding="utf-8")[-3000:])
        return came, Counter({"unusable": 1})


def main() -> None:
    """Provoke what the command line asks for, and print the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("parent", "child", "commit", "export", "ctrl-c"), help="What is killed.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.0, help="Stop after so long.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", type=float, default=12.0, help="How long an undisturbed tune takes, in seconds.")
    asked = parser.parse_args()
    dice, begun, came, sums = random.Random(asked.seed), time.monotonic(), 0, Counter[str]()  # noqa: S311 - no secret
    rounds = 0
    for rounds in range(1, asked.rounds + 1):
        struck, found = once(asked.kind, dice, asked.whole)
        came += struck
        sums.update(found)
        told: dict[str, Any] = {"kind": asked.kind, "rounds": rounds, "came": came, **{k: v for k, v in sums.items() if v}}
        print(json.dumps(told), flush=True)  # noqa: T201
        if asked.seconds and time.monotonic() - begun > asked.seconds:
            break


if __name__ == "__main__":
    main()
