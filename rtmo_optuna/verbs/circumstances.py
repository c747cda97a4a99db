"""What a comparison was made of: model, input, machine and versions, for those who read its figures later."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtmo_optuna.types.subject import Machine

if TYPE_CHECKING:
    from rtmo_optuna.verbs.prepare import Plan


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What does not follow from the two settings; `date` is UTC, `shapes` are those of one of the input's `samples`."""

    date: str
    model: str
    model_sha256: str
    provider: str
    input: str
    input_sha256: str
    samples: int
    shapes: Mapping[str, tuple[int, ...]]
    machine: Machine
    versions: Mapping[str, str]


def circumstances(planned: Plan) -> Circumstances:
    """Return what is to be known of a comparison by that plan, made now."""
    about = planned.about
    return Circumstances(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model=about.model_path,
        model_sha256=about.model_sha256,
        provider=about.definition.provider,
        input=about.inputs.source,
        input_sha256=about.inputs.sha256,
        samples=about.inputs.samples,
        shapes=about.inputs.shapes,
        machine=about.machine,
        versions=about.model.versions,
    )
