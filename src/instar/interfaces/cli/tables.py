"""How lists are printed in a terminal, whenever a command lists something: one line each, columns under their names."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

PIPE_WIDTH = 400  # characters; lines of a pipe are read by programs: they are never folded
GAP = 2  # characters between columns


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    console = console if console.is_terminal else Console(highlight=False, markup=False, width=PIPE_WIDTH)
    console.print(table)


def print_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under a header as comma-separated values; an empty cell is no value."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


def room() -> int | None:
    """Characters in a line of the terminal; None where nobody looks: in a pipe."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else None


def line_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Characters in a line of such a table."""
    return sum(_widths(header, rows)) + GAP * (len(header) - 1)


def columns_that_fit(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """How many columns, from the left, stand beside each other in a line of so many characters."""
    ends = accumulate(GAP + one for one in _widths(header, rows))
    return sum(end - GAP <= width for end in ends)


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(name), *(len(row[at]) for row in rows)) for at, name in enumerate(header)]


def cut(text: str, width: int) -> str:
    """A text in one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def cell(value: Any) -> str:
    """One value as a person reads it: six digits, and a dash for none."""
    if value is None or value != value:  # NaN: of nothing there is no mean
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
