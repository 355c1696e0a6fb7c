"""How lists are printed in a terminal, whenever a command lists something: one line each, columns under their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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
    # Lines of a pipe are read by programs: they are never folded.
    console = console if console.is_terminal else Console(highlight=False, markup=False, width=400)
    console.print(table)


def cell(value: Any) -> str:
    """One value as a person reads it: six digits, and a dash for none."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
