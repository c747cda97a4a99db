"""Where too little was tried there is no verdict: nothing is claimed, nothing is written, and it is said what to do."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import scripted
import simulated
from program import Program
from rtmo_optuna.errors import HeldError
from rtmo_optuna.machine.host import device_lock
from rtmo_optuna.search.decide.budget import Budget
from rtmo_optuna.search.runner import recorded
from rtmo_optuna.search.verdict import judged
from rtmo_optuna.show.sections.verdict import sentence
from rtmo_optuna.types.findings import LEAST_PAIRS, Purpose, Status
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import Note, Origin
from rtmo_optuna.verbs import tune
from test_finals import ARENA, DEFAULT, PATTERN, Planted, opened

SPINNING = Settings.of({"session.intra_op.allow_spinning": False})
EIGHT = scripted.defined("enable_cpu_mem_arena", "enable_mem_pattern", "session.intra_op.allow_spinning")


@pytest.fixture
def planted() -> Planted:
    """Return a host that all settings are alike on."""
    return Planted()


@pytest.mark.slow
def test_one_trial_is_no_verdict(program: Program, tmp_path: Path) -> None:
    """The default alone: exit code 4, the file left alone, what to do, and no word of what would have been found."""
    Path("small.yaml").write_text(EIGHT, encoding="utf-8")
    scripted.write_script(tmp_path, base_ms=2.0)
    Path("config.yaml").write_text("onnx: {}\n", encoding="utf-8")
    known = ("--engine", "scripted", "--study", "small.yaml", "--study-name", "s", "--provider", "cpu", "--quick")
    assert program("tune", "script.json", *known, "--trials", "1") == 4
    told = program.out
    assert "Too little was tried for a verdict: 1 of 8 settings, and no race. Give more --trials than 1." in told
    report = Path("results/s/report.md").read_text(encoding="utf-8")
    assert "Status: too little was tried." in report
    for untrue in ("No proven gain", "nothing was faster", "nothing to change", "would have been found", "(race)"):
        assert untrue not in told + report
    assert "1 trials" not in told + report
    assert Path("config.yaml").read_text(encoding="utf-8") == "onnx: {}\n"
    assert not list(Path().glob("config.yaml.bak-*"))


def tuned(folder: Path, planted: Planted, **more: Any) -> tune.TuneResult:  # noqa: ANN401 - options
    """Return what a whole tune of eight settings comes to, all within `folder`."""
    wanted = scripted.tune_options(folder, EIGHT, script={}, **more)
    return tune.tune(wanted, lambda _event: None, planted.runner_of)


@pytest.mark.slow
def test_what_the_file_holds_and_the_default_alone_are_no_verdict(tmp_path: Path, planted: Planted) -> None:
    """They were compared with one another, but nothing new was tried: the file stays as it is."""
    (tmp_path / "config.yaml").write_text("onnx: {enable_cpu_mem_arena: false}\n", encoding="utf-8")
    found = tuned(tmp_path, planted, trials=1)
    assert planted.ran[ARENA] > 10
    assert (found.undecided, found.config) == (True, None)
    assert found.record.verdict.status is Status.TOO_LITTLE
    assert sentence(found.record).startswith("Too little was tried for a verdict: 2 of 8 settings. Give more")
    assert "benchmark_info" not in (tmp_path / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_confirmation_that_found_no_time_is_no_verdict(tmp_path: Path, planted: Planted) -> None:
    """Not confirmed: the file is left alone, and the command line is to say so."""
    planted.factors, planted.fails = {ARENA: 0.7}, lambda settings, count: len(settings) > 0 and count > 0
    found = tuned(tmp_path, planted)
    assert (found.undecided, found.config) == (True, None)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.slow
def test_a_whole_space_that_is_slower_is_a_verdict(tmp_path: Path, planted: Planted) -> None:
    """All of eight settings were tried and the others are far slower: there is nothing to change."""
    planted.factors = {ARENA: 3.0, PATTERN: 3.0, SPINNING: 3.0}
    found = tuned(tmp_path, planted)
    assert not found.undecided
    assert found.config is not None
    assert found.record.verdict.status is Status.NO_GAIN
    assert "there is nothing to change" in (tmp_path / "results" / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_few_of_many_are_told_as_such(tmp_path: Path, planted: Planted) -> None:
    """Two of eight settings raced and met in pairs: no gain is proven, but that there is none is not said."""
    assert planted.spread
    found = tuned(tmp_path, planted, trials=2)
    report = (tmp_path / "results" / "report.md").read_text(encoding="utf-8")
    assert found.record.verdict.status is Status.NO_GAIN
    assert "but only 2 of 8 settings were." in report
    assert "nothing to change" not in report


@pytest.mark.slow
def test_a_device_that_another_program_kept_is_no_verdict(tmp_path: Path, planted: Planted) -> None:
    """The time was up meanwhile: what was measured is reported, the file is left alone, and the study goes on later."""

    def kept(_settings: Settings, _count: int) -> bool:
        if planted.ran.total() > 8:
            raise HeldError(7)
        return False

    planted.fails = kept
    found = tuned(tmp_path, planted)
    assert (found.undecided, found.interrupted, found.config) == (True, False, None)
    assert len(found.record.runs) > 1
    assert (tmp_path / "results" / "report.md").exists()
    planted.fails = lambda _settings, _count: False
    assert tuned(tmp_path, planted).record.finals.over


@pytest.mark.slow
def test_an_interruption_right_after_the_default_compares_it_with_nothing(tmp_path: Path, planted: Planted) -> None:
    """Not "5.00 ms against 5.00 ms with the default settings"."""
    planted.stop = lambda: planted.ran[DEFAULT] == 7
    found = tuned(tmp_path, planted)
    assert found.interrupted
    assert not found.undecided
    assert "against" not in sentence(found.record)
    assert "1 of 8 settings, and no race. The same command goes on from here." in sentence(found.record)


def test_a_race_that_was_cut_off_proves_no_default(tmp_path: Path, planted: Planted) -> None:
    """The default leads after two blocks of a race that has no time for more: that is no answer yet."""
    planted.factors = {ARENA: 1.03, PATTERN: 1.03, SPINNING: 1.03}
    study = opened(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    planted.stop = lambda: 2 in study.results(Purpose.RACE)
    with pytest.raises(KeyboardInterrupt):
        simulated.tune(study, planted.runner()).run()
    planted.stop = lambda: False
    finals = simulated.finals(study, planted.runner(), seconds=-1.0).run()
    assert 0 < finals.blocks < 5
    assert (finals.winner, finals.decided) == (DEFAULT, False)
    assert sentence(judged(study, finals)).startswith(f"Not confirmed: the time allowed {finals.blocks} blocks")


@pytest.mark.parametrize(("each_s", "until"), [(1.0, 144.0), (5.0, 172.0 - 22 * 5.0), (6.5, 172.0 - 22 * 6.5)])
def test_the_search_ends_when_the_pairs_have_to_begin(each_s: float, until: float) -> None:
    """Of three minutes, where the pairs can come: the rest is theirs."""
    budget = Budget(0.0, 180.0, lambda: 0.0)
    assert budget.in_time(each_s, 2 * LEAST_PAIRS)
    assert budget.search(each_s, 2 * LEAST_PAIRS).at == pytest.approx(min(until, 0.6 * 180))


def test_time_for_pairs_that_cannot_come_goes_to_the_search(tmp_path: Path, planted: Planted) -> None:
    """Processes of a fifteenth of the time: twenty do not fit, so all of eight settings are tried."""
    study, events = opened(tmp_path), list[Any]()
    study.enqueue(DEFAULT, Origin.DEFAULT)
    each_s = study.about.definition.timeout_s / 15
    simulated.tune(study, planted.runner(takes_s=each_s), baseline=2, observer=events.append).run()
    assert study.runs == 8
    assert [event for event in events if isinstance(event, Note) and "and the search takes it all" in event.text]


def test_time_for_pairs_comes_back_with_shorter_processes(tmp_path: Path, planted: Planted) -> None:
    """The first process took so long that no pairs fit; the next ones are short, and a gain is proven after all."""
    planted.factors = {ARENA: 0.5}
    study, events = opened(tmp_path), list[Any]()
    study.enqueue(DEFAULT, Origin.DEFAULT)
    runner = planted.runner()
    runner.seen.walls_s.append(study.about.definition.timeout_s / 15)
    finals = simulated.tune(study, runner, baseline=2, observer=events.append).run()
    assert [event for event in events if isinstance(event, Note) and "and the search takes it all" in event.text]
    assert finals is not None
    assert [claim.pairs for claim in finals.claims] == [10]


def test_a_run_that_goes_on_knows_how_long_its_processes_took(tmp_path: Path, planted: Planted) -> None:
    """Nothing is said of the time that processes take before one was run; a resumed study has run some."""
    first, later = list[Any](), list[Any]()
    study = opened(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    planted.stop = lambda: bool(planted.ran)
    with pytest.raises(KeyboardInterrupt):
        simulated.tune(study, planted.runner(), baseline=2, observer=first.append, late_s=560.0).run()
    assert not [event for event in first if isinstance(event, Note) and "A process takes" in event.text]
    (process,) = study.processes
    study.forget(process.purpose)
    study.keep(replace(process, wall_s=77.0))
    with pytest.raises(KeyboardInterrupt):
        simulated.tune(study, planted.runner(), baseline=2, observer=later.append).run()
    assert [event for event in later if isinstance(event, Note) and event.text.startswith("A process takes 77 s here")]


def resumed_with(tmp_path: Path, planted: Planted, pairs: int) -> list[str]:
    """Return the warnings of a run that goes on after `pairs` of the confirmation, with time for eight processes."""
    planted.factors = {ARENA: 0.5}
    study = opened(tmp_path)

    def ran() -> bool:
        return len(study.results(Purpose.CONFIRMATION)) == pairs + 1

    study.enqueue(DEFAULT, Origin.DEFAULT)
    planted.stop = ran
    with pytest.raises(KeyboardInterrupt):
        simulated.tune(study, planted.runner(), baseline=2).run()
    again, events = opened(tmp_path), list[Any]()
    runner, each_s = planted.runner(), again.about.definition.timeout_s / 20
    runner.seen.walls_s.extend([each_s] * 999)
    planted.stop = lambda: True
    with pytest.raises(KeyboardInterrupt):
        simulated.tune(again, runner, baseline=2, observer=events.append, late_s=10 * each_s).run()
    return [event.text for event in events if isinstance(event, Note) and event.text.startswith("A process takes")]


@pytest.mark.slow
def test_pairs_that_were_run_are_not_to_come_again(tmp_path: Path, planted: Planted) -> None:
    """Nine of ten are kept: for the tenth there is time. After one of them there is none for the nine others."""
    for folder in ("nine", "one"):
        (tmp_path / folder).mkdir()
    assert resumed_with(tmp_path / "nine", planted, 9) == []
    (warning,) = resumed_with(tmp_path / "one", planted, 1)
    assert "the search takes it all" in warning


def test_another_tune_is_waited_for_no_longer_than_a_process_may_go_on(tmp_path: Path) -> None:
    """Who had the device is said."""
    runner, rules = scripted.runner(tmp_path)
    runner.until = time.monotonic() + 0.2
    with device_lock("cpu"), pytest.raises(HeldError, match=f"while process {os.getpid()} measured on this device"):
        recorded(runner, rules, Purpose.BASELINE, 0, DEFAULT)


@pytest.mark.slow
def test_waiting_for_another_tune_is_no_process_s_time(tmp_path: Path) -> None:
    """What a process of the study took does not count the second that another one held the device."""
    runner, rules = scripted.runner(tmp_path)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with device_lock("cpu"):
            held.set()
            done.wait(4.0)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    begun = time.monotonic()
    record, _ = recorded(runner, rules, Purpose.BASELINE, 0, DEFAULT)
    spent_s = time.monotonic() - begun
    other.join()
    assert record.cost is not None
    assert runner.seen.waited_s > 3.0
    assert record.wall_s == pytest.approx(spent_s - runner.seen.waited_s, abs=1.0)
    assert runner.seen.walls_s[0] <= spent_s - runner.seen.waited_s
