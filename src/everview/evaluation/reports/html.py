"""A report as one HTML page that needs nothing else: no script, no network, no other file."""

import base64
import re
from collections.abc import Iterator
from html import escape

from everview.evaluation.reports.blocks import (
    NOT_RUN,
    Block,
    Figure,
    Report,
    Row,
    Section,
    Table,
    Text,
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing from elsewhere."""

STYLE = """
:root { --ink: #1c2733; --soft: #5b6875; --line: #dde3e9; --paper: #fff; --ours: #e8f3ec;
  --mark: #1b7f4b; --back: #f4f6f8; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 28px 80px; background: var(--paper);
  min-height: 100vh; box-shadow: 0 0 0 1px var(--line); }
h1 { font-size: 28px; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 21px; margin: 44px 0 10px; padding-top: 14px; border-top: 2px solid var(--ink); }
h3 { font-size: 16px; margin: 28px 0 6px; }
h4 { font-size: 15px; margin: 20px 0 4px; color: var(--soft); }
p { margin: 8px 0; max-width: 78ch; }
p.note { color: var(--soft); border-left: 3px solid var(--line); padding-left: 12px; }
nav { margin: 18px 0 8px; padding: 12px 16px; background: var(--back); border-radius: 6px; }
nav a { color: inherit; margin-right: 18px; white-space: nowrap; }
.wide { overflow-x: auto; margin: 10px 0 16px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 4px 0; }
th, td { padding: 4px 12px 4px 8px; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th { border-bottom: 2px solid var(--soft); font-weight: 600; white-space: nowrap;
  vertical-align: bottom; }
th.w, td.w { text-align: left; }
tr.ours td { background: var(--ours); }
tr.ours td:first-child, tr.ours td:not(.w) { font-weight: 600; }
td em { white-space: nowrap; }
td.w { min-width: 5em; }
tr.ours td:first-child { box-shadow: inset 3px 0 0 var(--mark); }
tr.absent td { color: var(--soft); }
figure { margin: 14px 0 22px; }
figure svg, figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 4px; max-width: 90ch; }
details { border: 1px solid var(--line); border-radius: 6px; padding: 4px 16px; margin: 10px 0; }
summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
@media print { body { background: none; } main { box-shadow: none; } }
"""


def html(report: Report) -> str:
    """The page."""
    title = escape(report.title)
    body = "\n".join(line for section in report.sections for line in _section(section, 2))
    links = "".join(
        f'<a href="#{anchor(section.title)}">{escape(section.title)}</a> '
        for section in report.sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
        f"</head>\n<body>\n<main>\n<h1>{title}</h1>\n<nav>{links}</nav>\n{body}\n"
        "</main>\n</body>\n</html>\n"
    )


def anchor(title: str) -> str:
    """Name of a section in links."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _section(section: Section, depth: int) -> Iterator[str]:
    title, name = escape(section.title), anchor(section.title)
    if section.is_folded:
        yield f"<details><summary>{title}</summary>"
    else:
        yield f'<section><h{depth} id="{name}">{title}</h{depth}>'
    for block in section.blocks:
        if isinstance(block, Section):
            yield from _section(block, min(depth + 1, 4))
        else:
            yield _block(block)
    yield "</details>" if section.is_folded else "</section>"


def _block(block: Block) -> str:
    if isinstance(block, Text):
        kind = ' class="note"' if block.kind == "note" else ""
        return f"<p{kind}>{escape(block.text)}</p>"
    return _figure(block) if isinstance(block, Figure) else _table(block)


def _figure(figure: Figure) -> str:
    caption = escape(figure.caption)
    if figure.kind == "svg":
        text = figure.data.decode()
        picture = text[text.index("<svg") :].replace(
            "<svg", f'<svg role="img" aria-label="{caption}"', 1
        )
    else:
        data = base64.b64encode(figure.data).decode()
        picture = f'<img alt="{caption}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    head = "".join(
        f"<th{_class(table, i)}>{escape(name)}</th>" for i, name in enumerate(table.columns)
    )
    rows = "\n".join(_row(table, row) for row in table.rows)
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(table: Table, row: Row) -> str:
    cells = "".join(f"<td{_class(table, i)}>{_cell(cell)}</td>" for i, cell in enumerate(row.cells))
    kind = "" if row.kind == "plain" else f' class="{row.kind}"'
    return f"<tr{kind}>{cells}</tr>"


def _cell(cell: str) -> str:
    return f"<em>{escape(cell)}</em>" if cell == NOT_RUN else escape(cell)


def _class(table: Table, column: int) -> str:
    return ' class="w"' if column in table.words else ""
