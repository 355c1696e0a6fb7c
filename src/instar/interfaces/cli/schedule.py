"""`instar schedule`: how the schedules of the contract stand, and one of them run by hand."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from instar.interfaces.cli.groups import Group
from instar.interfaces.cli.plan import AS_JSON

if TYPE_CHECKING:
    from instar.operate.firing import Firing
    from instar.operate.schedules import Standing


@click.group("schedule", cls=Group)
def schedule() -> None:
    """Show and run the schedules of instar.toml, which `instar up` carries out."""


@schedule.command("ls")
@AS_JSON
@click.pass_obj
def ls(folder: str | None, as_json: bool) -> None:
    """Show the schedules: when each is due next, and what came of the last time."""
    from instar.app import open_app
    from instar.operate import schedules

    with open_app(folder) as app:
        found = schedules.standing(app.loop())
    if as_json:
        click.echo(json.dumps([one.record() for one in found], indent=2))
        return
    if not found:
        click.echo("the contract in effect has no schedule; after an edit of instar.toml: instar apply")
    width = max([len(one.name) for one in found], default=0)
    wide = max([len(one.when) for one in found], default=0)
    for one in found:
        click.echo(f"{one.name:{width}}  {one.when:{wide}}  {_next(one):22}  {_last(one.last)}")


@schedule.command("run")
@click.argument("name")
@AS_JSON
@click.pass_obj
def run(folder: str | None, name: str, as_json: bool) -> None:
    """Run what the schedule NAME asks for, now and here."""
    from instar.app import open_app
    from instar.interfaces.cli.run import show
    from instar.operate import schedules
    from instar.operate.firing import FAILED

    with open_app(folder) as app:
        loop = app.loop()
        one = schedules.by_hand(loop, name)
        ended = schedules.carry_out(loop, one.id, None if as_json else show)
    if as_json:
        click.echo(json.dumps(ended.record(), indent=2))
    else:
        click.echo(f"{name}: {_last(ended)}")
    if ended.state == FAILED:
        sys.exit(1)


def _next(one: Standing) -> str:
    if one.due:
        return "due now"
    return one.next.strftime("next %Y-%m-%d %H:%MZ") if one.next else "when data lands"


def _last(one: Firing | None) -> str:
    if one is None:
        return "never looked at; instar up does"
    if one.state == "armed":
        return f"waits since {one.fired:%Y-%m-%d %H:%MZ}"
    result = one.result or {}
    words = f"last {one.fired:%Y-%m-%d %H:%MZ} {one.state}"
    if "error" in result:
        return f"{words}: {result['error'].splitlines()[0]}"
    ran = result.get("ran")
    return words if ran is None else f"{words}: {len(ran)} step{'' if len(ran) == 1 else 's'} ran"


commands: dict[str, click.Command] = {"schedule": schedule}
