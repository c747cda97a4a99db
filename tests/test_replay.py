"""Recorded grids and searches replayed over them."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import bench_sampler
import grids
import models
import replay
import replayed
from rtmo_optuna.errors import UsageError
from rtmo_optuna.search.decide import screening
from rtmo_optuna.space.resolve import every_params, settings_of
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings, Value
from rtmo_optuna.types.subject import SearchSpace

STUDY = """
provider: cpu
knobs: {enable_cpu_mem_arena: [true, false]}
measuring: {warmup_s: 0.01, warmup_calls: 2, window_s: 0.005, window_calls: 2, windows_min: 3, windows_max: 3}
"""


def process(latency_ms: float, windows: int = 6, wall_s: float = 3.0) -> grids.Process:
    """Return a process whose windows, all alike, took 1.2 s in all."""
    return grids.Process(Outcome.MEASURED, wall_s, latency_ms, (latency_ms,) * windows, {"windows": 1.2})


def landscape_grid(seed: int = 0, failing: tuple[str, Value] | None = None) -> grids.Grid:
    """Return a grid of a made-up landscape, three processes each; settings with the choice `failing` fail in 2 s."""
    space, land, draw = bench_sampler.space(), bench_sampler.Landscape(seed), random.Random(seed)  # noqa: S311
    entries = []
    for true_ms, params in zip(land.table.values(), every_params(space), strict=True):
        three = tuple(process(true_ms * draw.gauss(1, 0.01)) for _ in range(3))
        fails = failing is not None and params[failing[0]] == failing[1]
        failure = (grids.Process(Outcome.FAILED, 2.0, reason="session build: no"),)
        entries.append(grids.Entry(settings_of(space, params), failure if fails else three))
    return grids.Grid({"model": "made up"}, "cuda", Settings(), space.dimensions, tuple(entries))


def small_grid(**latencies: float) -> grids.Grid:
    """Return a grid of one knob with two choices, one process each."""
    dimensions = bench_sampler.space().dimensions[3:4]
    space = SearchSpace("cuda", dimensions)
    told: Mapping[bool, float] = {False: latencies["off"], True: latencies["on"]}
    entries = (
        grids.Entry(settings_of(space, params), (process(told[bool(params["prefer_nhwc"])]),))
        for params in every_params(space)
    )
    return grids.Grid({}, "cuda", Settings(), dimensions, tuple(entries))


def one_replay(grid: grids.Grid, strategy: str = "random", trials: int = 40) -> replayed.Replay:
    """Replay one search with a baseline of two processes."""
    return replayed.replay(grid, replayed.STRATEGIES[strategy], 1, trials=trials, baseline=2)


def test_a_grid_is_read_as_it_was_written(tmp_path: Path) -> None:
    """JSON and back; the true latency is in the middle, and a failure has none."""
    grid = landscape_grid(failing=("tunable_op", "on"))
    grids.save(grid, tmp_path / "grid.json")
    again = grids.load(tmp_path / "grid.json")
    assert again == grid
    latencies = [one.latency_ms for one in grid.entries[0].processes if one.latency_ms]
    assert min(latencies) < (again.entries[0].true_ms or 0.0) < max(latencies)
    assert sum(entry.failed for entry in again.entries) == 96
    assert all(entry.true_ms is None for entry in again.entries if entry.failed)


def test_what_is_held_out_tells_the_truth_and_is_never_drawn() -> None:
    """The search sees 4 ms, the processes that are held out took 6: its export is judged by these."""
    grid = small_grid(off=5.0, on=4.0)
    judged = replace(grid.entries[1], held_out=(process(6.0),))
    grid = replace(grid, entries=(grid.entries[0], judged))
    assert (judged.true_ms, grid.best_ms) == pytest.approx((6.0, 5.0))
    assert one_replay(grid).exported == pytest.approx(0.2)


def test_recordings_of_one_thing_are_joined() -> None:
    """Processes and held-out ones of both, in their order; a grid of another machine is refused."""
    one, other = small_grid(off=5.0, on=4.0), small_grid(off=5.2, on=4.2)
    other = replace(other, entries=tuple(replace(e, held_out=(process(6.0),)) for e in reversed(other.entries)))
    both = grids.joined([one, other])
    assert [[p.latency_ms for p in entry.processes] for entry in both.entries] == [[5.0, 5.2], [4.0, 4.2]]
    assert [len(entry.held_out) for entry in both.entries] == [1, 1]
    assert grids.joined([one]) == one
    with pytest.raises(UsageError, match="different"):
        grids.joined([one, replace(other, facts={"gpu": "another"})])


def test_a_grid_widened_by_what_does_nothing() -> None:
    """Each settings of the grid stands for twelve of the wider one; a knob that is in it, or unknown, is refused."""
    grid = small_grid(off=5.0, on=4.0)
    wider = grids.with_inert(grid, ["tunable_op", "gpu_mem_limit_gb"])
    choices = [len(dimension.choices) for dimension in wider.dimensions]
    assert len(wider.entries) == math.prod(choices) == wider.whole_s / 3
    assert all(entry.true_ms == pytest.approx(4.0) for entry in wider.entries if entry.settings.get("prefer_nhwc"))
    assert one_replay(wider).good_trials < 20
    for name in ("prefer_nhwc", "intra_op_num_threads"):
        with pytest.raises(UsageError, match=name):
            grids.with_inert(grid, [name])


def test_the_default_among_the_flips_is_charged() -> None:
    """Before the one flip of this grid and after it: two processes of 3 s more than a search without flips."""
    grid = small_grid(off=4.0, on=5.0)
    alone_s, flipped_s = (one_replay(grid, name).steps[-1][0] for name in ("gp", "flips, gp"))
    assert flipped_s - alone_s == pytest.approx(3.0)


def test_every_process_is_charged() -> None:
    """Two of the baseline, the default's trial and its second process as a leader, the faster one's two: 18 s."""
    done = one_replay(small_grid(off=5.0, on=4.0))
    assert done.good_s == pytest.approx(18.0)
    assert done.good_trials == 2
    assert list(done.steps[0]) == pytest.approx([12.0, 0.25])


def test_a_pruned_trial_costs_what_it_ran() -> None:
    """A slow trial ends after 3 of 6 windows: half of its 1.2 s of windows is saved, and it has no second process."""
    done = one_replay(small_grid(off=5.0, on=6.0))
    assert done.steps[-1][0] == pytest.approx(6 + 6 + 2.4)
    assert not done.pruned
    assert done.exported == 0.0


def test_the_best_may_be_pruned() -> None:
    """Settings that are the best of all in most processes, but slow in the process that was drawn, are counted."""
    grid = small_grid(off=5.0, on=4.0)
    slow = replace(grid.entries[1], processes=(*[process(4.0)] * 5, *[process(9.0)] * 2))
    grid = replace(grid, entries=(grid.entries[0], slow))
    searches = (replayed.replay(grid, replayed.STRATEGIES["random"], seed, trials=2, baseline=2) for seed in range(200))
    told = [search.pruned for search in searches]
    assert 0.2 < statistics.fmean(told) < 0.4, "two of seven processes are slow"


def test_what_was_not_recorded_is_passed_over_at_no_charge() -> None:
    """A recording that ended early is searched as far as it goes."""
    whole = landscape_grid()
    entries = tuple(e if n % 3 == 0 else grids.Entry(e.settings) for n, e in enumerate(whole.entries))
    part = replace(whole, entries=entries)
    done = one_replay(part)
    assert done.good_trials <= 96
    assert len(done.steps) <= 96


@pytest.mark.slow
def test_ours_is_ahead_and_failures_do_not_stop_it() -> None:
    """With one choice failing, the Gaussian process needs under half of random's seconds; failures are charged."""
    grid = landscape_grid(3, failing=("tunable_op", "on"))

    def seconds(name: str) -> float:
        made = replayed.STRATEGIES[name]
        return statistics.fmean(replayed.replay(grid, made, seed, trials=5).good_s for seed in range(5))

    assert seconds("gp") < seconds("random") / 2


