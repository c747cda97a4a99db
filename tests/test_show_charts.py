"""Charts and the pictures made of them; also the studies that the tests of the report use."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from program import there
from rtmo_optuna.search.verdict import racers
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import charts
from rtmo_optuna.show.render.chart import Band, Chart, Label, Line, Points, Role, Row, Rows, Shape, Spans, Stack
from rtmo_optuna.show.render.interactive import figure
from rtmo_optuna.show.render.layout import LABEL_GAP, apart, ticks
from rtmo_optuna.show.render.markdown import markdown as rendered
from rtmo_optuna.show.render.palette import DARK, LIGHT, variables
from rtmo_optuna.show.render.pictures import png, svg
from rtmo_optuna.show.report import CHARTS, document
from rtmo_optuna.show.sections import confirmation, knobs, noise, race, ranking, time, trials
from rtmo_optuna.space.resolve import resolve, settings_of
from rtmo_optuna.types.findings import Claim, Decided, FinalsRecord, Noise, ProcessRecord, Purpose, Status
from rtmo_optuna.types.measurement import Measurement, Outcome, StageTimes
from rtmo_optuna.types.request import ModelFacts, Settings, Stage, TensorSpec, Value
from rtmo_optuna.types.study import Origin, StudyRecord, TrialRecord, Verdict
from rtmo_optuna.types.subject import Gpu, InputFacts, Machine, SearchSpace, StudyDefinition

KNOBS: Mapping[str, tuple[Value, ...] | None] = {
    "cudnn_conv_algo_search": None,
    "gpu_mem_limit_gb": (None, 4, 8, 16, "90%"),
    "arena_extend_strategy": None,
    "do_copy_in_default_stream": None,
    "cudnn_conv_use_max_workspace": None,
    "tunable_op": None,
    "prefer_nhwc": None,
    "fuse_conv_bias": None,
    "use_tf32": None,
    "graph_optimization_level": ("ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED"),
    "session.use_device_allocator_for_initializers": None,
}
EFFECTS = {
    "cudnn_conv_algo_search=HEURISTIC": 1.03,
    "cudnn_conv_algo_search=DEFAULT": 2.7,
    "prefer_nhwc=1": 0.86,
    "fuse_conv_bias=1": 0.97,
    "use_tf32=0": 1.32,
}
WRONG = "Wrong output: 1 of 46 rows matches | the reference <dets>, at *most* 5 % may differ."
MEMORY = "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc($size, `bytes`)"
H200 = Machine(
    system="Debian GNU/Linux 12, Linux 6.1.0",
    cpu="Intel(R) Xeon(R) Platinum 8558",
    cores=16,
    memory_bytes=128 << 30,
    python="3.11.7",
    gpu=Gpu(0, "GPU-5f2a", "NVIDIA H200", 150_754_820_096, "580.82.07", "9.0"),
)
MODEL = ModelFacts(
    inputs=(TensorSpec("input", "tensor(float)", ("batch", 3, 640, 640)),),
    outputs=(TensorSpec("dets", "tensor(float)", ("batch", None, 5)),),
    opset=11,
    operators={"Conv": 72, "NonMaxSuppression": 1},
    nodes_by_provider={"CUDAExecutionProvider": 431, "CPUExecutionProvider": 6},
    provider="cuda",
    versions={"onnxruntime": "1.31.1", "cuda": "13.0", "cudnn": "9.19.0"},
)


def measured(latency_ms: float, outcome: Outcome = Outcome.MEASURED, seed: int = 0, windows: int = 8) -> Measurement:
    """Return a measurement whose windows lie within some per cent of `latency_ms`."""
    noise = random.Random(seed)  # noqa: S311 - no secret
    medians = tuple(latency_ms * 1e6 * noise.lognormvariate(0, 0.008) for _ in range(windows))
    middle = sorted(medians)[windows // 2]
    calls = round(windows * 120 / latency_ms)
    return Measurement(
        outcome=outcome,
        latency_ns=middle,
        windows_ns=medians,
        quantiles_ns={"p50": middle, **({"p90": 1.04 * middle, "p99": 1.2 * middle} if calls > 64 else {})},
        calls=calls,
        stages=StageTimes(
            70_000_000,
            250_000_000,
            68_000_000,
            520_000_000,
            900_000_000,
            340_000_000,
            windows * 120_000_000,
            3_300_000_000,
        ),
        gpu_memory_bytes=712 << 20,
    )


def failed(reason: str, stage: Stage) -> Measurement:
    """Return the measurement of a child that died in `stage`."""
    stages = StageTimes(70_000_000, 250_000_000, 68_000_000, None, None, None, None, 900_000_000)
    return Measurement(outcome=Outcome.FAILED, stage=stage, reason=reason, stages=stages)


def study(
    measurements: Iterable[tuple[Settings, Measurement]] = (),
    *,
    name: str = "rtmo-s-cuda",
    space: SearchSpace | None = None,
    knobs: Mapping[str, tuple[Value, ...] | None] = KNOBS,
    objective: str = "latency",
    storage: str = "sqlite:///studies/studies.db",
) -> StudyRecord:
    """Return a study of these runs, the settings without any item being the default."""
    definition = StudyDefinition(name="cuda", provider="cuda", knobs=knobs, objective=objective)
    trials = tuple(
        TrialRecord(
            number=run - 1,
            run=run,
            settings=settings,
            origin=Origin.SAMPLER if len(settings) else Origin.DEFAULT,
            measurement=measurement,
            value=measurement.latency_ms if measurement.outcome is Outcome.MEASURED else None,
            wall_s=(measurement.stages.total_ns or 0) / 1e9 + 0.4,
        )
        for run, (settings, measurement) in enumerate(measurements, start=1)
    )
    valued = [trial for trial in trials if trial.value is not None]
    best = min(valued, key=lambda trial: trial.value or 0, default=None)
    return StudyRecord(
        name=name,
        definition=definition,
        space=space or resolve(definition, H200, MODEL, fixed_shapes=True),
        machine=H200,
        model=MODEL,
        model_path="models/rtmo-s.onnx",
        model_sha256="9f2c4a71" * 8,
        inputs=InputFacts("inputs.npz", "ab" * 32, {"input": (1, 3, 640, 640)}, 4, "people.jpg", real=True),
        trials=trials,
        verdict=Verdict(Status.MEASURED if best else None, best),
        storage=storage,
        warnings=("The host is noisy: windows of the default differ by 4 %.",),
    )


def latency_of(params: Mapping[str, Value], noise: random.Random) -> float:
    """Return the planted latency in ms of one process with these parameters."""
    value = 3.95 * noise.lognormvariate(0, 0.02)
    for name, label in params.items():
        value *= EFFECTS.get(str(Settings(((name, label),))), 1.0)
    return value


def realistic(runs: int = 40, seed: int = 4) -> StudyRecord:
    """Return a study as on an H200: measured, pruned and failed runs."""
    empty = study()
    noise = random.Random(seed)  # noqa: S311 - no secret
    made: dict[Settings, Measurement] = {}
    while len(made) < runs:
        params = {
            d.name: d.choices[0].label if not made or noise.random() < 0.5 else noise.choice(d.choices).label
            for d in empty.space.dimensions
        }
        settings = settings_of(empty.space, params)
        latency = latency_of(params, noise)
        if settings in made:
            continue
        if settings.get("fuse_conv_bias") and not settings.get("prefer_nhwc"):
            made[settings] = failed(WRONG, Stage.WINDOW)
        elif settings.get("gpu_mem_limit_gb") == 4 and noise.random() < 0.4:
            made[settings] = failed(MEMORY, Stage.FIRST_RUN)
        elif latency > 1.5 * 3.95:
            made[settings] = measured(latency, Outcome.PRUNED, len(made), 3)
        else:
            made[settings] = measured(latency, Outcome.MEASURED, len(made))
    return study(made.items())


FASTER = Claim(Settings(), Settings(), Decided.FASTER, 1.143, (1.121, 1.166), 10, sound=10)
EQUAL = Claim(Settings(), Settings(), Decided.UNPROVEN, 1.003, (0.994, 1.014), 10, sound=10)
TOO_FEW = Claim(Settings(), Settings(), sound=4)
HELD = Claim(Settings(), Settings(), Decided.FASTER, 1.09, (1.07, 1.11), 10, sound=10)
STATUS = {
    Decided.FASTER: Status.CONFIRMED,
    Decided.UNPROVEN: Status.NO_GAIN,
    Decided.UNCONFIRMED: Status.UNCONFIRMED,
}


def contested(record: StudyRecord, *claims: Claim, held: Settings | None = None, pairs: int = 10) -> StudyRecord:
    """Return `record` after a baseline of six, a race of its three best with the default, and pairs for `claims`.

    They are of the winner against the default and what config.yaml `held`, in that order. The best of its trials wins
    the race, in 3.4 ms against the default's 3.9 and 3.7 of what config.yaml held.
    """
    claims = claims or (FASTER,)
    noise = random.Random(7)  # noqa: S311 - no secret
    measured_trials = sorted((t for t in record.trials if t.value is not None), key=lambda t: t.value or 0)
    winner, *others = dict.fromkeys(t.settings for t in measured_trials if len(t.settings))
    planted = {winner: 3.4, Settings(): 3.9, **dict.fromkeys(others[:2], 3.6), **({held: 3.7} if held else {})}

    def process(purpose: Purpose, index: int, settings: Settings) -> ProcessRecord:
        cost = planted[settings] * noise.lognormvariate(0, 0.01)
        windows = tuple(cost * noise.lognormvariate(0, 0.004) for _ in range(5))
        dropped = int(purpose is Purpose.RACE and index == 0)
        return ProcessRecord(purpose, index, settings, cost, cost, windows, dropped=dropped, wall_s=4.0)

    first, second = others[:2]
    blocks = [(winner, Settings(), first, second)] * 2 + [(winner, Settings(), first)] * 3 + [(winner, Settings())]
    sides = (winner, Settings(), *((held,) if held else ()))
    best = measured_trials[0] if claims[0].decided is Decided.FASTER else record.default
    processes = (
        *(process(Purpose.BASELINE, i, Settings()) for i in range(6)),
        *(process(Purpose.RACE, i, settings) for i, block in enumerate(blocks) for settings in block),
        *(
            process(Purpose.CONFIRMATION, i, settings)
            for i in range(pairs)
            for settings in (sides if i % 2 == 0 else sides[::-1])
        ),
    )
    met = tuple(replace(one, subject=winner, rival=rival) for one, rival in zip(claims, sides[1:], strict=True))
    return replace(
        record,
        verdict=Verdict(STATUS[claims[0].decided], best),
        finals=FinalsRecord(
            held or Settings(), winner, racers(processes, winner), met, len(blocks), pairs, over=True, ended=True
        ),
        noise=Noise(0.011, 0.004, noisy=False, found=0.012),
        processes=processes,
    )


def edge_cases() -> dict[str, StudyRecord]:
    """Return studies that hold next to nothing, too much, or only the same."""
    equal = replace(measured(4.0), latency_ns=4e6, windows_ns=(4e6,) * 5)
    limits = [Settings.of({"gpu_mem_limit_gb": size} if size else {}) for size in (None, 4, 8, 16, "90%")]
    return {
        "nothing": study(),
        "default only": study([(Settings(), measured(3.9))]),
        "all failed": study([(settings, failed(MEMORY, Stage.BUILD)) for settings in limits]),
        "all pruned": study([(settings, measured(9.0, Outcome.PRUNED, windows=3)) for settings in limits]),
        "default failed": study([(limits[0], failed("", Stage.START)), (limits[1], measured(3.0))]),
        "equal": study([(settings, equal) for settings in limits]),
        "outlier": study([(limits[0], measured(3.9)), (limits[1], measured(23.0)), (limits[2], measured(3.8))]),
        "throughput": study(
            [(settings, measured(4.0 + i)) for i, settings in enumerate(limits)], objective="throughput"
        ),
        "startup": study([(settings, measured(4.0 + i)) for i, settings in enumerate(limits)], objective="startup"),
    }


def markdown(record: StudyRecord, pictures: Mapping[str, str], applied: str = "") -> str:
    """Return the report on `record` as Markdown; `pictures` maps the names of charts to their files."""
    return rendered(document(record, applied), pictures)


def marks(chart: Chart | None, kind: type[Points | Line | Band | Spans | Label | Rows | Stack], name: str = "") -> list:  # type: ignore[type-arg]
    """Return the marks of one kind, and of one name where it is given."""
    return [m for m in there(chart).marks if isinstance(m, kind) and (not name or getattr(m, "name", "") == name)]


def rows_of(chart: Chart | None) -> tuple[Row, ...]:
    """Return the rows of a chart of rows."""
    (rows,) = marks(chart, Rows)
    assert isinstance(rows, Rows)
    return rows.rows


def test_history_shows_every_run_once() -> None:
    """Each run is one point: by its state, with the reason of a failure in its hover text."""
    record = realistic()
    points = marks(trials.chart(record), Points)
    assert sorted(x for group in points for x in group.x) == list(range(1, 41))
    crosses = [group for group in points if group.shape is Shape.CROSS]
    wrong = [t.run for t in record.runs if t.measurement.outcome is Outcome.FAILED]
    assert [x for group in crosses for x in group.x] == wrong
    assert all(WRONG in text or MEMORY in text for group in crosses for text in group.hover)
    pruned = [t.run for t in record.runs if t.measurement.outcome is Outcome.PRUNED]
    assert sorted(x for group in points if group.role is Role.PRUNED for x in group.x) == pruned


def test_history_best_line_falls_to_the_verdict() -> None:
    """The line of the best so far never rises, skips pruned runs and ends at the verdict's best."""
    record = realistic()
    (line,) = marks(trials.chart(record), Line, "best so far")
    assert list(line.y) == sorted(line.y, reverse=True)
    assert record.verdict.best is not None
    assert line.y[-1] == record.verdict.best.measurement.latency_ms


