"""compare.html: one file with pictures and tables, to be opened anywhere and sent around."""

from __future__ import annotations

import base64
from html import escape

from srseg.evaluation.compare.plots import pictures
from srseg.evaluation.compare.report import Table, introduction, shown_name, tables, title_of
from srseg.evaluation.compare.summary import Summary

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1280px; margin: 2em auto;
       padding: 0 1.2em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9em; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35em 0.6em; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; }
tr.reference td { font-weight: 600; background: #eef4fa; }
ul { color: #555; font-size: 0.88em; }
figure { margin: 1em 0; } figcaption { font-weight: 600; font-size: 0.9em; }
img { max-width: 100%; height: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 1em; }
"""
_COLOURS = (
    "Dark blue: the reference. Blue: reads LR images. Orange (†): reads the HR image. Grey (‡): "
    "labels are the true ones brought to the LR grid and back."
)


def html_text(summary: Summary) -> str:
    """Return the whole page; nothing in it is loaded from elsewhere."""
    shown = "".join(_picture(caption, png) for caption, png in pictures(summary).items())
    first, *others = tables(summary)
    reference = None if summary.reference is None else shown_name(summary, summary.reference)
    title = escape(title_of(summary))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>srseg_compare: {title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n<p>{escape(introduction(summary))}</p>\n"
        f"{_table(first, reference)}"
        f'<h2>Pictures</h2>\n<p>{_COLOURS}</p>\n<div class="pictures">\n{shown}</div>\n'
        f"{''.join(_table(table, reference) for table in others)}</body>\n</html>\n"
    )


def _picture(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    text = escape(caption)
    return (
        f"<figure><figcaption>{text}</figcaption>"
        f'<img alt="{text}" src="data:image/png;base64,{data}"></figure>\n'
    )


def _table(table: Table, reference: str | None) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.heading)
    rows = "".join(
        f"<tr{' class=reference' if row[0] == reference else ''}>"
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n"
        for row in table.rows
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    below = f"<ul>{notes}</ul>\n" if notes else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table>\n<thead><tr>{head}</tr>'
        f"</thead>\n<tbody>\n{rows}</tbody></table></div>\n{below}"
    )
