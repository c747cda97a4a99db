"""Whole runs of the command line over the scripted engine: real children, real SQLite, planted behaviour."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import yaml

from rtmo_optuna.cli import main
from rtmo_optuna.samplers.attributes import kept
from rtmo_optuna.space.resolve import every_params, settings_of
from rtmo_optuna.study.library import list_studies, load_study
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin
from scripted import write_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtmo_optuna.study.study import Study

DEFINITION = """
provider: cpu
knobs:
  intra_op_num_threads: [0, 1]
  enable_cpu_mem_arena: all
  enable_mem_pattern: all
  session.intra_op.allow_spinning: all
budget: {trials: 8}
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
limits: {build_s: 3, first_run_s: 3, window_s: 3}
"""
FOUR = DEFINITION.replace("  intra_op_num_threads: [0, 1]\n", "").replace(
    "  session.intra_op.allow_spinning: all\n", ""
)
UNSCREENED = DEFINITION + "sampler: exhaustive\n"
FASTER = {"enable_cpu_mem_arena=False": 0.5}
COMMON = ["--engine", "scripted", "--study", "small.yaml", "--study-name", "s", "--provider", "cpu", "--quick"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs the command line in a folder of its own and gives the exit code."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(DEFINITION, encoding="utf-8")

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main.main(list(arguments))
        return int(ended.value.code or 0)

    return call


def tune(run: Callable[..., int], *more: str) -> int:
    """Tune the script in the current folder."""
    return run("tune", "script.json", *COMMON, *more)


def search(run: Callable[..., int], *more: str) -> int:
    """Tune the script without race and confirmation."""
    return tune(run, "--search-only", *more)


def study() -> Study:
    """Return the study as it is kept."""
    return load_study("sqlite:///studies/studies.db", "s")


@pytest.mark.slow
def test_a_planted_winner_is_found_exported_and_reported(run: Callable[..., int], tmp_path: Path) -> None:
    """The fast setting ends in config.yaml, with its comments kept, and in the report."""
    write_script(tmp_path, effects=FASTER, base_ms=6.0)
    Path("small.yaml").write_text(FOUR, encoding="utf-8")
    Path("config.yaml").write_text("# mine\nonnx:\n  enable_cpu_mem_arena: true  # keep?\n", encoding="utf-8")
    assert tune(run) == 0
    text = Path("config.yaml").read_text(encoding="utf-8")
    assert "# mine" in text
    assert "# keep?" in text
    held = yaml.safe_load(text)["onnx"]
    assert held["enable_cpu_mem_arena"] is False
    assert held["benchmark_info"]["study"] == "s"
    info = held["benchmark_info"]
    assert info["status"] == "confirmed"
    assert 1 < info["speedup_interval"][0] <= info["speedup"] <= info["speedup_interval"][1]
    assert 1.4 < info["speedup"] < 2.8
    assert list(tmp_path.glob("config.yaml.bak-*"))
    report = Path("results/s/report.md").read_text(encoding="utf-8")
    assert "times as fast as the default settings" in report[:400]
    assert "enable_cpu_mem_arena=0" in report
    for picture in re.findall(r"\((plots/[^)]+)\)", report):
        assert Path("results/s", picture).stat().st_size > 1000
    assert Path("results/s/report.html").exists()
    assert len(study().record().runs) == 4


@pytest.mark.slow
def test_the_default_comes_first_and_what_the_file_holds_second(run: Callable[..., int], tmp_path: Path) -> None:
    """Both are enqueued, in that order, even settings that lie outside the space."""
    write_script(tmp_path)
    Path("config.yaml").write_text("onnx: {intra_op_num_threads: 3}\n", encoding="utf-8")
    assert search(run, "--trials", "3") == 0
    first, second, third = study().record().runs
    assert (first.settings, first.origin) == (Settings(), Origin.DEFAULT)
    assert (second.settings, second.origin) == (Settings.of({"intra_op_num_threads": 3}), Origin.CONFIG)
    assert third.origin is Origin.SAMPLER


@pytest.mark.slow
def test_the_same_command_resumes(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--trials` counts the whole study: four trials, then four more, then none."""
    write_script(tmp_path)
    Path("small.yaml").write_text(UNSCREENED, encoding="utf-8")
    assert search(run, "--trials", "4") == 0
    assert search(run, "--trials", "8") == 0
    assert "Resuming" in capsys.readouterr().out
    assert study().runs == 8
    assert search(run, "--trials", "8") == 0
    assert study().runs == 8


@pytest.mark.slow
def test_no_settings_are_run_twice(run: Callable[..., int], tmp_path: Path) -> None:
    """A space of sixteen is measured once each, though more trials are asked for."""
    write_script(tmp_path)
    assert search(run, "--trials", "40") == 0
    runs = study().record().runs
    assert len(runs) == 16
    assert len({trial.settings for trial in runs}) == 16


