"""What others wrote, as it is shown: no password, and no character that a terminal obeys."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import optuna_dashboard
import pytest
from onnx import TensorProto, helper, save

from program import Program, read
from rtmo_optuna import display
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings, Stage
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition
from scripted import defined, opened, write_script

SECRET = "hunter2"  # noqa: S105 - made up
UNSEEN = "\x1b\x07\x9b\u202e"
NAMED = "\x1b[2J\x1b]0;gone\x07\x9b31m"
_HOSTS = ("db.example:5432/studies", "db.example:54x2/studies", "127.0.0.1:1/studies?connect_timeout=1")
_USERS = (f"user:{SECRET}", f"user@corp:{SECRET}", f":{SECRET}", f"user:{SECRET}@{SECRET}", f"user:{SECRET}/{SECRET}")


@pytest.mark.parametrize("scheme", ["postgresql://", "postgresql+nothing://", "postgres://", "postgresql:", "pg//", ""])
def test_no_error_tells_a_password(scheme: str, monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    """A storage that is misspelt, unknown or not to be had is told by its host, in one sentence, exit code 2."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # it is tried again after a while
    verbs = itertools.cycle((["studies"], ["report", "s"], ["dashboard"], ["studies"]))
    for (user, host), verb in zip(itertools.product(_USERS, _HOSTS), verbs, strict=False):
        assert program(*verb, "--storage", f"{scheme}{user}@{host}") == 2, program.err
        assert program.err.count("\n") == 1
        assert SECRET not in program.err
        assert "***@" in program.err


@pytest.mark.parametrize(("storage", "shown"), [
    ("sqlite:///studies/studies.db", "sqlite:///studies/studies.db"),
    ("postgresql://user@host/studies", "postgresql://user@host/studies"),
    ("postgresql://user:pw@host:5432/studies", "postgresql://user:***@host:5432/studies"),
    ("postgresql://host/s?user=me&password=p%26w&sslmode=on", "postgresql://host/s?user=me&password=***&sslmode=on"),
    ("postgresql://h/s?sslpassword=a&options=b", "postgresql://h/s?sslpassword=***&options=b"),
])  # fmt: skip
def test_a_url_is_shown_without_its_passwords(storage: str, shown: str) -> None:
    """And with all the rest; shown twice it is the same."""
    assert display.without_password(storage) == shown
    assert display.without_password(shown) == shown


def test_what_a_library_tells_of_a_url_is_cleaned() -> None:
    """The password as it was given, and as the library read it; a word that only begins like it stays."""
    told = display.without_secrets("no role p&w for 'p%26w', only p&wide", "postgresql://user:p%26w@host/studies")
    assert told == "no role *** for '***', only p&wide"


def _command_lines_below(pid: int) -> list[str]:
    return [
        (entry / "cmdline").read_bytes().decode()
        for entry in Path("/proc").glob("[0-9]*")
        if (stat := read(entry / "stat")) and int(stat.rpartition(")")[2].split()[1]) == pid
    ]


@pytest.mark.slow
def test_a_password_is_written_nowhere(tmp_path: Path) -> None:
    """A whole tune on a database whose URL holds one: not printed, in no file, in no child's command line.

    Its model has a node that is named to clear the screen, which its report shows.
    """
    write_script(tmp_path, base_ms=2.0, notes=[f"The node {NAMED} stays on the CPU."])
    (tmp_path / "small.yaml").write_text(
        defined("enable_cpu_mem_arena", "enable_mem_pattern", more=""), encoding="utf-8"
    )
    storage = f"sqlite:///file:studies.db?uri=true&password={SECRET}"
    command = [sys.executable, "-m", "rtmo_optuna", "tune", "script.json", "--study=small.yaml", "--provider=cpu"]
    command += ["--engine=scripted", "--quick", "--trials=2", "--verbose", "--search-only", "--storage", storage]
    children = set[str]()
    with Path(tmp_path, "told").open("w+", encoding="utf-8") as out:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
        while running.poll() is None:
            children.update(_command_lines_below(running.pid))
            time.sleep(0.02)
        out.seek(0)
        told = out.read()
    assert running.returncode == 0, told
    assert SECRET not in told
    forked = "\0".join(command) + "\0"  # what a child is called until it runs its own program
    assert any("rtmo_optuna.child.worker" in child for child in children)
    assert not [child for child in children - {forked} if SECRET in child]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"studies.db", "report.md", "report.html"} <= {path.name for path in files}
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    report = (tmp_path / "results/script-small-quick/report.md").read_text(encoding="utf-8")
    assert "password=***" in report
    assert not set(told + report) & set("\x1b\x07\x9b")
    assert r"x1b\[2J" in report
    page = (tmp_path / "results/script-small-quick/report.html").read_text(encoding="utf-8")
    assert r"The node \x1b[2J" in page


@pytest.mark.parametrize(("more", "code"), [(["--dry-run"], 0), (["--shape", "x=1x2"], 2), (["--input", "in.npz"], 2)])
def test_names_in_a_model_do_not_reach_the_terminal(more: list[str], code: int, program: Program) -> None:
    """They are told so that one can see what is in them."""
    sides = [helper.make_tensor_value_info(f"{name}{NAMED}", TensorProto.FLOAT, [1, 2]) for name in "xy"]
    node = helper.make_node("Relu", [sides[0].name], [sides[1].name], name=NAMED)
    graph, opset = helper.make_graph([node], "g", sides[:1], sides[1:]), helper.make_opsetid("", 17)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=9), "m.onnx")
    np.savez("in.npz", x=np.zeros((1, 2), np.float32))
    assert program("tune", "m.onnx", "--provider", "cpu", *more) == code, program.err
    told = program.out + program.err
    assert r"\x1b[2J" in told
    assert not set(told) & set("\x1b\x07\x9b")


def test_text_that_is_no_trick_stays() -> None:
    """Letters of all languages, tabs and line ends."""
    assert display.visible("Größe\t模型 🙂\n") == "Größe\t模型 🙂\n"
    assert display.visible("\u202egnp.exe\ud800") == r"\u202egnp.exe\ud800"


@pytest.mark.parametrize("trick", [NAMED, "````\n![](http://elsewhere/x.png)", "<script>alert(1)</script>\u202e"])
def test_notes_of_the_dashboard_show_what_is_in_names(trick: str, tmp_path: Path) -> None:
    """A trial that failed at a node of such a name: its reason and its log, in a block that nothing in them ends."""
    study = opened(tmp_path, StudyDefinition("s", "cpu", {"enable_mem_pattern": None}))
    study.enqueue(Settings(), Origin.DEFAULT)
    proposal = study.ask()
    assert proposal
    failed = Measurement(Outcome.FAILED, stage=Stage.BUILD, reason=f"The node {trick} fails.", log_tail=f"at {trick}")
    study.tell(proposal, failed, tmp_path)
    study.note(f"**{trick}**")
    kept = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/studies.db")
    note = optuna_dashboard.get_note(proposal.trial)
    assert not set(note + optuna_dashboard.get_note(kept) + kept.trials[0].user_attrs["reason"]) & set(UNSEEN)
    plain = re.sub(r"(?ms)^(`{3,})\n.*?\n\1$", "", note)
    assert note.count("node") - plain.count("node") == 1
    assert not {"elsewhere", "<script>"} & set(plain.split())
    assert "```" not in plain


def test_a_block_is_fenced_by_more_than_it_holds() -> None:
    """Three at least."""
    assert display.fenced("a ` b") == "```\na ` b\n```"
    assert display.fenced("````").split("\n")[0] == "`````"
