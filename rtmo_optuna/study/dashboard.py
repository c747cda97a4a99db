"""What the dashboard shows beside the numbers: notes on studies and trials, and interactive figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtmo_optuna.display import visible
from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    import optuna


def save_note(on: optuna.Study | optuna.Trial, text: str) -> None:
    """Put the Markdown `text` on a study, or on a trial that has not been told yet, its control characters visible."""
    from optuna_dashboard import save_note as save  # noqa: PLC0415 - slow to import, and rarely needed

    save(on, visible(text))


def serve(storage: str, artifacts: str, host: str, port: int) -> None:
    """Serve the dashboard of `storage` until it is interrupted; raises UsageError where the address cannot be had."""
    from optuna.artifacts import FileSystemArtifactStore  # noqa: PLC0415
    from optuna_dashboard import run_server  # noqa: PLC0415

    try:
        run_server(storage, host=host, port=port, artifact_store=FileSystemArtifactStore(artifacts))
    except OSError as error:
        raise UsageError(
            f"The dashboard cannot listen on {host}:{port}: {error.strerror or error}. Name another --port or --host."
        ) from error
