"""`instar runs import`: bring in the runs of an MLflow store with all that they logged, and its registered models."""

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
    """Bring in runs and registered models of STORE, an MLflow SQLite file or an mlruns folder; again, what is new."""
    from instar.app import open_app, open_source
    from instar.release import importing as models
    from instar.release.packing import pack_logged
    from instar.serve.traffic import derived
    from instar.train import importing as runs

    with open_app(project, need_project=False) as app:
        tell = (lambda line: None) if as_json else click.echo
        source = open_source(store, artifacts)
        done = runs.bring_in(app.store, app.project_name, source, tell=tell)
        names = derived.derive(app.store, app.project_name)
        registered = models.bring_in(app.store, app.project_name, source, pack_logged, names)
    if as_json:
        click.echo(json.dumps({"runs": asdict(done), "models": asdict(registered)}, indent=2))
        return
    click.echo(
        f"{done.runs} runs with {done.points} values of metrics and {done.files} files ({done.size_bytes / 1e6:.1f} MB) came "
        f"over from {done.experiments} experiments; {done.known} were here"
    )
    if registered.models:
        click.echo(
            f"{registered.versions} versions of {registered.models} registered models came over; {registered.known} were here"
        )
    left_out = [*done.left_out, *registered.left_out]
    for line in left_out[:SHOWN]:
        click.echo(f"left out: {line}", err=True)
    if len(left_out) > SHOWN:
        click.echo(f"and {len(left_out) - SHOWN} more; --json lists all", err=True)
