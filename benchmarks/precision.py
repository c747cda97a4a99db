"""What float16 and mixed precision make of models of other people, on pictures: error, and whether the answer changed.

    python benchmarks/precision.py objects 320n.onnx PICTURES...
    python benchmarks/precision.py print det.onnx PICTURES...
    python benchmarks/precision.py lines rec.onnx PICTURES... --detector det.onnx
    python benchmarks/precision.py people rtmo.onnx PICTURES...

Without --provider the rounding is that of casts of our own on the CPU (`engine.rounding`); with `--provider cuda` it is
the GPU's, and calls are timed, median of 50.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper
from scipy import ndimage

from rtmo_optuna.engine import ort, regions, rounding
from rtmo_optuna.engine.gate.detections import intersection_over_union as overlap
from rtmo_optuna.engine.gate.flat import flat
from rtmo_optuna.engine.gate.outputs import judge
from rtmo_optuna.engine.inputs.images import letterboxed
from rtmo_optuna.engine.precision import halved, kept_outputs
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.show.sections.answers import in_words
from rtmo_optuna.types.measurement import GateMode, GateRules
from rtmo_optuna.types.request import SessionSpec, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CALLS = 50
SURE, SAME, INK, PRINT, SPECK = 0.2, 0.45, 0.3, 0.6, 3
"""What nudenet and PP-OCR take for an object, for the same one, for ink, for print, and the least height of it."""
Answer: TypeAlias = Sequence[tuple[int, Any]]
"""What was found: kind and box (left, top, right, bottom) of each, None for a letter, which has no place."""


@dataclass(frozen=True)
class Task:
    """How a model is fed: pixels to [channels, side], `scale` and `shift` of 0 to 255; and what its outputs answer."""

    size: tuple[int, int]
    scale: float
    shift: float
    rgb: bool
    answer: Callable[[Mapping[str, Array]], Answer]

    def tensor(self, pixels: Array) -> Array:
        """Return the input of [height, width, 3] pixels, blue first."""
        tensor = (pixels[..., ::-1] if self.rgb else pixels).transpose(2, 0, 1)[None]
        return np.ascontiguousarray(tensor * np.float32(self.scale) - np.float32(self.shift), np.float32)


def objects(outputs: Mapping[str, Array]) -> Answer:
    """Return class and box of each object that YOLOv8 sees, after suppression."""
    (raw,) = outputs.values()
    corners = np.concatenate([raw[0, :2] - raw[0, 2:4] / 2, raw[0, :2] + raw[0, 2:4] / 2]).T
    scores = np.nan_to_num(raw[0, 4:].T)
    found: list[tuple[int, Array]] = []
    for row in np.argsort(-scores.max(axis=1)):
        label = int(scores[row].argmax())
        if scores[row, label] < SURE:
            break
        if all(kind != label or float(overlap(corners[row], box)) < SAME for kind, box in found):
            found.append((label, corners[row]))
    return found


def inked(outputs: Mapping[str, Array]) -> Answer:
    """Return the box of each piece of print that a map of PP-OCR's detector shows."""
    (raw,) = outputs.values()
    pieces = [piece for piece in ndimage.find_objects(ndimage.label(raw[0, 0] > INK)[0]) if _is_print(raw[0, 0][piece])]
    return [(0, np.array([across.start, down.start, across.stop, down.stop])) for down, across in pieces]


def _is_print(piece: Array) -> bool:
    """Return whether a piece of the map is sure enough and no speck, as PP-OCR decides it."""
    return bool(min(piece.shape) >= SPECK and piece[piece > INK].mean() > PRINT)


def letters(outputs: Mapping[str, Array]) -> Answer:
    """Return the letters of a line, each as its number: the best of each step, repetitions and blanks left out."""
    (raw,) = outputs.values()
    best = raw[0].argmax(axis=1)
    return [(int(one), None) for n, one in enumerate(best) if one and (not n or one != best[n - 1])]


def people(outputs: Mapping[str, Array]) -> Answer:
    """Return the box of each person."""
    dets = next(array for array in outputs.values() if array.shape[-1] == 5)[0]  # noqa: PLR2004 - box and score
    return [(0, row[:4]) for row in dets[dets[:, 4] >= SURE]]


def equal(one: Answer, other: Answer) -> bool:
    """Return whether two answers say the same: as many, each of its kind and, where there are boxes, at its place."""
    if len(one) != len(other) or any(box is None for _, box in one):
        return [label for label, _ in one] == [label for label, _ in other]
    return all(any(a == b and overlap(x, y) >= SAME for b, y in other) for a, x in one)


TASKS = {
    "objects": Task((320, 320), 1 / 255, 0, rgb=True, answer=objects),
    "print": Task((640, 640), 2 / 255, 1, rgb=False, answer=inked),
    "lines": Task((48, 320), 2 / 255, 1, rgb=False, answer=letters),
    "people": Task((640, 640), 1, 0, rgb=False, answer=people),
}


