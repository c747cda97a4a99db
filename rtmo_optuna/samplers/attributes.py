"""What is kept with a trial or a study for this program alone: system attributes, which optuna-dashboard leaves out."""

from typing import Any

from optuna.trial import FrozenTrial

from rtmo_optuna.codec import encode

OURS = "rtmo_optuna:"
"""What their names begin with."""


def ours(**values: object) -> dict[str, Any]:
    """Return `values` as system attributes."""
    return {f"{OURS}{name}": encode(value) for name, value in values.items()}


def kept(trial: FrozenTrial, name: str) -> Any:  # noqa: ANN401 - JSON
    """Return what is kept with `trial` under `name`, None where nothing is; earlier versions kept it for all to see."""
    return trial.system_attrs.get(f"{OURS}{name}", trial.user_attrs.get(name))
