"""The report as one HTML page that needs no network and no script: text, tables, pictures as SVG."""

import base64
import html
import re
from collections.abc import Iterator, Sequence
from string import Template

from rtmo_optuna.display import visible
from rtmo_optuna.show.render.blocks import (
    Block,
    Bullets,
    Code,
    Facts,
    Image,
    Inline,
    Listing,
    Paragraph,
    Section,
    Table,
)
from rtmo_optuna.show.render.chart import Band, Chart, Label, Points, Role, Shape, Stack
from rtmo_optuna.show.render.palette import DARK, LIGHT, variable, variables
from rtmo_optuna.show.render.pictures import svg

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")
_STYLE = f"""
:root {{ color-scheme: light dark; --panel: #f5f7f9; --line: #dfe4e8; --warn: #c9520a; --mark: #e5f4ee;
  --shade: #1f293338; {variables(LIGHT)} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ --panel: #1d232a; --line: #2f3841; --warn: #f08a4b;
  --mark: #17322a; --shade: #ffffff38; {variables(DARK)} }} }}
:root {{ --paper: {variable(LIGHT.paper)}; --text: {variable(LIGHT.text)}; --quiet: {variable(LIGHT.quiet)}; }}
"""
_RULES = """
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
nav ol { columns: 3; column-gap: 1.5rem; margin: 1.75rem 0 0; padding-left: 1.4rem; font-size: .9rem; }
nav li { break-inside: avoid; color: var(--quiet); padding: .1rem 0; }
a { color: inherit; text-underline-offset: .15em; }
.scroll { overflow-x: auto; margin: 1rem 0; background:
  linear-gradient(90deg, var(--paper) 40%, transparent) 0 0 / 2.5rem 100% local no-repeat,
  linear-gradient(270deg, var(--paper) 40%, transparent) 100% 0 / 2.5rem 100% local no-repeat,
  linear-gradient(90deg, var(--shade), transparent) 0 0 / .8rem 100% scroll no-repeat,
  linear-gradient(270deg, var(--shade), transparent) 100% 0 / .8rem 100% scroll no-repeat; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; vertical-align: bottom; }
td code { overflow-wrap: break-word; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
td.wide { min-width: 14rem; }
td:last-child { min-width: 6rem; }
tr.marked td { background: color-mix(in srgb, var(--mark), transparent 25%); font-weight: 600; }
figure { margin: 1.75rem 0; }
figure img { max-width: 100%; height: auto; border-radius: .4rem; }
figure .subtitle, figcaption { color: var(--quiet); font-size: .88rem; margin: .15rem 0; }
figure svg { display: block; width: 100%; height: auto; margin: .5rem 0;
  font-family: "DejaVu Sans", Verdana, "Bitstream Vera Sans", sans-serif; }
figure .narrow, .key .beside { display: none; }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; margin: .35rem 0; padding: 0;
  color: var(--quiet); font-size: .82rem; }
@media print { body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; }
  h2 { margin-top: 1.5rem; break-after: avoid; } figure, tr, dl div, li { break-inside: avoid; }
  .scroll { overflow: visible; background: none; } pre { white-space: pre-wrap; } td.wide { min-width: 0; }
  table { font-size: .75rem; } }
@media screen and (max-width: 45rem) { figure .wide { display: none; } figure .narrow { display: block; }
  .key .beside { display: list-item; } nav ol { columns: 1; } main { padding: 1.25rem 1rem 3rem; }
  p.verdict { font-size: 1.25rem; }
  dl { grid-template-columns: repeat(2, 1fr); } th, th.number { white-space: nowrap; } dd { font-size: .93rem; } }
"""
_WIDTHS = (("wide", False), ("narrow", True))
_KEYS = {Shape.DISC: "●", Shape.RING: "○", Shape.CROSS: "\N{MULTIPLICATION SIGN}", Shape.ARROW: "▲"}


