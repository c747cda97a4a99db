"""Whole runs of the command line over the scripted engine, and which study one is about: real children, real SQLite."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

import scripted
from program import Program, ended, lacking, read, there
from rtmo_optuna.errors import UsageError
from rtmo_optuna.samplers.attributes import kept
from rtmo_optuna.space.resolve import every_params, settings_of
from rtmo_optuna.study.library import list_studies, load_study
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition
from rtmo_optuna.verbs.prepare import plan
from scripted import defined, write_script

DEFINITION = defined(
    *("enable_cpu_mem_arena", "enable_mem_pattern", "session.intra_op.allow_spinning"),
    more="budget: {trials: 8}\nlimits: {build_s: 3, first_run_s: 3, window_s: 3}\n",
).replace("knobs: {", "knobs: {intra_op_num_threads: [0, 1], ")
FOUR = defined("enable_cpu_mem_arena", "enable_mem_pattern", more="")
UNSCREENED = DEFINITION + "sampler: exhaustive\n"
ONE = defined("enable_cpu_mem_arena", more="")
FASTER = {"enable_cpu_mem_arena=False": 0.5}
COMMON = ["--engine", "scripted", "--study", "small.yaml", "--study-name", "s", "--provider", "cpu", "--quick"]


@pytest.fixture
def run(program: Program, tmp_path: Path) -> Program:
    """Return the program in a folder with a definition and a script."""
    (tmp_path / "small.yaml").write_text(DEFINITION, encoding="utf-8")
    write_script(tmp_path)
    return program


def tune(run: Program, *more: str) -> int:
    """Tune the script in the current folder."""
    return run("tune", "script.json", *COMMON, *more)


def search(run: Program, *more: str) -> int:
    """Tune the script without race and confirmation."""
    return tune(run, "--search-only", *more)


def study() -> Study:
    """Return the study as it is kept."""
    return load_study("sqlite:///studies/studies.db", "s")


@pytest.mark.slow
def test_a_planted_winner_is_found_exported_and_reported(run: Program, tmp_path: Path) -> None:
    """The fast setting ends in config.yaml, with its comments kept, and in the report."""
    write_script(tmp_path, effects=FASTER, base_ms=6.0)
    Path("small.yaml").write_text(FOUR, encoding="utf-8")
    Path("config.yaml").write_text("# mine\nonnx:\n  enable_cpu_mem_arena: true  # keep?\n", encoding="utf-8")
    assert tune(run, "--timeout", "10m") == 0
    text = Path("config.yaml").read_text(encoding="utf-8")
    assert not lacking(text, "# mine", "# keep?")
    held = yaml.safe_load(text)["onnx"]
    assert held["enable_cpu_mem_arena"] is False
    info = held["benchmark_info"]
    assert (info["study"], info["status"]) == ("s", "confirmed")
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
def test_the_default_comes_first_and_what_the_file_holds_second(run: Program) -> None:
    """Both are enqueued, in that order, even settings that lie outside the space."""
    Path("config.yaml").write_text("onnx: {intra_op_num_threads: 3}\n", encoding="utf-8")
    assert search(run, "--trials", "3") == 0
    first, second, third = study().record().runs
    assert (first.settings, first.origin) == (Settings(), Origin.DEFAULT)
    assert (second.settings, second.origin) == (Settings.of({"intra_op_num_threads": 3}), Origin.CONFIG)
    assert third.origin is Origin.SAMPLER


@pytest.mark.slow
def test_the_same_command_resumes(run: Program) -> None:
    """`--trials` counts the whole study: four trials, then four more, then none."""
    Path("small.yaml").write_text(UNSCREENED, encoding="utf-8")
    assert search(run, "--trials", "4") == 0
    for told in ("Resuming", "Resuming"):
        assert search(run, "--trials", "8") == 0
        assert told in run.out
        assert study().runs == 8


@pytest.mark.slow
def test_no_settings_are_run_twice(run: Program) -> None:
    """A space of sixteen is measured once each, though more trials are asked for."""
    assert search(run, "--trials", "40") == 0
    runs = study().record().runs
    assert len(runs) == len({trial.settings for trial in runs}) == 16


@pytest.mark.slow
def test_knobs_that_do_nothing_are_frozen(run: Program, tmp_path: Path) -> None:
    """Each choice is tried once, what does nothing is left alone, and the report says so; only samples are counted."""
    write_script(tmp_path, effects={"enable_cpu_mem_arena=False": 0.7}, base_ms=4.0, between=0.004)
    wide = DEFINITION.replace("knobs: {", "knobs: {session.set_denormal_as_zero: all, ")
    Path("small.yaml").write_text(wide, encoding="utf-8")
    assert search(run, "--trials", "12", "--timeout", "10m") == 0
    found = there(study().screening)
    assert "enable_cpu_mem_arena" not in {one.name for one in found.inert}
    assert found.inert
    origins = [trial.origin for trial in study().record().runs]
    assert origins.count(Origin.SCREENING) == 5
    assert len(origins) - 5 <= 12
    assert "Inert here" in Path("results/s/report.md").read_text(encoding="utf-8")
    assert search(run, "--trials", "12", "--timeout", "10m") == 0
    assert len(study().record().runs) == len(origins)


@pytest.mark.slow
def test_a_quick_tune_is_not_screened(run: Program) -> None:
    """Twelve trials are too few for flips beside them, and it says so."""
    assert search(run, "--trials", "3") == 0
    assert "No knob was tried alone: 4 flips are too many beside 3 trials." in run.out
    assert study().runs == 3


@pytest.mark.slow
def test_failures_are_told_to_optuna_as_such(run: Program, tmp_path: Path) -> None:
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
def test_a_study_of_something_else_is_refused_with_the_differences(run: Program, tmp_path: Path) -> None:
    """Another model under the same name: exit 2, what differs, and --new starts one beside it."""
    assert search(run, "--trials", "2") == 0
    write_script(tmp_path, base_ms=3.0)
    assert search(run, "--trials", "2") == 2
    told = run.err
    assert "--new" in told
    assert re.search(r"model: [0-9a-f]{64} in the study, [0-9a-f]{64} now", told)
    assert search(run, "--trials", "2", "--new") == 0
    assert load_study("sqlite:///studies/studies.db", "s-2").runs == 2


@pytest.mark.slow
def test_when_every_trial_fails_nothing_is_exported(run: Program, tmp_path: Path) -> None:
    """The search gives up after five, says why, and leaves config.yaml alone."""
    write_script(tmp_path, faults=[{"when": {}, "fault": "hang in run"}], faulty_call=3)
    assert search(run, "--warmup", "4") == 1
    assert "longer than 3 s" in run.err
    assert not Path("config.yaml").exists()
    assert study().runs == 5


@pytest.mark.slow
def test_a_report_is_rendered_again_and_studies_are_listed(run: Program) -> None:
    """`report` and `studies` read what `tune` kept."""
    assert search(run, "--trials", "3", "--output", "mine/first.md") == 0
    assert Path("mine/first.md").exists()
    assert run("report", "s", "--output", "again") == 0
    assert Path("again/report.md").read_text(encoding="utf-8").startswith("# ")
    assert run("studies") == 0
    assert "script.json" in run.out


@pytest.mark.slow
def test_only_trials_that_ran_are_counted(run: Program, tmp_path: Path) -> None:
    """The list of studies leaves out what was broken off and what waits, and tells failures."""
    write_script(tmp_path, faults=[{"when": {"enable_mem_pattern": False}, "fault": "crash"}])
    assert search(run, "--trials", "4") == 0
    kept = study()
    assert {trial.measurement.outcome for trial in kept.trials} > {Outcome.FAILED}
    space, tried = kept.about.space, {trial.settings for trial in kept.trials}
    untried = next(s for params in every_params(space) if (s := settings_of(space, params)) not in tried)
    kept.enqueue(untried, Origin.SAMPLER)
    for _ in range(2):
        kept.interrupt(there(kept.ask()))
    assert len(_raw_trials()) > kept.runs
    assert [line.trials for line in list_studies("sqlite:///studies/studies.db")] == [kept.runs]


@pytest.mark.slow
def test_a_file_without_settings_takes_them(run: Program) -> None:
    """Whether it is empty, or of an application that never had any: a tune is about to write them."""
    for text in ("", "app: {threads: 4}\n"):
        Path("config.yaml").write_text(text, encoding="utf-8")
        assert search(run, "--config", "config.yaml", "--dry-run") == 0
        assert search(run, "--config", "config.yaml", "--config-path", "models.pose", "--dry-run") == 0


def test_a_dry_run_writes_nothing(run: Program, tmp_path: Path) -> None:
    """It says what would be searched, and no file is new."""
    before = sorted(tmp_path.rglob("*"))
    assert search(run, "--dry-run") == 0
    assert "16 combinations" in run.out
    assert sorted(tmp_path.rglob("*")) == before


def start(tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    """Start a tune of slow trials as a process of its own."""
    command = [sys.executable, "-m", "rtmo_optuna", "tune", "script.json", *COMMON, "--search-only"]
    command += ["--warmup", "30", "--trials", "6", *more]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_trials(process: subprocess.Popen[str], count: int) -> None:
    """Read the process's lines until `count` trials have ended, then wait for the next one to be under way."""
    assert process.stdout is not None
    for line in process.stdout:
        count -= bool(re.search(r"\d+/6  (measured|pruned|failed)", line))
        if count == 0:
            break
    assert count == 0
    end = time.monotonic() + 60
    while not (children_of(process.pid) and _running()) and time.monotonic() < end:
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    """Return the worker processes whose parent, at their start, was `pid`."""
    found = ((entry, read(entry / "cmdline").split("\0")) for entry in Path("/proc").glob("[0-9]*"))
    return [int(entry.name) for entry, words in found if {"rtmo_optuna.child.worker", str(pid)} <= set(words)]


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_found(run: Program, tmp_path: Path) -> None:
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
    assert "not confirmed" in Path("results/s/report.md").read_text(encoding="utf-8")
    assert not Path("config.yaml").exists()
    assert study().runs == 2
    assert search(run, "--warmup", "30", "--trials", "6") == 0
    assert study().runs == 6


