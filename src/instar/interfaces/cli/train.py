"""`instar runs`: list, show and compare what was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.bring import import_command
from instar.interfaces.cli.compare import compare_command
from instar.interfaces.cli.groups import Group
from instar.interfaces.cli.run_list import list_command
from instar.interfaces.cli.sync import sync_command
from instar.interfaces.cli.tables import cell, cut

if TYPE_CHECKING:
    from instar.train.proofs import Proof
    from instar.train.runs import Run

MOST_LINES = 20  # of one list
LONGEST_VALUE = 72  # characters; a digest is shorter


@click.group("runs", cls=Group)
def runs_group() -> None:
    """List and show runs: parameters, metrics, inputs, code, environment."""


@runs_group.command("show")
@click.argument("run")
@click.option("--all", "everything", is_flag=True, help="Show long lists and long values whole.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def show_command(project: str | None, run: str, everything: bool, as_json: bool) -> None:
    """Show one run; the beginning of its id is enough."""
    from instar.app import open_app
    from instar.train import bundles, proofs, runs
    from instar.train.surroundings import surroundings

    with open_app(project, need_project=False, make=False) as app:
        found = runs.get_run(app.store, run)
        with app.store.database.read() as tx:
            made = bundles.of_run(tx, found.id)
        again = proofs.of_run(app.store, found.project, found.id)
        around = surroundings(app.store.blobs, found)
    if as_json:
        told = [proofs.document(one) for one in again]
        document = {**runs.document(found), "bundles": made, "reproductions": told, "surroundings": around}
        click.echo(json.dumps(document, indent=2))
    else:
        _print_run(found, made, again, around, everything)


def _print_run(run: Run, made: list[str], again: Sequence[Proof], around: Mapping[str, Any], everything: bool) -> None:
    code = run.code or {}
    commit = f"{code.get('commit') or 'no commit'}{' with changes' if code.get('diff') else ''}"
    facts = [
        ("run", run.id),
        ("name", run.name),
        ("experiment", run.experiment),
        ("step", run.step or "none: ad hoc"),
        ("state", run.state),
        ("error", run.error or ""),
        ("started", f"{run.started:%Y-%m-%d %H:%M:%S} UTC by {run.actor}, cause {run.cause}"),
        ("took", f"{run.seconds:.2f} s" if run.seconds is not None else ""),
        ("inputs", ", ".join(run.inputs)),
        ("code", f"{commit}, files {code.get('content', '')}" if run.code else ""),
        ("environment", run.environment or ""),
        *((name, str(value)) for name, value in around.items() if name != "libraries"),
        ("libraries", f"{len(around['libraries'])}; instar env show {run.id}" if "libraries" in around else ""),
        ("bundles", ", ".join(made)),
        *(("reproduced", _line(one)) for one in again),
    ]
    for name, value in facts:
        if value:
            click.echo(f"{name:<12} {value}")
    for title, values in (
        ("metrics", run.metrics), ("parameters", run.parameters), ("tags", run.tags), ("artifacts", run.artifacts),
    ):  # fmt: skip
        if values:
            _print_list(title, values, everything)


def _print_list(title: str, values: Mapping[str, Any], everything: bool) -> None:
    click.echo(f"\n{title}" + (f" ({len(values)})" if len(values) > MOST_LINES else ""))
    shown = list(values) if everything else list(values)[:MOST_LINES]
    for key in shown:
        value = cell(values[key])
        click.echo(f"  {key:<24} {value if everything else cut(value, LONGEST_VALUE)}")
    if len(shown) < len(values):
        click.echo(f"  … and {len(values) - len(shown)} more: --all")


def _line(proof: Proof) -> str:
    why = f": {proof.first_cause}" if proof.first_cause else ""
    return f"{proof.verdict} ({proof.question}) as {proof.repetition} by {proof.by}, {proof.at:%Y-%m-%d %H:%M} UTC{why}"


runs_group.add_command(list_command)
runs_group.add_command(compare_command)
runs_group.add_command(import_command)
runs_group.add_command(sync_command)

commands: dict[str, click.Command] = {"runs": runs_group}
