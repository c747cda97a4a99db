"""What verbs answer: frozen records, for people and machines alike. Every field is in docs/json.md."""

from collections.abc import Mapping
from dataclasses import dataclass

from rtmo_optuna.display import without_password
from rtmo_optuna.show.sections.verdict import sentence
from rtmo_optuna.space.benchmark_info import BenchmarkInfo
from rtmo_optuna.space.resolve import size
from rtmo_optuna.types.request import Settings, Value
from rtmo_optuna.types.study import StudyLine
from rtmo_optuna.types.subject import Frozen, Machine
from rtmo_optuna.verbs.prepare import Plan
from rtmo_optuna.verbs.tune import TuneResult, benchmark_of


@dataclass(frozen=True, slots=True)
class Tuned:
    """What is known of a study: of `tune` and of `report`.

    `settings` are the best, None where nothing was measured; `benchmark` is what `config.yaml` is told beside them.
    `config` is the file that they were written to, None where it was left alone, `backup` what it was before.
    """

    study: str
    storage: str
    status: str | None
    sentence: str
    settings: Settings | None
    benchmark: BenchmarkInfo
    trials: int
    model: str
    machine: Machine
    versions: Mapping[str, str]
    report: str
    page: str
    config: str | None = None
    backup: str | None = None
    interrupted: bool = False
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Studies:
    """The studies of a storage; their `best` is that of single trials, in the objective's unit."""

    storage: str
    studies: tuple[StudyLine, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a tune would do: `knobs` to their choices, which make so many `combinations`, and what is left out, and why.

    `settings` are those that `config` holds now.
    """

    study: str
    storage: str
    provider: str
    knobs: Mapping[str, tuple[Value, ...]]
    combinations: int
    left_out: tuple[Frozen, ...]
    warnings: tuple[str, ...]
    trials: int
    timeout_s: float
    rate_hz: float | None
    model: str
    model_sha256: str
    shapes: Mapping[str, tuple[int, ...]]
    machine: Machine
    versions: Mapping[str, str]
    config: str
    settings: Settings
    report: str


def tuned(result: TuneResult) -> Tuned:
    """Return what a tune, or a report, answers."""
    record = result.record
    best = record.verdict.best
    return Tuned(
        study=record.name,
        storage=without_password(record.storage),
        status=None if record.verdict.status is None else record.verdict.status.value,
        sentence=sentence(record),
        settings=best.settings if best else None,
        benchmark=benchmark_of(record),
        trials=len(record.runs),
        model=record.model_path,
        machine=record.machine,
        versions=record.model.versions,
        report=str(result.files[0]),
        page=str(result.files[1]),
        config=None if result.config is None else str(result.config),
        backup=None if result.backup is None else str(result.backup),
        interrupted=result.interrupted,
        undecided=result.undecided,
    )


def planned(plan: Plan) -> Planned:
    """Return what a dry run answers."""
    about = plan.about
    return Planned(
        study=about.name,
        storage=without_password(about.storage),
        provider=about.definition.provider,
        knobs={d.name: tuple(choice.label for choice in d.choices) for d in about.space.dimensions},
        combinations=size(about.space),
        left_out=about.space.left_out,
        warnings=about.warnings,
        trials=about.definition.trials,
        timeout_s=about.definition.timeout_s,
        rate_hz=about.definition.measuring.rate_hz,
        model=about.model_path,
        model_sha256=about.model_sha256,
        shapes=about.inputs.shapes,
        machine=about.machine,
        versions=about.model.versions,
        config=str(plan.config.path),
        settings=plan.config.settings,
        report=str(plan.report),
    )