@pytest.mark.slow
def test_kill_9_loses_the_running_trial_only(run: Program, tmp_path: Path) -> None:
    """No orphan is left, no finished trial is lost, and the running one is run again first."""
    write_script(tmp_path, base_ms=50.0)
    Path("small.yaml").write_text(UNSCREENED, encoding="utf-8")
    with start(tmp_path) as process:
        wait_for_trials(process, 2)
        workers = children_of(process.pid)
        assert workers
        process.kill()
        process.wait()
    assert ended(*workers)
    assert not children_of(process.pid)
    (running,) = _running()
    assert search(run, "--warmup", "30", "--trials", "6") == 0
    runs = study().record().runs
    assert (len(runs), runs[2].settings) == (6, Settings.from_plain(kept(running, "settings")))
    assert not _running()


def _running() -> list[Any]:
    return [trial for trial in _raw_trials() if trial.state is optuna.trial.TrialState.RUNNING]


def _raw_trials() -> list[Any]:
    return optuna.load_study(study_name="s", storage="sqlite:///studies/studies.db").trials


@pytest.mark.slow
def test_timeout_holds_within_a_trial(run: Program, tmp_path: Path) -> None:
    """The search stops before the trial that would pass the limit."""
    write_script(tmp_path, base_ms=20.0, build_ms=1000.0)
    begun = time.monotonic()
    assert search(run, "--timeout", "12s", "--trials", "16") == 0
    assert time.monotonic() - begun < 12 + 48  # for the report of a busy machine
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


