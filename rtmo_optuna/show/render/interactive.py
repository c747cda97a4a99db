"""Charts as plotly figures, for the dashboard."""

import math
import textwrap
from typing import Any

import plotly.graph_objects as go

from rtmo_optuna.show.render import traces
from rtmo_optuna.show.render.chart import Axis, Band, Chart, Label, Line, Mark, Points, Row, Rows, Spans, Stack
from rtmo_optuna.show.render.palette import Theme, ink
from rtmo_optuna.show.render.traces import plain

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_SMALL = 11
_CHARACTER_PX = 7.0
_LABEL_CHARACTERS = 32
_TITLE_PX, _TITLE_CHARACTERS = 16, 58


def figure(chart: Chart, theme: Theme) -> go.Figure:
    """Return `chart` as a plotly figure on the theme's paper, with its title; it is as large as its place.

    That is small in the dashboard, so that rows have a line each, and their tooltips tell the rest.
    """
    drawing = go.Figure(layout={"template": "none"})
    names = _legend_names(chart)
    title = textwrap.wrap(chart.title, _TITLE_CHARACTERS)
    top, bottom = 24 + 1.4 * _TITLE_PX * len(title), 56 + 18 * len(names)
    left, right = _margins(chart)
    drawing.update_layout(
        margin={"l": left, "r": right, "t": top, "b": bottom},
        title={
            "text": plain("\n".join(title)), "font": {"size": _TITLE_PX}, "pad": {"l": 12, "t": 12},
            "x": 0, "xref": "container", "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top",
        },
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        font={"family": _FONT, "size": _SMALL, "color": theme.text},
        hoverlabel={"align": "left", "bgcolor": theme.paper, "bordercolor": theme.quiet, "font": {"color": theme.text}},
        hovermode="closest",
        dragmode="zoom",
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
        _draw(drawing, mark, chart.x, theme)
    return drawing


def _legend_names(chart: Chart) -> set[str]:
    """Return what the legend explains."""
    names = {mark.name for mark in chart.marks if isinstance(mark, Band) or (isinstance(mark, Points) and mark.legend)}
    return names | {part.name for mark in chart.marks if isinstance(mark, Stack) for part in mark.parts}


def _margins(chart: Chart) -> tuple[int, int]:
    """Return how much room the texts left and right of the axes need, in pixels."""
    left = [text for _, text in chart.y.ticks]
    right = [mark.text for mark in chart.marks if isinstance(mark, Label)]
    for mark in chart.marks:
        if isinstance(mark, Rows):
            left += map(_short, mark.rows)
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


def _draw(drawing: go.Figure, mark: Mark, x: Axis, theme: Theme) -> None:
    match mark:
        case Points():
            drawing.add_trace(traces.points(mark, theme))
        case Line():
            drawing.add_trace(traces.line(mark, theme))
        case Band():
            drawing.add_trace(traces.band(mark, x, theme))
        case Spans():
            drawing.add_trace(traces.spans(mark, theme))
        case Label():
            _write(drawing, mark.y, mark.text, theme.roles[mark.role])
        case Rows():
            _draw_rows(drawing, mark, x, theme)
        case Stack():
            _draw_stack(drawing, mark, theme)
            drawing.update_xaxes(range=[x.low, x.high])


def _write(drawing: go.Figure, y: float, text: str, colour: str) -> None:
    """Write `text` to the right of the axes."""
    drawing.add_annotation(
        x=1, xref="paper", y=y, text=plain(text), showarrow=False, xanchor="left", xshift=6,
        font={"color": colour, "size": _SMALL},
    )  # fmt: skip


def _short(row: Row) -> str:
    text = " ".join(row.label)
    return text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _draw_rows(drawing: go.Figure, marks: Rows, x: Axis, theme: Theme) -> None:
    ys = [*range(len(marks.rows))]
    ends_y = [len(ys) - 0.5, -0.5]
    labels = [plain(_short(row)) for row in marks.rows]
    drawing.update_yaxes(range=ends_y, showgrid=False, tickvals=ys, ticktext=labels, tickfont_color=theme.text)
    if marks.origin is not None:
        ends, line = [marks.origin] * 2, {"color": theme.quiet, "width": 1}
        drawing.add_trace(go.Scatter(x=ends, y=ends_y, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    for y, row in zip(ys, marks.rows, strict=True):
        _write(drawing, y, row.text, theme.text)
    _draw_values(drawing, marks, x, ys, theme)


def _draw_values(drawing: go.Figure, marks: Rows, x: Axis, ys: list[int], theme: Theme) -> None:
    low, high = x.low or -math.inf, x.high or math.inf
    values = [min(max(row.value, low), high) for row in marks.rows]
    colours = [theme.roles[row.role] for row in marks.rows]
    shared = {"y": ys, "hovertext": [plain(row.hover) for row in marks.rows], "hoverinfo": "text", "showlegend": False}
    if marks.origin is None:
        drawing.add_trace(go.Bar(x=values, orientation="h", width=0.6, marker={"color": colours}, **shared))
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
