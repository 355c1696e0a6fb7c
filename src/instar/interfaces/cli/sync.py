"""`instar runs sync`: deliver what training processes recorded while no server answered, or before they were killed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from instar.train.delivery import Sink
    from instar.train.spool import About
    from instar.train.syncing import Synced

EVERY_SECONDS = 5.0


@click.command("sync")
@click.option(
    "--url", help="Deliver to this server; default where each run was to go, else the store of the project here."
)
@click.option("--watch", is_flag=True, help="Go on until interrupted.")
@click.option(
    "--grace", default=None, type=click.FloatRange(0), help="Seconds for which delivered spools stay; default a day."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document; with --watch, one a line for each news."
)
@click.pass_obj
def sync_command(project: str | None, url: str | None, watch: bool, grace: float | None, as_json: bool) -> None:
    """Deliver the runs that lie in a spool: the project's, and the user's own."""
    start = Path(project) if project else None
    if not watch:
        found = _sync(start, url, grace)
        _print(found, as_json)
        sys.exit(1 if any(one.state == "waiting" for one in found) else 0)
    before: dict[str, str] = {}
    while True:
        found = _sync(start, url, grace)
        news = [one for one in found if one.sent or before.get(one.run) != one.state]
        if news:
            _tell(news, as_json)
        before = {one.run: one.state for one in found}
        time.sleep(EVERY_SECONDS)


def _sync(start: Path | None, url: str | None, grace: float | None) -> list[Synced]:
    from instar.interfaces.sdk import place as places
    from instar.train import spool, syncing

    here = places.find(start=start)
    sinks = places.Sinks(url, here)
    seconds = spool.GRACE_SECONDS if grace is None else grace
    try:
        found = []
        for root in dict.fromkeys([here.spool, places.own_spool()]):
            at_home = here.store is not None and root == here.spool

            def find(about: About, root: Path = root, at_home: bool = at_home) -> Sink | None:
                return sinks.find(about, at_home=at_home, delivered=spool.is_delivered(root / about.run))

            found += syncing.sync(root, find, grace_seconds=seconds)
        return found
    finally:
        sinks.close()


def _print(found: list[Synced], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([vars(one) for one in found], indent=2))
        return
    before = [one for one in found if one.state == "delivered" and not one.sent]
    _tell([one for one in found if one not in before], False)
    if len(before) == len(found):
        known = f" ({len(before)} delivered already)" if before else ""
        click.echo(f"no run waits in a spool{known}")


def _tell(found: list[Synced], as_json: bool) -> None:
    for one in found:
        if as_json:
            click.echo(json.dumps(vars(one)))
            continue
        sent = f", {one.sent} records sent" if one.sent else ""
        why = f": {one.why}" if one.why else ""
        click.echo(f"{one.run} of {one.project or 'the server'} is {one.state}{sent}{why}")
