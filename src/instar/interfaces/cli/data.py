"""The commands of data: `instar ingest` lands files, `instar data ls|show|diff|profile` looks at table versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from instar.interfaces.cli.groups import Group

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.command("ingest")
@click.argument("table")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--partition", default=None, help="The partition that the files are the whole of, e.g. 2013-03.")
@click.option("--landed-at", default=None, metavar="TIME", help="When they became known (RFC 3339); default now.")
@AS_JSON
@click.pass_obj
def ingest(
    folder: str | None, table: str, files: tuple[Path, ...], partition: str | None, landed_at: str | None, as_json: bool
) -> None:
    """Land FILES (.csv, .parquet, .jsonl) in the bronze table TABLE."""
    from instar.app import open_app
    from instar.core.errors import BadInput
    from instar.data import explore
    from instar.data.ingest import Delivery, land
    from instar.data.kind import declared_checks
    from instar.interfaces.moments import moment_of

    with open_app(folder) as app:
        step = app.pipeline.step(table)
        if step.kind != "source":
            raise BadInput(
                "only a source can be landed in",
                subject=f"table {table}",
                found=step.kind,
                asked=", ".join(one.name for one in app.pipeline.steps.values() if one.kind == "source"),
            )
        moment = moment_of(landed_at, "--landed-at") if landed_at else app.store.clock.event()
        deliveries = [Delivery(file.name, file, moment) for file in files]
        checks = declared_checks(app.pipeline, table)
        version = land(app.store, app.project.name, step, deliveries, partition, checks=checks)
        if as_json:
            _print_json(explore.record(version))
        else:
            click.echo(f"{version.ref}: {version.rows} rows, {version.content[:19]}")


@click.group("data", cls=Group)
def data() -> None:
    """List, show and compare table versions."""


@data.command("ls")
@click.argument("table", required=False)
@AS_JSON
@click.pass_obj
def list_tables(folder: str | None, table: str | None, as_json: bool) -> None:
    """The newest version of every table, or all versions of TABLE."""
    from instar.app import open_app
    from instar.data import explore, tables

    with open_app(folder) as app:
        project = app.project.name
        found = tables.versions(app.store, project, table) if table else tables.tables(app.store, project)
    if as_json:
        _print_json([explore.record(version) for version in found])
        return
    _print_table(
        ["table", "zone", "rows", "columns", "checks", "content", "at"],
        [
            [
                one.ref,
                one.zone + (" (foreign)" if one.foreign else ""),
                f"{one.rows:,}",
                str(len(one.schema)),
                _verdict(one.checks),
                one.content[:11],
                f"{one.event_at:%Y-%m-%d %H:%M}",
            ]
            for one in found
        ],
        "No table has a version yet. Land data with: instar ingest TABLE FILE",
    )


@data.command("show")
@click.argument("ref")
@click.option("--rows", default=5, show_default=True, help="First rows to show.")
@AS_JSON
@click.pass_obj
def show(folder: str | None, ref: str, rows: int, as_json: bool) -> None:
    """One version, REF being TABLE, TABLE@NUMBER or a tver_ id: schema, profile, checks, first rows."""
    from instar.app import open_app
    from instar.data import explore, tables

    with open_app(folder) as app:
        found = explore.describe(app.store, tables.get(app.store, app.project.name, ref), rows)
    if as_json:
        _print_json(found)
        return
    click.echo(f"{found['ref']}  {found['id']}  {found['zone']}, {found['rows']:,} rows in {found['files']} files")
    click.echo(f"content {found['content']}\nstate   {found['state']}")
    if found["execution"]:
        click.echo(f"born of {found['execution']}, wanted by {found['cause']}")
    _print_columns(found["columns"])
    for check in found["checks"]:
        bad = "" if check["failing_rows"] is None else f" ({check['failing_rows']} of {check['rows']} rows)"
        click.echo(f"check {check['name']}: {'holds' if check['passed'] else 'FAILS'} [{check['severity']}]{bad}")
    if found["sample"]:
        _print_table(
            list(found["sample"][0]), [[_short(value) for value in row.values()] for row in found["sample"]], ""
        )


@data.command("profile")
@click.argument("ref")
@AS_JSON
@click.pass_obj
def show_profile(folder: str | None, ref: str, as_json: bool) -> None:
    """The statistical profile of a version."""
    from instar.app import open_app
    from instar.data import profile, tables

    with open_app(folder) as app:
        found = profile.summary(tables.read_profile(app.store, tables.get(app.store, app.project.name, ref)))
    if as_json:
        _print_json(found)
        return
    _print_columns([{"name": name, "datatype": facts["type"], **facts} for name, facts in found["columns"].items()])


@data.command("diff")
@click.argument("old")
@click.argument("new")
@AS_JSON
@click.pass_obj
def show_diff(folder: str | None, old: str, new: str, as_json: bool) -> None:
    """What changed from version OLD to version NEW: columns, rows by key, drift."""
    from instar.app import open_app
    from instar.data import explore, tables

    with open_app(folder) as app:
        project = app.project.name
        found = explore.diff(app.store, tables.get(app.store, project, old), tables.get(app.store, project, new))
    if as_json:
        _print_json(found)
        return
    if found["same_content"]:
        click.echo(f"{found['from']} and {found['to']} hold the same rows")
        return
    click.echo(f"rows {found['rows'][0]:,} -> {found['rows'][1]:,}")
    for word, names in found["columns"].items():
        if names:
            click.echo(f"columns {word}: {', '.join(names)}")
    if found["keys"] is not None:
        click.echo("rows by key: " + ", ".join(f"{count:,} {word}" for word, count in found["keys"].items()))
    moved = [[one["column"], f"{one['psi']:.3f}"] for one in found["drift"] if one["psi"]]
    _print_table(["column", "PSI"], moved[:20], "no column drifted")


def _verdict(checks: Any) -> str:
    failed = sum(1 for check in checks if not check.passed)
    return f"{failed} of {len(checks)} fail" if failed else f"{len(checks)} hold" if checks else "-"


def _print_columns(columns: list[dict[str, Any]]) -> None:
    rows = []
    for one in columns:
        middle = one.get("median")
        top = ", ".join(f"{value} ({count})" for value, count in one.get("top", [])[:3])
        spread = (
            f"{_short(one.get('minimum'))} … {_short(middle)} … {_short(one.get('maximum'))}"
            if middle is not None
            else top
        )
        if one.get("type") == "time" and one.get("minimum"):
            spread = f"{one['minimum']} … {one['maximum']}"
        distinct = one.get("distinct")
        rows.append(
            [
                one["name"],
                one["datatype"],
                str(one.get("missing", "")),
                "" if distinct is None else f"{distinct:,}",
                spread,
            ]
        )
    _print_table(["column", "type", "missing", "distinct", "values"], rows, "no columns")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else str(value)
    return text if len(text) <= 24 else text[:23] + "…"


def _print_table(columns: list[str], rows: list[list[str]], otherwise: str) -> None:
    if not rows:
        click.echo(otherwise)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    # Lines of a pipe are read by programs: they are never folded.
    console = console if console.is_terminal else Console(highlight=False, markup=False, width=400)
    console.print(table)


def _print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


commands: dict[str, click.Command] = {"ingest": ingest, "data": data}
