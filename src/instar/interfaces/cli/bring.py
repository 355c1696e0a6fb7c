"""`instar runs import`: bring in the runs of an MLflow store, with all that they logged."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

SHOWN = 20  # lines about what did not come over


@click.command("import")
@click.argument("store", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--artifacts",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder in which the MLflow server kept files; by default mlartifacts or mlruns beside STORE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def import_command(project: str | None, store: Path, artifacts: Path | None, as_json: bool) -> None:
    """Bring in the runs of STORE: an MLflow SQLite file or an mlruns folder. Again it brings what is new."""
    from instar.app import open_app, open_source
    from instar.train.importing import bring_in

    with open_app(project, need_project=False) as app:
        tell = (lambda line: None) if as_json else click.echo
        done = bring_in(app.store, app.project_name, open_source(store, artifacts), tell=tell)
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    click.echo(
        f"{done.runs} runs with {done.points} values of metrics and {done.files} files ({done.size_bytes / 1e6:.1f} MB) came "
        f"over from {done.experiments} experiments; {done.known} were here"
    )
    for line in done.left_out[:SHOWN]:
        click.echo(f"left out: {line}", err=True)
    if len(done.left_out) > SHOWN:
        click.echo(f"and {len(done.left_out) - SHOWN} more; --json lists all", err=True)
