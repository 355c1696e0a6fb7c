"""`instar runs`: list, show and compare what was trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.bring import import_command
from instar.interfaces.cli.compare import compare_command
from instar.interfaces.cli.sync import sync_command

if TYPE_CHECKING:
    from instar.train.runs import Run

# More columns of metrics than this do not fit a terminal.
MOST_METRICS = 5


@click.group("runs")
def runs_group() -> None:
    """List and show runs: parameters, metrics, inputs, code, environment."""


@runs_group.command("ls")
@click.option("--experiment", help="Only runs of this experiment (a problem's name, or your own).")
@click.option("--step", help="Only runs of this step.")
@click.option("--state", type=click.Choice(["running", "finished", "failed", "abandoned"]), help="Only in this state.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_command(
    project: str | None, experiment: str | None, step: str | None, state: str | None, limit: int, as_json: bool
) -> None:
    """List runs, the newest first."""
    from instar.app import open_app
    from instar.train import runs, syncing

    with open_app(project, need_project=False, make=False) as app:
        syncing.abandon_silent(app.store, app.project_name)
        found = runs.list_runs(app.store, app.project_name, experiment=experiment, step=step, state=state, limit=limit)
    if as_json:
        click.echo(json.dumps([runs.document(run) for run in found], indent=2))
    else:
        _print_list(found)


@runs_group.command("show")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def show_command(project: str | None, run: str, as_json: bool) -> None:
    """Show one run; the beginning of its id is enough."""
    from instar.app import open_app
    from instar.train import bundles, reproductions, runs

    with open_app(project, need_project=False, make=False) as app:
        found = runs.get_run(app.store, run)
        with app.store.database.read() as tx:
            made, again = bundles.of_run(tx, found.id), reproductions.verdicts(tx, found.id)
    if as_json:
        click.echo(json.dumps({**runs.document(found), "bundles": made, "reproductions": again}, indent=2))
    else:
        _print_run(found, made, again)


def _print_list(found: list[Run]) -> None:
    if not found:
        click.echo("no runs yet; a run is made by a model step: instar run")
        return
    # The business metric first: it decides.
    names = sorted({name for run in found for name in run.metrics}, key=lambda name: (name != "cost", name))[
        :MOST_METRICS
    ]
    rows = [
        [
            run.id, run.experiment, run.step or "", run.state, f"{run.started:%Y-%m-%d %H:%M}",
            *(_cell(run.metrics.get(name)) for name in names),
            ", ".join(f"{name}={_cell(value)}" for name, value in run.parameters.items()),
        ]
        for run in found
    ]  # fmt: skip
    _table(["run", "experiment", "step", "state", "started", *names, "parameters"], rows)


def _print_run(run: Run, made: list[str], again: dict[str, str]) -> None:
    code = run.code or {}
    commit = f"{code.get('commit') or 'no commit'}{' with changes' if code.get('diff') else ''}"
    facts = [
        ("run", run.id),
        ("experiment", run.experiment),
        ("step", run.step or "none: ad hoc"),
        ("state", run.state),
        ("error", run.error or ""),
        ("started", f"{run.started:%Y-%m-%d %H:%M:%S} UTC by {run.actor}, cause {run.cause}"),
        ("took", f"{run.seconds:.2f} s" if run.seconds is not None else ""),
        ("inputs", ", ".join(run.inputs)),
        ("code", f"{commit}, files {code.get('content', '')}" if run.code else ""),
        ("environment", run.environment or ""),
        ("bundles", ", ".join(made)),
        ("reproduced", ", ".join(f"{verdict} by {one}" for one, verdict in again.items())),
        ("tags", ", ".join(f"{name}={value}" for name, value in run.tags.items())),
    ]
    for name, value in facts:
        if value:
            click.echo(f"{name:<12} {value}")
    for title, values in (("parameters", run.parameters), ("metrics", run.metrics), ("artifacts", run.artifacts)):
        if values:
            click.echo(f"\n{title}")
            for key in values:
                click.echo(f"  {key:<24} {_cell(values[key])}")


def _table(header: list[str], rows: list[list[str]]) -> None:
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


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


runs_group.add_command(compare_command)
runs_group.add_command(import_command)
runs_group.add_command(sync_command)

commands: dict[str, click.Command] = {"runs": runs_group}
