"""Libraries that open an `onnxruntime.InferenceSession` of their own, and where in their objects it lies."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.engine.preparing import prepare
from rtmo_optuna.engine.runtime import open_session
from rtmo_optuna.errors import UsageError
from rtmo_optuna.providers.table import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    Parts = Mapping[str, str]

_ONE = "session"
_TWO_STAGES = {part: f"{part}.session" for part in ("det_model", "pose_model")}

CLIENTS: Mapping[str, Parts] = {
    "rtmlib.tools.base.BaseTool": {_ONE: "session"},
    "rtmlib.tools.solution.animal.Animal": _TWO_STAGES,
    "rtmlib.tools.solution.body.Body": _TWO_STAGES,
    "rtmlib.tools.solution.body_with_feet.BodyWithFeet": _TWO_STAGES,
    "rtmlib.tools.solution.custom.Custom": _TWO_STAGES,
    "rtmlib.tools.solution.hand.Hand": _TWO_STAGES,
    "rtmlib.tools.solution.pose_tracker.PoseTracker": _TWO_STAGES,
    "rtmlib.tools.solution.wholebody.Wholebody": _TWO_STAGES,
    "rtmlib.tools.solution.wholebody3d.Wholebody3d": _TWO_STAGES,
    "rtmo_ort.estimator.PoseEstimatorORT": {_ONE: "sess"},
    "rapidocr_onnxruntime.main.RapidOCR": {
        "text_det": "text_det.infer.session",
        "text_cls": "text_cls.infer.session",
        "text_rec": "text_rec.session.session",
    },
    "rapidocr.main.RapidOCR": {part: f"{part}.session.session" for part in ("text_det", "text_cls", "text_rec")},
}
"""Where the sessions of a client lie, as a path of attributes, by the client's class and the session's part in it.

A class stands for those that inherit from it. Read in rtmlib 0.0.16, rtmo-ort 0.1.0.post1, rapidocr-onnxruntime 1.4.4
and rapidocr 3.10.0.
"""


def adapt(
    client: Any,  # noqa: ANN401 - an object of any library
    config: str | Path = "config.yaml",
    *,
    part: str = "",
    model: str | Path | None = None,
    **opening: Any,  # noqa: ANN401 - of open_session
) -> Session:
    """Put a session with the settings that `config` holds in place of the client's own; return it.

    `client` is an object of one of the classes in `CLIENTS`, ready to run. `part` says which of its sessions, where it
    has several. `model` is the path of the ONNX file, by default that which the client has opened; `opening` is what
    `open_session` takes as well. A session that takes pixels has the client's frames written into its input, see
    `preparing`.

    Raises UsageError for an unknown client or part, for one that does not run ONNX Runtime, where the model's path is
    not known, and as `open_session` does. The client is left as it was then.
    """
    holder, attribute = _place(client, part)
    name, old = type(client).__qualname__, getattr(holder, attribute, None)
    if not isinstance(old, (ort.load(REFERENCE).ort.InferenceSession, Session)):
        message = (
            f"What this {name} runs is a {type(old).__module__}.{type(old).__qualname__}, no "
            "onnxruntime.InferenceSession: make it with its ONNX Runtime backend, and call it once if it loads late."
        )
        raise UsageError(message)
    path = model or getattr(old, "_model_path", None)  # InferenceSession's; None where it was opened from bytes
    if not path or not Path(path).is_file():
        found = f"it opened {path}, which is not there" if path else "it opened it from memory"
        message = f"The model of this {name} is not known as a file ({found}): say model='path/to/model.onnx'."
        raise UsageError(message)
    session = open_session(path, config, **opening)
    prepare(holder, session)
    setattr(holder, attribute, session)
    return session


def _place(client: Any, part: str) -> tuple[Any, str]:  # noqa: ANN401
    """Return the object that holds the session, and under which name."""
    name, parts = type(client).__qualname__, _parts(client)
    there = {key: path for key, path in parts.items() if _holder(client, path) is not None}
    chosen = there if not part else {part: there[part]} if part in there else {}
    if len(chosen) != 1:
        asked = f"no session {part!r}" if part else f"{len(there)} sessions"
        message = (
            f"This {name} has {asked}: say part= one of {', '.join(map(repr, parts))}, and call the client once before "
            "if it loads them late."
        )
        raise UsageError(message)
    ((_, path),) = chosen.items()
    return _holder(client, path), path.rpartition(".")[2]


def _parts(client: Any) -> Parts:  # noqa: ANN401
    for kind in type(client).__mro__:
        if parts := CLIENTS.get(f"{kind.__module__}.{kind.__qualname__}"):
            return parts
    known = ", ".join(sorted({name.split(".")[0] for name in CLIENTS}))
    message = (
        f"{type(client).__module__}.{type(client).__qualname__} is no client that adapt knows (those of {known}): put "
        "the session in place yourself, as in client.session = rtmo_optuna.open_session(model, config)."
    )
    raise UsageError(message)


def _holder(client: Any, path: str) -> Any:  # noqa: ANN401
    """Return the object at all of `path` but its last name, None where it is not there."""
    before = path.rpartition(".")[0]
    try:
        return operator.attrgetter(before)(client) if before else client
    except AttributeError:
        return None
