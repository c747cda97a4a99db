"""What a comparison came to, as `bench` tells it and keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rtmo_optuna import stats
from rtmo_optuna.show.sections.confirmation import claim_sentence
from rtmo_optuna.types.findings import Claim, Decided
from rtmo_optuna.types.measurement import Measurement
from rtmo_optuna.types.request import Settings
from rtmo_optuna.verbs.circumstances import Circumstances

UNDECIDED = Decided.UNCONFIRMED.value
"""The verdict where the time was up before enough processes had run."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the settings: medians over its processes, in milliseconds and bytes; None where nothing was told.

    `missed` counts, in all processes, the calls of a fixed rate that were due while another one ran.
    """

    settings: Settings
    processes: int
    latency_ms: float | None
    quantiles_ms: Mapping[str, float]
    session_build_ms: float | None
    first_run_ms: float | None
    gpu_memory_bytes: int | None
    missed: int = 0
    processes_ms: tuple[float, ...] = ()
    """The latency of each process."""
    file: str = ""
    """The result that it is read from; empty where it was run now."""

    def __str__(self) -> str:
        """Return the settings, and the file that they are from."""
        return f"{self.settings}{f' ({self.file})' if self.file else ''}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What pairs say: how many times as fast `first` is as `second`, with the 98 % interval, and the verdict.

    `outputs` says whether the outputs are equal to the last bit, or how far apart they are. `slower` is whether the
    first is proven to be slower by more than was asked about; None where that was not asked, or could not be said.
    """

    first: Side
    second: Side
    ratio: float | None
    low: float | None
    high: float | None
    pairs: int
    verdict: str
    sentence: str
    outputs: str
    slower: bool | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """All comparisons of a run, which have their second side in common; of two files, all settings that both have.

    `notes` say what did not run as the settings ask, and what is to be known of the input. `rate_hz` is how many calls
    began each second, None where one followed the other. `slower_by` is the percentage that was asked about.
    """

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    rate_hz: float | None = None
    made_of: Circumstances | None = None
    slower_by: float | None = None

    @property
    def slower(self) -> bool | None:
        """Whether any first side is proven slower by more than was asked about; None where nobody knows."""
        told = {found.slower for found in self.comparisons}
        return True if True in told else None if None in told else False


def comparison(
    told: Claim, first: Side, second: Side, *, outputs: str, asked: Claim | None = None, broken: str = ""
) -> Comparison:
    """Return what the claim `told` says; `asked` is the claim that the first side is slower by more than was asked.

    `broken` is added to a sentence that the time has broken off.
    """
    low, high = told.interval or (None, None)
    sentence = claim_sentence(told, str(told.rival), two_sided=True)
    return Comparison(
        first=first,
        second=second,
        ratio=told.ratio,
        low=low,
        high=high,
        pairs=told.pairs,
        verdict="no proven difference" if told.decided is Decided.UNPROVEN else told.decided.value,
        sentence=f"{told.subject}: {sentence}{broken}",
        outputs=outputs,
        slower=None if asked is None or asked.decided is Decided.UNCONFIRMED else asked.decided is Decided.SLOWER,
    )


def side(settings: Settings, measured: Sequence[Measurement]) -> Side:
    """Return what the processes `measured` of `settings` came to."""
    quantiles = {
        name: round(value / 1e6, 4)
        for name in ("p50", "p90", "p99")
        if (value := stats.middle(m.quantiles_ns.get(name) for m in measured)) is not None
    }
    build, first_run = (
        None if value is None else round(value / 1e6, 2)
        for value in (
            stats.middle(m.stages.build_ns for m in measured),
            stats.middle(m.stages.first_run_ns for m in measured),
        )
    )
    memory = stats.middle(m.gpu_memory_bytes for m in measured)
    return Side(
        settings=settings,
        processes=len(measured),
        latency_ms=stats.middle(m.latency_ms for m in measured),
        quantiles_ms=quantiles,
        session_build_ms=build,
        first_run_ms=first_run,
        gpu_memory_bytes=None if memory is None else int(memory),
        missed=sum(m.missed for m in measured),
        processes_ms=tuple(round(m.latency_ms, 4) for m in measured if m.latency_ms is not None),
    )
