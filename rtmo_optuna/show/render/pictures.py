"""Charts as PNG files, drawn by matplotlib without a display and without its global state."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rtmo_optuna.show.render.chart import Band, Chart, Label, Line, Mark, Points, Role, Rows, Shape, Spans, Stack
from rtmo_optuna.show.render.palette import LIGHT, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

DPI = 160
WIDTH_IN = 9.0
_EDGE_IN = 0.2
_SMALL, _NORMAL, _LARGE = 8.5, 9.5, 13.0
_SUBTITLE_CHARACTERS = 112
_CROWD = 150
_SHAPES: Mapping[Shape, str] = {
    Shape.DISC: "o",
    Shape.RING: "o",
    Shape.CROSS: "x",
    Shape.ARROW: "^",
}


def png(chart: Chart) -> bytes:
    """Return `chart` as a PNG file's bytes, 1440 pixels wide, on white."""
    subtitle = textwrap.wrap(chart.subtitle, _SUBTITLE_CHARACTERS)
    head = 0.62 + 0.17 * len(subtitle)
    legend = _has_legend(chart)
    top, bottom, body = head + 0.3 * legend, 0.62, _body_height(chart)
    height = top + body + bottom
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor=LIGHT.paper)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, bottom / height, 0.8, body / height))
    _dress(axes, chart)
    beside = [text for mark in chart.marks for text in _draw(axes, mark)]
    _legend(figure, axes, 1 - (head - 0.06) / height)

    left = _EDGE_IN / WIDTH_IN
    figure.text(left, 1 - 0.2 / height, _literal(chart.title), size=_LARGE, weight="bold", color=LIGHT.text, va="top")
    for line, text in enumerate(subtitle):
        y = 1 - (0.5 + 0.17 * line) / height
        figure.text(left, y, _literal(text), size=_NORMAL, color=LIGHT.quiet, va="top")
    _fit(canvas, axes, beside)
    file = BytesIO()
    canvas.print_png(file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def _literal(text: str) -> str:
    """Return `text` with its dollars kept from becoming formulas."""
    return text.replace("$", r"\$")


def _has_legend(chart: Chart) -> bool:
    return any(isinstance(mark, Stack | Band) or (isinstance(mark, Points) and mark.legend) for mark in chart.marks)


def _body_height(chart: Chart) -> float:
    """Return the height of the drawing itself in inches."""
    for mark in chart.marks:
        if isinstance(mark, Rows):
            return _places(mark)[1]
        if isinstance(mark, Stack):
            return 0.15 + 0.55 * len(mark.labels)
    return 3.7


def _places(marks: Rows) -> tuple[list[float], float]:
    """Return where the middle of each row lies, in inches from the top, and where the last one ends."""
    heights = [0.14 + 0.155 * len(row.label) for row in marks.rows]
    ends = list(accumulate(heights))
    return [0.1 + end - height / 2 for end, height in zip(ends, heights, strict=True)], 0.2 + ends[-1]


def _dress(axes: Axes, chart: Chart) -> None:
    """Set the axes' ends, ticks, labels and grid."""
    rows = any(isinstance(mark, Rows | Stack) for mark in chart.marks)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="x" if rows else "y", color=LIGHT.grid, linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT.roles[Role.MUTED])
    axes.tick_params(colors=LIGHT.quiet, labelsize=_SMALL, length=0)
    axes.set_xlabel(_literal(chart.x.label), size=_SMALL, color=LIGHT.quiet, labelpad=6)
    axes.set_ylabel(_literal(chart.y.label), size=_SMALL, color=LIGHT.quiet, labelpad=8)
    if chart.x.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(chart.x.low, chart.x.high)
    axes.set_ylim(chart.y.low, chart.y.high)
    for axis, given in ((axes.xaxis, chart.x), (axes.yaxis, chart.y)):
        if given.ticks:
            axis.set_ticks([at for at, _ in given.ticks], [_literal(text) for _, text in given.ticks])
    if rows:
        axes.set_yticks([])


def _draw(axes: Axes, mark: Mark) -> list[Text]:
    """Draw `mark` and return the texts that stand beside the axes and need room."""
    match mark:
        case Points():
            _draw_points(axes, mark)
        case Line():
            _draw_line(axes, mark)
        case Band():
            colour = LIGHT.roles[mark.role]
            axes.axhspan(mark.low, mark.high, color=colour, alpha=0.16, linewidth=0, label=mark.name, zorder=1)
        case Spans():
            axes.vlines(mark.x, mark.low, mark.high, color=LIGHT.roles[mark.role], linewidth=1, alpha=0.6, zorder=2)
        case Label():
            return [_beside(axes, mark.y, mark.text, LIGHT.roles[mark.role])]
        case Rows():
            return _draw_rows(axes, mark)
        case Stack():
            return _draw_stack(axes, mark)
    return []


