"""Charts as pictures, drawn by matplotlib without a display: PNG files, and SVG for the HTML page."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rtmo_optuna.show.render.chart import Band, Chart, Label, Line, Mark, Points, Role, Row, Rows, Shape, Spans, Stack
from rtmo_optuna.show.render.palette import LIGHT, ink, variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

DPI = 160
WIDTH_IN, NARROW_IN = 9.0, 3.9
_EDGE_IN, _LINE_IN, _BAR_IN = 0.2, 0.155, 0.3
_SMALL, _NORMAL, _LARGE = 8.5, 9.5, 13.0
_SUBTITLE_CHARACTERS = 112
_CROWD = 150
_SHAPES: Mapping[Shape, str] = {
    Shape.DISC: "o",
    Shape.RING: "o",
    Shape.CROSS: "x",
    Shape.ARROW: "^",
}
_SVG = "http://www.w3.org/2000/svg"
_TIPS = "tips"
_COLOUR = re.compile("#[0-9a-f]{6}")
_FONT = re.compile(r'font: ([0-9.]+)px [^;"]+')
for _prefix, _uri in (("", _SVG), ("xlink", "http://www.w3.org/1999/xlink")):
    ET.register_namespace(_prefix, _uri)


def png(chart: Chart) -> bytes:
    """Return `chart` as a PNG file's bytes, 1440 pixels wide, on white."""
    subtitle = textwrap.wrap(chart.subtitle, _SUBTITLE_CHARACTERS)
    head = 0.62 + 0.17 * len(subtitle)
    figure, axes = _drawn(chart, WIDTH_IN, head + 0.3 * _has_legend(chart), narrow=False)
    height = figure.get_figheight()
    _legend(figure, axes, 1 - (head - 0.06) / height)

    left = _EDGE_IN / WIDTH_IN
    figure.text(left, 1 - 0.2 / height, _literal(chart.title), size=_LARGE, weight="bold", color=LIGHT.text, va="top")
    for line, text in enumerate(subtitle):
        y = 1 - (0.5 + 0.17 * line) / height
        figure.text(left, y, _literal(text), size=_NORMAL, color=LIGHT.quiet, va="top")
    file = BytesIO()
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def svg(chart: Chart, *, narrow: bool = False) -> str:
    """Return `chart` as an SVG element, without title and legend, its colours as `palette.variable` names them.

    It is as wide as its place, and its points and bars have tooltips; a `narrow` one, for phones, has none, and has the
    texts of its rows above them and not beside.
    """
    figure, _ = _drawn(chart, NARROW_IN if narrow else WIDTH_IN, 0.15, narrow=narrow)
    figure.patch.set_visible(False)
    file = BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{chart.name} {narrow}"}):
        FigureCanvasSVG(figure).print_svg(file)  # type: ignore[no-untyped-call]
    root = ET.fromstring(file.getvalue())  # noqa: S314 - what matplotlib wrote
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": f"{chart.title}. {chart.subtitle}."}
    for group in list(root.iter(f"{{{_SVG}}}g")):
        name = group.attrib.pop("id", "")
        if name.startswith(_TIPS) and not narrow:
            _explain(group, json.loads(name.removeprefix(_TIPS)))
    root[:] = [child for child in root if not child.tag.endswith("metadata")]
    text = _FONT.sub(r"font-size: \1px", ET.tostring(root, encoding="unicode"))
    return _COLOUR.sub(lambda found: variable(found[0]), text)


def _tips(texts: Iterable[str]) -> str:
    """Return a name of a group of marks that have the tooltips `texts`."""
    return f"{_TIPS}{json.dumps(list(texts))}"


def _explain(group: ET.Element, tips: Sequence[str]) -> None:
    """Give each mark of `group` its tooltip."""
    points = list(group.iter(f"{{{_SVG}}}use"))
    for mark, tip in zip(points if len(points) == len(tips) else [group], tips, strict=False):
        ET.SubElement(mark, f"{{{_SVG}}}title").text = tip


def _drawn(chart: Chart, width: float, top: float, *, narrow: bool) -> tuple[Figure, Axes]:
    """Return `chart` on a figure of so many inches, `top` of them above it."""
    bottom, body = 0.5, _body_height(chart, narrow=narrow)
    height = top + body + bottom
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=LIGHT.paper)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, bottom / height, 0.8, body / height))
    _dress(axes, chart)
    _fit(canvas, axes, [text for mark in chart.marks for text in _draw(axes, mark, narrow=narrow)])
    return figure, axes


