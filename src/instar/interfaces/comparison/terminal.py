"""A comparison of runs on a terminal: a table of what differs, one column a run, and the changed lines of code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from instar.interfaces.comparison.plots import names_of

MOST_LINES = 40  # of one file's difference
LONGEST = 200  # characters of one value; JSON has all of them


def print_comparison(document: Mapping[str, Any]) -> None:
    """Everything that differs."""
    from rich.console import Console
    from rich.table import Table

    names = names_of(document)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", *(names[run["id"]] for run in document["runs"])):
        table.add_column(title, overflow="fold")
    table.add_row("run", *(run["id"] for run in document["runs"]))
    table.add_row("state", *(run["state"] for run in document["runs"]))
    for what in ("parameters", "metrics", "inputs", "environment", "conditions", "commits"):
        word = {"parameters": "parameter ", "metrics": "metric "}.get(what, "")
        for name, row in document[what].items():
            table.add_row(f"{word}{name}", *(said(value) for value in row))
    console = Console(highlight=False, markup=False)
    # Lines of a pipe are read by programs: they are never folded.
    console = console if console.is_terminal else Console(highlight=False, markup=False, width=400)
    console.print(table)
    for one in document["code"]:
        click.echo(f"\n{one['file']} in {names[one['run']]}")
        for line in one["lines"][:MOST_LINES]:
            click.secho(f"  {line}", fg={"+": "green", "-": "red"}.get(line[:1]))
        left = len(one["lines"]) - MOST_LINES + one["cut"]
        if left > 0:
            click.echo(f"  and {left} lines more")
    if len(document["runs"]) > 1 and not any(document[what] for what in ("parameters", "metrics", "code")):
        click.echo("their parameters, metrics and code are the same")


def said(value: Any) -> str:
    """A value in a cell."""
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]}… and {left} characters more"
