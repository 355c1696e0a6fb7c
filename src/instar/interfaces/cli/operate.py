"""`instar trace`, `live`, `promote`, `rollback`, `apply`: look back, see what answers, and change it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.tree import Tree

    from instar.operate.live import Answering, Live
    from instar.operate.trace_records import Hop

# What a line of the tree shows of a record; all of it is in the JSON.
SHOWN = {
    "prediction": ("endpoint", "score", "decision", "threshold", "entity"),
    "outcome": ("observed_at", "reporter", "corrected_by"),
    "call": ("at", "status", "reason", "latency_us"),
    "policy revision": ("actor", "cause", "event_at"),
    "rollout": ("reason",),
    "model version": ("origin", "registered_by", "event_at"),
    "approval": ("approved_by", "policy", "reason"),
    "evaluation": ("reason", "cost"),
    "bundle": ("threshold", "form", "fitted_rows", "fitted_until"),
    "run": ("step", "parameters", "code", "actor"),
    "execution": ("state", "cause", "event_at"),
    "table version": ("zone", "rows", "row", "row_candidates", "source", "why", "event_at"),
    "predictions": ("shadow_predictions", "first_at", "last_at", "examples"),
}
LONGEST_FACT = 160  # characters
MOST_BRANCHES = 12  # of one stop on a terminal


@click.command("trace")
@click.argument("record")
@click.option(
    "--forward", is_flag=True, help="Follow the record to all that it touched, instead of back to its causes."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def trace_command(project: str | None, record: str, forward: bool, as_json: bool) -> None:
    """Follow RECORD back to its causes: a prediction call_…/0, table@3, model@2, or any id."""
    from instar.app import open_app
    from instar.operate import trace
    from instar.serve.log.calls import CallLog

    with open_app(project, need_project=False, make=False) as app:
        walk = trace.forward if forward else trace.backward
        found = walk(app.store, CallLog(app.store), app.project_name, record)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        _print(tree_of(found))


def tree_of(hop: Hop, tree: Tree | None = None) -> Tree:
    """A trace as a tree for the terminal; each stop says whether it is the row or its version only."""
    from rich.markup import escape
    from rich.tree import Tree

    label = f"[dim]{escape(hop.relation)}[/dim] " if hop.relation else ""
    style = "green" if hop.precision == "row" else "yellow"
    named = f" [dim]{escape(hop.id)}[/dim]" if hop.id and hop.id != hop.name else ""
    label += f"{escape(hop.kind)} [bold]{escape(hop.name)}[/bold]{named} [{style}]({hop.precision})[/{style}]"
    facts = [
        f"{key}: {_short(value)}"
        for key in SHOWN.get(hop.kind, ())
        if (value := _plain(hop.facts.get(key))) is not None
    ]
    label += "".join(f"\n  [dim]{escape(fact)}[/dim]" for fact in facts)
    branch = Tree(label) if tree is None else tree.add(label)
    for inner in hop.hops[:MOST_BRANCHES]:
        tree_of(inner, branch)
    if len(hop.hops) > MOST_BRANCHES:
        branch.add(f"[dim]and {len(hop.hops) - MOST_BRANCHES} more: see --json[/dim]")
    return branch


def _plain(value: Any) -> Any:
    from instar.operate.trace_records import plain

    return plain(value) if value not in (None, "", [], {}) else None


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{key}={_short(inner)}" for key, inner in value.items() if inner is not None)
    elif isinstance(value, list):
        value = ", ".join(_short(inner) for inner in value)
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 1] + "…"


@click.command("live")
@click.argument("endpoint", required=False)
@click.option("--at", "moment", help="Event time, as in 2013-06-01 or 2013-06-01T12:00:00Z; default now.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def live_command(project: str | None, endpoint: str | None, moment: str | None, as_json: bool) -> None:
    """Say what answers at each ENDPOINT, now or at a time, since when and why."""
    from instar.app import open_app
    from instar.interfaces.moments import moment_if
    from instar.operate.live import live

    at = moment_if(moment)
    with open_app(project, need_project=False, make=False) as app:
        found = live(app.store, app.project_name, at, endpoint)
    if as_json:
        click.echo(json.dumps([live_document(one) for one in found], indent=2))
    elif not found:
        click.echo("nothing answered then" if at else "nothing answers yet: instar run")
    for one in () if as_json else found:
        _print_live(one)


def live_document(one: Live) -> dict[str, Any]:
    """What answered as JSON."""
    return {
        "endpoint": one.endpoint,
        "at": one.at.isoformat(),
        "policy": one.policy,
        "revision": one.revision,
        "since": one.since.isoformat(),
        "actor": one.actor,
        "cause": one.cause,
        "rollout": one.rollout,
        "stage": one.stage,
        "answering": [vars(part) for part in one.answering],
        "kept": one.kept,
        "kept_until": one.kept_until.isoformat() if one.kept_until is not None else None,
    }


def _print_live(one: Live) -> None:
    click.echo(f"{one.endpoint}: policy {one.policy} since {one.since:%Y-%m-%d %H:%M}Z by {one.actor}")
    click.echo(f"  because: {one.cause}")
    for part in one.answering:
        click.echo(
            f"  {part.version:<16} {part.role:<12} {_part(part):<26} {part.bundle[:15]}…{f'  {part.state}' if part.state else ''}"
        )
        if part.problem:
            click.echo(f"    {part.problem}")
    if one.kept_until is not None:
        click.echo(f"  {one.kept:<16} {'before':<12} stays loaded until {one.kept_until:%Y-%m-%d %H:%M}Z")
    if one.rollout:
        click.echo(f"  rollout {one.rollout}, in {one.stage}")


def _part(part: Answering) -> str:
    if part.heard is not None:
        return "answers on the record only" if part.heard >= 100 else f"hears {part.heard:g} % of the calls"
    ruled = part.role.startswith("rule ") or part.role == "pinned"
    return "calls of a rule" if ruled else f"{part.share:g} % of the calls"


@click.command("promote")
@click.argument("version")
@click.option("--reason", default="by hand", show_default=True, help="Why, for the record.")
@click.pass_obj
def promote_command(project: str | None, version: str, reason: str) -> None:
    """Make VERSION (model@3) the champion of its endpoint at once; a running rollout ends."""
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.operate import promotion
    from instar.release import registry
    from instar.serve.publishing import building

    with open_app(project, need_project=False, make=False) as app:
        require(app.store.actor, Permission.OPERATE)
        found = registry.find(app.store, app.project_name, version)
        revision = promotion.promote(app.store, app.project_name, found.model, found, reason)
        effect = building.take_effect(app.store, lambda text: click.echo(text, err=True))
    click.echo(f"{found.name} answers at {found.model} (policy {revision.policy.number}): {reason}\n{effect.words}")


@click.command("rollback")
@click.argument("endpoint")
@click.option("--reason", default="by hand", show_default=True, help="Why, for the record.")
@click.pass_obj
def rollback_command(project: str | None, endpoint: str, reason: str) -> None:
    """End ENDPOINT's rollout, or without one return to the champion before."""
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.operate import promotion
    from instar.serve.publishing import building

    with open_app(project, need_project=False, make=False) as app:
        require(app.store.actor, Permission.OPERATE)
        revision = promotion.rollback(app.store, app.project_name, endpoint, reason)
        effect = building.take_effect(app.store, lambda text: click.echo(text, err=True))
    click.echo(
        f"{endpoint}@{revision.policy.champion} answers (policy {revision.policy.number}): {reason}\n{effect.words}"
    )


@click.command("apply")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def apply_command(project: str | None, as_json: bool) -> None:
    """Put the state of instar.toml into effect: journal it, finish what a crash left half done, publish the routes."""
    from instar.app import open_app
    from instar.operate import rollout_walk
    from instar.plan.revisions import record_contract
    from instar.serve.publishing import building

    with open_app(project) as app:
        revision = record_contract(app.store, app.project)
        settled = rollout_walk.resume(app.store, app.project.name)
        effect = building.take_effect(app.store, lambda text: click.echo(text, err=True))
    if as_json:
        document = {"contract": revision, "settled": [one.id for one in settled], **effect.document()}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"contract {revision} is in effect; routes {effect.routes} are published, {effect.words}")


def _print(tree: Tree) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    # Lines of a pipe are read by programs: they are never folded.
    (console if console.is_terminal else Console(highlight=False, width=400)).print(tree)


commands: dict[str, click.Command] = {
    "trace": trace_command,
    "live": live_command,
    "promote": promote_command,
    "rollback": rollback_command,
    "apply": apply_command,
}