def test_history_keeps_an_outlier_from_squashing_the_rest() -> None:
    """A run of 23 ms among runs of 4 ms is drawn as an arrow with its value, inside an axis made for the others."""
    chart = there(trials.chart(edge_cases()["outlier"]))
    assert (chart.y.high or 99) < 5
    (arrow,) = [group for group in marks(chart, Points) if group.shape is Shape.ARROW]
    assert arrow.x == (2,)
    assert arrow.texts[0].startswith("2")
    assert 3.91 < arrow.y[0] < (chart.y.high or 0)


def test_ranking_is_sorted_and_knows_the_default() -> None:
    """Bars go from fast to slow; the default is among them even when ten others are faster."""
    many = [(Settings.of({"gpu_mem_limit_gb": i}), measured(3.0 + i / 100, seed=i)) for i in range(1, 15)]
    rows = rows_of(ranking.chart(study([(Settings(), measured(3.9)), *many])))
    assert [row.value for row in rows] == sorted(row.value for row in rows)
    assert [row.role for row in rows] == [Role.BEST, *[Role.MEASURED] * 9, Role.DEFAULT]
    assert rows[-1].label == ("15.\N{NO-BREAK SPACE}default",)
    assert all((row.low or 0) < row.value < (row.high or 0) for row in rows)


