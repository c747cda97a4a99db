"""What the benchmarks share that run processes of a model on this machine as a study does: options, facts, notes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmo_optuna.types.study import Event, Note
from rtmo_optuna.verbs.prepare import TuneOptions

if TYPE_CHECKING:
    import argparse

    from rtmo_optuna.verbs.prepare import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says how a model is run."""
    parser.add_argument("--input", type=Path, help="input arrays (.npz, .npy or a picture); default: random numbers")
    parser.add_argument("--provider", default="auto", choices=("auto", "cuda", "cpu"), help="default: %(default)s")
    parser.add_argument("--study", help="study definition, a name or a file; default: the provider's")
    parser.add_argument("--quick", action="store_true", help="measure less, as tune --quick does")
    parser.add_argument("--allow-busy", action="store_true", help="though others use the GPU")


def options(args: argparse.Namespace, folder: Path, **more: Any) -> TuneOptions:  # noqa: ANN401 - of TuneOptions
    """Return options for `args.model` that keep everything in `folder`, with `more` of them."""
    return TuneOptions(
        model=args.model,
        config=folder / "config.yaml",
        output=folder / "results",
        study=args.study,
        quick=args.quick,
        provider=args.provider,
        input=args.input,
        storage=f"sqlite:///{folder}/studies.db",
        allow_busy=args.allow_busy,
        **more,
    )


def facts(planned: Plan) -> dict[str, Any]:
    """Return what a recording says of its model and machine."""
    machine, about = planned.about.machine, planned.about
    gpu = machine.gpu
    return {
        "model": Path(about.model_path).name,
        "shapes": {name: list(shape) for name, shape in about.inputs.shapes.items()},
        "versions": dict(about.model.versions),
        "system": machine.system,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "gpu": {"name": gpu.name, "driver": gpu.driver} if gpu else None,
    }


def observe(event: Event) -> None:
    """Print warnings."""
    if isinstance(event, Note) and event.warning:
        print(f"   {event.text}", file=sys.stderr, flush=True)
