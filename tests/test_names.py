"""Which study a command is about: told beforehand, each with a report of its own, and its own best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

import scripted
from rtmo_optuna.cli import main
from rtmo_optuna.errors import UsageError
from rtmo_optuna.machine.host import host
from rtmo_optuna.study.library import list_studies
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition
from rtmo_optuna.verbs.prepare import plan
from scripted import write_script

DEFINITION = """
provider: cpu
knobs: {enable_cpu_mem_arena: all}
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""
COMMON = ["--engine", "scripted", "--study", "small.yaml", "--study-name", "s", "--provider", "cpu", "--quick"]


@pytest.fixture
def tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that tunes in a folder of its own, without finals, and gives the exit code."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(DEFINITION, encoding="utf-8")

    def call(*more: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main.main(["tune", "script.json", *COMMON, "--search-only", *more])
        return int(ended.value.code or 0)

    return call


@pytest.mark.slow
def test_a_new_study_has_a_report_of_its_own(
    tune: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--new` leaves the older one's report alone, and a dry run knows all that: the name, and a refusal."""
    write_script(tmp_path)
    assert tune() == 0
    first = Path("results/s/report.md").read_bytes()
    capsys.readouterr()
    assert tune("--new", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "study:    s-2 in" in told
    assert str(Path("results/s-2/report.md")) in told
    assert tune("--new") == 0
    assert Path("results/s/report.md").read_bytes() == first
    assert "s-2" in Path("results/s-2/report.md").read_text(encoding="utf-8")
    write_script(tmp_path, base_ms=3.0)
    capsys.readouterr()
    assert tune("--dry-run") == 2
    assert "made for something else" in capsys.readouterr().err


def test_the_best_of_a_study_is_one_of_its_own(tmp_path: Path) -> None:
    """Not what somebody added to it, nor what was answered from another trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = scripted.opened(tmp_path, StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None}), host())
    study.enqueue(Settings(), Origin.DEFAULT)
    proposal = study.ask()
    assert proposal
    study.tell(proposal, Measurement(Outcome.MEASURED, latency_ns=5e6, windows_ns=(5e6,) * 4, calls=40), tmp_path)
    study._study.add_trial(optuna.trial.create_trial(value=0.001))  # noqa: SLF001 - as somebody else would
    (line,) = list_studies(f"sqlite:///{tmp_path}/studies.db")
    assert (line.trials, line.best) == (1, 5.0)


@pytest.mark.parametrize("name", ["s" * 201, "ü" * 101])
def test_a_name_too_long_for_a_folder_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    """Before the model is looked at."""
    options = scripted.tune_options(tmp_path, DEFINITION, script={}, study_name=name)
    with pytest.raises(UsageError, match="too long"):
        plan(options, tmp_path)


def test_a_model_with_a_long_name_needs_a_study_name(tmp_path: Path) -> None:
    """The study would be called by it."""
    model = tmp_path / f"{'m' * 240}.json"
    options = scripted.tune_options(tmp_path, DEFINITION, script={})
    options.model.rename(model)
    with pytest.raises(UsageError, match="--study-name"):
        plan(replace(options, model=model), tmp_path)