def test_ranking_puts_runs_of_the_same_settings_together() -> None:
    """Three runs of the default are one bar at their median, whose interval spans all their windows."""
    runs = [measured(value, seed=i) for i, value in enumerate((4.0, 4.4, 4.1))]
    (row,) = rows_of(ranking.chart(study([(Settings(), run) for run in runs])))
    assert (row.value, row.low) == (runs[2].latency_ms, min(runs[0].windows_ns) / 1e6)
    assert row.high == max(runs[1].windows_ns) / 1e6


def test_ranking_ignores_pruned_runs_of_measured_settings() -> None:
    """A run that was cut short adds nothing where the same settings were measured to the end."""
    (row,) = rows_of(ranking.chart(study([(Settings(), measured(6.0, Outcome.PRUNED)), (Settings(), measured(4.0))])))
    assert row.value == pytest.approx(4.0, rel=0.02)
    assert (row.high or 9) < 4.2


def test_throughput_ranks_the_highest_first() -> None:
    """An objective that is maximised is ranked downwards and drawn in its own unit."""
    rows = rows_of(ranking.chart(edge_cases()["throughput"]))
    assert [row.value for row in rows] == sorted((row.value for row in rows), reverse=True)
    assert "items/s" in rows[0].text


def test_knobs_finds_planted_effects() -> None:
    """Large planted effects are coloured by their direction; a choice without effect is grey."""
    roles = {row.label[0]: row.role for row in rows_of(knobs.chart(realistic()))}
    assert roles["prefer_nhwc=1"] is Role.FASTER
    assert roles["use_tf32=0"] is Role.SLOWER
    assert roles["cudnn_conv_algo_search=DEFAULT"] is Role.SLOWER
    assert roles["do_copy_in_default_stream=0"] is Role.MUTED


