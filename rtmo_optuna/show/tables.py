"""The tables of a report as plain rows, to be rendered by whoever needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna import stats
from rtmo_optuna.display import without_password
from rtmo_optuna.show import words
from rtmo_optuna.show.cells import Code, Column, Inline, Table, without_empty
from rtmo_optuna.show.scores import best_title, default_of, differing, effects, objective, score, shortlist, titles
from rtmo_optuna.show.stages import STAGES, TRIALS, spent, study_stages
from rtmo_optuna.show.words import NBSP, change, number
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rtmo_optuna.show.scores import Standing
    from rtmo_optuna.stats import Effect
    from rtmo_optuna.types.measurement import Measurement
    from rtmo_optuna.types.study import StudyRecord, TrialRecord
    from rtmo_optuna.types.subject import GpuState

MOST_SETTINGS = 3
_HOLDS: Mapping[int, str] = {  # nvml.h, nvmlClocksEventReasons; left out are those of a GPU that may go faster
    0x02: "chosen clocks",
    0x04: "the power cap",
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "the power brake",
}
_VERSIONS: Mapping[str, str] = {"onnxruntime": "ONNX Runtime", "cuda": "CUDA", "cudnn": "cuDNN"}


def machine(record: StudyRecord) -> Table:
    """Return what the study ran on, and which model with which input."""
    host, model, inputs = record.machine, record.model, record.inputs
    rate_hz = record.definition.measuring.rate_hz
    rows: list[tuple[str, Inline]] = []
    if host.gpu:
        rows += [("GPU", host.gpu.name), ("GPU memory", words.gib(host.gpu.memory_bytes)), ("Driver", host.gpu.driver)]
    if len(record.gpu_states):
        first, last = map(_state, record.gpu_states)
        rows.append(("GPU at work", f"{first} after the first window, {last} after the last one"))
    rows += [
        ("CPU", host.cpu),
        ("Cores, memory", f"{host.cores}, {words.gib(host.memory_bytes)}"),
        ("System", host.system),
        ("Python", host.python),
        *((_VERSIONS.get(name, name), version) for name, version in model.versions.items()),
        ("Provider", model.provider),
        ("Model", Code(record.model_path)),
        ("SHA-256", Code(record.model_sha256[:16])),
        *((f"Shape of {name}", "x".join(map(str, shape)) or "scalar") for name, shape in inputs.shapes.items()),
        ("Input data", inputs.source),
        ("Nodes", ", ".join(f"{name} {count}" for name, count in model.nodes_by_provider.items()) or "not known"),
        ("Objective", f"{objective(record).name}, {objective(record).unit}"),
        ("Pace", words.pace(rate_hz) if rate_hz is not None else "each call right after the other"),
        ("Fixed in every run", Code(str(record.space.fixed)) if len(record.space.fixed) else "nothing"),
        ("Study", record.name),
        ("Storage", Code(without_password(record.storage))),
    ]
    return Table((Column("What"), Column("Value")), tuple(rows))


def _state(state: GpuState) -> str:
    """Return a clock, a temperature and what holds the clock down, where there is any of them."""
    clock = "clock not known" if state.sm_mhz is None else f"{state.sm_mhz}{NBSP}MHz"
    heat = "" if state.celsius is None else f" at {state.celsius}{NBSP}°C"
    held = [what for bit, what in _HOLDS.items() if state.reasons & bit]
    return f"{clock}{heat}{f' (held down by {words.listed(held)})' if held else ''}"


def ranking(record: StudyRecord) -> Table | None:
    """Return the ten best settings, and the default; None where nothing was measured. Empty columns are left out."""
    listed = shortlist(record)
    if not listed:
        return None
    goal, default = objective(record), score(record, default_of(record))
    latency = goal.name == "latency"
    columns = (
        Column("Rank", number=True),
        Column("Settings", wide=True),
        Column(f"{goal.name}, {goal.unit}", number=True),
        Column("FPS", number=True),
        Column("ms", number=True),
        Column("p90", number=True),
        Column("p99", number=True),
        Column("GPU memory", number=True),
        Column(f"{goal.name} vs default", number=True),
        Column("Note"),
    )
    rows = [
        (
            str(standing.rank),
            Code(str(differing(record, standing.settings))),
            "" if latency else number(standing.score),
            _middle(standing, lambda m: _fps(m) or None, number),
            _middle(standing, lambda m: m.latency_ms, number),
            _middle(standing, lambda m: _ms(m, "p90"), number),
            _middle(standing, lambda m: _ms(m, "p99"), number),
            _middle(standing, lambda m: m.gpu_memory_bytes, words.gib),
            "" if default is None else change(standing.score / default),
            ", ".join(_notes(record, standing)),
        )
        for standing in listed
    ]
    best = frozenset(i for i, s in enumerate(listed) if best_title(record) in titles(record, s.settings))
    return without_empty(Table(columns, tuple(rows), best))


def _ms(measurement: Measurement, name: str) -> float | None:
    value = measurement.quantiles_ns.get(name)
    return None if value is None else value / 1e6


def _fps(measurement: Measurement) -> float:
    return measurement.batch * 1e9 / measurement.latency_ns if measurement.latency_ns else 0.0


def _middle(standing: Standing, read: Callable[[Measurement], float | None], write: Callable[[float], str]) -> str:
    values = [value for trial in standing.trials if (value := read(trial.measurement)) is not None]
    return write(stats.median(values)) if values else ""


def _notes(record: StudyRecord, standing: Standing) -> Iterator[str]:
    yield from (title for title in titles(record, standing.settings))
    if standing.pruned:
        yield f"pruned after {words.count(len(standing.trials[0].measurement.windows_ns), 'window')}"
    if any(trial.measurement.second_ns for trial in standing.trials):
        yield "2 processes"
    if len(standing.trials) > 1:
        yield f"{len(standing.trials)} runs"


def knobs(record: StudyRecord) -> Table | None:
    """Return what each choice does, by knob; None where no two choices can be compared."""
    found = effects(record)
    if not found:
        return None
    goal = objective(record)
    lower = goal.direction == "minimize"
    seen = {(effect.knob, effect.choice) for effect in found} | {(effect.knob, effect.against) for effect in found}
    rows: list[tuple[Inline, ...]] = [
        (
            Code(words.shown(effect.knob, effect.choice)),
            Code(words.choice(effect.against)),
            "" if effect.ratio is None else change(effect.ratio),
            "" if effect.low is None or effect.high is None else f"{change(effect.low)} to {change(effect.high)}",
            str(effect.trials),
            _reading(effect, lower_is_better=lower),
        )
        for effect in found
    ]
    rows += [
        (Code(words.shown(dimension.name, choice.label)), "", "", "", "0", "never measured")
        for dimension in record.space.dimensions
        for choice in dimension.choices
        if (dimension.name, choice.label) not in seen
    ]
    columns = (
        Column("Choice"),
        Column("Against"),
        Column(f"Change of {goal.name}", number=True),
        Column(f"95{NBSP}% interval", number=True),
        Column("Runs", number=True),
        Column("Reading"),
    )
    return Table(columns, tuple(rows))


def _reading(effect: Effect, *, lower_is_better: bool) -> str:
    if effect.ratio is None:
        return "cannot be told apart from other choices"
    if not effect.proven:
        return "not proven"
    return "better" if (effect.ratio < 1) == lower_is_better else "worse"


def left_out(record: StudyRecord) -> Table | None:
    """Return what was not searched on this machine, and why; None where nothing was left out."""
    rows = tuple((Code(frozen.name), words.sentence(frozen.reason)) for frozen in record.space.left_out)
    return Table((Column("Knob or choice"), Column("Reason", wide=True)), rows) if rows else None


def notes(record: StudyRecord) -> Table | None:
    """Return what did not run as the settings asked, the most frequent first; None where all did."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in record.runs:
        for note in trial.measurement.notes:
            groups.setdefault(note, []).append(trial)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    rows = tuple((str(len(trials)), words.sentence(note), _settings(record, trials)) for note, trials in ordered)
    columns = (Column("Runs", number=True), Column("What", wide=True), Column("Settings", wide=True))
    return Table(columns, rows) if rows else None


