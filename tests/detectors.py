"""Small detectors that are no RTMO, with the suppression inside as other exporters write it, and pictures for them.

Both see bright squares on black: a square is an object, black is nothing, and noise is many.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

import models

SIDE = 128
BOXES = (SIDE // 8) ** 2 + (SIDE // 16) ** 2
CLASSES = 3
_CHANNELS, _MASKS = 16, 8
_BIAS = -6.0
"""Of a score's logit: black scores 0.002."""


def pictures() -> dict[str, NDArray[np.float32]]:
    """Inputs [1, 3, 128, 128] by what they show."""
    noise = np.random.default_rng(0).random((1, 3, SIDE, SIDE), np.float32)
    squares = {name: _squares(count) for name, count in {"nothing": 0, "one": 1, "some": 4, "one again": 1}.items()}
    return {**squares, "noise": 1.5 * noise, "dim noise": noise / 8}


def _squares(count: int) -> NDArray[np.float32]:
    """Squares side by side, one less bright than the other, so that none scores as another does."""
    picture = np.zeros((1, 3, SIDE, SIDE), np.float32)
    for place in range(count):
        top, left = (56 * step + 12 for step in divmod(place, 2))
        picture[..., top : top + 16, left : left + 16] = 1 - 0.03 * place
    return picture


