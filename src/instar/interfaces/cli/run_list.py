"""`instar runs ls`: list runs that pass a filter, in any order, with the columns asked for; when results are compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.tables import cell, columns_that_fit, cut, print_csv, print_table, room

if TYPE_CHECKING:
    from instar.core.store import Store
    from instar.train.runs import Run
    from instar.train.search_words import Field

SHORT_ID = 14  # characters: the prefix and the millisecond; the beginning of an id names a run as well
WIDEST_NAME, NARROW_NAME, WIDEST_VALUE = 24, 12, 16  # characters in a terminal
# In a pipe the older, fixed form: so many metrics, and all parameters in the last column.
MOST_METRICS = 5
SYSTEM = "system/"  # what the machine was doing comes last
FACTS = ("project", "experiment", "name", "step", "state", "user", "started", "ended", "seconds", "error")


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
@click.option("-c", "--columns", default="", help='Show these, e.g. "metrics.cost, params.depth, run_name".')
@click.option("--all-projects", is_flag=True, help="Runs of every project of the store.")
@click.option(
    "--view", type=click.Choice(["active", "deleted", "all"]), default="active", show_default=True, help="Which runs."
)
@click.option("--count", "only_count", is_flag=True, help="Only say how many there are.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with all of each run.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, with all of each run or --columns.")
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
    as_csv: bool,
) -> None:
    """List runs, the newest first."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    from instar.app import open_app
    from instar.train import run_fields, run_search, runs, syncing
    from instar.train.search_grammar import parse_order

    fields = (
        [order.field for order in parse_order(columns, run_fields.VOCABULARY, "list of columns")]
        if columns.strip()
        else []
    )
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
    if as_csv:
        print_csv(*_everything(listed, fields))
        return
    _print(listed, fields, all_projects, bool(chosen["filter"] or experiment or view != "active"))
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


def _print(found: list[Run], fields: Sequence[Field], all_projects: bool, narrowed: bool) -> None:
    if not found:
        click.echo(
            "no run is what was asked for" if narrowed else "no runs yet; a run is made by a model step: instar run"
        )
        return
    if fields:
        header = ["run", *(field.key for field in fields)]
        print_table(header, [[run.id, *(cell(_value(run, field)) for field in fields)] for run in found])
        return
    width = room()
    if width is None:
        _print_for_programs(found, all_projects)
    else:
        _print_for_people(found, all_projects, width)


def _print_for_programs(found: list[Run], all_projects: bool) -> None:
    names = _metrics(found)[:MOST_METRICS]
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


def _print_for_people(found: list[Run], all_projects: bool, width: int) -> None:
    """One line a run: what it is, and then the metrics, and the parameters in which they differ, that fit."""
    ids = _short([run.id for run in found])
    latest = max(run.started for run in found)
    groups = ["project"] * all_projects + ["experiment"] * (len({run.experiment_id for run in found}) > 1)
    metrics = _metrics(found)
    differing = [name for name in _names([run.parameters for run in found]) if _differs(found, name)]
    header = ["run", *groups, "name", "state", "started", "took", *metrics, *differing]
    rows = [
        [
            ids[run.id], *(cut(getattr(run, group), WIDEST_NAME) for group in groups),
            cut(run.name or run.step or "", WIDEST_NAME), run.state, _when(run.started, latest), _took(run.seconds),
            *(cell(run.metrics.get(name)) for name in metrics),
            *(cut(cell(run.parameters.get(name)), WIDEST_VALUE) for name in differing),
        ]
        for run in found
    ]  # fmt: skip
    always = len(groups) + 5
    if columns_that_fit(header, rows, width) < always:  # names give way first
        for row in rows:
            row[1 : len(groups) + 2] = [cut(one, NARROW_NAME) for one in row[1 : len(groups) + 2]]
    shown = max(columns_that_fit(header, rows, width), always)
    print_table(header[:shown], [row[:shown] for row in rows])
    known = len(metrics) + len(_names([run.parameters for run in found]))
    if known > shown - always:
        click.echo(f"\n{known - shown + always} more metrics and parameters: see --columns, --csv and --json", err=True)


def _everything(found: list[Run], fields: Sequence[Field]) -> tuple[list[str], list[list[Any]]]:
    """All of each run, or what was asked for, as one line each."""
    if fields:
        rows: list[list[Any]] = [[run.id, *(_value(run, field) for field in fields)] for run in found]
        return ["run", *(field.key for field in fields)], rows
    kinds = [("metrics", _metrics(found))]
    kinds += [(kind, _names([getattr(run, kind) for run in found])) for kind in ("parameters", "tags")]
    header = ["run", *FACTS, *(f"{kind}.{name}" for kind, names in kinds for name in names)]
    return header, [
        [
            run.id,
            *(value.isoformat() if hasattr(value := getattr(run, name), "isoformat") else value for name in FACTS),
            *(getattr(run, kind).get(name) for kind, names in kinds for name in names),
        ]
        for run in found
    ]


def _metrics(found: list[Run]) -> list[str]:
    """Names of metrics: the business metric first, since it decides; then those that most of the runs have."""
    counts = Counter(name for run in found for name in run.metrics)
    return sorted(counts, key=lambda name: (name != "cost", name.startswith(SYSTEM), -counts[name], name))


def _names(of_each: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for values in of_each for name in values))


def _differs(found: list[Run], name: str) -> bool:
    values = [run.parameters.get(name) for run in found]
    return any(value != values[0] for value in values)


def _short(ids: Sequence[str]) -> dict[str, str]:
    """Beginnings that tell these ids apart."""
    size = SHORT_ID
    while len({one[:size] for one in ids}) < len(set(ids)):
        size += 1
    return {one: one[:size] for one in ids}


def _when(moment: datetime, latest: datetime) -> str:
    return f"{moment:%m-%d %H:%M}" if moment.year == latest.year else f"{moment:%Y-%m-%d}"


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{seconds:.1f}s"


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