def _draw_points(axes: Axes, points: Points) -> None:
    colour = LIGHT.roles[points.role]
    axes.plot(
        points.x,
        points.y,
        linestyle="",
        marker=_SHAPES[points.shape],
        markersize=6 if len(points.x) < _CROWD else 3.5,
        markerfacecolor=LIGHT.paper if points.shape is Shape.RING else colour,
        markeredgecolor=colour,
        markeredgewidth=1.4 if points.shape in {Shape.RING, Shape.CROSS} else 0.6,
        alpha=0.9,
        label=points.name if points.legend else "_",
        zorder=4,
    )
    for x, y, text in zip(points.x, points.y, points.texts, strict=False):
        axes.annotate(
            _literal(text), (x, y), (0, 5), textcoords="offset points", ha="center", size=7.5, color=LIGHT.quiet
        )


def _draw_line(axes: Axes, line: Line) -> None:
    axes.plot(
        line.x,
        line.y,
        color=LIGHT.roles[line.role],
        linewidth=1.2 if line.thin else 2.0,
        linestyle=(0, (5, 3)) if line.dashed else "-",
        drawstyle="steps-post" if line.stepped else "default",
        marker="o" if line.dotted else "",
        markersize=4,
        label="_",
        zorder=3,
    )


def _beside(axes: Axes, y: float, text: str, colour: str, *, left: bool = False, size: float = _SMALL) -> Text:
    return axes.annotate(
        _literal(text),
        (0 if left else 1, y),
        (-8 if left else 8, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        size=size,
        color=colour,
        linespacing=1.35,
    )


def _draw_rows(axes: Axes, marks: Rows) -> list[Text]:
    texts = []
    low, high = axes.get_xlim()
    places, bottom = _places(marks)
    axes.set_ylim(bottom, 0)
    if marks.origin is not None:
        axes.axvline(marks.origin, color=LIGHT.quiet, linewidth=1)
    for y, row in zip(places, marks.rows, strict=True):
        colour = LIGHT.roles[row.role]
        if marks.origin is None:
            axes.barh(y, row.value, height=0.2, color=colour)
        else:
            shape = "<" if row.value < low else ">" if row.value > high else "o"
            at = min(max(row.value, low), high)
            axes.plot([at], [y], marker=shape, markersize=6.5, color=colour, clip_on=False, zorder=5)
        if row.low is not None and row.high is not None:
            axes.hlines(y, row.low, row.high, color=LIGHT.text if marks.origin is None else colour, linewidth=1.6)
        texts.append(_beside(axes, y, "\n".join(row.label), LIGHT.text, left=True))
        texts.append(_beside(axes, y, row.text, LIGHT.text))
    return texts


def _draw_stack(axes: Axes, stack: Stack) -> list[Text]:
    axes.set_ylim(len(stack.labels) - 0.4, -0.6)
    reach = axes.get_xlim()[1]
    lefts = [0.0] * len(stack.labels)
    for part in stack.parts:
        colour = LIGHT.roles[part.role]
        axes.barh(
            range(len(lefts)), part.values, left=lefts, height=0.62, color=colour, label=part.name,
            edgecolor=LIGHT.paper, linewidth=0.8,
        )  # fmt: skip
        for y, (left, value) in enumerate(zip(lefts, part.values, strict=True)):
            if value > 0.06 * reach:
                axes.text(left + value / 2, y, f"{value:.0f}", ha="center", va="center", size=8, color=ink(colour))
        lefts = [left + value for left, value in zip(lefts, part.values, strict=True)]
    for y, (end, total) in enumerate(zip(lefts, stack.totals, strict=True)):
        axes.annotate(total, (end, y), (6, 0), textcoords="offset points", va="center", size=_SMALL, color=LIGHT.text)
    return [_beside(axes, y, label, LIGHT.text, left=True) for y, label in enumerate(stack.labels)]


def _legend(figure: Figure, axes: Axes, y: float) -> None:
    handles, names = axes.get_legend_handles_labels()
    first = dict(zip(reversed(names), reversed(handles), strict=True))
    kept = {name: first[name] for name in dict.fromkeys(names)}
    if kept:
        figure.legend(
            kept.values(), kept.keys(), loc="upper left", bbox_to_anchor=(_EDGE_IN / WIDTH_IN, y), ncols=len(kept),
            frameon=False, fontsize=_SMALL, labelcolor=LIGHT.quiet, handlelength=1.0, handletextpad=0.5,
            columnspacing=1.5, borderaxespad=0.0, borderpad=0.0,
        )  # fmt: skip


def _fit(canvas: FigureCanvasAgg, axes: Axes, beside: list[Text]) -> None:
    """Give the texts left and right of the axes the room that they need."""
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    frame = axes.get_window_extent(renderer)
    boxes = [text.get_window_extent(renderer) for text in beside]
    ticks = axes.yaxis.get_tightbbox(renderer)
    left = max([frame.x0 - box.x0 for box in boxes] + [frame.x0 - ticks.x0 if ticks else 0.0, 0.0])
    right = max([box.x1 - frame.x1 for box in boxes] + [0.0])
    edge, width = _EDGE_IN * DPI, WIDTH_IN * DPI
    box = axes.get_position()
    axes.set_position(((left + edge) / width, box.y0, (width - left - right - 2 * edge) / width, box.height))
