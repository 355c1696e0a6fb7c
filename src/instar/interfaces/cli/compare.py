"""`instar runs compare`: what differs between runs, on the terminal, as one HTML file with plots, or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from instar.app import App
    from instar.train.runs import Run


@click.command("compare")
@click.argument("run", nargs=-1)
@click.option(
    "--filter", "filter_", metavar="SEARCH", help="Compare the runs that a search finds, instead of naming them."
)
@click.option("--metric", help="Put the runs in order of it, the least first, and draw parameters against it.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the comparison with plots there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def compare_command(
    project: str | None, run: tuple[str, ...], filter_: str | None, metric: str | None, html: Path | None, as_json: bool
) -> None:
    """Show what differs between runs: parameters, metrics, environment, code; one column a run, the first is the measure."""
    from instar.app import open_app
    from instar.interfaces.comparison import terminal
    from instar.interfaces.comparison.document import compare
    from instar.interfaces.comparison.page import page
    from instar.train.run_differences import ranked

    with open_app(project, need_project=False, make=False) as app:
        found = _chosen(app, run, filter_)
        document = compare(app.store, ranked(found, metric) if metric else found)
    if html is not None:
        html.write_text(page(document, metric), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    terminal.print_comparison(document)
    if html is not None:
        click.echo(f"comparison with plots: {html}")


def _chosen(app: App, names: tuple[str, ...], text: str | None) -> list[Run]:
    from instar.interfaces.comparison.document import MOST_RUNS
    from instar.train import run_search, runs

    if bool(names) == (text is not None):
        raise click.UsageError("name the runs to compare, or say which with --filter")
    if text is None:
        return [runs.get_run(app.store, name) for name in names]
    return list(
        run_search.search(app.store, projects=[app.project_name], experiments=None, filter=text, limit=MOST_RUNS).items
    )
