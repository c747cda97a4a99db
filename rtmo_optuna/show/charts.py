"""The table of charts; nothing here draws.

A chart is one row of CHARTS: its name, what makes it (None where the study holds too little), and a caption.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from rtmo_optuna.show.bars import knobs, ranking
from rtmo_optuna.show.contest import confirmation, race
from rtmo_optuna.show.history import history
from rtmo_optuna.show.marks import Chart
from rtmo_optuna.show.steadiness import baseline, windows
from rtmo_optuna.show.timing import time
from rtmo_optuna.types.study import StudyRecord


class Chapter(enum.Enum):
    """The part of the report that a chart belongs to."""

    CONFIRMATION = enum.auto()
    RACE = enum.auto()
    RANKING = enum.auto()
    STEADINESS = enum.auto()
    KNOBS = enum.auto()
    NOISE = enum.auto()
    TIME = enum.auto()


@dataclass(frozen=True, slots=True)
class Plot:
    """A row of the table of charts."""

    name: str
    draw: Callable[[StudyRecord], Chart | None]
    chapter: Chapter
    caption: str


CHARTS = (
    Plot(
        "confirmation",
        confirmation,
        Chapter.CONFIRMATION,
        "Fresh processes in pairs, in the order they were run; only these decide what is claimed.",
    ),
    Plot("race", race, Chapter.RACE, "Who raced, in fresh processes: the median of each, and the range."),
    Plot(
        "history",
        history,
        Chapter.RANKING,
        "Each trial in the order it was run, and the best so far; failed ones are marked along the top edge.",
    ),
    Plot(
        "ranking",
        ranking,
        Chapter.RANKING,
        "The ten best single measurements, and the default where it is not one of them.",
    ),
    Plot(
        "windows",
        windows,
        Chapter.STEADINESS,
        "How steady a process was: the windows of the default's trial and of the best settings'.",
    ),
    Plot(
        "knobs",
        knobs,
        Chapter.KNOBS,
        "What each choice does, all else equal; one in twenty such intervals misses, and interactions are averaged.",
    ),
    Plot(
        "baseline",
        baseline,
        Chapter.NOISE,
        "The default settings in fresh processes, before the search: what differs here is noise.",
    ),
    Plot("time", time, Chapter.TIME, "Where the time of the study went."),
)


def charts(record: StudyRecord) -> tuple[Chart, ...]:
    """Return every chart that the study holds enough for, in the table's order."""
    return tuple(chart for plot in CHARTS if (chart := plot.draw(record)))