class _Network:
    """Nodes and weights in the order in which they were added; weights as initializers, constants as PyTorch's."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self._random = np.random.default_rng(1)

    def op(self, kind: str, inputs: str, output: str, **attributes: Any) -> str:  # noqa: ANN401 - ONNX's own
        """Add a node; the names of its inputs are separated by blanks. Return its output."""
        self.nodes.append(helper.make_node(kind, inputs.split(), [output], output, **attributes))
        return output

    def constant(self, name: str, *values: float, scalar: bool = False) -> str:
        """Add a constant: integers as int64, else float32."""
        array = np.array(values[0] if scalar else values)
        self.weights[name] = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return name

    def conv(self, x: str, name: str, channels: tuple[int, int], *, scale: float, stride: int = 1) -> str:
        """Convolve, 3x3 with a stride, by weights that are mostly positive: what is bright stays bright."""
        kernel = 1 if stride == 1 else 3
        drawn = self._random.uniform(-0.2, 1.0, (channels[1], channels[0], kernel, kernel))
        self.weights[f"{name}.w"] = (scale * drawn / drawn[0].size).astype(np.float32)
        pads = [kernel // 2] * 4
        return self.op("Conv", f"{x} {name}.w", name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def backbone(self) -> list[tuple[str, int]]:
        """Maps of the input `images`, at strides 8 and 16."""
        x, maps = "images", []
        for depth, channels in enumerate([(3, _CHANNELS), *[(_CHANNELS, _CHANNELS)] * 3]):
            y = self.conv(x, f"conv{depth}", channels, scale=4.0, stride=2)
            x = self.op("Mul", f"{y} {self.op('Sigmoid', y, f'sigmoid{depth}')}", f"silu{depth}")
            maps.append((x, 2 ** (depth + 1)))
        return maps[2:]

    def predictions(self, numbers: int) -> str:
        """[1, boxes, 4 + numbers] of both maps: centre and sides in pixels, and so many logits."""
        levels = []
        for x, stride in self.backbone():
            count = SIDE // stride
            raw = self.conv(x, f"head{stride}", (_CHANNELS, 4 + numbers), scale=8.0)
            flat = self.op("Reshape", f"{raw} {self.constant(f'flat{stride}', 1, 4 + numbers, count**2)}", f"f{stride}")
            rows = self.op("Transpose", flat, f"rows{stride}", perm=[0, 2, 1])
            self.op("Split", f"{rows} {self.constant(f'parts{stride}', 2, 2, numbers)}", f"xy{stride}", axis=2)
            self.nodes[-1].output.extend([f"wh{stride}", f"logits{stride}"])
            y, x_ = np.mgrid[:count, :count] * stride + stride / 2
            self.weights[f"grid{stride}"] = np.stack([x_.ravel(), y.ravel()], axis=1).astype(np.float32)[None]
            centre = self.op("Add", f"{self.op('Tanh', f'xy{stride}', f't{stride}')} grid{stride}", f"centre{stride}")
            sides = self.op("Exp", self.op("Tanh", f"wh{stride}", f"u{stride}"), f"e{stride}")
            sides = self.op("Mul", f"{sides} {self.constant(f'anchor{stride}', 2.0 * stride)}", f"sides{stride}")
            levels.append(self.op("Concat", f"{centre} {sides} logits{stride}", f"level{stride}", axis=2))
        return self.op("Concat", " ".join(levels), "predictions", axis=1)

    def decoded(self, numbers: int) -> tuple[str, str]:
        """Left, top, right, bottom [1, boxes, 4] and logits [1, boxes, numbers]."""
        self.op("Split", f"{self.predictions(numbers)} {self.constant('parts', 4, numbers)}", "xywh", axis=2)
        self.nodes[-1].output.append("logits")
        half = np.array([[1, 0, -0.5, 0], [0, 1, 0, -0.5], [1, 0, 0.5, 0], [0, 1, 0, 0.5]], np.float32)
        self.weights["convert"] = half.T
        return self.op("MatMul", "xywh convert", "boxes"), "logits"

    def suppress(self, boxes: str, scores: str, name: str, overlap: float) -> str:
        """Image, class and box [found, 3] of what is left, at most 100 of a class."""
        limits = " ".join(
            self.constant(f"{name}.{limit}", value)
            for limit, value in (("most", 100), ("overlap", overlap), ("score", 0.25))
        )
        return self.op("NonMaxSuppression", f"{boxes} {scores} {limits}", name)

    def chosen(self, selected: str, name: str) -> str:
        """Image and box [found, 2] of what a suppression left, as PyTorch picks the columns apart."""
        columns = []
        for column, number in (("image", 0), ("box", 2)):
            index = self.constant(f"{name}.{column}.index", number, scalar=True)
            picked = self.op("Gather", f"{selected} {index}", f"{name}.{column}", axis=1)
            axis = self.constant(f"{name}.{column}.axis", 1)
            columns.append(self.op("Unsqueeze", f"{picked} {axis}", f"{name}.{column}.column"))
        return self.op("Concat", " ".join(columns), f"{name}.places", axis=1)

    def save(self, path: Path, outputs: dict[str, tuple[int | str, ...]]) -> Path:
        """Write the model, with float32 outputs of these shapes."""
        floats = TensorProto.FLOAT
        gives = {name: (floats, shape) for name, shape in outputs.items()}
        return models.save(path, self.nodes, {"images": (floats, (1, 3, SIDE, SIDE))}, gives, self.weights)


def end_to_end(path: Path) -> Path:
    """Write a detector as YOLOv7 exports it end to end: classes kept apart by moving their boxes, rows of 7 numbers.

    `output` [found, 7] is image, box, class and score; `masks` [found, 16, 16], 0 to 1, show what was found, made
    from coefficients of each box and prototypes of the whole picture, as detectors that segment do.
    """
    net = _Network()
    boxes, logits = net.decoded(CLASSES + _MASKS)
    net.op("Split", f"{logits} {net.constant('kinds', CLASSES, _MASKS)}", "labels", axis=2)
    net.nodes[-1].output.append("coefficients")
    scores = net.op("Sigmoid", net.op("Add", f"labels {net.constant('bias', _BIAS)}", "shifted"), "scores")
    best = net.op("ReduceMax", scores, "best", axes=[2], keepdims=1)
    label = net.op("ArgMax", scores, "label", axis=2, keepdims=1)
    kind = net.op("Cast", label, "kind", to=TensorProto.FLOAT)
    apart = net.op("Mul", f"{kind} {net.constant('width', 640.0, scalar=True)}", "apart")
    moved = net.op("Add", f"{boxes} {apart}", "moved")
    by_class = net.op("Transpose", best, "by_class", perm=[0, 2, 1])
    places = net.chosen(net.suppress(moved, by_class, "selected", 0.1), "selected")

    rows = [net.op("GatherND", f"{x} {places}", f"{x}.kept") for x in (boxes, kind, best, "coefficients")]
    image = net.op("Cast", "selected.image.column", "image", to=TensorProto.FLOAT)
    net.op("Concat", f"{image} {rows[0]} {rows[1]} {rows[2]}", "output", axis=1)

    prototypes = net.conv("silu2", "prototypes", (_CHANNELS, _MASKS), scale=8.0)
    flat = net.op("Reshape", f"{prototypes} {net.constant('flat', _MASKS, (SIDE // 8) ** 2)}", "flat_prototypes")
    mixed = net.op("MatMul", f"{rows[3]} {flat}", "mixed")
    found = net.op("Gather", f"{net.op('Shape', mixed, 'mixed.shape')} {net.constant('first', 0)}", "found", axis=0)
    shape = net.op("Concat", f"{found} {net.constant('square', SIDE // 8, SIDE // 8)}", "mask_shape", axis=0)
    net.op("Sigmoid", net.op("Reshape", f"{mixed} {shape}", "square_masks"), "masks")
    return net.save(path, {"output": ("found", 7), "masks": ("found", SIDE // 8, SIDE // 8)})


def two_suppressions(path: Path) -> Path:
    """Write a detector of two classes, each with a suppression of its own; `detections` [found, 6] are both's, joined.

    A row is box, score and class. `areas` [found] is computed from all of them, `best` [1, boxes] before.
    """
    net = _Network()
    boxes, logits = net.decoded(2)
    scores = net.op("Sigmoid", net.op("Add", f"{logits} {net.constant('bias', _BIAS)}", "shifted"), "scores")
    net.op("ReduceMax", scores, "best", axes=[2], keepdims=0)
    rows = []
    for kind, overlap in enumerate((0.1, 0.3)):
        own = net.op("Gather", f"{scores} {net.constant(f'kind{kind}', kind)}", f"scores{kind}", axis=2)
        by_class = net.op("Transpose", own, f"by_class{kind}", perm=[0, 2, 1])
        name = f"selected{kind}"
        places = net.chosen(net.suppress(boxes, by_class, name, overlap), name)
        box, score = (net.op("GatherND", f"{x} {places}", f"{x}.{kind}") for x in (boxes, own))
        label = net.op("Mul", f"{score} {net.constant(f'none{kind}', 0.0)}", f"none.{kind}")
        label = net.op("Add", f"{label} {net.constant(f'label{kind}', float(kind))}", f"label.{kind}")
        rows.append(net.op("Concat", f"{box} {score} {label}", f"rows{kind}", axis=1))
    net.op("Concat", " ".join(rows), "detections", axis=0)
    net.op("Split", f"detections {net.constant('corners', 2, 2, 2)}", "low", axis=1)
    net.nodes[-1].output.extend(["high", "rest"])
    sides = net.op("Relu", net.op("Sub", "high low", "difference"), "sides")
    net.op("ReduceProd", sides, "areas", axes=[1], keepdims=0)
    return net.save(path, {"detections": ("found", 6), "areas": ("found",), "best": (1, BOXES)})