def test_the_guides_grid_holds_its_own_knobs_only() -> None:
    """Of the landscape's knobs one is the guide's: four choices, and no more trials than that."""
    assert len(one_replay(landscape_grid(), "guide").steps) == 4


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording of real processes, gone on with after a time limit of nothing, then replayed with a picture."""
    study, output = tmp_path / "small.yaml", tmp_path / "grid.json"
    study.write_text(STUDY, encoding="utf-8")
    model = str(models.dense(tmp_path / "dense.onnx"))
    command = ["record", "--model", model, "--provider", "cpu", "--study", str(study), "--output", str(output)]
    replay.main([*command, "--processes", "2", "--time-limit", "0"])
    assert "The time is over" in capsys.readouterr().out
    replay.main([*command, "--processes", "1", "--best", "1", "--held-out", "2"])
    grid = grids.load(output)
    assert [len(entry.processes) for entry in grid.entries] == [1, 1]
    assert {len(entry.held_out) for entry in grid.entries} <= {0, 2}
    assert len(grid.entries[0].held_out) == 2, "the default's are held out too"
    assert {"build", "first_run", "warmup", "windows"} <= grid.entries[0].processes[0].stage_s.keys()
    replay.main(["run", str(output), "--repetitions", "3", "--strategies", "gp", "--picture", str(tmp_path / "x.png")])
    assert "| gp | 3 |" in capsys.readouterr().out
    assert (tmp_path / "x.png").stat().st_size > 10_000
    study.write_text(STUDY.replace("windows_max: 3", "windows_max: 4"), encoding="utf-8")
    with pytest.raises(SystemExit, match="something else"):
        replay.main(command)


def test_a_tunes_own_order() -> None:
    """The default, what won elsewhere part upon part, then each choice alone: nothing of it twice."""
    space, costs = landscape_grid().space, dict[Settings, float]()
    told = list[tuple[Settings, bool]]()
    for settings, flip in replayed.STRATEGIES["won, flips, gp"].first(space, costs.get):
        told.append((settings, flip))
        costs[settings] = 1.0 / (1 + len(told))
    flips = [flip.settings for flip in screening.flips(space)]
    both = Settings.of({"fuse_conv_bias": True, "prefer_nhwc": True})
    assert told[:2] == [(space.fixed, False), (both, False)]
    assert [settings for settings, flip in told if flip] == [settings for settings in flips if settings != both]
    assert len(costs) == len(told)
