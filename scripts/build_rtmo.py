"""Write an RTMO pose network as an ONNX file, with random weights, and an input on which it finds people.

RTMO (arXiv 2312.07526) with the layers and the shapes of its published deployment graphs, so that it costs what they
cost, but without their weights, so that nothing has to be downloaded. The weights are drawn and scaled layer by layer
while the network is run on the input that is written along, so that whatever flows is of the order of one; then the
scores are shifted so that the input holds as many people as wanted. Takes onnx and NumPy alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt
import onnx

from rtmo_graph.backbone import backbone
from rtmo_graph.graph import CONSTANT_PREFIX, Dimension, Graph, Tensor
from rtmo_graph.head import head, priors
from rtmo_graph.neck import neck
from rtmo_graph.picture import letterboxed_picture
from rtmo_graph.sizes import KEYPOINTS, SIZES
from rtmo_graph.styles import STYLES
from rtmo_graph.suppression import MOST_KEPT

if TYPE_CHECKING:
    from collections.abc import Sequence

PEOPLE = 38
_EXPORTED = {11: "exported", 17: "opset17"}
"""Styles by the opset in which PyTorch exports them."""


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A network and something to run it on."""

    model: onnx.ModelProto
    """Input `input`; outputs `dets` and `keypoints`, or the dense predictions if raw."""
    image: npt.NDArray[np.float32]
    """[1, 3, side, side], blue, green, red from 0 to 255, padded with 114 below."""


def build(
    size: str,
    *,
    seed: int = 0,
    raw: bool = False,
    dynamic: bool | None = None,
    people: int = PEOPLE,
    style: str = "plain",
) -> BuiltModel:
    """Build RTMO-`size` ("t", "s", "m" or "l"), which finds `people` (1 to 50) people in the image that comes with it.

    The whole model has the outputs `dets` [batch, kept, 5] (left, top, right, bottom in pixels, and score) and
    `keypoints` [batch, kept, 17, 3] (x, y in pixels, and visibility), with the people first and, where there is room, a
    row of padding after them, which scores less than 0.1. With `raw` it ends before the non-maximum suppression, with
    the outputs `boxes` [batch, priors, 4], `scores` [batch, priors, 1], `pose` [batch, priors, channels] and
    `visibility` [batch, priors, 17]; up to there it is the whole model, weights and names included.

    The `style` is "plain", in as few nodes as do; "exported", as PyTorch exports RTMO at opset 11, with all arithmetic
    with shapes; or "opset17", as it does at opset 17. With `dynamic` the batch has any size, else 1: plain models are
    either, of 1 by default, exported ones are dynamic, those of opset 17 are not. Equal arguments give equal weights on
    one machine, and other styles the same up to rounding; another machine, or another number of threads for NumPy, may
    round them differently. Raises KeyError for an unknown size or style, ValueError where they do not go together.
    """
    spec, written = SIZES[size], STYLES[style]
    dynamic = min(written.batches) if dynamic is None else dynamic
    if dynamic not in written.batches or (raw and style != "plain"):
        message = f"There is no model of style {style} with raw={raw} and dynamic={dynamic}."
        raise ValueError(message)
    picture_rng, weight_rng = np.random.default_rng(seed).spawn(2)
    image = letterboxed_picture(spec.side, picture_rng)
    batch: Dimension = "batch" if dynamic else 1

    graph = Graph(weight_rng, written.dialect)
    x = graph.input("input", image, [batch, *image.shape[1:]])
    maps = neck(graph, spec, backbone(graph, spec, x, written.focus), written.mix)
    predictions = head(graph, spec, maps, people, flatten=written.flatten, corners=written.corners)
    outputs: list[tuple[Tensor, Sequence[Dimension]]]
    if raw:
        count = len(priors(spec)[0])
        outputs = [
            (predictions.boxes, [batch, count, 4]),
            (predictions.scores, [batch, count, 1]),
            (predictions.pose, [batch, count, spec.pose]),
            (predictions.visibility, [batch, count, KEYPOINTS]),
        ]
    else:
        detections, keypoints = written.tail(graph, spec, predictions, dynamic=dynamic)
        outputs = [(detections, [batch, "kept", written.detection]), (keypoints, [batch, "kept", KEYPOINTS, 3])]
    return BuiltModel(graph.model(outputs), image)


def count_parameters(model: onnx.ModelProto) -> int:
    """How many trained numbers a model of `build` has: position encodings, tables of priors and the like left out."""
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer} | {
        node.output[0]: node.attribute[0].t.dims for node in model.graph.node if node.op_type == "Constant"
    }
    return sum(math.prod(dims) for name, dims in sizes.items() if not name.startswith(CONSTANT_PREFIX))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; whatever is wrong with it ends the program with one line and status 2."""
    parser = _Parser(
        description="Write an RTMO pose network with random weights as an ONNX file, "
        "and an image in which it finds people as an .npz file."
    )
    parser.add_argument("size", choices=SIZES, help="size of the network; t takes 416x416 pixels, the others 640x640")
    parser.add_argument("--output", type=Path, metavar="FILE.onnx", help="model to write (default: rtmo-SIZE.onnx)")
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE.npz",
        help="image to write, under the name `input` (default: beside the model)",
    )
    parser.add_argument("--raw", action="store_true", help="end before NonMaxSuppression, with outputs of fixed shapes")
    parser.add_argument("--dynamic", action="store_true", help="take any number of images at once, not one")
    parser.add_argument(
        "--exported",
        action="store_true",
        help="write the graph as PyTorch exports it, with all its arithmetic with shapes, for any number of images",
    )
    parser.add_argument(
        "--opset",
        type=int,
        choices=sorted(_EXPORTED),
        help="opset of what is written as PyTorch exports it: 11 (default), or 17, for one image",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the weights and of the image (default: %(default)s)"
    )
    parser.add_argument(
        "--people", type=int, default=PEOPLE, help=f"people in the image, 1 to {MOST_KEPT} (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    options.output = options.output or Path(f"rtmo-{options.size}.onnx")
    options.input = options.input or options.output.with_suffix(".npz")
    for path, suffix in ((options.output, ".onnx"), (options.input, ".npz")):
        if path.suffix != suffix:
            parser.error(f"{path} has to end in {suffix}.")
        if not path.parent.is_dir():
            parser.error(f"there is no folder {path.parent} to write {path.name} to.")
    options.style = _EXPORTED[options.opset or 11] if options.exported or options.opset else "plain"
    if options.raw and options.style != "plain":
        parser.error("--raw ends before what --exported and --opset are about: leave it out, or leave them out.")
    if options.dynamic and True not in STYLES[options.style].batches:
        parser.error(f"--dynamic does not go with --opset {options.opset}, which is for one image.")
    if options.seed < 0:
        parser.error(f"--seed has to be 0 or more, not {options.seed}.")
    if not 1 <= options.people <= MOST_KEPT:
        parser.error(f"--people has to be from 1 to {MOST_KEPT}, not {options.people}.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _options(arguments)
    built = build(
        options.size,
        seed=options.seed,
        raw=options.raw,
        dynamic=options.dynamic or None,
        people=options.people,
        style=options.style,
    )
    try:
        onnx.save(built.model, options.output)
        np.savez_compressed(options.input, input=built.image)
    except OSError as error:
        print(f"build_rtmo.py: {error.filename} cannot be written: {error.strerror}.", file=sys.stderr)
        raise SystemExit(2) from error
    print(f"{options.output}: RTMO-{options.size}, {count_parameters(built.model):,} parameters")
    print(f"{options.input}: an image of {options.people} people")


if __name__ == "__main__":
    main()