def _literal(text: str) -> str:
    """Return `text` with its dollars kept from becoming formulas."""
    return text.replace("$", r"\$")


def _has_legend(chart: Chart) -> bool:
    return any(isinstance(mark, Stack | Band) or (isinstance(mark, Points) and mark.legend) for mark in chart.marks)


def _body_height(chart: Chart, *, narrow: bool) -> float:
    """Return the height of the drawing itself in inches."""
    for mark in chart.marks:
        if isinstance(mark, Rows):
            return _places(mark, narrow=narrow)[-1]
        if isinstance(mark, Stack):
            return 0.15 + 0.55 * len(mark.labels)
    return 2.6 if narrow else 3.7


def _above(row: Row) -> tuple[str, ...]:
    """Return the lines that stand above a row on a phone."""
    return (*row.label, row.text)


def _places(marks: Rows, *, narrow: bool) -> list[float]:
    """Return where each row begins, in inches from the top, and at last where the drawing ends."""
    heights = [0.4 + _LINE_IN * len(_above(row)) if narrow else 0.14 + _LINE_IN * len(row.label) for row in marks.rows]
    return [0.1 + end for end in accumulate(heights, initial=0.0)]


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


def _draw(axes: Axes, mark: Mark, *, narrow: bool) -> list[Text]:
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
        case Label() if not narrow:
            return [_beside(axes, mark.y, mark.text, LIGHT.roles[mark.role])]
        case Rows():
            return _draw_rows(axes, mark, narrow=narrow)
        case Stack():
            return _draw_stack(axes, mark, narrow=narrow)
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
        gid=_tips(points.hover),
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


def _draw_rows(axes: Axes, marks: Rows, *, narrow: bool) -> list[Text]:
    texts = []
    low, high = axes.get_xlim()
    places = _places(marks, narrow=narrow)
    axes.set_ylim(places[-1] + (0.0 if narrow else 0.1), 0)
    if marks.origin is not None:
        axes.axvline(marks.origin, color=LIGHT.quiet, linewidth=1)
    for (top, end), row in zip(pairwise(places), marks.rows, strict=True):
        y = end - _BAR_IN / 2 if narrow else (top + end) / 2
        colour, tip = LIGHT.roles[row.role], _tips([row.hover])
        if marks.origin is None:
            axes.barh(y, row.value, height=0.2, color=colour, gid=tip)
        else:
            shape = "<" if row.value < low else ">" if row.value > high else "o"
            at = min(max(row.value, low), high)
            axes.plot([at], [y], marker=shape, markersize=6.5, color=colour, clip_on=False, zorder=5, gid=tip)
        if row.low is not None and row.high is not None:
            axes.hlines(y, row.low, row.high, color=LIGHT.text if marks.origin is None else colour, linewidth=1.6)
        if narrow:
            place = axes.get_yaxis_transform()
            text = _literal("\n".join(_above(row)))
            axes.text(0, top + 0.04, text, transform=place, va="top", size=_SMALL, color=LIGHT.text, linespacing=1.3)
        else:
            texts.append(_beside(axes, y, "\n".join(row.label), LIGHT.text, left=True))
            texts.append(_beside(axes, y, row.text, LIGHT.text))
    return texts


def _draw_stack(axes: Axes, stack: Stack, *, narrow: bool) -> list[Text]:
    axes.set_ylim(len(stack.labels) - 0.4, -0.6)
    reach = axes.get_xlim()[1] * (1.2 if narrow else 1.0)
    axes.set_xlim(right=reach)
    lefts = [0.0] * len(stack.labels)
    for part in stack.parts:
        colour = LIGHT.roles[part.role]
        bars = axes.barh(
            range(len(lefts)), part.values, left=lefts, height=0.62, color=colour, label=part.name,
            edgecolor=LIGHT.paper, linewidth=0.8,
        )  # fmt: skip
        for y, (bar, left, value) in enumerate(zip(bars, lefts, part.values, strict=True)):
            bar.set_gid(_tips([f"{part.name}: {value:.1f} s"]))
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
    edge, width = _EDGE_IN * DPI, canvas.figure.get_figwidth() * DPI
    box = axes.get_position()
    axes.set_position(((left + edge) / width, box.y0, (width - left - right - 2 * edge) / width, box.height))
