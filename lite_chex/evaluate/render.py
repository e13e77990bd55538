"""Tables on a terminal or in a plain log: 80 columns are enough, and no mark is a colour alone."""

from __future__ import annotations

import textwrap
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lite_chex.evaluate.results import Evaluation
from lite_chex.evaluate.tables import Cell, Table, all_tables, marked

_DIVIDER = 1
"""The column that the box puts between two cells."""
MIN_NAME, MAX_WORD = 8, 14
"""The narrowest column of names, and the longest word of a header that is not broken."""


def _text(cell: Cell) -> Text:
    style = "bold" if cell.best else ""
    if cell.weak:
        style = f"{style} dim".strip()
    return Text(marked(cell), style=style)


def _widest(texts: list[str]) -> int:
    return max((len(line) for text in texts for line in text.split("\n")), default=1)


def _longest_word(texts: list[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=1)


def _needed(table: Table, i: int) -> int:
    """The width of column ``i``: its cells, or its header's longest word, of which a system's name may be cut."""
    longest = min(_longest_word([table.columns[i]]), MAX_WORD)
    return max(_widest([marked(row[len(table.lead) + i]) for row in table.rows]), longest)


def _header(table: Table, i: int) -> str:
    """Column ``i``'s header in lines no wider than the column has to be: its cells, or its longest word."""
    header = table.columns[i]
    if not table.splittable:
        return header
    width = _needed(table, i)
    return "\n".join(part for line in header.split("\n") for part in textwrap.wrap(line, width) or [""])


def _parts(table: Table, width: int, padding: int) -> list[list[int]]:
    """Which columns stand together so that each part fits the width, evenly filled; groups are never cut."""
    groups = [list(range(i, i + table.group)) for i in range(0, len(table.columns), table.group)]
    if not table.splittable:
        return [[i for group in groups for i in group]]
    between = _DIVIDER + padding
    names = len(table.lead)
    lead = sum(_longest_word([*(row[i].text for row in table.rows), table.lead[i]]) + between for i in range(names))
    needed = 1
    for group in groups:
        needed = max(needed, sum(_needed(table, i) for i in group) + len(group) * between)
    fit = max(1, (width - lead + between) // needed)
    count = -(-len(groups) // fit)
    sizes = [len(groups) // count + (part < len(groups) % count) for part in range(count)]
    parts, start = [], 0
    for size in sizes:
        parts.append([i for group in groups[start : start + size] for i in group])
        start += size
    return parts


def _widths(table: Table, part: list[int], width: int, padding: int) -> tuple[list[int | None], list[int | None]]:
    """Widths of the lead columns and of the columns of ``part``; None: whatever the column takes, or what is left.

    Where the line is too short, names give way before figures do, for they can be read in pieces.
    """
    if _fits(table, part, width, padding):
        return [None] * len(table.lead), [None] * len(part)
    lead = [_widest([*(row[i].text for row in table.rows), header]) for i, header in enumerate(table.lead)]
    # A column of free text folds as well: no more than a quarter of the line is kept for it.
    figures = [min(_needed(table, i), width // 4) for i in part]
    counts = [n for n, header in zip(lead, table.lead) if header == "n"]
    left = width - sum(counts) - sum(figures) - (_DIVIDER + padding) * (len(figures) + len(lead)) + _DIVIDER
    shares: list[int | None] = [*lead]
    names = sorted((n, i) for i, (n, header) in enumerate(zip(lead, table.lead)) if header != "n")
    for k, (n, i) in enumerate(names):  # the short ones first: what they leave is the long ones'
        share = min(n, max(left // (len(names) - k), MIN_NAME))
        shares[i], left = share, left - share
    return shares, [n if n < width // 4 else None for n in figures]


def _fits(table: Table, part: list[int], width: int, padding: int) -> bool:
    names = len(table.lead)
    columns = [[header, *(row[i].text for row in table.rows)] for i, header in enumerate(table.lead)]
    columns += [[_header(table, i), *(marked(row[names + i]) for row in table.rows)] for i in part]
    return sum(map(_widest, columns)) + (_DIVIDER + padding) * len(columns) - _DIVIDER <= width


def render_table(table: Table, console: Console) -> None:
    """Print one table, in as many parts as the width asks for, with its caption under the last one."""
    padding = 0 if table.group > 1 else 1
    parts = _parts(table, console.width, padding)
    names = len(table.lead)
    for number, part in enumerate(parts):
        title = table.title if len(parts) == 1 else f"{table.title} ({number + 1} of {len(parts)})"
        console.print(Text(title, style="bold"))
        grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, padding, 0, 0))
        lead, figures = _widths(table, part, console.width, padding)
        for header, wide in zip(table.lead, lead):
            count = header == "n"
            justify: Literal["left", "right"] = "right" if count else "left"
            grid.add_column(Text(header), width=wide, justify=justify, no_wrap=count, overflow="fold")
        for i, wide in zip(part, figures):
            grid.add_column(Text(_header(table, i)), width=wide, no_wrap=table.splittable, overflow="fold")
        for row in table.rows:
            grid.add_row(*(_text(cell) for cell in row[:names]), *(_text(row[names + i]) for i in part))
        console.print(grid)
        if number < len(parts) - 1:
            console.print()
    console.print(Text(" ".join(table.caption), style="dim"))
    console.print()


def render(evaluation: Evaluation, console: Console | None = None, baseline: str | None = None) -> None:
    """Print every table of the evaluation and its notes."""
    console = console or Console()
    for table in all_tables(evaluation, baseline):
        render_table(table, console)
    render_notes(evaluation.notes, console)


def render_notes(notes: list[str], console: Console) -> None:
    """Print warnings that belong to the tables: what was ignored, mended or not scored."""
    for note in notes:
        console.print(Text(f"Note: {note}"))
