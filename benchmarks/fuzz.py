"""What a stranger may send: study definitions, configurations, answers of a child and arrays, mutated at random.

    python benchmarks/fuzz.py definition 100000

Whatever comes, the program answers with a value or with an error of its own, which ends as a sentence. Anything else
that is raised has escaped; it is told with the number that makes the same input again.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rtmo_optuna.child import protocol
from rtmo_optuna.child.launcher import Child, ChildGoneError
from rtmo_optuna.child.measure import Decision, measure
from rtmo_optuna.codec import decode, encode
from rtmo_optuna.engine.inputs import inputs
from rtmo_optuna.errors import UsageError
from rtmo_optuna.samplers.table import SAMPLERS
from rtmo_optuna.space import configfile, definition
from rtmo_optuna.types.measurement import GateMode, GateResult, Measurement, Outcome, OutputError
from rtmo_optuna.types.request import BenchmarkRequest, ModelFacts, SessionSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rtmo_optuna.child.prefork import ChildPool

    Try = Callable[[random.Random, Path], bool]

_PIPE = 60_000
_DEEP = 300
_CONFIG = """# mine
models:
  base: &base {enable_mem_pattern: false, intra_op_num_threads: &two 2}
  pose:
    onnx:
      <<: *base
      inter_op_num_threads: *two
      graph_optimization_level: "ORT_ENABLE_ALL"   # quoted
      benchmark_info: {gpu_name: "Tesla T4", shapes: {input: 1x3x640x640}}
others: [1, 2.5, ~, 'text', {a: b}]
"""
_YAML: tuple[str, ...] = (
    "&a",
    "*a",
    "<<:",
    "? ",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "|\n",
    ">-\n",
    "'",
    '"',
    "#",
    "\t",
    "\r",
    "\n",
    "  ",
)
_YAML += (
    "!!python/object/apply:os.system",
    "!!binary",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "\\ud800",
    "\0",
    "\ufeff",
    "~",
)
_YAML += ("9" * 400, "-1", "1e999", ".nan", "0x", "yes", "null", "[" * _DEEP, "{a: " * _DEEP, "é", "\u2028", "\x85")


@dataclass
class Tally:
    """What became of the inputs; `escaped` are errors that are none of ours, by what they say, with a number each."""

    accepted: int = 0
    refused: int = 0
    escaped: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0


def fuzz(kind: str, count: int, first: int = 0) -> Tally:
    """Return what becomes of `count` inputs of a `kind`, those with the numbers from `first` on."""
    tally, attempt = Tally(), KINDS[kind]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for number in range(first, first + count):
            begun = time.perf_counter()
            try:
                accepted = attempt(random.Random(number), Path(folder))  # noqa: S311 - no secret
            except Exception as error:  # noqa: BLE001 - this is what is counted
                tally.escaped.setdefault(f"{type(error).__name__}: {str(error)[:200]}", number)
            else:
                tally.accepted += accepted
                tally.refused += not accepted
            tally.slowest_s = max(tally.slowest_s, time.perf_counter() - begun)
    return tally


def _bytes(rng: random.Random, data: bytes, words: Sequence[bytes] = ()) -> bytes:
    """Return `data` with a few bytes or words written over, put in, taken out or repeated."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((0, 0, 1, 1, 2, 8, 64)))
        new = rng.choice((rng.randbytes(rng.randint(0, 4)), data[end : end + 40], *words, *words))
        data = data[:start] + new + data[end:]
    return data


def _text(rng: random.Random, text: str) -> bytes:
    return _bytes(rng, text.encode(), [word.encode() for word in _YAML])


def _definition(rng: random.Random, folder: Path) -> bool:
    path = folder / "s.yaml"
    path.write_bytes(_text(rng, rng.choice(_definitions()).read_text(encoding="utf-8")))
    try:
        definition.load(path, samplers=SAMPLERS)
    except UsageError:
        return False
    return True


