"""`instar experiments`: list, make, rename, move, delete and restore experiments, whenever work is put in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from instar.interfaces.cli.groups import Group
from instar.interfaces.cli.tables import cut, line_width, print_table, room

if TYPE_CHECKING:
    from instar.app import App
    from instar.train.experiments import Experiment

SHORTEST_NAME = 12  # characters

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group("experiments", cls=Group)
def experiments_group() -> None:
    """List, make, move and delete experiments: named groups of runs. EXPERIMENT is a name or an id."""


@experiments_group.command("ls")
@click.option(
    "--filter", "filter_", default="", help="Only those that pass, e.g. \"name LIKE 'team/%' AND tags.kind = 'x'\"."
)
@click.option("--order-by", multiple=True, help='Sort by this, e.g. "name" or "creation_time DESC"; repeatable.')
@click.option("--all-projects", is_flag=True, help="Those of every project of the store.")
@click.option(
    "--view", type=click.Choice(["active", "deleted", "all"]), default="active", show_default=True, help="Which ones."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")
@_as_json
@click.pass_obj
def list_command(
    project: str | None,
    filter_: str,
    order_by: tuple[str, ...],
    all_projects: bool,
    view: str,
    limit: int,
    as_json: bool,
) -> None:
    """List experiments, the newest first."""
    from instar.train import experiment_search, experiments, run_search

    with _opened(project) as app:
        projects = None if all_projects else [app.project_name]
        page = experiment_search.search(app.store, projects, filter=filter_, order_by=order_by, view=view, limit=limit)
        counts = {one.id: run_search.count(app.store, experiments=[one.id]) for one in page.items}
    if as_json:
        click.echo(json.dumps([{**experiments.document(one), "runs": counts[one.id]} for one in page.items], indent=2))
    elif not page.items:
        click.echo("no experiments yet; the first run of one makes it, or: instar experiments create NAME")
    else:
        _print(page.items, counts, all_projects, with_state=view != "active")


def _print(found: Sequence[Experiment], counts: Mapping[str, int], all_projects: bool, with_state: bool) -> None:
    header = ["experiment", *["project"] * all_projects, "name", *["state"] * with_state, "runs", "made"]
    rows = [
        [one.id, *[one.project] * all_projects, one.name, *[one.state] * with_state, str(counts[one.id]),
         f"{one.created:%Y-%m-%d %H:%M}"]
        for one in found
    ]  # fmt: skip
    width, names = room(), header.index("name")
    if width is not None:
        # An id is copied whole and a name is typed, so both are kept whole where there is room for them.
        over = line_width(header, rows) - width
        longest = max(len(row[names]) for row in rows)
        for row in rows:
            row[names] = cut(row[names], max(longest - max(over, 0), SHORTEST_NAME))
    print_table(header, rows)


@experiments_group.command("show")
@click.argument("experiment")
@_as_json
@click.pass_obj
def show_command(project: str | None, experiment: str, as_json: bool) -> None:
    """Show one experiment with its tags and how many runs it has."""
    from instar.train import experiments, run_search

    with _opened(project) as app:
        found = _find(app, experiment)
        counts = {
            view: run_search.count(app.store, experiments=[found.id], view=view) for view in ("active", "deleted")
        }
    if as_json:
        click.echo(json.dumps({**experiments.document(found), "runs": counts["active"]}, indent=2))
        return
    facts = [
        ("experiment", found.id), ("name", found.name), ("project", found.project), ("state", found.state),
        ("made", f"{found.created:%Y-%m-%d %H:%M:%S} UTC"), ("changed", f"{found.updated:%Y-%m-%d %H:%M:%S} UTC"),
        ("runs", f"{counts['active']}" + (f", and {counts['deleted']} deleted" if counts["deleted"] else "")),
        ("tags", ", ".join(f"{name}={value}" for name, value in found.tags.items())),
    ]  # fmt: skip
    for name, value in facts:
        if value:
            click.echo(f"{name:<12} {value}")


@experiments_group.command("create")
@click.argument("name")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag; repeatable.")
@_as_json
@click.pass_obj
def create_command(project: str | None, name: str, tags: tuple[str, ...], as_json: bool) -> None:
    """Make an experiment; its name may be a path such as team/delay/trees."""
    from instar.train import experiments

    marks = dict(_tag(one) for one in tags)
    with _opened(project) as app:
        _say(experiments.create(app.store, app.project_name, name, marks), "made", as_json)


@experiments_group.command("rename")
@click.argument("experiment")
@click.argument("name")
@_as_json
@click.pass_obj
def rename_command(project: str | None, experiment: str, name: str, as_json: bool) -> None:
    """Give an experiment another name; its id and its runs stay."""
    from instar.train import experiments

    with _opened(project) as app:
        _say(experiments.rename(app.store, _find(app, experiment).id, name), "renamed", as_json)


@experiments_group.command("move")
@click.argument("experiment")
@click.option("--to", "target", required=True, help="The project to which it goes.")
@click.option("--name", default=None, help="Its name there; the same by default.")
@_as_json
@click.pass_obj
def move_command(project: str | None, experiment: str, target: str, name: str | None, as_json: bool) -> None:
    """Move an experiment with all its runs to another project; ids stay."""
    from instar.train import experiments

    with _opened(project) as app:
        found = _find(app, experiment)
        _say(experiments.move(app.store, found.id, target, name or found.name), "moved", as_json)


@experiments_group.command("delete")
@click.argument("experiment")
@_as_json
@click.pass_obj
def delete_command(project: str | None, experiment: str, as_json: bool) -> None:
    """Hide an experiment and its runs, until they are restored or collected; its name is free at once."""
    from instar.train import experiments

    with _opened(project) as app:
        _say(experiments.delete(app.store, _find(app, experiment).id), "deleted", as_json)


@experiments_group.command("restore")
@click.argument("experiment")
@_as_json
@click.pass_obj
def restore_command(project: str | None, experiment: str, as_json: bool) -> None:
    """Bring a deleted experiment back, with the runs that went with it."""
    from instar.core.errors import Conflict
    from instar.train import experiments, tracking_tables

    with _opened(project) as app:
        found = _find(app, experiment)
        if found.state == tracking_tables.ACTIVE and found.id != experiment:
            raise Conflict(
                "the experiment of that name is active, and nothing was restored", subject=f"experiment {experiment}",
                found=found.id, asked="the id of a deleted one",
                next_step="List them with: instar experiments ls --view deleted",
            )  # fmt: skip
        _say(experiments.restore(app.store, found.id), "restored", as_json)


@contextmanager
def _opened(project: str | None) -> Iterator[App]:
    from instar.app import open_app

    with open_app(project, need_project=False, make=False) as app:
        yield app


def _find(app: App, experiment: str) -> Experiment:
    """The experiment of an id; else the active one of that name here, else the one deleted last."""
    from instar.core.errors import NotFound
    from instar.train import experiments

    if experiments.is_id(experiment):
        return experiments.get(app.store, experiment)
    found = experiments.by_name(app.store, app.project_name, experiment)
    if found is None:
        raise NotFound(
            "there is no such experiment",
            subject=f"experiment {experiment}",
            next_step="List them with: instar experiments ls",
        )
    return found


def _tag(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.BadParameter(f"{text!r} is no NAME=VALUE")
    return name, value


def _say(experiment: Experiment, done: str, as_json: bool) -> None:
    from instar.train import experiments

    if as_json:
        click.echo(json.dumps(experiments.document(experiment), indent=2))
    else:
        click.echo(f"{done} {experiment.id}: {experiment.project}/{experiment.name}")


commands: dict[str, click.Command] = {"experiments": experiments_group}