@pytest.mark.slow
def test_knobs_that_do_nothing_are_frozen(run: Callable[..., int], tmp_path: Path) -> None:
    """Each choice is tried once, what does nothing is left alone, and the report says so; only samples are counted."""
    write_script(tmp_path, effects={"enable_cpu_mem_arena=False": 0.7}, base_ms=4.0, between=0.004)
    wide = DEFINITION.replace("knobs:\n", "knobs:\n  session.set_denormal_as_zero: all\n")
    Path("small.yaml").write_text(wide, encoding="utf-8")
    assert search(run, "--trials", "12", "--timeout", "10m") == 0
    found = study().screening
    assert found is not None
    assert "enable_cpu_mem_arena" not in {one.name for one in found.inert}
    assert found.inert
    origins = [trial.origin for trial in study().record().runs]
    assert origins.count(Origin.SCREENING) == 5
    assert len(origins) - 5 <= 12
    assert "Inert here" in Path("results/s/report.md").read_text(encoding="utf-8")
    assert search(run, "--trials", "12", "--timeout", "10m") == 0
    assert len(study().record().runs) == len(origins)


@pytest.mark.slow
def test_a_quick_tune_is_not_screened(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twelve trials are too few for flips beside them, and it says so."""
    write_script(tmp_path)
    assert search(run, "--trials", "3") == 0
    assert "No knob was tried alone: 4 flips are too many beside 3 trials." in capsys.readouterr().out
    assert study().runs == 3


@pytest.mark.slow
def test_failures_are_told_to_optuna_as_such(run: Callable[..., int], tmp_path: Path) -> None:
    """A crash and a refusal cost their trials only; a slow one is pruned after three windows."""
    faults = [
        {"when": {"enable_mem_pattern": False, "intra_op_num_threads": 1}, "fault": "crash"},
        {"when": {"enable_mem_pattern": False}, "fault": "refuse"},
    ]
    write_script(tmp_path, faults=faults, effects={"session.intra_op.allow_spinning=False": 3.0})
    assert search(run, "--trials", "16") == 0
    for trial in optuna.load_study(study_name="s", storage="sqlite:///studies/studies.db").trials:
        outcome, settings = trial.user_attrs["outcome"], kept(trial, "settings")
        if "answered_from" in trial.user_attrs:
            assert trial.state is not optuna.trial.TrialState.RUNNING
        elif settings.get("enable_mem_pattern") is False:
            assert outcome == "failed"
            assert trial.state is optuna.trial.TrialState.FAIL
            assert trial.user_attrs["reason"].startswith(("session build", "first run"))
        elif settings.get("session.intra_op.allow_spinning") is False:
            assert outcome == "pruned"
            assert trial.state is optuna.trial.TrialState.PRUNED
            assert len(trial.intermediate_values) == 3
        else:
            assert outcome in {"measured", "pruned"}  # a disturbed one may be pruned; none may fail
    assert sum(t.measurement.outcome is Outcome.FAILED for t in study().trials) == 8


@pytest.mark.slow
def test_a_study_of_something_else_is_refused_with_the_differences(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model under the same name: exit 2, what differs, and --new starts one beside it."""
    write_script(tmp_path)
    assert search(run, "--trials", "2") == 0
    write_script(tmp_path, base_ms=3.0)
    assert search(run, "--trials", "2") == 2
    told = capsys.readouterr().err
    assert "--new" in told
    assert re.search(r"model: [0-9a-f]{64} in the study, [0-9a-f]{64} now", told)
    assert search(run, "--trials", "2", "--new") == 0
    assert load_study("sqlite:///studies/studies.db", "s-2").runs == 2


@pytest.mark.slow
def test_when_every_trial_fails_nothing_is_exported(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search gives up after five, says why, and leaves config.yaml alone."""
    write_script(tmp_path, faults=[{"when": {}, "fault": "hang in run"}], faulty_call=3)
    assert search(run, "--warmup", "4") == 1
    assert "longer than 3 s" in capsys.readouterr().err
    assert not Path("config.yaml").exists()
    assert study().runs == 5


@pytest.mark.slow
def test_a_report_is_rendered_again_and_studies_are_listed(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`report` and `studies` read what `tune` kept."""
    write_script(tmp_path)
    assert search(run, "--trials", "3", "--output", "mine/first.md") == 0
    assert Path("mine/first.md").exists()
    assert run("report", "s", "--output", "again") == 0
    assert Path("again/report.md").read_text(encoding="utf-8").startswith("# ")
    assert run("studies") == 0
    assert "script.json" in capsys.readouterr().out


@pytest.mark.slow
def test_only_trials_that_ran_are_counted(run: Callable[..., int], tmp_path: Path) -> None:
    """The list of studies leaves out what was broken off and what waits, and tells failures."""
    write_script(tmp_path, faults=[{"when": {"enable_mem_pattern": False}, "fault": "crash"}])
    assert search(run, "--trials", "4") == 0
    kept = study()
    assert {trial.measurement.outcome for trial in kept.trials} > {Outcome.FAILED}
    space, tried = kept.about.space, {trial.settings for trial in kept.trials}
    untried = next(s for params in every_params(space) if (s := settings_of(space, params)) not in tried)
    kept.enqueue(untried, Origin.SAMPLER)
    for _ in range(2):
        proposal = kept.ask()
        assert proposal
        kept.interrupt(proposal)
    assert len(_raw_trials()) > kept.runs
    assert [line.trials for line in list_studies("sqlite:///studies/studies.db")] == [kept.runs]


def test_a_file_without_settings_takes_them(run: Callable[..., int], tmp_path: Path) -> None:
    """Whether it is empty, or of an application that never had any: a tune is about to write them."""
    write_script(tmp_path)
    for text in ("", "app: {threads: 4}\n"):
        Path("config.yaml").write_text(text, encoding="utf-8")
        assert search(run, "--config", "config.yaml", "--dry-run") == 0
        assert search(run, "--config", "config.yaml", "--config-path", "models.pose", "--dry-run") == 0


def test_a_dry_run_writes_nothing(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what would be searched, and no file is new."""
    write_script(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert search(run, "--dry-run") == 0
    assert "16 combinations" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def start(tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    """Start a tune of slow trials as a process of its own."""
    command = [sys.executable, "-m", "rtmo_optuna", "tune", "script.json", *COMMON, "--search-only"]
    command += ["--warmup", "30", "--trials", "6", *more]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_trials(process: subprocess.Popen[str], count: int) -> None:
    """Read the process's lines until `count` trials have ended, then give the next one time to start."""
    assert process.stdout is not None
    for line in process.stdout:
        count -= bool(re.search(r"\d+/6 ", line))
        if count == 0:
            break
    assert count == 0
    time.sleep(1.0)


def children_of(pid: int) -> list[int]:
    """Return the worker processes whose parent, at their start, was `pid`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "rtmo_optuna.child.worker" in words and str(pid) in words:
            found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_found(run: Callable[..., int], tmp_path: Path) -> None:
    """Exit 130, the child dead, config.yaml untouched, a report; the same command goes on."""
    write_script(tmp_path, base_ms=50.0)
    Path("small.yaml").write_text(UNSCREENED, encoding="utf-8")
    with start(tmp_path) as process:
        wait_for_trials(process, 2)
        assert children_of(process.pid)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert not children_of(process.pid)
    assert not Path("config.yaml").exists()
    assert "not confirmed" in Path("results/s/report.md").read_text(encoding="utf-8")
    assert not Path("config.yaml").exists()
    assert study().runs == 2
    assert search(run, "--warmup", "30", "--trials", "6") == 0
    assert study().runs == 6


@pytest.mark.slow
def test_kill_9_loses_the_running_trial_only(run: Callable[..., int], tmp_path: Path) -> None:
    """No orphan is left, no finished trial is lost, and the running one is run again first."""
    write_script(tmp_path, base_ms=50.0)
    Path("small.yaml").write_text(UNSCREENED, encoding="utf-8")
    with start(tmp_path) as process:
        wait_for_trials(process, 2)
        workers = children_of(process.pid)
        assert workers
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and children_of(process.pid):
        time.sleep(0.05)
    assert not children_of(process.pid)
    running = [t for t in _raw_trials() if t.state is optuna.trial.TrialState.RUNNING]
    assert len(running) == 1
    assert search(run, "--warmup", "30", "--trials", "6") == 0
    runs = study().record().runs
    assert len(runs) == 6
    assert runs[2].settings == Settings.from_plain(kept(running[0], "settings"))
    assert not [t for t in _raw_trials() if t.state is optuna.trial.TrialState.RUNNING]


def _raw_trials() -> list[Any]:
    return optuna.load_study(study_name="s", storage="sqlite:///studies/studies.db").trials


@pytest.mark.slow
def test_timeout_holds_within_a_trial(run: Callable[..., int], tmp_path: Path) -> None:
    """The search stops before the trial that would pass the limit."""
    write_script(tmp_path, base_ms=20.0, build_ms=1000.0)
    begun = time.monotonic()
    assert search(run, "--timeout", "12s", "--trials", "16") == 0
    assert time.monotonic() - begun < 25
    assert 1 <= study().runs < 16
    assert study().get("cut_short") is True


def test_help_does_not_wait_for_optuna(tmp_path: Path) -> None:
    """The command line answers --help from any folder without loading Optuna, or NumPy."""
    code = (
        "import sys\n"
        "from rtmo_optuna.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    sys.exit(bool({'numpy', 'optuna'} & sys.modules.keys()))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, env=dict(os.environ)).returncode == 0
