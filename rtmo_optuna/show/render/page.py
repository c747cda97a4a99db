"""The report as one HTML page that needs no network: text, tables, and plotly.js once."""

import html
import json
import re
from collections.abc import Sequence
from string import Template

from rtmo_optuna.display import visible
from rtmo_optuna.show.render.blocks import (
    Block,
    Bullets,
    Code,
    Facts,
    Inline,
    Listing,
    Paragraph,
    Section,
    Table,
    charts,
)
from rtmo_optuna.show.render.chart import Chart
from rtmo_optuna.show.render.interactive import figure, plotly_js
from rtmo_optuna.show.render.palette import DARK, LIGHT

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
<script type="application/json" id="charts">$charts</script>
<script>$plotly</script>
<script>$draw</script>
</body>
</html>
""")
_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --panel: #f5f7f9; --text: #1f2933; --quiet: #5b6773;
  --line: #dfe4e8; --best: #00805e; --warn: #c9520a; --mark: #e5f4ee; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --panel: #1d232a; --text: #e6eaee; --quiet: #9ba7b3;
  --line: #2f3841; --best: #2fc79a; --warn: #f08a4b; --mark: #17322a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text); line-height: 1.5; font-size: 16px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--quiet); margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
p.verdict { font-size: 1.5rem; line-height: 1.3; font-weight: 650; margin: 0 0 .75rem; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .86em; }
code { overflow-wrap: anywhere; }
pre { background: var(--panel); padding: 1rem; border-radius: .5rem; overflow-x: auto; }
dl { display: grid; grid-template-columns: repeat(4, 1fr); gap: .75rem; margin: 1.25rem 0 0; }
dl div { background: var(--panel); border-radius: .5rem; padding: .75rem 1rem; }
dt { color: var(--quiet); font-size: .8rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
ul.warnings { list-style: none; padding: 0; }
ul.warnings li { border-left: 4px solid var(--warn); background: var(--panel); padding: .5rem .9rem; margin: .5rem 0;
  border-radius: 0 .4rem .4rem 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; vertical-align: bottom; }
td code { overflow-wrap: break-word; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
td.wide { min-width: 14rem; }
td:last-child { min-width: 6rem; }
tr.marked td { background: var(--mark); font-weight: 600; }
figure { margin: 1.75rem 0; }
figure .subtitle, figcaption { color: var(--quiet); font-size: .88rem; margin: .15rem 0; }
.plot { width: 100%; }
@media (max-width: 45rem) { main { padding: 1.25rem 1rem 3rem; } p.verdict { font-size: 1.25rem; }
  dl { grid-template-columns: repeat(2, 1fr); } th, th.number { white-space: nowrap; } }
"""
_DRAW = """
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = window.matchMedia("(max-width: 45rem)");
function draw() {
  for (const [name, variants] of Object.entries(charts)) {
    const drawing = variants[(dark.matches ? "dark" : "light") + (narrow.matches ? "-narrow" : "")];
    Plotly.react("plot-" + name, drawing.data, drawing.layout, {responsive: true, displayModeBar: false});
  }
}
draw();
dark.addEventListener("change", draw);
narrow.addEventListener("change", draw);
"""


def page(sections: Sequence[Section]) -> str:
    """Return the report as an HTML page that follows the reader's light or dark scheme and fits a phone."""
    figures = {
        chart.name: {
            theme.name + width: json.loads(figure(chart, theme, narrow=bool(width)).to_json(engine="json"))
            for theme in (LIGHT, DARK)
            for width in ("", "-narrow")
        }
        for chart in charts(sections)
    }
    return _PAGE.substitute(
        title=html.escape(visible(sections[0].title)),
        style=_STYLE,
        body=visible("\n".join(_section(section, level) for level, section in enumerate(sections))),
        charts=json.dumps(figures, separators=(",", ":")).replace("<", "\\u003c"),
        plotly=re.sub(r"</(?=script)", r"<\\/", plotly_js(), flags=re.IGNORECASE),
        draw=_DRAW,
    )


def _section(section: Section, level: int) -> str:
    heading = "h2" if level else "h1"
    blocks = "\n".join(map(_block, section.blocks))
    return f"<section>\n<{heading}>{html.escape(section.title)}</{heading}>\n{blocks}\n</section>"


def _inline(text: Inline) -> str:
    if isinstance(text, tuple):
        return "".join(map(_inline, text))
    if isinstance(text, Code):
        return f"<code>{html.escape(text.text)}</code>"
    return html.escape(text)


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f'<p class="verdict">{_inline(block.text)}</p>' if block.strong else f"<p>{_inline(block.text)}</p>"
        case Bullets():
            return f'<ul class="warnings">{"".join(f"<li>{_inline(item)}</li>" for item in block.items)}</ul>'
        case Facts():
            pairs = (f"<div><dt>{html.escape(n)}</dt><dd>{html.escape(v)}</dd></div>" for n, v in block.pairs)
            return f"<dl>{''.join(pairs)}</dl>"
        case Listing():
            return f"<pre><code>{html.escape(block.text)}</code></pre>"
        case Chart():
            return _figure(block)
        case Table():
            return _table(block)


def _figure(chart: Chart) -> str:
    return (
        f'<figure>\n<h3>{html.escape(chart.title)}</h3>\n<p class="subtitle">{html.escape(chart.subtitle)}</p>\n'
        f'<div class="plot" id="plot-{chart.name}"></div>\n'
        f"<figcaption>{html.escape(chart.caption)}</figcaption>\n</figure>"
    )


def _table(table: Table) -> str:
    kinds = [' class="number"' if c.number else ' class="wide"' if c.wide else "" for c in table.columns]
    head = "".join(f"<th{kind}>{html.escape(c.title)}</th>" for kind, c in zip(kinds, table.columns, strict=True))
    body = "\n".join(_row(row, kinds, marked=i in table.marked) for i, row in enumerate(table.rows))
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _row(row: Sequence[Inline], kinds: Sequence[str], *, marked: bool) -> str:
    cells = "".join(f"<td{kind}>{_inline(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
    return f'<tr class="marked">{cells}</tr>' if marked else f"<tr>{cells}</tr>"
