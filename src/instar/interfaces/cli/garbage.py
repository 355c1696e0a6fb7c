"""`instar gc`: removes for good what was deleted, and what no record names any more."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from instar.operate.garbage import Item, Report

SHOWN = 20  # of one kind


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what stays and why.")
@click.option("--grace", default="1d", show_default=True, help="What was deleted or put within it stays, e.g. 12h.")
@click.option("--unused", default="7d", show_default=True, help="Environments that were used within it stay.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def collect_command(project: str | None, dry_run: bool, grace: str, unused: str, as_json: bool) -> None:
    """Remove deleted runs, models and experiments, unnamed blobs, unused environments, spools, calls whose time is over."""
    from instar.app import open_app
    from instar.operate import garbage, upkeep

    spans = {"--grace": _span("--grace", grace), "--unused": _span("--unused", unused)}
    with open_app(project, need_project=False, make=False) as app:
        report = garbage.collect(
            app.store,
            app.project_name,
            dry_run=dry_run,
            grace=spans["--grace"],
            unused=spans["--unused"],
            terms=upkeep.terms_of(app.project.contract) if app.project_if_any is not None else {},
        )
    if as_json:
        click.echo(json.dumps(report.document(), indent=2))
    else:
        _print(report)


def _span(option: str, text: str) -> timedelta:
    from instar.plan import terms

    try:
        found = terms.duration(text)
    except OverflowError:
        found = None
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration such as 1d, 12h or 30m", param_hint=option)
    return found


def _print(report: Report) -> None:
    verb = "would go" if report.dry_run else "gone"
    for kind in ("run", "experiment", "bundle", "model", "blob", "environment", "spool", "calls", "inputs"):
        _print_kind(kind, verb, [item for item in report.gone if item.kind == kind])
    for item in report.kept:
        click.echo(f"kept: {item.kind} {_short(item)}{_size(item.size)}: {item.reason}")
    click.echo(f"kept: {report.blobs} blobs that records name, {report.young} that were put too lately to tell")
    click.echo(f"{len(report.gone)} {verb}, {report.size / 1e6:.1f} MB")


def _print_kind(kind: str, verb: str, items: list[Item]) -> None:
    for item in items[:SHOWN]:
        click.echo(f"{verb}: {kind} {_short(item)}{_size(item.size)}: {item.reason}")
    if len(items) > SHOWN:
        more = items[SHOWN:]
        click.echo(f"{verb}: {len(more)} more of kind {kind}{_size(sum(item.size for item in more))}")


def _short(item: Item) -> str:
    return item.name[:15] if item.name.startswith("b3:") else item.name


def _size(size: int) -> str:
    return f" ({size / 1e6:.2f} MB)" if size else ""


commands: dict[str, click.Command] = {"gc": collect_command}
