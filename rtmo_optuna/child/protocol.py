"""The one JSON codec between parent and child: a request, then a line for each answer.

The request goes to the child's stdin, followed by `next N` for each window, of at most N calls, and `stop`. The answers
come back on a file descriptor of their own, since native libraries print to stdout.
"""

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from rtmo_optuna.codec import decode, encode
from rtmo_optuna.types.placement import Placement
from rtmo_optuna.types.request import BenchmarkRequest, ModelFacts, SessionSpec, Stage

VERSION = 3
MISFITS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What comes of reading JSON that a stranger wrote as one of our types."""
_NEXT = b"next"
_MOST = 1 << 63
_MOST_DIGITS = 20
_MOST_PARTS = 100_000
STOP = b"stop\n"


class ProtocolError(Exception):
    """A line that no peer of this version writes."""


class Blame(enum.StrEnum):
    """Who has to change something after a failure: the user's input, the settings, the host, or nobody knows."""

    INPUT = "input"
    HOST = "host"
    SETTINGS = "settings"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """Open the model with these settings and tell its signature, operators and node placement."""

    session: SessionSpec


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """Run the model once on every sample and keep the outputs in the file `target` (.npz).

    `gate` are encoded `GateRules` that must fit the outputs, empty where they will not be compared.
    """

    session: SessionSpec
    inputs: str
    target: str
    gate: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """Open the model with these settings and tell which nodes are left to the host, reasons in the log."""

    session: SessionSpec


@dataclass(frozen=True, slots=True)
class InstalledRequest:
    """Load ONNX Runtime with the libraries of a provider and tell what was found."""

    provider: str


@dataclass(frozen=True, slots=True)
class RoundingRequest:
    """Find on the CPU what float16 does to the model on the input, beside its outputs in the file `reference`.

    `gate` are encoded `measurement.GateRules`; `tf32` says whether the default settings multiply in TF32.
    """

    session: SessionSpec
    inputs: str
    reference: str
    gate: Mapping[str, Any]
    tf32: bool = False


Request: TypeAlias = (
    BenchmarkRequest | DescribeRequest | ReferenceRequest | PlacementRequest | InstalledRequest | RoundingRequest
)


@dataclass(frozen=True, slots=True)
class Hello:
    """The child has started and will read its request."""

    pid: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The session stands, its options read back as they were given; `notes` say what does not run as they ask."""

    import_ns: int
    preload_ns: int
    build_ns: int
    provider_options: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ran:
    """The first run is over."""

    first_run_ns: int


@dataclass(frozen=True, slots=True)
class Warm:
    """The warm-up is over; the child waits for its orders. `samples_ns` are the latencies of its calls.

    The hash covers names, types, shapes and bytes of the first sample's outputs.
    """

    warmup_ns: int
    samples_ns: tuple[int, ...]
    outputs_sha256: str


@dataclass(frozen=True, slots=True)
class Timed:
    """One window's latencies; `slow` where no quiet core was to be had.

    `spin_ns` is the shortest spin so far (0: not pinned), `left_out` the number of calls that were disturbed, `missed`
    that of the slots that passed while a call before them ran, where calls begin at a fixed rate.
    """

    samples_ns: tuple[int, ...]
    slow: bool = False
    spin_ns: int = 0
    left_out: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Gated:
    """What the output gate says: an encoded `GateResult`, which a child's start need not know."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """The answer to a DescribeRequest."""

    facts: ModelFacts


@dataclass(frozen=True, slots=True)
class PlacementFound:
    """The answer to a PlacementRequest."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class InstalledFound:
    """The answer to an InstalledRequest: versions, and where each needed library was loaded from ("": not found)."""

    versions: Mapping[str, str]
    libraries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReferenceMade:
    """The answer to a ReferenceRequest: whether all numbers of the outputs are finite."""

    finite: bool


@dataclass(frozen=True, slots=True)
class RoundingFound:
    """The answer to a RoundingRequest: an encoded `measurement.Rounding`."""

    found: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The child cannot go on."""

    stage: Stage
    blame: Blame
    text: str