@pytest.mark.slow
def test_a_new_study_has_a_report_of_its_own(run: Program, tmp_path: Path) -> None:
    """`--new` leaves the older one's report alone, and a dry run knows all that: the name, and a refusal."""
    Path("small.yaml").write_text(ONE, encoding="utf-8")
    assert search(run) == 0
    first = Path("results/s/report.md").read_bytes()
    assert search(run, "--new", "--dry-run") == 0
    assert not lacking(run.out, "study:    s-2 in", str(Path("results/s-2/report.md")))
    assert search(run, "--new") == 0
    assert Path("results/s/report.md").read_bytes() == first
    assert "s-2" in Path("results/s-2/report.md").read_text(encoding="utf-8")
    write_script(tmp_path, base_ms=3.0)
    assert search(run, "--dry-run") == 2
    assert "made for something else" in run.err


def test_the_best_of_a_study_is_one_of_its_own(tmp_path: Path) -> None:
    """Not what somebody added to it, nor what was answered from another trial."""
    kept = scripted.opened(tmp_path, StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None}))
    kept.enqueue(Settings(), Origin.DEFAULT)
    scripted.finish(kept, kept.ask(), tmp_path)
    kept._study.add_trial(optuna.trial.create_trial(value=0.001))  # noqa: SLF001 - as somebody else would
    (line,) = list_studies(f"sqlite:///{tmp_path}/studies.db")
    assert (line.trials, line.best) == (1, 5.0)


@pytest.mark.parametrize("name", ["s" * 201, "ü" * 101])
def test_a_name_too_long_for_a_folder_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    """Before the model is looked at."""
    options = scripted.tune_options(tmp_path, ONE, script={}, study_name=name)
    with pytest.raises(UsageError, match="too long"):
        plan(options, tmp_path)


def test_a_model_with_a_long_name_needs_a_study_name(tmp_path: Path) -> None:
    """The study would be called by it."""
    model = tmp_path / f"{'m' * 240}.json"
    options = scripted.tune_options(tmp_path, ONE, script={})
    options.model.rename(model)
    with pytest.raises(UsageError, match="--study-name"):
        plan(replace(options, model=model), tmp_path)
