"""Race and confirmation in whole tunes: resumed, done once only, and what they make of config.yaml."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import scripted
import simulated
from program import there
from rtmo_optuna.codec import encode
from rtmo_optuna.search.decide.confirm import detectable
from rtmo_optuna.search.finals import FinalsState, kept_finals, noise_of
from rtmo_optuna.search.preflight import Preflight
from rtmo_optuna.search.verdict import judged, verdict
from rtmo_optuna.show.sections.verdict import facts, sentence
from rtmo_optuna.study.study import Study
from rtmo_optuna.types.findings import KnobEffect, Purpose, Reading, Screening, Status
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import Settings, Stage
from rtmo_optuna.types.study import Origin
from rtmo_optuna.types.subject import StudyDefinition
from rtmo_optuna.verbs import tune as verb
from rtmo_optuna.verbs.prepare import TuneOptions
from simulated import SimulatedRunner

DEFAULT = Settings()
ARENA = Settings.of({"enable_cpu_mem_arena": False})
PATTERN = Settings.of({"enable_mem_pattern": False})
SMALL = scripted.defined("enable_cpu_mem_arena", more="")


@dataclass
class Planted:
    """A host without children: settings with a knob of `factors` at its value are that many times as slow as 5 ms.

    Processes of the same settings differ by `spread`, the n-th one always in the same way. `fails` says whether the
    n-th process of settings (from 0) fails. `ran` counts the processes; `stop` ends the run as Ctrl-C does.
    """

    factors: dict[Settings, float] = field(default_factory=dict)
    spread: float = 0.005
    fails: Callable[[Settings, int], bool] = lambda _settings, _count: False
    stop: Callable[[], bool] = lambda: False
    ran: Counter[Settings] = field(default_factory=Counter)

    def process(self, settings: Settings, count: int) -> Measurement:
        """Return what the process number `count` of `settings` would have measured."""
        if self.fails(settings, count):
            return Measurement(Outcome.FAILED, stage=Stage.GATE, reason="wrong output: planted")
        latency_ns = 5e6 * (1 + self.spread * random.Random(f"{settings}/{count}").gauss())  # noqa: S311 - no secret
        for part, factor in self.factors.items():
            latency_ns *= factor if set(part.items) <= set(settings.items) else 1.0
        return Measurement(Outcome.MEASURED, latency_ns=latency_ns, windows_ns=(latency_ns,) * 4, calls=40)

    def runner(self, takes_s: float = 0.01) -> SimulatedRunner:
        """Return what runs this host's processes in one run of the program; each takes `takes_s`."""
        return SimulatedRunner(self.process, takes_s, self.stop, self.ran)

    def runner_of(self, *_planned: object) -> SimulatedRunner:
        """Return a runner for the verb `tune`."""
        return self.runner()

    def tune(self, study: Study, held: Settings = DEFAULT) -> FinalsState:
        """Tune on; raises KeyboardInterrupt where that is planted."""
        study.enqueue(DEFAULT, Origin.DEFAULT)
        study.enqueue(held, Origin.CONFIG)
        return there(simulated.tune(study, self.runner(), held).run())

    def broken_off(self, folder: Path, purpose: Purpose, count: int, trials: int = 8) -> Study:
        """Tune in `folder` until `study` keeps `count` processes for `purpose`, then Ctrl-C; return the next run's."""
        study = opened(folder, trials)
        self.stop = lambda: len(kept(study, purpose)) == count
        with pytest.raises(KeyboardInterrupt):
            self.tune(study)
        self.stop = lambda: False
        return opened(folder, trials)

    def search(self, study: Study, **more: Any) -> None:  # noqa: ANN401 - of Tune
        """Tune on as far as the race."""
        study.enqueue(DEFAULT, Origin.DEFAULT)
        simulated.tune(study, self.runner(), search_only=True, **more).run()


@pytest.fixture
def planted() -> Planted:
    """Return a host that all settings are alike on."""
    return Planted()


def opened(folder: Path, trials: int = 8) -> Study:
    """Create or resume a study of eight settings in `folder`."""
    names = ("enable_cpu_mem_arena", "enable_mem_pattern", "session.intra_op.allow_spinning")
    definition = StudyDefinition("s", "cpu", dict.fromkeys(names), trials=trials, sampler="exhaustive")
    return scripted.opened(folder, definition)


