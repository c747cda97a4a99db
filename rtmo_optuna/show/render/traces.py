"""Marks as plotly's traces, in plain data: points, lines and bands."""

import html
from collections.abc import Mapping
from typing import Any

from rtmo_optuna.show.render.chart import Axis, Band, Line, Points, Shape, Spans
from rtmo_optuna.show.render.palette import Theme

_CROWD = 150
_SHAPES: Mapping[Shape, str] = {
    Shape.DISC: "circle",
    Shape.RING: "circle-open",
    Shape.CROSS: "x-thin-open",
    Shape.ARROW: "triangle-up",
}


def plain(text: str) -> str:
    """Return `text` with nothing in it that plotly would take for markup."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def points(points: Points, theme: Theme) -> dict[str, Any]:
    """Return single points, with their texts."""
    colour = theme.roles[points.role]
    thick = points.shape in {Shape.RING, Shape.CROSS}
    return {
        "type": "scatter",
        "x": points.x,
        "y": points.y,
        "name": points.name,
        "mode": "markers+text" if points.texts else "markers",
        "text": [plain(text) for text in points.texts],
        "textposition": "top center",
        "textfont": {"size": 10, "color": theme.quiet},
        "hovertext": [plain(text) for text in points.hover],
        "hoverinfo": "text",
        "showlegend": points.legend,
        "cliponaxis": False,
        "marker": {
            "symbol": _SHAPES[points.shape],
            "color": colour,
            "size": 9 if len(points.x) < _CROWD else 5,
            "line": {"color": colour, "width": 2 if thick else 0},
        },
    }


def line(line: Line, theme: Theme) -> dict[str, Any]:
    """Return a line, which stands in no legend."""
    return {
        "type": "scatter",
        "x": line.x,
        "y": line.y,
        "name": line.name,
        "mode": "lines+markers" if line.dotted else "lines",
        "hovertemplate": f"{plain(line.name)}: %{{y:.4g}}<extra></extra>",
        "hoverinfo": None if line.dotted else "skip",
        "showlegend": False,
        "marker": {"size": 6},
        "line": {
            "color": theme.roles[line.role],
            "width": 1.3 if line.thin else 2.2,
            "dash": "dash" if line.dashed else "solid",
            "shape": "hv" if line.stepped else "linear",
        },
    }


def band(band: Band, x: Axis, theme: Theme) -> dict[str, Any]:
    """Return a shaded band across the axis `x`, which has ends."""
    colour, ends = theme.roles[band.role], [x.low, x.high]
    return {
        "type": "scatter",
        "x": [*ends, *reversed(ends)],
        "y": [band.low, band.low, band.high, band.high],
        "name": band.name,
        "mode": "none",
        "fill": "toself",
        "fillcolor": f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.18)",
        "hoverinfo": "skip",
        "showlegend": True,
    }


def spans(spans: Spans, theme: Theme) -> dict[str, Any]:
    """Return all upright lines as one trace."""
    parts = list(zip(spans.x, spans.low, spans.high, strict=True))
    return {
        "type": "scatter",
        "x": [at for x, _, _ in parts for at in (x, x, None)],
        "y": [at for _, *ends in parts for at in (*ends, None)],
        "mode": "lines",
        "line": {"color": theme.roles[spans.role], "width": 1},
        "opacity": 0.6,
        "hoverinfo": "skip",
        "showlegend": False,
    }
