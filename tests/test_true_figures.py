"""Figures that are told: as many digits as mean something, one latency of the winner, and no word beyond the proof."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from program import there
from rtmo_optuna.cli.progress import Progress
from rtmo_optuna.show.sections import knobs, noise, verdict
from rtmo_optuna.show.words import NBSP, percent, written
from rtmo_optuna.types.findings import Noise, Purpose, Screening
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import TrialEnded
from rtmo_optuna.verbs import tune
from test_finals import ARENA, Planted, options
from test_show_charts import EQUAL, FASTER, contested, markdown, measured, realistic, study

LOUD = Noise(0.9, 0.01, noisy=True, found=1.56)


@pytest.mark.parametrize(("interval", "told"), [
    ((1.4283, 1.4251, 1.4312), ("1.428", "1.425", "1.431")),
    ((0.9957, 0.5691, 1.2958), ("1.00", "0.57", "1.30")),
    ((12.34, 8.1, 17.2), ("12.3", "8.1", "17.2")),
    ((1.2041, 1.0031, 1.4012), ("1.204", "1.003", "1.401")),
    ((1.0, 1.0, 1.0), ("1.000", "1.000", "1.000")),
])  # fmt: skip
def test_an_interval_has_the_digits_that_mean_something(
    interval: tuple[float, float, float], told: tuple[str, str, str]
) -> None:
    """Two significant ones of the uncertainty, and enough to see on which side of 1 it lies."""
    assert written(*interval) == told


@pytest.mark.parametrize(
    ("share", "told"), [(1.56, "160"), (0.05, "5"), (0.0112, "1.1"), (1.2e-7, "0.000012"), (0.0, "0")]
)
def test_a_percentage_has_no_exponent(share: float, told: str) -> None:
    """Not "1.6e+02 %"."""
    assert percent(share) == f"{told}{NBSP}%"


def test_what_would_be_found_is_not_told_beside_a_smaller_proven_gain() -> None:
    """Not "gains under 156 % will mostly not be found" where 14 % is proven; where nothing is, it is told."""
    proven = replace(contested(realistic(), FASTER), noise=LOUD)
    assert "mostly not" not in markdown(proven, {})
    assert f"Noisy host: processes of the same settings differ by 90.0{NBSP}%." in markdown(proven, {})
    open_ = markdown(replace(contested(realistic(), EQUAL), noise=LOUD), {})
    assert "will mostly not be found" in open_
    assert f"| Gain that can be found | 160{NBSP}% |" in open_


def test_what_would_be_found_is_not_told_where_nothing_new_ran() -> None:
    """A baseline alone says how noisy the host is, and nothing of what a study of it finds."""
    record = contested(realistic(), EQUAL)
    alone = replace(record, processes=tuple(p for p in record.processes if p.purpose is Purpose.BASELINE))
    table = there(noise.table(replace(alone, noise=LOUD)))
    assert "Gain that can be found" not in {row[0] for row in table.rows}
    assert "four studies of five" not in verdict.status_line(replace(alone, noise=LOUD))
    assert [name for name, _ in verdict.facts(alone) if name.startswith("Default")] == ["Default latency (baseline)"]


def test_a_knob_s_effect_is_told_as_the_trials_own() -> None:
    """Single measurements say what a choice did in the trials, not that it helps."""
    chart = there(knobs.chart(realistic()))
    assert chart.title.startswith("Most in the trials: prefer_nhwc=1, ")
    assert "helps" not in markdown(realistic(), {}) + chart.title


@pytest.mark.slow
def test_the_winner_has_one_latency(tmp_path: Path) -> None:
    """That of the confirmation: the file's latency, range and rate, and the head of the report, agree."""
    bench = Planted({ARENA: 0.7}, spread=0.03)
    record = tune.tune(options(tmp_path), lambda _event: None, bench.runner_of).record
    held = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))["onnx"]["benchmark_info"]
    pairs = [p.cost for p in record.processes if p.purpose is Purpose.CONFIRMATION and p.settings == ARENA and p.cost]
    assert held["latency_ms"] == round(statistics.median(pairs), 3)
    assert held["latency_range_ms"] == [round(min(pairs), 3), round(max(pairs), 3)]
    assert held["optimized_fps"] == pytest.approx(1e3 / held["latency_ms"], abs=0.1)
    cards = dict(verdict.facts(record))
    assert float(cards["Best latency"].removesuffix(f"{NBSP}ms")) == pytest.approx(held["latency_ms"], abs=0.006)
    assert float(cards["FPS"]) == pytest.approx(held["optimized_fps"], rel=0.01)
    claim = cards["Speed-up over the default"]
    assert claim.startswith(str(held["speedup"]))


def test_a_leader_that_runs_is_called_unconfirmed(capsys: pytest.CaptureFixture[str]) -> None:
    """Not "4.30x default": single runs have no ratio to be proud of."""
    record = study([(Settings(), measured(22.0)), (Settings.of({"prefer_nhwc": True}), measured(5.0))])
    default, best = record.trials
    with Progress() as progress:
        progress(TrialEnded(best, 2, 40, best, default))
    told = capsys.readouterr().out
    assert "x default" not in told
    assert "unconfirmed (default's run 2" in told


def test_one_flip_is_one_flip() -> None:
    """Not "1 flips were not tried"."""
    assert Screening(untried=1).left_out.startswith("One flip was not tried:")