Answer: TypeAlias = (
    Hello
    | Opened
    | Ran
    | Gated
    | Warm
    | Timed
    | Described
    | ReferenceMade
    | PlacementFound
    | InstalledFound
    | RoundingFound
    | Failed
)

REQUESTS: Mapping[str, type[Request]] = {
    "benchmark": BenchmarkRequest,
    "describe": DescribeRequest,
    "reference": ReferenceRequest,
    "placement": PlacementRequest,
    "installed": InstalledRequest,
    "rounding": RoundingRequest,
}
ANSWERS: Mapping[str, type[Answer]] = {
    "hello": Hello,
    "opened": Opened,
    "ran": Ran,
    "gated": Gated,
    "warm": Warm,
    "timed": Timed,
    "described": Described,
    "reference": ReferenceMade,
    "placement": PlacementFound,
    "installed": InstalledFound,
    "rounding found": RoundingFound,
    "failed": Failed,
}
_KINDS = {kind: name for table in (REQUESTS, ANSWERS) for name, kind in table.items()}

M = TypeVar("M")


def dump(message: Request | Answer) -> bytes:
    """Return `message` as one line."""
    line = {"protocol": VERSION, "kind": _KINDS[type(message)], "body": encode(message)}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def next_window(most_calls: float) -> bytes:
    """Return the order for a window of at most `most_calls` calls; infinity leaves their number to the rules."""
    return b"%b %b\n" % (_NEXT, str(most_calls).encode())


def ordered_calls(line: bytes) -> float | None:
    """Return how many calls the window that `line` orders may have at most; None where it orders none."""
    word, _, most_calls = line.strip().partition(b" ")
    return float(most_calls) if word == _NEXT else None


def load_request(line: bytes) -> Request:
    """Return the request in `line`; raises ProtocolError for anything else."""
    return _read(json.loads, line, REQUESTS)


def load_answer(line: bytes) -> Answer:
    """Return the answer in `line`; raises ProtocolError for anything else, and for what no child can have found.

    A child has run a stranger's model, so its words are believed no further than they can be.
    """
    answer = _read(_stranger, line, ANSWERS)
    fits = _FITS.get(type(answer))
    if fits and not fits(answer):
        raise ProtocolError(f"This is no answer that a child can give: {line[:200]!r}.")
    return answer


def _read(parse: Callable[[bytes], Any], line: bytes, table: Mapping[str, type[M]]) -> M:
    try:
        plain = parse(line)
        if plain["protocol"] != VERSION:
            spoken = f"{plain['protocol']!r:.20}"
            message = f"Protocol {spoken} was spoken, {VERSION} expected: parent and child differ in version."
            raise ProtocolError(message)
        return decode(table[plain["kind"]], plain["body"])
    except MISFITS as error:
        raise ProtocolError(f"This is no line of protocol {VERSION}: {line[:200]!r}.") from error


def _stranger(line: bytes) -> Any:  # noqa: ANN401 - JSON has no better type
    """Return the JSON in `line`; raise ValueError where it would exhaust its reader, or holds half a character."""
    if line.count(b"[") + line.count(b"{") > _MOST_PARTS:
        raise ValueError
    plain = json.loads(line, parse_int=_whole)
    if b"\\u" in line:
        json.dumps(plain, ensure_ascii=False).encode()
    return plain


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS or not -_MOST <= (number := int(digits)) < _MOST:
        raise ValueError
    return number


_FITS: Mapping[type[Answer], Callable[[Any], bool]] = {
    Opened: lambda told: min(told.import_ns, told.preload_ns, told.build_ns) >= 0,
    Ran: lambda told: told.first_run_ns >= 0,
    Warm: lambda told: min(told.warmup_ns, *told.samples_ns, 0) >= 0,
    Timed: lambda told: min(told.samples_ns, default=0) > 0 and min(told.spin_ns, told.left_out, told.missed) >= 0,
    Described: lambda told: "onnxruntime" in told.facts.versions,
}
