"""What a picture costs as an array and as pixels, and a frame from the camera to people, against the default session.

    python benchmarks/bench_frames.py models/rtmo-s.onnx --input models/rtmo-s.npz --output frames.json
    python benchmarks/bench_frames.py models/rtmo-t.onnx --input models/rtmo-t.npz --provider cpu --seconds 1

All ways run in one process, as `bench_runtime.py speed` runs them: short windows in rounds, another order each time. On
a GPU the sessions are cut and captured, convolutions channels-last, in float32 and float16. With rtmlib installed, a
frame of 1920 x 1080 is taken through rtmlib: on its own session, and on ours (`adapt`). A row of frames is timed as a
whole: one after the other, and submitted, two under way.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from answers import FAST, HOST, feed_of, spec_of
from bench_runtime import measure, table, where
from rtmo_optuna.engine import ort
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.engine.letterbox import letterbox, resize
from rtmo_optuna.engine.preparing import prepare
from rtmo_optuna.types.request import Pixels

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from numpy.typing import NDArray

    Call = Callable[[], object]

FRAME = (1080, 1920, 3)
ROW = 8
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {"float32": {}},
    "cuda": {"float32": {**FAST, **HOST}, "float16": {**FAST, **HOST, "precision": "float16"}},
}


def ways(args: argparse.Namespace) -> dict[str, Call]:
    """Return all ways of calling, by name."""
    ((name, array),) = feed_of(args.input, 1).items()
    spec = partial(spec_of, args.model, provider=args.provider, shapes={name: array.shape})
    picture = np.ascontiguousarray(array[0].transpose(1, 2, 0)).astype(np.uint8)
    frame = np.empty(FRAME, np.uint8)
    resize(picture, frame)
    calls: dict[str, Call] = {"default": partial(Session(spec({})).run, None, {name: array})}
    size = picture.shape[:2]
    calls |= through_rtmlib("rtmlib, its own session", args, size, frame)
    for precision, settings in SETTINGS[args.provider].items():
        session = Session(spec(settings))
        calls[f"{precision}, array"] = partial(session.run, None, {name: array})
        calls[f"{precision}, page-locked array"] = partial(session.run, None, {name: filled(session, name, array)})
        session = Session(replace(spec(settings), pixels=Pixels(name)))
        calls[f"{precision}, pixels"] = partial(session.run, None, {name: picture})
        calls[f"{precision}, page-locked pixels"] = partial(session.run, None, {name: filled(session, name, picture)})
        one = calls[f"{precision}, from a frame"] = from_frame(session, name, frame)
        calls[f"{precision}, {ROW} frames, one after the other"] = partial(repeated, one)
        calls[f"{precision}, {ROW} frames, submitted"] = submitted(session, name, frame)
        calls |= through_rtmlib(f"{precision}, rtmlib on our session", args, size, frame, session)
    return calls


def filled(session: Session, name: str, given: NDArray[Any]) -> NDArray[Any]:
    """Return an input buffer that holds `given`."""
    buffer = session.input_buffer(name)
    buffer[...] = given
    return buffer


def from_frame(session: Session, name: str, frame: NDArray[np.uint8]) -> Call:
    """Return what scales a frame into the session's buffer and runs it."""
    buffer = session.input_buffer(name)

    def call() -> object:
        letterbox(frame, buffer)
        return session.run(None, {name: buffer})

    return call


def submitted(session: Session, name: str, frame: NDArray[np.uint8]) -> Call:
    """Return what submits a row of frames, each while the one before is under way, in two buffers by turns."""
    buffers = [session.input_buffer(name) for _ in range(2)]

    def call() -> object:
        waiting: list[Future[Any]] = []
        for number in range(ROW):
            if number > 1:
                waiting[number - 2].result()
            letterbox(frame, buffers[number % 2])
            waiting.append(session.submit(buffers[number % 2]))
        return [future.result() for future in waiting]

    return call


def repeated(call: Call) -> None:
    """Call it for a row of frames."""
    for _ in range(ROW):
        call()


def through_rtmlib(
    way: str, args: argparse.Namespace, size: tuple[int, ...], frame: NDArray[np.uint8], session: Session | None = None
) -> dict[str, Call]:
    """Return rtmlib's estimator on a frame, on `session` where one is given; nothing where rtmlib is not installed."""
    try:
        from rtmlib import RTMO  # noqa: PLC0415 - not installed everywhere
    except ImportError:
        return {}
    client = RTMO(str(args.model), model_input_size=size, score_thr=0.3, device=args.provider)
    if session:
        prepare(client, session)
        client.session = session
    return {way: partial(client, frame)}


def main() -> None:
    """Print the table, and write it with --output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--input", type=Path, required=True, help="arrays (.npz), its first sample is taken")
    parser.add_argument("--provider", choices=SETTINGS, default="cuda")
    parser.add_argument("--seconds", type=float, default=3.0, help="of windows for each way; default: %(default)s")
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    rows = measure(ways(args), args.seconds)
    print(f"\n{args.model.name}, {where(args.provider)}\n{table(rows)}")
    if args.output:
        told = {
            "machine": where(args.provider),
            "versions": ort.load(args.provider).versions(),
            "model": args.model.name,
            "rows": [asdict(row) for row in rows],
        }
        args.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