def kept(study: Study, purpose: Purpose) -> list[tuple[int, Settings, float | None]]:
    """Return what `study` keeps of the processes for `purpose`, in order."""
    return [(p.index, p.settings, p.cost) for p in study.processes if p.purpose is purpose]


@pytest.mark.slow
@pytest.mark.parametrize(("purpose", "count"), [(Purpose.RACE, 11), (Purpose.CONFIRMATION, 9)])
def test_what_was_interrupted_goes_on_where_it_stopped(
    tmp_path: Path, planted: Planted, purpose: Purpose, count: int
) -> None:
    """No process that ended is run again, and the study is in the end what it had been without the interruption."""
    planted.factors = {ARENA: 0.7}
    planted.spread = 0.02
    (tmp_path / "whole").mkdir()
    whole = opened(tmp_path / "whole")
    wanted = planted.tune(whole)
    assert planted.ran.total() == len(whole.processes) + sum(2 if t.measurement.second_ns else 1 for t in whole.trials)
    everything = planted.ran.copy()

    planted.ran.clear()
    study = planted.broken_off(tmp_path, purpose, count)
    assert judged(study, kept_finals(study)).verdict.status is judged(study, None).verdict.status is Status.MEASURED
    assert len(kept(study, purpose)) == count
    found = planted.tune(study)
    assert replace(found, pairs=None) == replace(wanted, pairs=None)  # their most depends on the time left
    for each in Purpose:
        assert kept(study, each) == kept(whole, each)
    assert planted.ran == everything


@pytest.mark.slow
def test_a_default_that_failed_in_its_trial_is_not_exported(tmp_path: Path, planted: Planted) -> None:
    """Its baseline ran, its trial died: nothing else is faster, and still it is no contender."""
    planted.factors = {ARENA: 1.2, PATTERN: 1.2}
    planted.fails = lambda settings, count: settings == DEFAULT and count == 6
    study = opened(tmp_path)
    found = judged(study, planted.tune(study))
    assert sentence(found).startswith("The default settings failed.")
    assert there(found.verdict.best).settings != DEFAULT


@pytest.mark.slow
def test_what_the_user_put_into_config_yaml_after_a_study_is_raced(tmp_path: Path, planted: Planted) -> None:
    """A study that is over keeps its verdict for what it was compared with or wrote; anything else it has to meet."""
    planted.factors = {ARENA: 0.7}
    study = opened(tmp_path)
    first = planted.tune(study)
    assert (first.over, first.winner) == (True, ARENA)
    ran = planted.ran.total()
    for held in (ARENA, DEFAULT):
        assert planted.tune(opened(tmp_path), held) == first
    assert planted.ran.total() == ran
    second = planted.tune(opened(tmp_path), PATTERN)
    assert (second.incumbent, second.winner) == (PATTERN, ARENA)
    assert [claim.rival for claim in second.claims] == [DEFAULT, PATTERN]
    assert planted.ran[PATTERN] >= 10


@pytest.mark.slow
def test_a_verdict_needs_one_look_and_not_all_the_time(tmp_path: Path, planted: Planted) -> None:
    """Cut off by the time after 12 pairs of 40, the confirmation says what the first 10 say, and goes on with time."""
    planted.factors = {ARENA: 0.985}
    planted.spread = 0.02
    study = planted.broken_off(tmp_path, Purpose.CONFIRMATION, 24)
    late = simulated.finals(study, planted.runner(), seconds=-1.0).run()
    assert [(claim.pairs, claim.decided) for claim in late.claims] == [(10, "no proven gain")]
    assert (late.over, late.decided) == (False, True)
    told = sentence(judged(study, late))
    assert re.match(r"^No proven gain over .* 10 pairs .*The time was up .* goes on\. The default .* stay\.$", told)
    known = noise_of(study)
    assert known.found
    assert noise_of(study, late).found == pytest.approx(2 * known.found, rel=0.1)
    assert planted.tune(opened(tmp_path)).claims[0].pairs > 10