def test_knobs_says_what_it_cannot_tell_apart() -> None:
    """Choices that were only ever tried together are left out, and the subtitle says how many."""
    both = Settings.of({"prefer_nhwc": True, "use_tf32": False})
    plain = [(Settings(), measured(4.0, seed=i)) for i in range(4)]
    together = [(both, measured(3.5, seed=i)) for i in range(4)]
    limited = [(Settings.of({"gpu_mem_limit_gb": 8}), measured(4.0, seed=i)) for i in range(9, 12)]
    chart = there(knobs.chart(study([*plain, *together, *limited])))
    assert [row.label for row in rows_of(chart)] == [("gpu_mem_limit_gb=8",)]
    assert "2 not shown because the runs cannot tell their effects apart" in chart.subtitle


def test_windows_shows_default_and_best() -> None:
    """One line a run, with its windows' medians in ms and in order."""
    record = realistic()
    lines = {line.name: line for line in marks(noise.windows(record), Line)}
    assert set(lines) == {"default", "best measured"}
    assert lines["default"].y == tuple(ns / 1e6 for ns in record.trials[0].measurement.windows_ns)
    assert lines["default"].x == tuple(range(1, 9))


def test_confirmation_shows_every_pair() -> None:
    """Each process is a dot of its side at its pair, each pair an upright line, the claim a band below."""
    record = contested(realistic())
    chart = confirmation.chart(record)
    pairs = [p for p in record.processes if p.purpose is Purpose.CONFIRMATION]
    costs = {default: [p.cost for p in pairs if (not len(p.settings)) is default] for default in (True, False)}
    for name, default in (("winner", False), ("default", True)):
        (dots,) = marks(chart, Points, name)
        assert (list(dots.x), list(dots.y)) == (list(range(1, 11)), costs[default])
    (spans,) = marks(chart, Spans)
    assert list(spans.high) == costs[True]
    (band,) = marks(chart, Band)
    (line,) = marks(chart, Line, "default")
    assert (line.y[0] / band.high, line.y[0] / band.low) == pytest.approx((1.121, 1.166))


