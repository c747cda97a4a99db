"""What a chart is made of, before anybody draws it: plain values, units in the axes' labels, colours by role."""

import enum
from dataclasses import dataclass
from typing import TypeAlias


class Role(enum.StrEnum):
    """What a mark stands for; `show.render.palette` says how that looks."""

    BEST = "best"
    DEFAULT = "default"
    CONFIG = "config.yaml"
    MEASURED = "measured"
    PRUNED = "pruned"
    FAILED = "failed"
    FASTER = "faster"
    SLOWER = "slower"
    MUTED = "muted"
    START = "start"
    IMPORTS = "imports"
    PRELOAD = "preload"
    BUILD = "session build"
    FIRST_RUN = "first run"
    WARMUP = "warm-up"
    WINDOWS = "windows"
    REST = "rest"
    WHOLE = "fresh process, in all"


class Shape(enum.StrEnum):
    """The outline of a point; ARROW says that the value lies beyond the edge it is drawn at."""

    DISC = "disc"
    RING = "ring"
    CROSS = "cross"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its label with the unit, its ends (None: the renderer's choice), its ticks (empty: likewise)."""

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Points:
    """Single points; `hover` says more about each, `texts` is written above them."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    role: Role
    shape: Shape = Shape.DISC
    hover: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    legend: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points in order of `x`; `stepped` holds each value until the next one, `dotted` marks each."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    role: Role
    stepped: bool = False
    dashed: bool = False
    thin: bool = False
    dotted: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """The heights from `low` to `high`, shaded across the whole chart."""

    name: str
    low: float
    high: float
    role: Role


@dataclass(frozen=True, slots=True)
class Spans:
    """Thin upright lines, each at one `x` from `low` to `high`."""

    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    role: Role


@dataclass(frozen=True, slots=True)
class Label:
    """Text at the right edge, beside the height `y`, in the colour of its role."""

    y: float
    text: str
    role: Role


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a chart of rows: its label's lines, a value with an interval, and the text at the right."""

    label: tuple[str, ...]
    value: float
    low: float | None
    high: float | None
    role: Role
    text: str
    hover: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Values with intervals, one below the other: as bars from zero, or as points around `origin`."""

    rows: tuple[Row, ...]
    origin: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One colour of a stacked bar, with a value for each of its bars."""

    name: str
    values: tuple[float, ...]
    role: Role


@dataclass(frozen=True, slots=True)
class Stack:
    """Horizontal bars, one below the other, each made of the same parts."""

    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    totals: tuple[str, ...]


Mark: TypeAlias = Points | Line | Band | Spans | Label | Rows | Stack


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart that any renderer can draw; the title says what was found, the caption what is to be seen."""

    name: str
    title: str
    subtitle: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    caption: str = ""
