"""The A/A script: replayed studies, the table, what a live study's argmin would claim."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import aa
import aa_replay
import simulated
from rtmo_optuna.codec import decode, encode
from rtmo_optuna.errors import TunerError
from rtmo_optuna.search.children import ChildRunner
from rtmo_optuna.search.runner import Rules
from rtmo_optuna.types.measurement import Measurement, Outcome
from rtmo_optuna.types.request import BenchmarkRequest, SessionSpec, Settings
from rtmo_optuna.types.subject import StudyDefinition


def recorded(folder: Path, spread: float, count: int = 60) -> Path:
    """Write a recording of processes that differ by `spread`, and two pinned ones far off."""
    rng = random.Random(1)  # noqa: S311 - no secret
    values = [5.0 * (1 + spread * rng.gauss()) for _ in range(count)]
    processes = [aa_replay.Process(aa_replay.PLAIN, value, (value,) * 4, 350_000, {"slow core": 1}) for value in values]
    processes += [aa_replay.Process(aa_replay.CANARY, 50.0, (50.0,))] * 2
    path = folder / "recorded.json"
    path.write_text(json.dumps(encode(aa_replay.Recording({"provider": "cpu"}, tuple(processes)))), encoding="utf-8")
    return path


def replay(*arguments: str) -> list[aa_replay.Row]:
    """Return the rows of a replay."""
    args = aa.parser().parse_args(["replay", *arguments])
    rows: list[aa_replay.Row] = args.run(args)
    return rows


def test_recorded_equal_settings_are_not_claimed_but_argmin_claims(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty names for the default: nearly every argmin is a gain, hardly any study claims one."""
    output = tmp_path / "rows.json"
    argmin, ours = replay(str(recorded(tmp_path, 0.03)), "--studies", "40", "--output", str(output))
    assert (argmin.method, ours.method, ours.gain) == ("argmin", "ours", 0.0)
    assert argmin.claims > 0.8
    assert argmin.claimed_gain is not None
    assert argmin.claimed_gain > 0.03
    assert argmin.processes == 41
    assert ours.claims <= 0.04
    assert ours.regret == argmin.regret == 0.0
    assert ours.false == ours.claims
    assert "| 60 recorded | 0.0% | ours | 40 |" in capsys.readouterr().out
    assert len(json.loads(output.read_text(encoding="utf-8"))) == 2


@pytest.mark.slow
def test_a_large_gain_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """One setting of forty, 8 % faster where processes differ by 2 %; the same seed gives the same table."""
    *_, ours = replay("--spread", "0.02", "--gain", "0.08", "--studies", "25")
    first = capsys.readouterr().out
    assert ours.found >= 0.9
    assert ours.claimed_gain == pytest.approx(0.08, abs=0.02)
    replay("--spread", "0.02", "--gain", "0.08", "--studies", "25")
    assert capsys.readouterr().out == first


def test_a_replay_needs_processes(tmp_path: Path) -> None:
    """Without any of the kind there is a sentence, no division by nothing."""
    with pytest.raises(TunerError, match="no processes of the kind 'plain'"):
        replay()
    path = recorded(tmp_path, 0.01, count=0)
    with pytest.raises(TunerError, match="no processes"):
        replay(str(path))
    assert len(decode(aa_replay.Recording, json.loads(path.read_text(encoding="utf-8"))).values(aa_replay.CANARY)) == 2


def test_a_wrong_claim_has_no_part_in_what_is_found() -> None:
    """Who claims settings that are no faster has found nothing, and pays the regret of the faster ones."""
    truth = simulated.forty(1, 0.1)
    slow = next(settings for settings, level in truth.items() if level == 1.0)
    answer = aa_replay._answer(truth, slow, 1.05, 41)  # noqa: SLF001 - the script's own counting
    assert answer.gain == pytest.approx(0.05)
    assert not answer.right
    assert answer.regret == pytest.approx(0.1)
    assert aa_replay._answer(truth, slow, 1.005, 41).gain is None  # noqa: SLF001


def test_variation_is_the_deviation_over_the_mean() -> None:
    """9, 10 and 11 have a standard deviation of 1."""
    assert aa_replay.variation([9.0, 10.0, 11.0]) == pytest.approx(0.1)


def test_live_runs_the_default_under_every_name(tmp_path: Path) -> None:
    """Whatever a study asks for, its children get the default settings."""
    asked = []

    def measure(request: BenchmarkRequest, **_more: object) -> Measurement:
        asked.append(request.session.settings)
        return Measurement(Outcome.MEASURED, latency_ns=5e6)

    rules = Rules.of(StudyDefinition("s", "cpu", {}), simulated.UNGATED)
    for kind in (aa.SameForAll, ChildRunner):
        runner = kind(SessionSpec("", "cpu"), "", simulated.silent, measure=measure)
        runner.run(Settings.of({"enable_mem_pattern": False}), rules, tmp_path / "log.txt")
    assert asked == [Settings(), Settings.of({"enable_mem_pattern": False})]