def failures(record: StudyRecord) -> Table | None:
    """Return the failed runs by stage and reason, the most frequent first; None where none failed."""
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in record.runs:
        if trial.measurement.outcome is Outcome.FAILED:
            stage = trial.measurement.stage
            groups.setdefault((stage.value if stage else "", trial.measurement.reason), []).append(trial)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    rows = tuple(
        (
            str(len(trials)),
            stage,
            words.sentence(reason) or "no reason known",
            _common(record, trials),
            _settings(record, trials),
        )
        for (stage, reason), trials in ordered
    )
    columns = (
        Column("Runs", number=True),
        Column("Stage"),
        Column("Reason", wide=True),
        Column("In common"),
        Column("Settings", wide=True),
    )
    return without_empty(Table(columns, rows)) if rows else None


def _common(record: StudyRecord, trials: list[TrialRecord]) -> Inline:
    """Return what all of several failed settings share."""
    first, *others = (differing(record, trial.settings) for trial in trials)
    shared = Settings(tuple(item for item in first if all(item in set(other) for other in others)))
    return Code(str(shared)) if others and len(shared) else ""


def _settings(record: StudyRecord, trials: list[TrialRecord]) -> tuple[str | Code, ...]:
    shown = [Code(str(differing(record, trial.settings))) for trial in trials[:MOST_SETTINGS]]
    parts = [part for code in shown for part in (code, "; ")][:-1]
    return (*parts, f" and {len(trials) - len(shown)} more") if len(trials) > len(shown) else tuple(parts)


def study_times(record: StudyRecord) -> Table | None:
    """Return the wall time of the study's stages; None where nothing ran beside the trials."""
    stages = study_stages(record)
    total = sum(stage.wall_s for stage in stages)
    if all(stage.name == TRIALS for stage in stages):
        return None
    rows = tuple(
        (
            stage.name,
            str(stage.processes),
            words.seconds(stage.wall_s),
            words.share(stage.wall_s, total),
            words.seconds(stage.wall_s / stage.processes),
        )
        for stage in stages
    )
    columns = (
        Column("Stage of the study"),
        Column("Runs", number=True),
        Column("In all", number=True),
        Column("Share", number=True),
        Column("Mean of a run", number=True),
    )
    return Table(columns, rows)


def times(record: StudyRecord) -> Table | None:
    """Return the wall time of all trials by stage; None where none took any."""
    each = [spent(trial) for trial in record.runs]
    total = sum(sum(one.values()) for one in each)
    if not total:
        return None
    rows = tuple(
        (stage.value, words.seconds(whole), words.share(whole, total), words.seconds(stats.median(some)))
        for stage in STAGES
        if (some := [one[stage] for one in each if one[stage]]) and (whole := sum(some))
    )
    columns = (
        Column("Stage of a trial"),
        Column("In all", number=True),
        Column("Share", number=True),
        Column("Median of a trial", number=True),
    )
    return Table(columns, rows)
