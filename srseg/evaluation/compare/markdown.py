"""compare.md: the tables as Markdown, to be read in a terminal or copied into a document."""

from __future__ import annotations

from srseg.evaluation.compare.report import Table, introduction, tables, title_of
from srseg.evaluation.compare.summary import Summary


def markdown_text(summary: Summary) -> str:
    """Return the whole file."""
    parts = [f"# {title_of(summary)}", introduction(summary)]
    parts += [_section(table) for table in tables(summary)]
    return "\n\n".join(parts) + "\n"


def table_text(table: Table) -> str:
    """Return a table's lines, columns aligned."""
    lines = [table.heading, *table.rows]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(table.heading))]
    text = [_line(line, widths) for line in lines]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([text[0], "| " + " | ".join(rule) + " |", *text[1:]])


def _section(table: Table) -> str:
    parts = [f"## {table.title}", table_text(table)]
    if table.notes:
        parts.append("\n".join(f"* {note}" for note in table.notes))
    return "\n\n".join(parts)


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "| " + " | ".join(aligned) + " |"