def test_confirmation_says_where_nothing_is_proven() -> None:
    """The title has the interval, and begins with the doubt where the claim is no gain; without claims it has none."""
    titles = {c.decided: confirmation.chart(contested(realistic(), c)) for c in (FASTER, EQUAL, TOO_FEW)}
    assert {name: chart and chart.title for name, chart in titles.items()} == {
        "faster": "1.143 (1.121 to 1.166) times as fast as the default",
        "no proven gain": "No proven gain: 1.003 (0.994 to 1.014) times as fast as the default",
        "not confirmed": "Too few pairs for a claim",
    }


def test_confirmation_keeps_three_sides_apart() -> None:
    """What config.yaml held is a third side with its own name, and a pair's line spans all three."""
    held = Settings.of({"gpu_mem_limit_gb": 16})
    chart = confirmation.chart(contested(realistic(), FASTER, HELD, held=held))
    assert {points.name for points in marks(chart, Points)} == {"winner", "default", "config.yaml"}
    (spans,) = marks(chart, Spans)
    assert len(spans.x) == 10


def test_confirmation_draws_a_slow_process_at_the_edge() -> None:
    """A process that took twice as long is an arrow with its value, and squashes nothing; a failed one is no dot."""
    record = contested(realistic())
    *rest, slow, lost = record.processes
    late = replace(slow, cost=8.0), replace(lost, cost=None, reason="killed")
    chart = there(confirmation.chart(replace(record, processes=(*rest, *late))))
    assert (chart.y.high or 99) < 5
    (arrow,) = [points for points in marks(chart, Points) if points.shape is Shape.ARROW]
    assert arrow.texts == ("8.00",)
    assert sum(len(points.x) for points in marks(chart, Points)) == 19
    _check_picture(png(chart))