def _definitions() -> Sequence[Path]:
    return [path for path in definition.shipped() if path.stem in {"cpu", "realtime", "throughput"}]


def _configuration(rng: random.Random, folder: Path) -> bool:
    path = folder / "config.yaml"
    path.write_bytes(_text(rng, _CONFIG))
    settings = {"intra_op_num_threads": 4, "enable_mem_pattern": True}
    try:
        found = configfile.read(path, "cpu", rng.choice(("", "", "models.pose.onnx", "others", "new.place")))
        configfile.read_info(path)
        backup = configfile.write(found, settings, {"gpu_name": "A100", "shapes": {"x": "1x2"}})
        if backup:
            backup.unlink()
        again = configfile.read(path, "cpu", found.target).held
    except UsageError:
        return False
    lost = settings.items() - again.items()
    if lost:
        message = f"Written, but not read back: {lost}"
        raise AssertionError(message)
    return True


class _Peer(Child):
    """A child of which all that it says is known beforehand, in a pipe of this process."""

    def __init__(self, said: bytes) -> None:
        self.started_ns, self.ended_ns, self._pending = time.perf_counter_ns(), None, bytearray()
        self._answers, write_end = os.pipe()
        with os.fdopen(write_end, "wb") as answers:
            answers.write(said[:_PIPE])

    @property
    def pid(self) -> int:
        return 0

    def send(self, line: bytes) -> None:
        """Take the order, and do nothing about it."""

    def finish(self, limit_s: float) -> None:
        """End at once."""

    def _gone(self) -> ChildGoneError:
        return ChildGoneError("ended")

    def __exit__(self, *_ended: object) -> None:
        os.close(self._answers)


@dataclass(frozen=True)
class _Peers:
    said: bytes

    def take(self, log: Path, until: float = math.inf) -> Child:  # noqa: ARG002 - as the pool is asked
        log.touch()
        return _Peer(self.said)


_GATE = GateResult(
    passed=True,
    mode=GateMode.ELEMENTWISE,
    errors=(OutputError("out", "elementwise", {"norm": (0.001,), "axis 1": (0.1, 0.2)}, {"rows": 3}),),
    warnings=("Few rows.",),
)
_FACTS = ModelFacts(
    (TensorSpec("in", "tensor(float)", (1, "n", None)),), (), 17, {"Conv": 3}, {"CPU": 3}, "cpu", {"onnxruntime": "1"}
)
_ANSWERS: Sequence[protocol.Answer] = (
    protocol.Hello(12),
    protocol.Opened(1000, 10, 2000, {"device_id": "0"}, ("A note.",)),
    protocol.Ran(5000),
    protocol.Gated(encode(_GATE)),
    protocol.Warm(9000, (10, 11, 12), "ab12"),
    protocol.Timed((10, 11, 12), slow=True, spin_ns=4, left_out=1, missed=2),
    protocol.Timed((10, 12)),
    protocol.Timed((11,)),
    protocol.Timed((9,)),
)
_OTHERS = (protocol.Described(_FACTS), protocol.ReferenceMade(finite=True))
_JSON: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**62,
    2**63,
    -(2**63),
    10**19,
    10**400,
    1.5,
    -0.5,
    1e308,
    float("inf"),
    float("nan"),
)
_JSON += (
    "",
    "x",
    "\ud800",
    "\0\x1b[2J",
    "benchmark",
    "failed",
    "window",
    [],
    {},
    [[]],
    {"": []},
    [0] * 999,
    "x" * 5000,
)


def _nested(rng: random.Random, value: Any) -> Any:  # noqa: ANN401 - JSON has no better type
    """Return JSON with one value in it replaced, dropped, doubled, or named otherwise."""
    if isinstance(value, dict) and value and rng.random() < 0.9:  # noqa: PLR2004
        key = rng.choice(list(value))
        return {
            0: {k: v for k, v in value.items() if k != key},
            1: {**value, rng.choice(("", "x", key.upper())): value[key]},
        }.get(rng.randrange(12), {**value, key: _nested(rng, value[key])})
    if isinstance(value, list) and value and rng.random() < 0.7:  # noqa: PLR2004
        place = rng.randrange(len(value))
        return [*value[:place], *([_nested(rng, value[place])] * rng.choice((0, 1, 1, 1, 2))), *value[place + 1 :]]
    return rng.choice(_JSON)


