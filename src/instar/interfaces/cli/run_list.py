"""`instar runs ls`: list runs that pass a filter, in any order, with the columns asked for; when results are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.tables import cell, print_table

if TYPE_CHECKING:
    from instar.core.store import Store
    from instar.train.runs import Run
    from instar.train.search_words import Field

# More columns of metrics than this do not fit a terminal.
MOST_METRICS = 5


@click.command("ls")
@click.option("--experiment", help="Only runs of this experiment (a problem's name, or your own).")
@click.option("--step", help="Only runs of this step.")
@click.option(
    "--state",
    type=click.Choice(["scheduled", "running", "finished", "failed", "killed", "abandoned"]),
    help="Only in this state.",
)
@click.option(
    "--filter", "filter_", default="", help="Only runs that pass, e.g. \"metrics.cost < 0.5 OR tags.team = 'rail'\"."
)
@click.option("--order-by", multiple=True, help='Sort by this, e.g. "metrics.cost DESC"; repeatable.')
@click.option("--columns", default="", help='Show these, e.g. "metrics.cost, params.depth, run_name".')
@click.option("--all-projects", is_flag=True, help="Runs of every project of the store.")
@click.option(
    "--view", type=click.Choice(["active", "deleted", "all"]), default="active", show_default=True, help="Which runs."
)
@click.option("--count", "only_count", is_flag=True, help="Only say how many there are.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_command(
    project: str | None,
    experiment: str | None,
    step: str | None,
    state: str | None,
    filter_: str,
    order_by: tuple[str, ...],
    columns: str,
    all_projects: bool,
    view: str,
    only_count: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List runs, the newest first."""
    from instar.app import open_app
    from instar.train import run_fields, run_search, runs, syncing
    from instar.train.search_grammar import parse_order

    fields = [order.field for order in parse_order(columns, run_fields.VOCABULARY)] if columns.strip() else []
    with open_app(project, need_project=False, make=False) as app:
        syncing.abandon_silent(app.store, app.project_name)
        projects = None if all_projects else [app.project_name]
        chosen: dict[str, Any] = {
            "projects": projects,
            "experiments": _named(app.store, projects, experiment),
            "filter": _narrowed(filter_, step, state),
            "view": view,
        }
        if only_count:
            number = run_search.count(app.store, **chosen)
            click.echo(json.dumps({"count": number}) if as_json else number)
            return
        with app.store.database.read() as tx:
            found = run_search.find(tx, order_by=order_by, limit=limit, token=None, **chosen)
            listed = runs.load(tx, found.keys, run_search.columns(columns))
    if as_json:
        click.echo(json.dumps([runs.document(run) for run in listed], indent=2))
        return
    _print(listed, fields, all_projects)
    if found.without:
        click.echo(f"\n{len(found.without)} of them have no {order_by[0].split()[0]} and come last", err=True)
    if found.token:
        click.echo(f"\nthere are more than {limit}: see --limit and --count", err=True)


def _named(store: Store, projects: Sequence[str] | None, experiment: str | None) -> list[str] | None:
    """Ids of the experiments of a name, active or deleted."""
    if experiment is None:
        return None
    from instar.train import experiment_search
    from instar.train.search_words import quoted

    page = experiment_search.search(store, projects, filter=f"name = {quoted(experiment)}", view="all")
    return [one.id for one in page.items]


def _narrowed(filter_: str, step: str | None, state: str | None) -> str:
    """The filter, and what the older options ask for."""
    from instar.train import run_fields
    from instar.train.search_grammar import parse
    from instar.train.search_words import quoted

    parse(filter_, run_fields.VOCABULARY)  # what cannot be read is told by its place in what was typed
    parts = [f"({filter_})"] if filter_.strip() else []
    parts += [f"{name} = {quoted(value)}" for name, value in (("step", step), ("state", state)) if value is not None]
    return " AND ".join(parts)


def _print(found: list[Run], fields: Sequence[Field], all_projects: bool) -> None:
    if not found:
        click.echo("no runs yet; a run is made by a model step: instar run")
        return
    if fields:
        header = ["run", *(field.key for field in fields)]
        print_table(header, [[run.id, *(cell(_value(run, field)) for field in fields)] for run in found])
        return
    # The business metric first: it decides.
    names = sorted({name for run in found for name in run.metrics}, key=lambda name: (name != "cost", name))
    names = names[:MOST_METRICS]
    rows = [
        [
            run.id, *([run.project] if all_projects else []), run.experiment, run.step or "", run.state,
            f"{run.started:%Y-%m-%d %H:%M}", *(cell(run.metrics.get(name)) for name in names),
            ", ".join(f"{name}={cell(value)}" for name, value in run.parameters.items()),
        ]
        for run in found
    ]  # fmt: skip
    print_table(
        ["run", *(["project"] if all_projects else []), "experiment", "step", "state", "started", *names, "parameters"],
        rows,
    )


def _value(run: Run, field: Field) -> Any:
    from instar.train.run_fields import STATUS, artifact_uri

    logged = {"metric": run.metrics, "parameter": run.parameters, "tag": run.tags}
    if field.kind in logged:
        return logged[field.kind].get(field.key)
    return {
        "run_id": run.id, "run_name": run.name or run.step or run.id, "user_id": run.user or run.actor,
        "status": STATUS[run.state], "artifact_uri": artifact_uri(run.experiment_id, run.id),
        "start_time": f"{run.started:%Y-%m-%d %H:%M:%S}", "end_time": f"{run.ended:%Y-%m-%d %H:%M:%S}" if run.ended else None,
    }.get(field.key, getattr(run, field.key, None))  # fmt: skip
