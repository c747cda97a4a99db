"""Provoke accidents on whole studies, and count what they cost: `python benchmarks/provoke.py --help`.

Each round tunes a scripted model of a few seconds in a folder of its own, from the first look to the export, kills what
is to be killed, runs the same command again until it is done, and looks at what is left: settings, processes and
pictures of the study that are lost or ran twice, trials that are RUNNING, files that nobody owns, a study or a
configuration that cannot be used.

The first round is undisturbed: it tells how long a study takes, and where its commits are. So that hundreds of rounds
take minutes, every process is a fork of one that has its imports already, the benchmarks too: they speak the same
protocol, in a process group of their own, and die with their parent. The report's pictures are not drawn.
What a kill leaves is made ten seconds older before
the next run, since what is younger than two is not swept.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import gc
import importlib
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import yaml
from sqlalchemy.orm import Session

import servers
from rtmo_optuna.child import launcher
from rtmo_optuna.cli import main as cli
from rtmo_optuna.search import finals, preflight, screen, tune
from rtmo_optuna.search.verdict import judged
from rtmo_optuna.show.render import page, pictures
from rtmo_optuna.study.library import has_study, load_study
from rtmo_optuna.types.request import Settings
from rtmo_optuna.verbs import tune as verb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from optuna.trial import FrozenTrial

    from rtmo_optuna.study.study import Study

DEFINITION = """
provider: cpu
budget: {trials: 4}
knobs:
  enable_cpu_mem_arena: all
  enable_mem_pattern: all
  session.intra_op.allow_spinning: all
  intra_op_num_threads: [0, 1]