@pytest.mark.slow
def test_the_race_gives_way_to_the_pairs_where_time_is_short(tmp_path: Path, planted: Planted) -> None:
    """There is time for 28 processes: two blocks of two, then the ten pairs that a claim takes, with caution."""
    planted.factors = {ARENA: 0.7}
    study = opened(tmp_path)
    planted.search(study)
    runner = planted.runner(takes_s=10.0)
    runner.seen.walls_s += [10.0]
    found = simulated.finals(study, runner, seconds=285.0).run()
    assert (found.blocks, len(kept(study, Purpose.RACE))) == (2, 4)
    assert len(kept(study, Purpose.CONFIRMATION)) == 20
    assert set(ARENA.items) <= set(there(found.winner).items)
    assert verdict(study, found).confirmed


@pytest.mark.slow
def test_a_tune_leaves_time_for_the_search(tmp_path: Path, planted: Planted) -> None:
    """Where processes take long, the preflight runs two, not six."""
    study = opened(tmp_path)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    runner = planted.runner(takes_s=0.21 * study.about.definition.timeout_s)
    simulated.tune(study, runner, search_only=True).run()
    assert len(kept(study, Purpose.BASELINE)) == 2
    assert planted.ran[DEFAULT] == 3


@pytest.mark.slow
def test_a_study_that_has_trials_is_not_pinned_any_more(tmp_path: Path, planted: Planted) -> None:
    """An older version may have left it undecided: other drivers wait for that, and it stays as it was measured."""
    study = opened(tmp_path)
    planted.search(study)
    study.put("pin", None)
    ran = planted.ran.total()
    Preflight(simulated.processes(study, planted.runner()), 9).run()
    assert study.get("pin") is False
    assert planted.ran.total() == ran