def lines(detector: str, pictures: Sequence[Path]) -> list[Array]:
    """Return the lines of print that a detector finds in pictures, each [48, 320, 3] pixels."""
    from PIL import Image  # noqa: PLC0415 - for lines only

    task, session, cut = TASKS["print"], ort.load("cpu").open(detector, Settings()), []
    for picture in pictures:
        pixels = letterboxed(picture, *task.size, 3)
        (raw,) = session.run(None, {session.get_inputs()[0].name: task.tensor(pixels)})
        for rows, columns in ndimage.find_objects(ndimage.label(raw[0, 0] > INK)[0]):
            if columns.stop - columns.start > 40:  # noqa: PLR2004 - a word, not a stroke
                above = slice(max(0, rows.start - 4), rows.stop + 4)
                line = Image.fromarray(pixels[above, max(0, columns.start - 4) : columns.stop + 4])
                width = min(320, max(1, round(48 * line.width / line.height)))
                canvas = np.full((48, 320, 3), 127, np.uint8)
                canvas[:, :width] = np.asarray(line.resize((width, 48)))
                cut.append(canvas)
    return cut


def planted(model: str) -> str:
    """Return a copy of `model`, beside it, whose middle convolution is scaled by 1e5 and back."""
    whole = onnx.load(model)
    middle = [node for node in whole.graph.node if node.op_type == "Conv"]
    node = middle[len(middle) // 2]
    (name,) = node.output
    place = list(whole.graph.node).index(node) + 1
    for step, (factor, source, target) in enumerate(((1e5, "unscaled", "scaled"), (1e-5, "scaled", ""))):
        whole.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), f"{name}/{factor:g}"))
        ends = [f"{name}/{source}", f"{name}/{factor:g}"], [f"{name}/{target}" if target else name]
        whole.graph.node.insert(place + step, helper.make_node("Mul", *ends, f"{node.name}/{factor:g}"))
    node.output[0] = f"{name}/unscaled"
    path = Path(model).with_suffix(".planted.onnx")
    onnx.save(whole, path)
    return str(path)


def main() -> None:
    """Print a row for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("model")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--detector", help="for lines: the model that finds them")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--plant", action="store_true", help="a scale of 1e5 in the middle of the model, and back")
    args = parser.parse_args()
    task = TASKS[args.task]
    if args.plant:
        args.model = planted(args.model)
    pixels = (
        lines(args.detector, args.pictures)
        if args.detector
        else [letterboxed(picture, *task.size, 3) for picture in args.pictures]
    )
    session = ort.load("cpu").open(args.model, Settings())
    (end,) = session.get_inputs()
    feeds = [{end.name: task.tensor(one)} for one in pixels]
    names = [output.name for output in session.get_outputs()]
    reference = [flat(names, session.run(None, feed)) for feed in feeds]
    rules = GateRules()
    found = rounding.find(Path(args.model), feeds, reference, rules, {}, tf32=True)
    print(f"{args.model}: {len(feeds)} inputs, {sum(len(task.answer(one)) for one in reference)} answers; {found}")
    for precision in filter(None, ("float32", "float16", found.precision)):
        outputs, spent = _outputs(args.model, precision, feeds, args.provider, names)
        told = in_words(judge(reference, outputs, rules))
        changed = sum(not equal(task.answer(a), task.answer(b)) for a, b in zip(reference, outputs, strict=True))
        errors = sorted(_error(a, b) for a, b in zip(reference, outputs, strict=True))
        figures = f"{statistics.median(errors):.2%} | {errors[-1]:.2%} | {changed} of {len(feeds)} | {told}"
        print(f"| {precision} | {figures} | {spent} |", flush=True)


def _error(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """Return the largest error of an output as a whole, relative to its norm."""
    told = judge([wanted], [found], GateRules(GateMode.ELEMENTWISE))
    return max((error.figures["norm"][0] for error in told.errors if "norm" in error.figures), default=math.inf)


def _outputs(
    model: str, precision: str, feeds: Sequence[Mapping[str, Array]], provider: str, names: list[str]
) -> tuple[list[dict[str, Array]], str]:
    """Return the outputs in a precision, and how long a call took where that is a GPU's."""
    if provider == "cpu":
        loaded = onnx.load(model)
        rounded = halved(loaded) if precision != "float32" else frozenset()
        if precision.startswith("mixed"):
            rounded -= kept_outputs(Path(model), regions.read(precision))
        made = rounding.rounded(loaded, rounded, products=precision == "float32")
        session = ort.load("cpu").open(made.SerializeToString(), Settings())
        return [flat(names, session.run(None, dict(feed))) for feed in feeds], ""
    settings = Settings() if precision == "float32" else Settings.of({"precision": precision})
    engine = OnnxRuntimeEngine(SessionSpec(model, provider, settings))
    outputs = [flat(names, engine.run(dict(feed))) for feed in feeds]
    times = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        engine.run(dict(feeds[0]))
        times.append(time.perf_counter() - begun)
    return outputs, f"{1e3 * statistics.median(times):.2f} ms"


if __name__ == "__main__":
    main()