def _line(rng: random.Random, line: bytes) -> bytes:
    if rng.random() < 0.7:  # noqa: PLR2004
        return json.dumps(_nested(rng, json.loads(line))).encode()
    deep = [
        b"[" * _DEEP,
        b'{"a":' * _DEEP,
        b"[" * _DEEP + b"]" * _DEEP,
        b"9" * 5000,
        b"-",
        b"1e999",
        b"NaN",
        b"\\ud800",
    ]
    return _bytes(rng, line, deep).replace(b"\n", b"")


def _protocol(rng: random.Random, folder: Path) -> bool:
    lines = [protocol.dump(answer).rstrip(b"\n") for answer in _ANSWERS]
    place = rng.randrange(len(lines))
    lines[place] = _line(rng, lines[place] if rng.random() < 0.9 else protocol.dump(rng.choice(_OTHERS)))  # noqa: PLR2004
    request = BenchmarkRequest(SessionSpec("m", "cpu"), "in.npz", gate={"baseline": True})
    found = measure(
        request,
        log=folder / "log.txt",
        decide=lambda windows: Decision.ENOUGH if len(windows) == 3 else Decision.GO_ON,  # noqa: PLR2004
        pool=cast("ChildPool", _Peers(b"\n".join(lines) + b"\n")),
    )
    if decode(Measurement, json.loads(json.dumps(encode(found)))).outcome is not found.outcome:
        message = "What was measured cannot be kept."
        raise AssertionError(message)
    found.why.encode()
    _ = [note.encode() for note in found.notes], found.latency_ms and 1e3 / found.latency_ms
    return found.outcome is Outcome.MEASURED


_SPECS = (TensorSpec("x", "tensor(float)", (1, 3, 8)), TensorSpec("n", "tensor(int64)", ("k",)))


def _arrays(rng: random.Random, folder: Path) -> bool:
    stream = io.BytesIO()
    held: dict[str, Any] = {"x": np.zeros((1, 3, 8), np.float32), "n": np.arange(4)}
    single = rng.random() < 0.3  # noqa: PLR2004
    if single:
        np.save(stream, held["x"])
    else:
        np.savez(stream, **held)
    source = folder / f"in.np{'y' if single else 'z'}"
    words = [
        b"'shape': (1, 3, 8)",
        b"'shape': (99999999999, 3)",
        b"'shape': (-1,)",
        b"|O",
        b"<f8",
        b"True",
        b"PK\x01\x02",
    ]
    source.write_bytes(_bytes(rng, stream.getvalue(), words))
    try:
        inputs.prepare(
            _SPECS[:1] if single else _SPECS, source=source, shapes={}, scale=1.0, target=folder / "inputs.npz"
        )
    except UsageError:
        return False
    inputs.load(folder / "inputs.npz")
    return True


KINDS: Mapping[str, Try] = {
    "definition": _definition,
    "configuration": _configuration,
    "protocol": _protocol,
    "arrays": _arrays,
}


def main() -> None:
    """Print what became of the inputs, the slowest of them, and the most memory that was taken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0, help="number of the first input; default: %(default)s")
    args = parser.parse_args()
    begun = time.monotonic()
    tally = fuzz(args.kind, args.count, args.first)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{args.kind}: {args.count} inputs in {time.monotonic() - begun:.0f} s, {tally.accepted} accepted, "
        f"{tally.refused} refused, {len(tally.escaped)} kinds of errors escaped; slowest {tally.slowest_s:.2f} s, "
        f"{memory:.0f} MB"
    )
    for error, number in tally.escaped.items():
        print(f"  {number}: {error}")


if __name__ == "__main__":
    main()
