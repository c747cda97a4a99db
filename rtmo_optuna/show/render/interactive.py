"""Charts as plotly figures, for the HTML page and the dashboard."""

import math
from itertools import accumulate, pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from rtmo_optuna.show.render import traces
from rtmo_optuna.show.render.chart import Axis, Band, Chart, Label, Line, Mark, Points, Row, Rows, Spans, Stack
from rtmo_optuna.show.render.palette import Theme, ink
from rtmo_optuna.show.render.traces import plain

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_SMALL = 12
_LINE_PX, _BAR_PX, _AIR_PX, _TOP_PX = 17, 15, 12, 12
_CHARACTER_PX = 7.1
_LABEL_CHARACTERS = 44


def plotly_js() -> str:
    """Return the source of plotly.js, some 4 MB."""
    return str(get_plotlyjs())


def figure(chart: Chart, theme: Theme, *, narrow: bool = False) -> go.Figure:
    """Return `chart` as a plotly figure on a transparent ground, without its title.

    It is as wide as its place; a `narrow` one, for phones, has the texts of rows above them and not beside.
    """
    drawing = go.Figure(layout={"template": "none"})
    names = _legend_names(chart, narrow=narrow)
    bottom = 60 + (22 * math.ceil(len(names) / 2) if narrow else 36 * bool(names))
    left, right = _margins(chart, narrow=narrow)
    drawing.update_layout(
        height=_body_height(chart, narrow=narrow) + _TOP_PX + bottom,
        margin={"l": left, "r": right, "t": _TOP_PX, "b": bottom},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": _SMALL, "color": theme.text},
        hoverlabel={"align": "left", "bgcolor": theme.paper, "bordercolor": theme.quiet, "font": {"color": theme.text}},
        hovermode="closest",
        dragmode=False if narrow else "zoom",
        barmode="stack",
        uniformtext={"minsize": 10, "mode": "hide"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": theme.grid, "activecolor": theme.quiet},
        showlegend=bool(names),
        legend={
            "orientation": "h", "x": 0, "yref": "container", "y": 0, "yanchor": "bottom", "traceorder": "normal",
            "font": {"color": theme.quiet}, "itemclick": False, "itemdoubleclick": False,
        },
    )  # fmt: skip
    rows = any(isinstance(mark, Rows | Stack) for mark in chart.marks)
    drawing.update_xaxes(**_axis(chart.x, theme, grid=rows), fixedrange=rows)
    drawing.update_yaxes(**_axis(chart.y, theme, grid=not rows), fixedrange=rows)
    for mark in chart.marks:
        _draw(drawing, mark, chart.x, theme, narrow=narrow)
    return drawing


def _legend_names(chart: Chart, *, narrow: bool) -> set[str]:
    """Return what the legend explains; on a phone that includes lines, since there is no room beside them."""
    names = {mark.name for mark in chart.marks if isinstance(mark, Points) and mark.legend}
    names |= {
        mark.name
        for mark in chart.marks
        if isinstance(mark, Band) or (isinstance(mark, Line) and mark.legend and narrow)
    }
    return names | {part.name for mark in chart.marks if isinstance(mark, Stack) for part in mark.parts}


def _body_height(chart: Chart, *, narrow: bool) -> float:
    """Return the height of the drawing itself in pixels."""
    for mark in chart.marks:
        if isinstance(mark, Rows):
            return _places(mark, narrow=narrow)[-1]
        if isinstance(mark, Stack):
            return 20 + 58 * len(mark.labels)
    return 380


def _margins(chart: Chart, *, narrow: bool) -> tuple[int, int]:
    """Return how much room the texts left and right of the axes need, in pixels."""
    left = [text for _, text in chart.y.ticks]
    right = [mark.text for mark in chart.marks if isinstance(mark, Label) and not narrow]
    for mark in chart.marks:
        if isinstance(mark, Rows) and not narrow:
            left += [line for row in mark.rows for line in row.label]
            right += [row.text for row in mark.rows]
        if isinstance(mark, Stack):
            left += [line for label in mark.labels for line in label.split("\n")]
    title = 24 if chart.y.label else 0
    widths = (round(_CHARACTER_PX * max(map(len, texts), default=0)) for texts in (left, right))
    before, after = widths
    return 12 + title + before, 12 + after


def _axis(axis: Axis, theme: Theme, *, grid: bool) -> dict[str, Any]:
    ends = [None if end is None else math.log10(end) if axis.log else end for end in (axis.low, axis.high)]
    given = {"tickvals": [at for at, _ in axis.ticks], "ticktext": [plain(text) for _, text in axis.ticks]}
    return {
        "title": {"text": plain(axis.label), "font": {"color": theme.quiet, "size": _SMALL}},
        "type": "log" if axis.log else "linear",
        "range": None if None in ends else ends,
        "showgrid": grid,
        "gridcolor": theme.grid,
        "zeroline": False,
        "tickfont": {"color": theme.quiet},
        "tickangle": 0,
        "ticklabelstandoff": 6,
        **(given if axis.ticks else {}),
    }


def _draw(drawing: go.Figure, mark: Mark, x: Axis, theme: Theme, *, narrow: bool) -> None:
    match mark:
        case Points():
            drawing.add_trace(traces.points(mark, theme, narrow=narrow))
        case Line():
            named = narrow and mark.legend and mark.name not in {trace.name for trace in drawing.data}
            drawing.add_trace(traces.line(mark, theme, named=named))
        case Band():
            drawing.add_trace(traces.band(mark, x, theme))
        case Spans():
            drawing.add_trace(traces.spans(mark, theme))
        case Label():
            if not narrow:
                _write(drawing, mark.y, mark.text, theme.roles[mark.role])
        case Rows():
            _draw_rows(drawing, mark, x, theme, narrow=narrow)
        case Stack():
            _draw_stack(drawing, mark, theme)
            drawing.update_xaxes(range=[x.low, (1.2 if narrow else 1) * (x.high or 1)])


def _write(drawing: go.Figure, y: float, text: str, colour: str) -> None:
    """Write `text` to the right of the axes."""
    drawing.add_annotation(
        x=1, xref="paper", y=y, text=plain(text), showarrow=False, xanchor="left", xshift=6,
        font={"color": colour, "size": _SMALL},
    )  # fmt: skip


def _above(row: Row) -> list[str]:
    """Return what stands above a row on a phone, as lines; its value goes where there is room for it."""
    *first, last = map(plain, row.label)
    value = f"<b>{plain(row.text)}</b>"
    fits = len(row.label[-1]) + len(row.text) < _LABEL_CHARACTERS
    return [*first, f"{last}   {value}"] if fits else [*first, last, value]


def _places(marks: Rows, *, narrow: bool) -> list[float]:
    """Return where each row begins, in pixels from the top, and at last where the last one ends."""
    if narrow:
        heights = [_LINE_PX * len(_above(row)) + _BAR_PX + _AIR_PX for row in marks.rows]
    else:
        heights = [_LINE_PX * len(row.label) + _AIR_PX for row in marks.rows]
    return [0.0, *accumulate(heights)]


def _draw_rows(drawing: go.Figure, marks: Rows, x: Axis, theme: Theme, *, narrow: bool) -> None:
    *tops, bottom = _places(marks, narrow=narrow)
    middles = [(top + end) / 2 for top, end in pairwise([*tops, bottom])]
    ys = [end - _AIR_PX / 2 - _BAR_PX / 2 for end in [*tops, bottom][1:]] if narrow else middles
    labels = ["<br>".join(map(plain, row.label)) for row in marks.rows]
    drawing.update_yaxes(
        range=[bottom, 0], showgrid=False, tickvals=middles, ticktext=labels, showticklabels=not narrow,
        tickfont_color=theme.text,
    )  # fmt: skip
    if marks.origin is not None:
        ends, line = [marks.origin] * 2, {"color": theme.quiet, "width": 1}
        drawing.add_trace(
            go.Scatter(x=ends, y=[0, bottom], mode="lines", line=line, hoverinfo="skip", showlegend=False)
        )
    for top, y, row in zip(tops, ys, marks.rows, strict=True):
        if narrow:
            drawing.add_annotation(
                x=0, xref="paper", y=top, text="<br>".join(_above(row)), showarrow=False, xanchor="left",
                yanchor="top", align="left", font={"size": _SMALL}, bgcolor=theme.paper, borderpad=0,
            )  # fmt: skip
        else:
            _write(drawing, y, row.text, theme.text)
    _draw_values(drawing, marks, x, ys, theme)


def _draw_values(drawing: go.Figure, marks: Rows, x: Axis, ys: list[float], theme: Theme) -> None:
    low, high = x.low or -math.inf, x.high or math.inf
    values = [min(max(row.value, low), high) for row in marks.rows]
    colours = [theme.roles[row.role] for row in marks.rows]
    shared = {"y": ys, "hovertext": [plain(row.hover) for row in marks.rows], "hoverinfo": "text", "showlegend": False}
    if marks.origin is None:
        drawing.add_trace(go.Bar(x=values, orientation="h", width=_BAR_PX, marker={"color": colours}, **shared))
    for y, row, colour in zip(ys, marks.rows, colours, strict=True):
        if row.low is not None and row.high is not None:
            drawing.add_trace(
                go.Scatter(
                    x=[max(row.low, low), min(row.high, high)], y=[y, y], mode="lines", hoverinfo="skip",
                    showlegend=False, line={"color": theme.text if marks.origin is None else colour, "width": 2},
                )
            )  # fmt: skip
    if marks.origin is not None:
        shapes = [
            "triangle-left" if r.value < low else "triangle-right" if r.value > high else "circle" for r in marks.rows
        ]
        marker = {"color": colours, "size": 10, "symbol": shapes}
        drawing.add_trace(go.Scatter(x=values, mode="markers", cliponaxis=False, marker=marker, **shared))


def _draw_stack(drawing: go.Figure, stack: Stack, theme: Theme) -> None:
    places = list(range(len(stack.labels)))
    labels = [plain(label) for label in stack.labels]
    drawing.update_yaxes(range=[len(places) - 0.5, -0.5], tickvals=places, ticktext=labels, tickfont_color=theme.text)
    for part in stack.parts:
        colour = theme.roles[part.role]
        drawing.add_trace(
            go.Bar(
                x=part.values, y=places, orientation="h", name=plain(part.name), width=0.6,
                marker={"color": colour, "line": {"color": theme.paper, "width": 1}},
                text=[f"{value:.0f}" for value in part.values], textposition="inside", textangle=0,
                insidetextanchor="middle", textfont={"color": ink(colour)}, constraintext="inside",
                hovertemplate=f"{plain(part.name)}: %{{x:.1f}} s<extra></extra>",
            )
        )  # fmt: skip
    for y, total in enumerate(stack.totals):
        drawing.add_annotation(
            x=sum(part.values[y] for part in stack.parts), y=y, text=plain(total), showarrow=False, xanchor="left",
            xshift=4,
        )  # fmt: skip
