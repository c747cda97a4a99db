"""How clients make an array of a frame, and what takes the place of that where a session takes pixels.

Each keeps its own geometry, so that it finds the same people: rtmlib pads to the right and below, as `letterbox` does,
rtmo-ort on all sides or not at all.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from rtmo_optuna.engine.letterbox import letterbox
from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from rtmo_optuna.engine.dropin import Session

    Pixels = NDArray[np.uint8]
    Methods = Mapping[str, Callable[..., Any]]


def prepare(client: Any, session: Session) -> None:  # noqa: ANN401 - an object of any library
    """Give `client`, of a class in `PREPARING`, methods that feed `session` what it takes: the client's own, or ours.

    Raises UsageError where the session takes pixels and the client is of another class, or normalises pictures
    otherwise, or has them of another size. The client is left as it was then.
    """
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(client).__mro__]
    known = next((PREPARING[kind] for kind in kinds if kind in PREPARING), None)
    if session.pixels and known is None:
        raise UsageError(
            f"A {type(client).__qualname__} makes arrays of its frames, and these settings are for a session that "
            "takes pixels: tune without --pixels for it."
        )
    methods = known(client, session) if known and session.pixels else {}
    for name in _METHODS:
        client.__dict__.pop(name, None)
    client.__dict__.update(methods)


class _Buffer(threading.local):
    """A picture of a session's input for each thread, since clients may be called in several."""

    def __init__(self, session: Session, height: int, width: int) -> None:
        """Have pictures of that size; raise UsageError where the session takes another one."""
        self.input = session.pixels.input if session.pixels else ""
        self.picture: Pixels = session.input_buffer(self.input, (height, width, 3))


def _rtmlib(client: Any, session: Session) -> Methods:  # noqa: ANN401
    pixels, plain = session.pixels, client.mean is None
    wanted = ((0.0,) * 3, (1.0,) * 3) if plain else (tuple(map(float, client.mean)), tuple(map(float, client.std)))
    if pixels and (pixels.scale, pixels.mean, pixels.std) != (1.0, *wanted):
        raise UsageError(
            f"This {type(client).__qualname__} normalises pictures by mean {wanted[0]} and std {wanted[1]}, and the "
            f"session by scale {pixels.scale}, mean {pixels.mean} and std {pixels.std}: tune with those of the client."
        )
    buffer = _Buffer(session, *client.model_input_size[:2])

    def preprocess(image: Pixels) -> tuple[Pixels, float]:
        return buffer.picture, letterbox(np.ascontiguousarray(image), buffer.picture)

    def inference(picture: Pixels) -> list[NDArray[Any]]:
        return session.run(None, {buffer.input: picture})

    return {"preprocess": preprocess, "inference": inference}


def _rtmo_ort(client: Any, session: Session) -> Methods:  # noqa: ANN401
    own: Any = sys.modules["rtmo_ort.estimator"]
    buffer = _Buffer(session, client.size, client.size)

    def preprocess(image: Pixels) -> tuple[Pixels, dict[str, Any]]:
        told: dict[str, Any] = {"orig": image.shape[1::-1]}
        if client.letterbox:
            made, scale, pad = own._letterbox(image, client.size)  # noqa: SLF001 - its geometry
            told |= {"mode": "letterbox", "scale": scale, "pad": pad}
        else:
            made, scales = own._resize_stretch(image, client.size)  # noqa: SLF001
            told |= {"mode": "stretch", "scale_xy": scales}
        buffer.picture[...] = made
        return buffer.picture, told

    return {"_preprocess": preprocess}


PREPARING: Mapping[str, Callable[[Any, Session], Methods]] = {
    "rtmlib.tools.pose_estimation.rtmo.RTMO": _rtmlib,
    "rtmo_ort.estimator.PoseEstimatorORT": _rtmo_ort,
}
"""What makes the methods of a client, and of those that inherit from its class. Read in the versions of `CLIENTS`."""
_METHODS = ("preprocess", "inference", "_preprocess")
