"""What an input is supposed to be where nobody gives one: sizes for open dimensions, and values for integers.

A model seldom says what it takes. The first guess is what most take; where the model refuses it, others follow, the
sizes that the refusal names before those that were found to be wanted elsewhere.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rtmo_optuna.types.request import TensorSpec

_SINGLE = re.compile(r"^(n|b|bs|bsz|n_?batch\w*|batch\w*|\w+_batch|batch)$", re.IGNORECASE)
_MANY = re.compile(r"node|edge|seq|len|time|frame|token|point|step|sample|atom", re.IGNORECASE)
_STATE = re.compile(r"^(h|c|h_?0|c_?0|h_?n|c_?n)$|state|hidden|cell|memory|initial_[hc]", re.IGNORECASE)
_STATE_RANK = 3
_CLOCK = re.compile(r"\d{4}-\d\d-\d\d .*|\S+\.(cc|h|cpp):\d+|'[^']*'")
_NUMBER = re.compile(r"(?<![\w.])\d{1,5}(?![\w.])")
_MOST_TOLD = 4


@dataclass(frozen=True, slots=True)
class Guess:
    """Sizes of a picture's plane and of other open dimensions that are no batch, and what integers are filled with."""

    size: int = 64
    height: int = 640
    width: int = 640
    integer: int = 1


FIRST = Guess()
_OTHERS = (
    Guess(integer=0),  # an index into an axis of one element
    Guess(size=1),
    Guess(size=1, integer=0),
    Guess(size=640),  # 40 ms of sound at 16 kHz
    Guess(height=48, width=320),  # a line of text
    Guess(height=32, width=320),
    Guess(height=224, width=224),
    Guess(size=16000),  # a second of sound
    Guess(size=2),
)


def others(refusal: str, widths: Sequence[int] = ()) -> Iterator[Guess]:
    """Yield what to try next: sizes in the words of the refusal, the weights' `widths`, then what others wanted."""
    named = dict.fromkeys(int(number) for number in _NUMBER.findall(_CLOCK.sub(" ", refusal)))
    sizes = [size for size in named if size > 1 and size != FIRST.size]
    yield from (Guess(size=size) for size in (*sizes[:_MOST_TOLD], *widths))
    yield from _OTHERS


def is_batch(spec: TensorSpec, axis: int) -> bool:
    """Whether an open dimension that is no picture's height or width counts what is independent: one will do.

    By its name where that tells, else the first dimension, and the second of a recurrent state [layers, batch, size].
    """
    name = spec.shape[axis]
    if isinstance(name, str) and (_SINGLE.search(name) or _MANY.search(name)):
        return bool(_SINGLE.search(name))
    layers = spec.shape[0]
    is_state = len(spec.shape) == _STATE_RANK and isinstance(layers, int) and (layers > 1 or _STATE.search(spec.name))
    return axis == 0 or (axis == 1 and bool(is_state))
