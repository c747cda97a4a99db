"""Calls at a fixed rate: their schedule, the child that keeps it, what it costs, and what a study says of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

import scripted
import simulated
from program import Program, lacking
from rtmo_optuna.child import timer
from rtmo_optuna.child.measure import Decision, measure
from rtmo_optuna.child.pace import Schedule, least_s, limits_at
from rtmo_optuna.search.decide import judge
from rtmo_optuna.study.library import has_study, load_study
from rtmo_optuna.types.measurement import Outcome, Window
from rtmo_optuna.types.request import Limits, Measuring
from rtmo_optuna.types.study import Note
from rtmo_optuna.verbs.prepare import identity, plan, runner_of
from scripted import SHORT, request

STUDY = scripted.defined("enable_cpu_mem_arena", "enable_mem_pattern", more="")


class Clock:
    """A clock that passes while somebody sleeps, or works."""

    def __init__(self) -> None:
        """Begin at an odd time."""
        self.now_ns = 7_000_000_001
        self.begun_ns: list[int] = []

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        assert seconds > 0
        self.now_ns += round(seconds * 1e9)

    def work(self, ms: float) -> None:
        """Take the time of a call, which begins now."""
        self.begun_ns.append(self.now_ns)
        self.now_ns += round(ms * 1e6)

    def schedule(self, rate_hz: float) -> Schedule:
        """Return a schedule by this clock."""
        return Schedule(rate_hz, lambda: self.now_ns, self.sleep)

    @property
    def begun_ms(self) -> list[float]:
        """When the calls began, after the first one."""
        return [(begun - self.begun_ns[0]) / 1e6 for begun in self.begun_ns]


def test_calls_begin_on_a_fixed_schedule() -> None:
    """The first one at once; a call's own time, long or short, shifts none of those that follow."""
    clock = Clock()
    schedule = clock.schedule(100)
    for ms in (1, 9, 3, 9.99, 0, 2):
        schedule.wait()
        clock.work(ms)
    assert clock.begun_ms == pytest.approx([0, 10, 20, 30, 40, 50])
    assert schedule.missed == 0


def test_who_overruns_a_slot_begins_at_the_next_one() -> None:
    """On the schedule, not at once; each slot that passed meanwhile is counted."""
    clock = Clock()
    schedule = clock.schedule(100)
    for ms in (12, 1, 35, 1):
        schedule.wait()
        clock.work(ms)
    assert clock.begun_ms == pytest.approx([0, 20, 30, 70])
    assert schedule.missed == 1 + 3


def test_what_passes_between_windows_is_not_missed() -> None:
    """The schedule goes on, and nobody was to call then."""
    clock = Clock()
    schedule = clock.schedule(100)
    schedule.wait()
    clock.work(57)
    schedule.take_up()
    clock.work(1)
    schedule.wait()
    clock.work(1)
    assert clock.begun_ms == pytest.approx([0, 60, 70])
    assert schedule.missed == 0


def three_windows(windows: Sequence[Window]) -> Decision:
    """Stop after the third."""
    return Decision.ENOUGH if len(windows) >= 3 else Decision.GO_ON