def test_race_lists_who_stayed_longest_first() -> None:
    """The winner leads, those who left after fewer blocks come later, and the line is the default's median."""
    record = contested(realistic())
    chart = race.chart(record)
    rows = rows_of(chart)
    assert [row.text[row.text.index("(") :] for row in rows] == [f"({n} processes)" for n in (6, 6, 5, 2)]
    assert [row.hover.split("\n")[-1] for row in rows[1:]] == [
        "to the end",
        "left after 5 blocks",
        "left after 2 blocks",
    ]
    assert rows[0].role is Role.BEST
    assert "race winner" in rows[0].label[-1]
    (marked,) = marks(chart, Rows)
    assert marked.origin == rows[1].value
    assert all((row.low or 9) <= row.value <= (row.high or 0) for row in rows)


def test_baseline_shows_each_process_with_its_windows() -> None:
    """Six dots in order, each on the span of its windows; a single process says nothing and has no chart."""
    record = contested(realistic())
    chart = noise.chart(record)
    (dots,), (spans,) = marks(chart, Points), marks(chart, Spans)
    assert list(dots.y) == [p.latency_ms for p in record.processes[:6]]
    assert all(low <= y <= high for low, y, high in zip(spans.low, dots.y, spans.high, strict=True))
    assert noise.chart(replace(record, processes=record.processes[:1])) is None


def test_time_shows_the_processes_beside_the_trials() -> None:
    """Baseline, race and confirmation are bars of their own, in the order they ran, and the title says their share."""
    record = contested(realistic())
    chart = time.chart(record)
    (stack,) = marks(chart, Stack)
    names = [label.split("\n")[0] for label in stack.labels]
    assert names == ["baseline", "measured", "pruned", "failed", "race", "confirmation"]
    (whole,) = [part for part in stack.parts if part.role is Role.WHOLE]
    assert whole.values == (24.0, 0.0, 0.0, 0.0, 4.0 * 19, 4.0 * 20)
    assert chart is not None
    assert "went into the processes beside the trials" in chart.title


def test_time_adds_up_to_the_wall_time() -> None:
    """The parts of all bars together are the wall time of all runs, the unclaimed rest among them."""
    record = realistic()
    (stack,) = marks(time.chart(record), Stack)
    assert sum(sum(part.values) for part in stack.parts) == pytest.approx(sum(t.wall_s for t in record.runs))
    assert [part.name for part in stack.parts][0::7] == ["start", "rest"]


@pytest.mark.parametrize(("name", "drawn"), [
    ("nothing", set()),
    ("default only", {"history", "ranking", "windows", "time"}),
    ("all failed", {"time"}),
    ("all pruned", {"history", "ranking", "windows", "time"}),
    ("default failed", {"history", "ranking", "windows", "time"}),
    ("equal", {"history", "ranking", "windows", "time"}),
    ("outlier", {"history", "ranking", "windows", "time"}),
    ("throughput", {"history", "ranking", "windows", "time"}),
    ("startup", {"history", "ranking", "windows", "time"}),
])  # fmt: skip
def test_edge_cases_draw_what_they_can(name: str, drawn: set[str]) -> None:
    """A study that lacks something has the charts that it has data for, and all renderers take them."""
    made = {chart.name: chart for chart in charts(document(edge_cases()[name]))}
    assert set(made) == drawn
    for chart in made.values():
        _check_picture(png(chart))
        assert figure(chart, DARK).data
        assert "<svg" in svg(chart, narrow=True)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Chart]:
    """Return every chart of a long study by name."""
    return {chart.name: chart for chart in charts(document(contested(realistic(300))))}


def test_every_chart_is_known_by_name(drawn: dict[str, Chart]) -> None:
    """Pictures that are no longer true are found by these names, which are in the report's order."""
    assert tuple(drawn) == CHARTS


@pytest.mark.parametrize("name", CHARTS)
def test_pictures_are_whole(drawn: dict[str, Chart], name: str) -> None:
    """Every chart of a long study is a valid PNG, not blank, with nothing cut at its edges."""
    _check_picture(png(drawn[name]))


def _check_picture(content: bytes) -> None:
    image = Image.open(io.BytesIO(content))
    assert (image.format, image.width) == ("PNG", 1440)
    pixels = np.asarray(image.convert("RGB")).astype(int)
    body = pixels[150:-110]
    assert 0.002 < (body.min(axis=2) < 200).mean() < 0.6, "the drawing is blank, or full"
    edge = np.concatenate([pixels[:6].reshape(-1, 3), pixels[-6:].reshape(-1, 3)])
    sides = np.concatenate([pixels[:, :6].reshape(-1, 3), pixels[:, -6:].reshape(-1, 3)])
    assert (np.concatenate([edge, sides]) == 255).all(), "something is cut at the edge"


