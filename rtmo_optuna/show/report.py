"""The report: its sections in order, and all its files on disk."""

import glob
from collections.abc import Iterator
from pathlib import Path

from rtmo_optuna.cache import replacing
from rtmo_optuna.display import without_password
from rtmo_optuna.errors import UsageError
from rtmo_optuna.scratch import sweep
from rtmo_optuna.show.render.blocks import Block, Bullets, Code, Paragraph, Section, charts, filled, images
from rtmo_optuna.show.render.chart import Chart
from rtmo_optuna.show.render.markdown import markdown
from rtmo_optuna.show.sections import confirmation, knobs, machine, noise, outputs, race, ranking, time, trials, verdict
from rtmo_optuna.types.study import StudyRecord

PLOTS = "plots"
CHARTS = ("confirmation", "race", "history", "ranking", "windows", "knobs", "baseline", "time")
"""The names of all charts that a report may have."""


IMAGES = ("worst",)
"""The names of all pictures that were drawn before, of which a report may have some."""


def document(record: StudyRecord, applied: str = "") -> tuple[Section, ...]:
    """Return the report on `record`, the verdict first; `applied` says where the settings were written, if they were.

    Parts that the study has nothing for are left out.
    """
    parts = (
        (f"Fastest ONNX Runtime settings: {record.name}", verdict.blocks(record)),
        ("Warnings", [Bullets(record.warnings)] if record.warnings else []),
        ("How to apply it", verdict.application(record, applied)),
        ("Confirmation", confirmation.blocks(record)),
        ("Race", race.blocks(record)),
        ("Machine and model", [machine.table(record)]),
        ("Ranking", ranking.blocks(record)),
        ("What each knob does here", knobs.blocks(record)),
        ("Noise of this host", noise.blocks(record)),
        ("Outputs", outputs.blocks(record)),
        ("What left the space, and why", filled(machine.left_out(record))),
        ("What ran otherwise than asked", filled(trials.notes(record))),
        ("What failed, and why", filled(trials.failures(record))),
        ("Where the time went", time.blocks(record)),
        ("How to go on", _resumption(record)),
    )
    sections = (Section(title, tuple(blocks)) for title, blocks in parts)
    return tuple(part for part in sections if any(not isinstance(block, Chart) for block in part.blocks))


def highlights(record: StudyRecord) -> tuple[Chart, ...]:
    """Return the charts of what decides, and of what each knob does, in so far as the study has them."""
    drawn = (confirmation.chart(record), race.chart(record), knobs.chart(record))
    return tuple(chart for chart in drawn if chart)


def _resumption(record: StudyRecord) -> Iterator[Block]:
    how = (
        ". The same command goes on from there: no settings are tried twice, more trials or more time continue the "
        "search, and race and confirmation begin anew where trials were added."
    )
    where = Code(without_password(record.storage))
    yield Paragraph(("The study ", Code(record.name), " is kept in ", where, how))


def write(record: StudyRecord, report: Path, applied: str = "") -> tuple[Path, ...]:
    """Write the Markdown file `report`, and beside it the same as one HTML page and the pictures in `plots/`.

    Returns the Markdown file, the HTML page, then the pictures. Each file is replaced whole, the Markdown last, so that
    a reader never sees half of one. Raises UsageError where they cannot be written.
    """
    from rtmo_optuna.show.render.page import page  # noqa: PLC0415 - plotly and matplotlib are slow to import
    from rtmo_optuna.show.render.pictures import png  # noqa: PLC0415 - likewise

    sections = document(record, applied)
    drawn = charts(sections)
    plots = report.parent / PLOTS
    html = report.with_suffix(".html")
    pictures = {chart.name: plots / f"{chart.name}.png" for chart in drawn}
    kept = {image.name: plots / f"{image.name}.jpg" for image in images(sections)}
    text = markdown(sections, {name: f"{PLOTS}/{path.name}" for name, path in (pictures | kept).items()})
    try:
        plots.mkdir(parents=True, exist_ok=True)
        for chart in drawn:
            _put(pictures[chart.name], png(chart))
        for image in images(sections):
            _put(kept[image.name], image.content)
        _put(html, page(sections).encode())
        _put(report, text.encode())
        for path in (report, html, *pictures.values(), *kept.values()):
            sweep(path.parent, f".{glob.escape(path.name)}.[0-9]*")
        for name in set(CHARTS) - pictures.keys():
            (plots / f"{name}.png").unlink(missing_ok=True)
        for name in set(IMAGES) - kept.keys():
            (plots / f"{name}.jpg").unlink(missing_ok=True)
    except OSError as error:
        message = f"The report {report} cannot be written: {error.strerror or error}. Name another --output."
        raise UsageError(message) from error
    return (report, html, *pictures.values(), *kept.values())


def _put(path: Path, content: bytes) -> None:
    with replacing(path) as fresh:
        fresh.write_bytes(content)