@pytest.mark.parametrize("pin", [False, True])
def test_a_latency_holds_no_wait(tmp_path: Path, pin: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A call of 10 ms each 20 ms takes 10 ms; the windows take their slots."""
    wanted = request(tmp_path, base_ms=10.0)
    rules = replace(wanted.measuring, rate_hz=50.0)
    wanted = replace(wanted, measuring=rules, limits=limits_at(wanted.limits, rules, 1), pin=pin, best_spin_ns=10**9)
    found = measure(wanted, log=tmp_path / "log.txt", decide=three_windows)
    assert found.outcome is Outcome.MEASURED, found.reason
    assert found.latency_ms == pytest.approx(10.0, rel=0.4)
    assert found.calls >= 3 * SHORT.window_calls
    assert (found.stages.windows_ns or 0) / 1e9 >= found.calls / 50
    assert (found.stages.warmup_ns or 0) / 1e9 >= 1.0
    assert sum(found.warmup_samples_ns) / 1e9 < 0.5  # of the part back to back


def test_missed_calls_are_counted(tmp_path: Path) -> None:
    """A call of 15 ms each 10 ms begins in every second slot."""
    wanted = request(tmp_path, base_ms=15.0)
    wanted = replace(wanted, measuring=replace(wanted.measuring, rate_hz=100.0), limits=Limits())
    found = measure(wanted, log=tmp_path / "log.txt", decide=three_windows)
    assert found.missed >= 0.9 * found.calls
    assert found.latency_ms == pytest.approx(15.0, rel=0.4)


@pytest.mark.slow
def test_slow_settings_are_pruned_at_a_pace_too(tmp_path: Path) -> None:
    """After three windows, by what their calls take, not by their slots, which are all alike."""
    wanted = request(tmp_path, base_ms=6.0)
    rules = replace(wanted.measuring, rate_hz=50.0, windows_max=8, precision=1e-9)
    for above_ns, outcome, windows in ((5e6, Outcome.PRUNED, 3), (15e6, Outcome.MEASURED, 8)):
        found = measure(
            replace(wanted, measuring=rules, limits=Limits()),
            log=tmp_path / "log.txt",
            decide=partial(judge.after_window, rules=rules, prune_above_ns=above_ns),
        )
        assert (found.outcome, len(found.windows_ns)) == (outcome, windows)


class Core:
    """A canary that says what it was told to, and when it was asked."""

    best_ns, least_ns = 1, 0

    def __init__(self, seen: list[str], quiet: Sequence[bool]) -> None:
        """Answer `quiet`, the last for ever."""
        self._seen, self._quiet = seen, list(quiet)

    def before(self) -> None:
        """Note it."""
        self._seen.append("before")

    def leave(self) -> None:
        """Note it."""
        self._seen.append("leave")

    def quiet(self, _worked_ns: int = 0) -> bool:
        """Note it, and answer."""
        self._seen.append("quiet")
        return self._quiet.pop(0) if len(self._quiet) > 1 else self._quiet[0]


def paced(seen: list[str], core: Core) -> timer.Timer:
    """Return a timer of 100 calls a second, three to a window, on `core`."""
    engine = SimpleNamespace(run=lambda _: seen.append("call"))
    rules = replace(SHORT, warmup_s=0.0, warmup_calls=2, warmup_exact=True, rate_hz=100.0)
    return timer.PacedTimer(cast("Any", engine), [{}], rules, cast("Any", core), 100.0)


def test_nothing_is_done_in_the_pauses() -> None:
    """The canary has its say before a window and after it, and one call leads in to what counts."""
    seen: list[str] = []
    timed = paced(seen, Core(seen, [True]))
    assert len(timed.warm_up()) == 2
    assert seen == ["before", "call", "call"]
    seen.clear()
    window = timed.window()
    assert (len(window.samples_ns), window.slow) == (3, False)
    assert seen == ["before", "call", "quiet", "call", "call", "call", "quiet"]


def test_a_disturbed_window_is_lost_as_a_whole() -> None:
    """And the next one is tried on another core; none of its calls begin that one."""
    seen: list[str] = []
    timed = paced(seen, Core(seen, [True, False, True]))
    windows = [timed.window(), timed.window()]
    assert [(len(window.samples_ns), window.slow) for window in windows] == [(3, True), (3, False)]
    assert seen.count("leave") == 1


def test_a_restless_host_costs_few_windows_at_a_pace(tmp_path: Path) -> None:
    """No core spins in 1 ns: as many windows as a process needs are repeated, since each takes its slots."""
    wanted = request(tmp_path)
    rules = replace(wanted.measuring, rate_hz=100.0, windows_max=20)
    wanted = replace(wanted, measuring=rules, limits=limits_at(wanted.limits, rules, 1), pin=True, best_spin_ns=1)
    found = measure(wanted, log=tmp_path / "log.txt", decide=three_windows)
    assert found.outcome is Outcome.MEASURED, found.reason
    assert dict(found.dropped) == {"slow core": rules.windows_min + 3}


def test_what_a_pace_costs_is_known_beforehand() -> None:
    """662 calls at 30 a second are 22 s; each window of ten has one that leads in, and the warm-up ends at the pace."""
    rules = Measuring(rate_hz=30.0)
    assert least_s(rules, 1, 662) == pytest.approx((67 * 11 + 30) / 30)
    assert least_s(rules, 1) == pytest.approx((4 * 11 + 30) / 30)
    assert least_s(replace(rules, runs=20, warmup_calls=6, warmup_exact=True), 1) == pytest.approx((20 + 2 + 6) / 30)
    assert least_s(rules, 100) == pytest.approx((4 * 101 + 100) / 30)
    assert least_s(Measuring(), 1, 662) == 0.0


def test_limits_leave_time_for_a_pace() -> None:
    """Ten calls, each ten seconds after the other, are not taken for a hang; back to back nothing changes."""
    assert limits_at(Limits(), Measuring(rate_hz=0.1), 1).window_s > Limits().window_s + 110
    assert limits_at(Limits(), Measuring(), 1) == Limits()


def test_a_slow_pace_makes_processes_long_and_is_told(tmp_path: Path) -> None:
    """662 calls at 50 a second: what a process takes is guessed before the first one, and said in its first window."""
    wanted = scripted.tune_options(tmp_path, STUDY + "objective: p99\n", script={}, rate_hz=50.0)
    told: list[object] = []
    (tmp_path / "scratch").mkdir()
    planned = plan(wanted, tmp_path / "scratch")
    runner = runner_of(planned, told.append)
    study = scripted.opened(tmp_path, planned.about.definition, planned.about.machine)
    assert simulated.processes(study, runner).each_s > 662 / 50
    runner.run(runner.fixed, planned.rules, tmp_path / "log.txt", prune_above_ns=0.0)
    (note,) = [event.text for event in told if isinstance(event, Note)]
    assert note == "The objective 'p99' needs 662 calls of each process: about 13 s at 50 calls a second."


def test_a_pace_is_part_of_a_study_and_none_changes_nothing(tmp_path: Path) -> None:
    """Studies of before there was a pace go on; one of another pace does not."""
    (tmp_path / "scratch").mkdir()

    def told(rate_hz: float | None) -> dict[str, str]:
        wanted = scripted.tune_options(tmp_path, STUDY, script={}, rate_hz=rate_hz)
        return identity(plan(wanted, tmp_path / "scratch").about)

    plain, at_30, at_60 = told(None), told(30.0), told(60.0)
    assert "rate" not in plain["measuring"]
    assert "calls a second" not in plain
    assert at_30.items() - plain.items() == {("calls a second", "30")}
    assert at_60["calls a second"] == "60"


COMMON = ("--provider", "cpu", "--engine", "scripted")


@pytest.fixture
def run(program: Program, tmp_path: Path) -> Program:
    """Return the program in a folder with a script and a study definition."""
    scripted.write_script(tmp_path, base_ms=4.0, effects={"enable_cpu_mem_arena=False": 0.5})
    Path("small.yaml").write_text(STUDY, encoding="utf-8")
    return program


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["tune script.json --study small.yaml", "bench script.json --set enable_mem_pattern=0"]
)
def test_a_rate_that_the_model_cannot_keep_is_refused(run: Program, tmp_path: Path, command: str) -> None:
    """One sentence with the rate that it reaches, and nothing is written."""
    scripted.write_script(tmp_path, base_ms=20.0)
    before = sorted(tmp_path.rglob("*"))
    assert run(*command.split(), *COMMON, "--rate", "80") == 2
    told = run.err.splitlines()[-1]
    assert told.startswith("error: The model cannot keep 80 calls a second: with the default settings a call takes 2")
    assert told.endswith(". Give a lower rate, or none.")
    assert 10 < float(told.split("it reaches ")[1].split(". ")[0]) <= 50
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_tune_at_a_pace(run: Program, tmp_path: Path) -> None:
    """It finds the planted winner, and says at which pace: at its end, in config.yaml and in the report.

    What config.yaml held of another pace does not stand any longer.
    """
    Path("config.yaml").write_text("onnx:\n  benchmark_info:\n    optimized_fps: 251.3\n", encoding="utf-8")
    words = "tune script.json --study small.yaml --study-name s --trials 4 --quick --warmup 3 --timeout 10m"
    tune = (*words.split(), *COMMON)
    assert run(*tune, "--rate", "60") == 0
    assert "pace:     60 calls a second, with sleep between them" in run.out
    study = load_study("sqlite:///studies/studies.db", "s")
    assert study.about.definition.measuring.rate_hz == 60
    assert [process.index for process in study.baseline] == [0, 1, 2]
    held = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))["onnx"]
    assert held["enable_cpu_mem_arena"] is False
    assert (held["benchmark_info"]["rate_hz"], held["benchmark_info"]["optimized_fps"]) == (60, None)
    report = Path("results/s/report.md").read_text(encoding="utf-8")
    pace = "| Pace | 60 calls a second, with sleep between them |"
    assert not lacking(report, "All of it holds for 60 calls a second", pace)
    assert run(*tune) == 2
    assert "calls a second: 60 in the study, nothing now" in run.err
    assert has_study("sqlite:///studies/studies.db", "s")
    assert not has_study(f"sqlite:///{tmp_path}/other.db", "s")
    assert not Path("other.db").exists()


@pytest.mark.slow
def test_a_bench_at_a_pace(run: Program, tmp_path: Path) -> None:
    """The rate stands in its JSON, and how many calls each side missed."""
    scripted.write_script(tmp_path, base_ms=12.0, effects={"enable_mem_pattern=False": 2.0})
    words = "bench script.json --set enable_mem_pattern=0 --rate 50 --pairs 10 --json"
    assert run(*words.split(), *COMMON) == 0
    found = json.loads(run.out)
    (pair,) = found["comparisons"]
    assert (found["rate_hz"], pair["verdict"]) == (50, "slower")
    assert pair["first"]["missed"] > max(100, 2 * pair["second"]["missed"])  # a busy machine lets either side miss some
    assert math.isclose(pair["ratio"], 0.5, rel_tol=0.1)