def test_dollars_are_no_formulas_in_pictures() -> None:
    """Dollars and braces in a title are drawn as they are, where matplotlib would read a broken formula."""
    chart = there(ranking.chart(realistic(5)))
    _check_picture(png(replace(chart, title=r"a $\frac{1}$ b", subtitle="$x_{$ and $$")))


def test_figures_hold_the_same_values_as_the_chart() -> None:
    """The plotly figure has the chart's points, and no markup of the user's gets through in its texts."""
    record = study(
        [(Settings(), measured(3.9)), (Settings.of({"use_tf32": False}), failed("<b>x</b> & y", Stage.BUILD))]
    )
    chart = there(trials.chart(record))
    drawn = figure(chart, LIGHT)
    (cross,) = [trace for trace in drawn.data if trace.name == "failed"]
    assert list(cross.x) == [2]
    assert "&lt;b&gt;x&lt;/b&gt; &amp; y" in cross.hovertext[0]
    assert "<b>" not in drawn.layout.title.text


def test_svg_has_tooltips_and_only_colours_that_both_schemes_know(drawn: dict[str, Chart]) -> None:
    """A wide one; each point says what it is, and no colour is left to the browser."""
    for chart in drawn.values():
        told = svg(chart)
        colours = {f"--c{colour}" for colour in re.findall(r"var\(--c([0-9a-f]+)\)", told)}
        assert colours <= set(re.findall(r"--c[0-9a-f]+", variables(DARK)))
        assert not re.findall("#[0-9a-f]{6}", told)
    points = [mark for mark in drawn["history"].marks if isinstance(mark, Points)]
    assert svg(drawn["history"]).count("<title>") == sum(len(mark.x) for mark in points)
    assert "<title>" not in svg(drawn["history"], narrow=True)


def test_figures_follow_the_theme() -> None:
    """Light and dark figures of one chart differ in colours and in nothing else."""
    chart = there(time.chart(realistic(10)))
    light, dark = (figure(chart, theme).to_plotly_json() for theme in (LIGHT, DARK))
    assert [trace["x"] for trace in light["data"]] == [trace["x"] for trace in dark["data"]]
    assert light["layout"]["font"]["color"] == LIGHT.text
    assert dark["layout"]["font"]["color"] == DARK.text


def test_long_settings_are_told_by_what_they_change_of_the_first() -> None:
    """Rows that begin alike can be told apart; where that says no less, the settings are written out."""
    first = Settings.of({"a": 1, "b": 2, "c": 3, "d": 4})
    assert words.beside(Settings.of({"a": 1, "b": 2, "c": 5, "d": 4, "e": 6}), first) == ("as the first", "c=5", "e=6")
    assert words.beside(Settings.of({"a": 1, "b": 2, "c": 3}), first) == ("as the first", "without d")
    assert words.beside(first, first) == ("a=1", "b=2", "c=3", "d=4")
    assert words.beside(Settings.of({"a": 1, "z": 2}), first) == ("a=1", "z=2")
    assert words.beside(Settings(), first) == ("default",)


def test_labels_do_not_overlap() -> None:
    """Labels at nearly the same height are spread evenly, others stay where they are."""
    labels = [Label(y, str(y), Role.BEST) for y in (3.50, 3.51, 3.90)]
    low, middle, high = apart(labels, 1.0)
    assert middle.y - low.y == pytest.approx(LABEL_GAP)
    assert (low.y + middle.y) / 2 == pytest.approx(3.505, abs=1e-3)
    assert high.y == pytest.approx(3.9, abs=1e-9)


@pytest.mark.parametrize(("low", "high", "texts"), [
    (3.3, 4.05, ["3.4", "3.6", "3.8", "4.0"]),
    (0.0, 12.0, ["0", "2", "4", "6", "8", "10", "12"]),
    (0.00101, 0.00139, ["0.0011", "0.0012", "0.0013"]),
    (5.0, 5.0, ["5"]),
])  # fmt: skip
def test_ticks_are_round(low: float, high: float, texts: list[str]) -> None:
    """Ticks are multiples of 1, 2 or 5 inside the axis, with as many decimals as they need."""
    assert [text for _, text in ticks(low, high)] == texts