def page(sections: Sequence[Section]) -> str:
    """Return the report as an HTML page that follows the reader's light or dark scheme, fits a phone, and prints."""
    first, *others = sections
    return _PAGE.substitute(
        title=html.escape(visible(first.title)),
        style=_STYLE + _RULES,
        body=visible("\n".join((_section(first, 0), _contents(others), *(_section(one, 1) for one in others)))),
    )


def _contents(sections: Sequence[Section]) -> str:
    places = (f'<li><a href="#{_place(one)}">{html.escape(one.title)}</a></li>' for one in sections)
    return f'<nav aria-label="Contents"><ol>{"".join(places)}</ol></nav>' if sections else ""


def _place(section: Section) -> str:
    """Return the name of a section that links lead to."""
    return re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")


def _section(section: Section, level: int) -> str:
    heading, place = ("h2", f' id="{_place(section)}"') if level else ("h1", "")
    blocks = "\n".join(map(_block, section.blocks))
    return f"<section{place}>\n<{heading}>{html.escape(section.title)}</{heading}>\n{blocks}\n</section>"


def _inline(text: Inline) -> str:
    if isinstance(text, tuple):
        return "".join(map(_inline, text))
    if isinstance(text, Code):
        return f"<code>{html.escape(text.text)}</code>"
    return html.escape(text)


def _block(block: Block) -> str:  # noqa: PLR0911 - one for each kind
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
        case Image():
            return _image(block)


def _image(image: Image) -> str:
    source, caption = base64.b64encode(image.content).decode(), html.escape(image.caption)
    picture = f'<img src="data:image/jpeg;base64,{source}" alt="{caption}">'
    return f"<figure>\n{picture}\n<figcaption>{caption}</figcaption>\n</figure>"


def _figure(chart: Chart) -> str:
    wide, narrow = (svg(chart, narrow=small).replace("<svg ", f'<svg class="{kind}" ', 1) for kind, small in _WIDTHS)
    return (
        f'<figure>\n<h3>{html.escape(chart.title)}</h3>\n<p class="subtitle">{html.escape(chart.subtitle)}</p>\n'
        f'{wide}\n{narrow}\n<ul class="key">{"".join(_key(chart))}</ul>\n'
        f"<figcaption>{html.escape(chart.caption)}</figcaption>\n</figure>"
    )


def _key(chart: Chart) -> Iterator[str]:
    """Yield what the marks of a chart mean; what stands beside them where there is room is named on a phone only."""
    known: set[tuple[str, str]] = set()
    for mark in chart.marks:
        told: list[tuple[str, Role, str]] = []
        match mark:
            case Points() if mark.legend:
                told = [(_KEYS[mark.shape], mark.role, mark.name)]
            case Band():
                told = [("▒", mark.role, mark.name)]
            case Label():
                told = [("╌", mark.role, mark.text)]
            case Stack():
                told = [("■", part.role, part.name) for part in mark.parts]
        for sign, role, name in told:
            if (sign, name) not in known:
                known.add((sign, name))
                only = ' class="beside"' if isinstance(mark, Label) else ""
                colour = variable(LIGHT.roles[role])
                yield f'<li{only}><span style="color: {colour}">{sign}</span> {html.escape(name)}</li>'


def _table(table: Table) -> str:
    kinds = [' class="number"' if c.number else ' class="wide"' if c.wide else "" for c in table.columns]
    head = "".join(f"<th{kind}>{html.escape(c.title)}</th>" for kind, c in zip(kinds, table.columns, strict=True))
    body = "\n".join(_row(row, kinds, marked=i in table.marked) for i, row in enumerate(table.rows))
    what = html.escape(", ".join(column.title for column in table.columns))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table: {what}"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _row(row: Sequence[Inline], kinds: Sequence[str], *, marked: bool) -> str:
    cells = "".join(f"<td{kind}>{_inline(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
    return f'<tr class="marked">{cells}</tr>' if marked else f"<tr>{cells}</tr>"
