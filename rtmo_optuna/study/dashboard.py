"""The dashboard itself, and the figures of ours that it shows among its own."""

from collections.abc import Iterable

import optuna

from rtmo_optuna.errors import UsageError
from rtmo_optuna.show.render.chart import Chart


def save_charts(study: optuna.Study, charts: Iterable[Chart]) -> None:
    """Show `charts` among the dashboard's graphs, each in place of its last one."""
    from optuna_dashboard import save_plotly_graph_object  # noqa: PLC0415 - slow to import, and rarely needed

    from rtmo_optuna.show.render.interactive import figure  # noqa: PLC0415 - likewise
    from rtmo_optuna.show.render.palette import LIGHT  # noqa: PLC0415

    for chart in charts:
        save_plotly_graph_object(study, figure(chart, LIGHT), graph_object_id=chart.name)


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
