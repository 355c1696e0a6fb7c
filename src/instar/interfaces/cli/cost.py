"""`instar cost`: what each version costs to serve, and what the server costs around them."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from instar.core.clock import Clock
    from instar.serve.root.costs import Cost


@click.command("cost")
@click.argument("endpoint", required=False)
@click.option("--since", help="From then on: a date or time, or a span back from now as in 24h or 30d; default all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def cost_command(project: str | None, endpoint: str | None, since: str | None, as_json: bool) -> None:
    """Processor time, memory and calls of each version that answers, or of ENDPOINT's, and of the server itself."""
    from instar.app import open_app
    from instar.core.settings import read_settings
    from instar.serve.root import costs

    settings = read_settings()
    with open_app(project, need_project=False, make=False) as app:
        costs.take_in(app.store)
        moment = since_of(since, app.store.clock) if since else None
        found = costs.costs(app.store, project=app.project_name, endpoint=endpoint, since=moment, prices=settings)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    elif not found:
        click.echo("nothing was served yet: instar up")
    else:
        click.echo(table(found, settings.currency))


def since_of(text: str, clock: Clock) -> datetime:
    """The moment that `--since` means.

    Raises:
        BadInput: It is neither a moment nor a span.
    """
    from instar.interfaces.moments import moment_of
    from instar.plan.terms import duration

    span = duration(text)
    return clock.wall() - span if span is not None else moment_of(text, "since, which may be a span such as 24h, too")


def table(found: list[Cost], currency: str) -> str:
    """The costs as lines of a table, with their sum."""
    priced = any(one.money is not None for one in found)
    head = ["", "calls", "rows", "starts", "busy s", "CPU s", "GB h", *([currency] if priced else [])]
    lines = [head, *(_cells(one, priced) for one in found)]
    total = ["in all", "", "", "", "", _seconds(sum(one.cpu_seconds for one in found))]
    total.append(f"{sum(one.gb_hours for one in found):.3f}")
    total += [f"{sum(one.money or 0.0 for one in found):.4f}"] if priced else []
    lines.append(total)
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = []
    for name, *figures in lines:
        cells = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
        texts.append("  ".join([name.ljust(widths[0]), *cells]))
    return "\n".join(texts)


def _cells(one: Cost, priced: bool) -> list[str]:
    name = f"{one.endpoint}@{one.version}" if one.endpoint else f"({one.what})"
    counts = [str(one.calls), str(one.rows), str(one.starts)] if one.endpoint else ["", "", ""]
    busy = _seconds(one.busy_seconds) if one.endpoint else ""
    cells = [name, *counts, busy, _seconds(one.cpu_seconds), f"{one.gb_hours:.3f}"]
    return [*cells, f"{one.money or 0.0:.4f}"] if priced else cells


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


commands = {"cost": cost_command}