measuring: {warmup_s: 0.002, warmup_calls: 2, window_s: 0.002, window_calls: 3, windows_min: 3, windows_max: 3}
"""
STORAGE: list[str] = []
"""The server that the studies are kept on; none: SQLite."""
SCRIPT = {"base_ms": 0.5, "effects": {"enable_cpu_mem_arena=False": 0.5, "enable_mem_pattern=False": 0.9}}
COMMAND = (
    *("tune", "script.json", "--engine", "scripted", "--study", "small.yaml", "--provider", "cpu"),
    *("--timeout", "60s", "--output", "results", "--allow-busy"),
)
_IMPORTS = ("rtmo_optuna.child.worker", "rtmo_optuna.engine.scripted", "rtmo_optuna.engine.gate.outputs", "onnxruntime")
"""What benchmarks need not import again."""
MOST_TRIES = 4
_AGE_S = 10
PHASES = ("first look", "creation", "baseline", "search", "screening", "race", "confirmation", "export", "end")
KINDS = ("parent", "child", "commit", "export", "ctrl-c")


class Stage:
    """Where a tune is, told across the fork: its phase, how many there were, and how many commits each of them took."""

    def __init__(self) -> None:
        """Begin with the first look."""
        self._shared = mmap.mmap(-1, 4 * (2 + len(PHASES)))
        self._told = memoryview(self._shared).cast("i")

    def _enter(self, phase: int) -> int:
        """Enter a phase, by its number; return which one is left."""
        before, self._told[0] = self._told[0], phase
        self._told[-1] += before != phase
        return before

    @property
    def entered(self) -> int:
        """How often one phase gave way to another."""
        return self._told[-1]

    @property
    def phase(self) -> str:
        """The phase that the tune is in, or was in when it died."""
        return PHASES[self._told[0]]

    @property
    def counted(self) -> dict[str, int]:
        """How often `count` was called in each phase."""
        return {phase: self._told[1 + place] for place, phase in enumerate(PHASES)}

    def count(self) -> int:
        """Count one more in this phase; return how many there were."""
        self._told[1 + self._told[0]] += 1
        return self._told[1 + self._told[0]]

    def within(self, phase: str, plain: Callable[..., Any], after: str = "") -> Callable[..., Any]:
        """Return `plain` as a phase: the one before goes on when it returns, or `after` begins."""

        def call(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - whatever it takes
            before = self._enter(PHASES.index(phase))
            try:
                return plain(*arguments, **more)
            finally:
                self._enter(PHASES.index(after) if after else before)

        return call

    def watch(self) -> None:
        """Have the parts of a tune in this process tell when they begin and end."""
        for place, name, phase, after in (
            (verb, "open_study", "creation", "baseline"),
            (preflight.Preflight, "run", "baseline", ""),
            (tune.Tune, "_search", "search", ""),
            (tune.Tune, "_simplify", "search", ""),
            (screen.Screen, "run", "screening", ""),
            (finals.Finals, "run", "race", "export"),
            (finals.Finals, "_confirm", "confirmation", ""),
            (verb, "_finish", "export", "end"),
        ):
            setattr(place, name, self.within(phase, getattr(place, name), after))


class Deadline:
    """Kills this process at the call numbered `at` in the phase `phase`, before it or after it; None: counts only."""

    def __init__(self, stage: Stage, phase: str = "", at: int | None = None, *, after: bool, about: str = "") -> None:
        """Count the calls with an argument that has `about` in it."""
        self.stage, self.phase, self.at, self.after, self.about = stage, phase, at, after, about

    def around(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Return `plain` with a death planted."""

        def call(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - whatever it takes
            counted = any(self.about in str(one) for one in arguments)
            due = counted and (self.stage.count() == self.at) and self.stage.phase == self.phase
            if due and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = plain(*arguments, **more)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    def plant(self, kind: str) -> None:
        """Plant it at the commits of this process, or at the steps of replacing the configuration."""
        if kind == "export":
            for place, name in ((os, "open"), (os, "chown"), (Path, "replace"), (Path, "unlink"), (Path, "glob")):
                setattr(place, name, self.around(getattr(place, name)))
        else:
            Session.commit = self.around(Session.commit)  # type: ignore[method-assign]


class Forked:
    """A benchmark's process as `subprocess.Popen` makes it, with its imports done: see `launcher.Child`."""

    def __init__(
        self, command: Sequence[str], *, stdout: IO[bytes], pass_fds: Collection[int], **_more: object
    ) -> None:
        """Fork it, with a group of its own, its orders on a pipe and nothing else open but `pass_fds`."""
        orders, ours = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            os.close(orders)
            self.stdin = open(ours, "wb", buffering=0)  # noqa: PTH123, SIM115 - a descriptor; the child's owner closes it
            return
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            for descriptor, place in ((orders, 0), (stdout.fileno(), 1), (stdout.fileno(), 2)):
                os.dup2(descriptor, place)
            kept = sorted(pass_fds)
            for first, last in zip([2, *kept], [*kept, 1 << 12], strict=True):
                os.closerange(first + 1, last)
            sys.stdin, sys.argv = os.fdopen(0), list(command[2:])
            importlib.import_module("rtmo_optuna.child.worker").main()
        finally:
            os._exit(1)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, a signal's as a negative one; raises TimeoutExpired."""
        end = time.monotonic() + (timeout if timeout is not None else 1e9)
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise subprocess.TimeoutExpired([], timeout or 0.0)
            else:
                time.sleep(0.001)
        return self.returncode


class Tune:
    """A tune in `folder`, in a process that has its imports already; `deadline` is planted in it."""

    def __init__(self, folder: Path, *more: str, deadline: Deadline | None = None, kind: str = "") -> None:
        """Start it with the options `more`."""
        self.code: int | None = None
        self.stage = deadline.stage if deadline else Stage()
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
            fakes = {"Popen": Forked, "PIPE": subprocess.PIPE, "STDOUT": subprocess.STDOUT}
            forking = SimpleNamespace(**fakes, TimeoutExpired=subprocess.TimeoutExpired)
            for where, called, fake in (
                (launcher, "subprocess", forking),
                (pictures, "png", lambda *_: b"a picture"),
                (page, "page", lambda *_: "a page"),
            ):
                setattr(where, called, fake)
            self.stage.watch()
            if deadline:
                deadline.plant(kind)
            storage, name = place(folder)
            cli.main([*COMMAND, "--storage", storage, "--study-name", name, *more])
        except SystemExit as ended:
            Path("modules.txt").write_text("\n".join(sys.modules), encoding="utf-8")
            os._exit(int(ended.code or 0))
        finally:
            os._exit(99)

    def poll(self) -> int | None:
        """Return the exit code, a signal's as a negative one; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, until: float | None = None) -> int | None:
        """Return the exit code, once there is one; None where there is none at `until` (monotonic seconds)."""
        while (code := self.poll()) is None and (until is None or time.monotonic() < until):
            time.sleep(0.002)
        return code

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal, and return whether there was still somebody to send it to."""
        if self.poll() is not None:
            return False
        os.kill(self.pid, number)
        return True

    def children(self) -> list[int]:
        """Return the process ids of the benchmarks that it runs."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []


def place(folder: Path) -> tuple[str, str]:
    """Return the storage and the name of the study that is tuned in `folder`: on a server each has its own name."""
    return (STORAGE[0], folder.name) if STORAGE else (f"sqlite:///{folder}/studies.db", "s")


class Moments:
    """When to strike, spread over all of a study: of ten rounds in turn each is in a tenth of its own."""

    def __init__(self, kind: str, ends_s: list[float], counted: dict[str, int], dice: random.Random) -> None:
        """Spread over the phases, which ended after `ends_s`, or over the calls that were made in each of them."""
        self.kind, self.ends_s, self.dice = kind, ends_s, dice
        taking = ("creation", "search", "export") if kind == "commit" else ("export",)
        self.calls = [(phase, at) for phase in taking for at in range(1, counted[phase] + 1)]
        self.left: list[float] = []

    def next(self) -> float:
        """Return a place in [0, 1) that lies where none did lately."""
        if not self.left:
            parts = 10
            self.left = [(part + self.dice.random()) / parts for part in range(parts)]
            self.dice.shuffle(self.left)
        return self.left.pop()

    def wait_for(self, tune: Tune) -> None:
        """Wait until one of the moments in `tune`, by its phases: how fast the host is changes from study to study."""
        moment_s = self.next() * self.ends_s[-1]
        number = bisect.bisect(self.ends_s, moment_s)
        while tune.stage.entered < number and tune.poll() is None:
            time.sleep(0.001)
        tune.wait(time.monotonic() + moment_s - (self.ends_s[number - 1] if number else 0.0))

    def deadline(self) -> Deadline:
        """Return a death at one of the calls."""
        after = self.dice.random() < 0.5  # noqa: PLR2004 - as often as not
        about = "config.yaml" if self.kind == "export" else ""
        if self.kind == "commit":  # each phase as often, few commits as it may have
            phases = sorted({phase for phase, _ in self.calls}, key=PHASES.index)
            place = self.next() * len(phases)
            calls = [call for call in self.calls if call[0] == phases[int(place)]]
            phase, at = calls[int(place % 1 * len(calls))]
        else:
            phase, at = self.calls[int(self.next() * len(self.calls))]
        return Deadline(Stage(), phase, at, after=after, about=about)


def strike(folder: Path, moments: Moments) -> tuple[str, bool]:
    """Run the tune once with an accident; return in which phase it came, empty where it did not, and whether it ended.

    It did, with a verdict, whatever became of its children.
    """
    kind, dice = moments.kind, moments.dice
    if kind in {"commit", "export"}:
        tune = Tune(folder, deadline=moments.deadline(), kind=kind)
        return (tune.stage.phase, False) if tune.wait() == -signal.SIGKILL else ("", True)
    tune, came = Tune(folder), ""
    moments.wait_for(tune)
    if kind == "parent" and tune.signal(signal.SIGKILL):
        came = tune.stage.phase
    if kind == "ctrl-c" and tune.signal(signal.SIGINT):
        came = tune.stage.phase
        time.sleep(dice.uniform(0, 0.5))
        tune.signal(signal.SIGINT)
    while kind == "child" and not came and tune.poll() is None:
        for pid in tune.children()[:1]:
            came = tune.stage.phase
            os.kill(pid, signal.SIGKILL)
    return came, tune.wait() == 0


class Known:
    """What the study in `folder` holds: to be compared with what it holds later."""

    def __init__(self, folder: Path) -> None:
        """Read it; nothing is held where there is no study."""
        self.study: Study | None = load_study(*place(folder)) if has_study(*place(folder)) else None
        trials = self.study.trials if self.study else ()
        processes = self.study.processes if self.study else ()
        self.ran = Counter(json.dumps(trial.settings.to_plain()) for trial in trials if trial.run)
        self.beside = Counter(f"{one.purpose} {one.index} {one.settings} {one.windows_ms}" for one in processes)
        self.places = Counter(f"{one.purpose} {one.index} {one.settings}" for one in processes)


def cost(folder: Path, before: Known) -> Counter[str]:
    """Return what is wrong in `folder` after the last run, by kind, where the study held `before` after the kill."""
    found: Counter[str] = Counter()
    now = Known(folder)
    if now.study is None:
        return Counter({"unusable": 1})
    held = now.study._study.get_trials(deepcopy=False)  # noqa: SLF001 - the trials as Optuna has them
    found["lost"] = (before.ran - now.ran).total() + (before.beside - now.beside).total()
    found["doubled"] = now.ran.total() - len(now.ran) + now.places.total() - len(now.places)
    found["RUNNING"] = sum(trial.state.name == "RUNNING" for trial in held)
    found["WAITING"] = sum(trial.state.name == "WAITING" for trial in held)
    found["failed"] = sum(now.study.failed(Settings.from_plain(json.loads(one))) for one in now.ran)
    left = leftovers(folder) + unnamed(folder, now.study, [trial for trial in held if trial.state.name != "FAIL"])
    found["files left"] = len(left)
    for path in left:
        sys.stderr.write(f"left: {path}\n")
    configuration = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    found["configuration lost"] = configuration.get("other") != 1 or "onnx" not in configuration
    found["no report"] = not (folder / "results/report.md").exists()
    found["not proven"] = not judged(now.study, finals.kept_finals(now.study)).verdict.confirmed
    return found


def leftovers(folder: Path) -> list[Path]:
    """Return the files that nobody owns once no tune runs."""
    return [path for part in (".*", "results/.*", "results/plots/.*", "tmp/*") for path in folder.glob(part)]


def unnamed(folder: Path, study: Study, trials: Sequence[FrozenTrial]) -> list[Path]:
    """Return the artifacts that neither the study has nor one of its `trials`."""
    held = [study._study._storage.get_study_system_attrs(study._study._study_id)]  # noqa: SLF001 - Optuna's names
    held += [trial.system_attrs for trial in trials]
    names = {name.partition(":")[2] for one in held for name in one if name.startswith("artifacts:")}
    files = [*folder.glob("artifacts/*"), *folder.glob("studies/artifacts/*")]
    assert names, "No artifact is named."
    return [path for path in files if path.name not in names]


def prepared(folder: Path) -> None:
    """Fill `folder` with what a tune takes."""
    for name in ("tmp", "run"):
        (folder / name).mkdir()
    (folder / "script.json").write_text(json.dumps(SCRIPT), encoding="utf-8")
    (folder / "small.yaml").write_text(DEFINITION, encoding="utf-8")
    (folder / "config.yaml").write_text("# mine\nother: 1\n", encoding="utf-8")


def undisturbed(kind: str) -> tuple[list[float], dict[str, int]]:
    """Return after how many seconds each phase ends of a study that nothing happens to, and the calls in each.

    What it imports is imported here, so that no other tune need do it.
    """
    with tempfile.TemporaryDirectory(prefix="provoke-") as name:
        folder = Path(name).resolve()
        prepared(folder)
        counting = Deadline(Stage(), after=False, about="config.yaml" if kind == "export" else "")
        begun, tune = time.monotonic(), Tune(folder, deadline=counting, kind=kind)
        ends_s: list[float] = []
        while tune.poll() is None:
            ends_s += [time.monotonic() - begun] * (tune.stage.entered - len(ends_s))
            time.sleep(0.001)
        ends_s.append(time.monotonic() - begun)
        if tune.code:
            sys.exit((folder / "log.txt").read_text(encoding="utf-8"))
        found = +cost(folder, Known(folder))
        if found:
            sys.exit(f"Wrong without an accident: {dict(found)}")
        for module in (folder / "modules.txt").read_text(encoding="utf-8").split():
            with contextlib.suppress(Exception):  # not by that name, or not twice
                importlib.import_module(module)  # which no tune need import again
        return ends_s, tune.stage.counted


def once(moments: Moments) -> tuple[str, Counter[str]]:
    """Return in which phase an accident came, empty where it did not, and what it cost in the end."""
    with tempfile.TemporaryDirectory(prefix="provoke-") as name:
        folder = Path(name).resolve()
        prepared(folder)
        came, ended = strike(folder, moments)
        before = Known(folder)
        if ended:  # the same command goes on where time had ended its search, and then begins another race
            before.beside.clear()
        for path in leftovers(folder):
            os.utime(path, (path.lstat().st_atime - _AGE_S, path.lstat().st_mtime - _AGE_S))
        for _ in range(MOST_TRIES):
            if Tune(folder).wait() == 0:
                found = cost(folder, before)
                break
        else:
            found = Counter({"unusable": 1})
        if +found:
            sys.stderr.write(f"{came}: {dict(+found)}\n{(folder / 'log.txt').read_text(encoding='utf-8')[-3000:]}")
        return came, found


def main() -> None:
    """Read the command line, and start the database server that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS, help="What is killed.")
    parser.add_argument("--rounds", type=int, default=10, help="how many accidents have to come; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.0, help="Stop after so long.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", help="a database server's URL in place of SQLite, or 'postgresql': one of its own")
    asked = parser.parse_args()
    programs = servers.installed()
    if asked.storage == "postgresql" and programs is None:
        parser.error("no PostgreSQL server is installed here: install one, or give the URL of one that runs")
    own = asked.storage == "postgresql" and programs
    with servers.running(own) if own else contextlib.nullcontext(asked.storage) as url:
        STORAGE.extend([url] if url else [])
        provoke(asked)


def provoke(asked: argparse.Namespace) -> None:
    """Provoke what is `asked` for, and print the sums."""
    begun, came, sums = time.monotonic(), Counter[str](), Counter[str]()
    for name in _IMPORTS:
        importlib.import_module(name)
    undisturbed(asked.kind)
    gc.freeze()
    ends_s, counted = undisturbed(asked.kind)
    print(json.dumps({"undisturbed, s": round(ends_s[-1], 2), "calls": counted}), flush=True)
    moments = Moments(asked.kind, ends_s, counted, random.Random(asked.seed))  # noqa: S311 - no secret
    while came.total() < asked.rounds:
        phase, found = once(moments)
        came.update([phase] if phase else [])
        sums.update(+found)
        by_phase = {name: came[name] for name in PHASES if came[name]}
        print(json.dumps({"kind": asked.kind, "came": came.total(), **by_phase, **sums}), flush=True)
        if asked.seconds and time.monotonic() - begun > asked.seconds:
            break


if __name__ == "__main__":
    main()