@pytest.mark.slow
def test_pairs_of_another_winner_are_forgotten(tmp_path: Path, planted: Planted) -> None:
    """Where the race now ends otherwise, as after a new version of its rules, no pair of the old winner counts."""
    planted.factors = {ARENA: 0.8}
    study = planted.broken_off(tmp_path, Purpose.CONFIRMATION, 9)
    study.put("finals", {**study.get("finals"), "raced": encode(PATTERN), "winner": encode(PATTERN)})
    found = planted.tune(opened(tmp_path))
    assert set(ARENA.items) <= set((found.winner or DEFAULT).items)
    pairs = kept(opened(tmp_path), Purpose.CONFIRMATION)
    assert {settings for _, settings, _ in pairs} == {DEFAULT, found.winner}
    assert [index for index, _, _ in pairs] == [place // 2 for place in range(len(pairs))]


@pytest.mark.parametrize(("reading", "plain"), [(Reading.FASTER, [ARENA]), (Reading.UNDECIDED, [])])
def test_idle_choices_do_not_win_by_luck(
    tmp_path: Path, planted: Planted, reading: Reading, plain: list[Settings]
) -> None:
    """The best without what does nothing by itself races as such and wins; the default needs no such right."""
    planted.factors, planted.spread = {ARENA: 0.8}, 0.01
    study = opened(tmp_path)
    planted.search(study)
    idle = ("enable_mem_pattern", "session.intra_op.allow_spinning")
    effects = [KnobEffect(((name, False),), Settings.of({name: False}), Reading.UNDECIDED) for name in idle]
    effects.append(KnobEffect((("enable_cpu_mem_arena", False),), ARENA, reading))
    study.put("screening", Screening(effects=tuple(effects), over=True))
    finals = simulated.finals(study, planted.runner())
    assert [one.settings for one in finals._contenders() if one.plain] == plain  # noqa: SLF001 - who races as what
    if plain:
        assert finals.run().winner == ARENA


@pytest.mark.slow
def test_the_same_command_again_runs_nothing(tmp_path: Path, planted: Planted) -> None:
    """A study that is over gives the same answer at once."""
    planted.factors = {ARENA: 0.7}
    study = opened(tmp_path)
    first = planted.tune(study)
    told = judged(study, first)
    before = planted.ran.copy()
    again = opened(tmp_path)
    second = planted.tune(again)
    assert planted.ran == before
    assert second == first
    assert sentence(judged(again, second)) == sentence(told)
    assert judged(again, second).verdict.confirmed


def test_a_leader_in_p99_runs_twice_and_both_processes_count(tmp_path: Path) -> None:
    """Its median is slower than the default's. The lucky first process is half of its value, and is kept as it was."""

    def process(settings: Settings, count: int) -> Measurement:
        median_ms, p99_ms = (6.0, 20.0 if count else 8.0) if settings == ARENA else (5.0, 10.0)
        return Measurement(Outcome.MEASURED, latency_ns=median_ms * 1e6, quantiles_ns={"p99": p99_ms * 1e6}, calls=700)

    definition = StudyDefinition("s", "cpu", {"enable_cpu_mem_arena": None}, sampler="exhaustive", objective="p99")
    study = scripted.opened(tmp_path, definition)
    study.enqueue(DEFAULT, Origin.DEFAULT)
    simulated.tune(study, SimulatedRunner(process), baseline=3, search_only=True).run()
    for again in (study, scripted.opened(tmp_path, definition)):
        arena = there(again.known(ARENA))
        assert arena.value == pytest.approx(14.0)
        assert again.costs(arena) == pytest.approx([8.0, 20.0])
        assert again.costs(there(again.default)) == [10.0]


@pytest.mark.slow
def test_more_trials_begin_a_new_race(tmp_path: Path, planted: Planted) -> None:
    """What the race of fewer trials ran is forgotten; the baseline is not."""
    planted.factors = {ARENA: 0.7}
    first = planted.tune(opened(tmp_path, trials=4))
    assert (first.trials, first.over) == (4, True)
    study = opened(tmp_path, trials=8)
    before = planted.ran.total()
    second = planted.tune(study)
    assert (second.trials, second.over, study.runs) == (8, True, 8)
    assert len(kept(study, Purpose.BASELINE)) == 6
    fresh = len(kept(study, Purpose.RACE)) + len(kept(study, Purpose.CONFIRMATION))
    seconds = sum(bool(trial.measurement.second_ns) for trial in study.trials[4:])
    assert planted.ran.total() - before == 4 + seconds + fresh


def test_a_race_begun_without_time_for_more_trials_ends_before_there_are_more(tmp_path: Path, planted: Planted) -> None:
    """The run after the one that was broken off has time again: nothing of the race is lost by searching on."""
    begun = planted.broken_off(tmp_path, Purpose.RACE, 5, trials=4)
    begun.put("cut_short", True)  # noqa: FBT003 - as a search leaves it that the time ended
    before = kept(begun, Purpose.RACE)
    study = opened(tmp_path)
    assert planted.tune(study).over
    assert study.runs == begun.runs
    assert kept(study, Purpose.RACE)[: len(before)] == before
    planted.tune(study)
    assert study.runs > begun.runs


def test_another_config_begins_an_interrupted_race_anew(tmp_path: Path, planted: Planted) -> None:
    """A race is for what config.yaml holds: where that changed meanwhile, what was run of it says nothing."""
    planted.factors = {ARENA: 0.7}
    finals = planted.tune(planted.broken_off(tmp_path, Purpose.RACE, 5), PATTERN)
    assert (finals.incumbent, {claim.rival for claim in finals.claims}) == (PATTERN, {DEFAULT, PATTERN})


@pytest.mark.parametrize(
    ("factors", "held", "exported", "words"),
    [
        ({ARENA: 0.7}, DEFAULT, ARENA, r"^1\.4\d\d times as fast as the default settings \(98 % interval"),
        ({ARENA: 0.7}, PATTERN, ARENA, r"default settings .* 1\.4\d\d times as fast as what config.yaml held"),
        ({}, DEFAULT, DEFAULT, r"^No proven gain.*[Tt]he default settings stay\.$"),
        # All are equal: luck names the race's winner, and with it the rival that the sentence begins with.
        ({}, PATTERN, PATTERN, r"^No proven gain over (the default|what config).*What config.yaml holds stays\.$"),
        ({PATTERN: 0.7}, PATTERN, PATTERN, r"as fast as the default settings.*What config.yaml holds stays\.$"),
        ({PATTERN: 1.3}, PATTERN, DEFAULT, r"^1\.3\d\d times as fast as what config.yaml held"),
    ],
)
def test_the_verdict_says_what_is_exported_and_why(  # noqa: PLR0917 - pytest passes them by name
    tmp_path: Path, planted: Planted, factors: dict[Settings, float], held: Settings, exported: Settings, words: str
) -> None:
    """Only what is proven faster replaces what config.yaml holds."""
    planted.factors = factors
    study = opened(tmp_path)
    found = judged(study, planted.tune(study, held))
    told = found.verdict
    assert re.search(words, sentence(found)), sentence(found)
    assert there(told.best).settings == exported
    assert told.confirmed is bool(factors)


def test_a_gain_under_one_percent_is_not_claimed(tmp_path: Path, planted: Planted) -> None:
    """It is measured well here, and said, but nothing is exported for it."""
    planted.factors, planted.spread = {ARENA: 1 / 1.008}, 0.0005
    study = opened(tmp_path)
    found = judged(study, planted.tune(study))
    told = found.verdict
    assert not told.confirmed
    assert "Under 1% nothing is claimed." in sentence(found)
    assert there(told.best).settings == DEFAULT


def test_wrong_outputs_never_win(tmp_path: Path, planted: Planted) -> None:
    """The fastest settings are out where their outputs are wrong: in the search, or first in the race."""
    planted.factors = {ARENA: 0.5, PATTERN: 0.7}
    planted.fails = lambda settings, count: (
        settings.get("enable_cpu_mem_arena") is False and (count > 0 or len(settings) > 1)
    )
    study = opened(tmp_path)
    finals = planted.tune(study)
    assert set(PATTERN) <= set(there(finals.winner))
    assert not set(ARENA) & set(there(finals.winner))
    assert verdict(study, finals).confirmed
    assert [p.reason for p in study.processes if p.settings == ARENA] == ["wrong output: planted"] * 2


def test_without_time_nothing_is_confirmed(tmp_path: Path, planted: Planted) -> None:
    """A race that could not begin names no winner, and what was there stays."""
    planted.factors = {ARENA: 0.7}
    study = opened(tmp_path)
    planted.stop = lambda: study.runs == 8
    with pytest.raises(KeyboardInterrupt):
        planted.tune(study)
    finals = simulated.finals(study, planted.runner(), seconds=-1.0).run()
    assert not kept(study, Purpose.RACE)
    told = verdict(study, finals)
    allowed = "Not confirmed: the time allowed 0 blocks of the race and 0 of the 10 pairs"
    assert sentence(judged(study, finals)).startswith(allowed)
    assert there(told.best).settings == DEFAULT
    assert not told.confirmed


def test_a_race_needs_no_more_than_it_must(tmp_path: Path, planted: Planted) -> None:
    """Losers by far leave after the first blocks, and ten pairs prove a large gain."""
    planted.factors = {ARENA: 0.7}
    study = opened(tmp_path)
    planted.tune(study)
    by_block = Counter(index for index, _, _ in kept(study, Purpose.RACE))
    assert by_block[0] <= 8
    assert by_block[max(by_block)] <= 4
    assert len(kept(study, Purpose.CONFIRMATION)) == 20


def test_finals_do_not_run_without_a_deadline_ahead(tmp_path: Path, planted: Planted) -> None:
    """Blocks of a race that are kept count, though there is no time for more."""
    planted.factors = {ARENA: 0.7}
    study = planted.broken_off(tmp_path, Purpose.CONFIRMATION, 1)
    finals = simulated.finals(study, planted.runner(), seconds=-1.0).run()
    assert finals.winner is not None
    assert "Not confirmed" in sentence(judged(study, finals))


def options(folder: Path, **script: Any) -> TuneOptions:  # noqa: ANN401 - a script is JSON
    """Return options for a tune of two settings of a script, all within `folder`."""
    return scripted.tune_options(folder, SMALL, script=script)


def held_in(path: Path) -> dict[str, Any]:
    """Return the section that settings are written to."""
    held: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["onnx"]
    return held


@pytest.mark.slow
def test_a_planted_gain_is_confirmed_in_real_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It replaces what config.yaml held, with its interval beside it; the same command again runs nothing."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # not to wait for the device with tests beside this one
    config = tmp_path / "config.yaml"
    config.write_text("onnx: {enable_cpu_mem_arena: true}\n", encoding="utf-8")
    wanted = options(tmp_path, effects={"enable_cpu_mem_arena=False": 0.6}, base_ms=4.0)
    first = verb.tune(wanted, lambda _event: None)
    assert first.record.verdict.confirmed, sentence(first.record)
    held = held_in(config)
    assert held["enable_cpu_mem_arena"] is False
    assert held["benchmark_info"]["status"] == "confirmed"
    low, high = held["benchmark_info"]["speedup_interval"]
    assert low <= held["benchmark_info"]["speedup"] <= high
    assert first.record.finals.decided
    config.write_text("onnx: {enable_cpu_mem_arena: true}\n", encoding="utf-8")
    again = verb.tune(wanted, lambda _event: None)
    assert again.record.processes == first.record.processes
    assert sentence(again.record) == sentence(first.record)
    assert held_in(config)["enable_cpu_mem_arena"] is False


@pytest.mark.slow
def test_a_gain_over_what_was_held_alone_stands_in_the_file(tmp_path: Path, planted: Planted) -> None:
    """What config.yaml held was slow: the gain over the default may be none, that over what it held is told."""
    config = tmp_path / "config.yaml"
    config.write_text("onnx: {enable_cpu_mem_arena: false}\n", encoding="utf-8")
    planted.factors = {ARENA: 2.0}
    found = verb.tune(options(tmp_path), lambda _event: None, planted.runner_of)
    assert found.record.verdict.confirmed
    info = held_in(config)["benchmark_info"]
    assert (info["status"], info["speedup"]) == ("confirmed", None)
    low, high = info["speedup_over_previous_interval"]
    assert 1.5 < low <= info["speedup_over_previous"] <= high < 2.5


@pytest.mark.slow
def test_default_settings_are_taken_where_nothing_beats_them(tmp_path: Path, planted: Planted) -> None:
    """The race's winner is no more than a hair faster than they, and what config.yaml held is slower than both."""
    config = tmp_path / "config.yaml"
    config.write_text("onnx: {enable_cpu_mem_arena: false}\n", encoding="utf-8")
    planted.factors, planted.spread = {ARENA: 1.5, PATTERN: 0.993}, 0.001
    wanted = scripted.tune_options(tmp_path, SMALL.replace("}", ", enable_mem_pattern: all}", 1), script={})
    found = verb.tune(wanted, lambda _event: None, planted.runner_of)
    told = found.record.verdict
    assert (told.confirmed, there(told.best).settings) == (True, Settings())
    assert found.record.proven(Settings()) is None
    assert "The default settings are, too, and taken: 1.5" in sentence(found.record)
    assert held_in(config)["enable_mem_pattern"] is True
    assert 1.49 < held_in(config)["benchmark_info"]["speedup_over_previous"] < 1.505
    cards = dict(facts(found.record))
    claim = there(found.record.proven(ARENA))
    assert cards["Speed-up over config.yaml"].startswith(f"{claim.ratio:.3f}")


@pytest.mark.slow
def test_config_stays_where_nothing_is_proven(tmp_path: Path, planted: Planted) -> None:
    """What the user set stays set, and the file says that it is no proven gain."""
    config = tmp_path / "config.yaml"
    config.write_text("onnx: {enable_cpu_mem_arena: false}\n", encoding="utf-8")
    planted.factors = {}
    found = verb.tune(options(tmp_path), lambda _event: None, planted.runner_of)
    assert not found.record.verdict.confirmed
    held = held_in(config)
    assert held["enable_cpu_mem_arena"] is False
    assert (held["benchmark_info"]["status"], held["benchmark_info"]["speedup"]) == ("no proven gain", None)


@pytest.mark.slow
def test_the_report_of_a_noisy_host_says_what_can_be_found(tmp_path: Path, planted: Planted) -> None:
    """What its processes differ by, and the gain that is found with 80 % there, stand in the report itself."""
    planted.spread = 0.05
    found = there(verb.tune(options(tmp_path), lambda _event: None, planted.runner_of).record.noise)
    between = there(found.between)
    least = detectable(between)
    assert (found.noisy, found.found) == (True, least)
    told = (tmp_path / "results" / "report.md").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert f"differ by {100 * between:.1f} %, so gains under {100 * least:.1f} % will mostly not" in told
