"""`instar audit`: search the calls on the record, prove that nothing was edited, keep its head elsewhere, erase a person."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.groups import Group

if TYPE_CHECKING:
    from instar.operate.audit import Audit
    from instar.serve.log.erasing import Erasure
    from instar.serve.log.searching import Found

SHOWN_INPUTS = 60  # letters of a row's inputs on a terminal


@click.group("audit", cls=Group)
def audit_group() -> None:
    """Search and verify the record, anchor its head, erase a person from it."""


@audit_group.command("search")
@click.argument("call", required=False)
@click.option("--endpoint", help="Calls of this endpoint only.")
@click.option("--caller", help="Who called.")
@click.option("--version", type=int, help="Number of the version that answered.")
@click.option("--since", help="Event time from then on, as in 2013-06-01 or 2013-06-01T12:00:00Z.")
@click.option("--until", help="Event time before then.")
@click.option("--status", type=int, help="HTTP status.")
@click.option("--reason", help="Why that version answered: champion, canary, pinned, ...")
@click.option("--key", help="Routing key.")
@click.option("--entity", help="What the row was about.")
@click.option("--request-id", help="The client's own id.")
@click.option(
    "--input", "inputs", multiple=True, help="An input, as in carrier=UA or 'distance>1000'; several must all hold."
)
@click.option("--score", multiple=True, help="The score, as in '>0.5'; several must all hold.")
@click.option("--limit", type=int, default=50, show_default=True, help="Most predictions of one page.")
@click.option("--cursor", help="Where the page before ended.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def search_command(project: str | None, /, call: str | None, as_json: bool, **asked: Any) -> None:
    """Find predictions on the record, newest first: by what was asked and answered, or one by its id, CALL."""
    from instar.app import open_app
    from instar.serve.log.calls import CallLog
    from instar.serve.log.searching import search

    with open_app(project, need_project=False, make=False) as app:
        log = CallLog(app.store)
        if call is not None:
            row = log.find(call)
            _print_one(row, as_json)
            return
        found = search(app.store, log, app.project_name, query_of(asked))
    if as_json:
        click.echo(json.dumps(found_document(found), indent=2))
    else:
        _print_found(found)


def query_of(asked: dict[str, Any]) -> Any:
    """A question as people write it: moments and conditions are text.

    Raises:
        BadInput: A moment or a condition cannot be read.
    """
    from instar.interfaces.moments import moment_of
    from instar.serve.log.searching import Query, condition

    said = {name: value for name, value in asked.items() if value not in (None, ())}
    for name in ("since", "until"):
        if name in said:
            said[name] = moment_of(said[name])
    said["inputs"] = tuple(condition(one) for one in said.get("inputs", ()))
    said["score"] = tuple(condition(one, "score") for one in said.get("score", ()))
    return Query(**said)


def found_document(found: Found) -> dict[str, Any]:
    """A page of predictions as JSON."""
    from instar.operate.trace_records import plain

    return {
        "calls": [plain(row) for row in found.rows],
        "counted": [plain(vars(one)) for one in found.counted],
        "cursor": found.cursor,
        "files_opened": found.files,
    }


def _print_one(row: dict[str, Any], as_json: bool) -> None:
    from instar.operate.trace_records import plain

    if as_json:
        click.echo(json.dumps(plain(row), indent=2))
        return
    for name, value in row.items():
        if value is not None:
            click.echo(f"{name:14} {json.dumps(plain(value)) if isinstance(value, dict | list) else plain(value)}")


def _print_found(found: Found) -> None:
    for row in found.rows:
        score = "" if row["score"] is None else f"{row['score']:.4g}"
        inputs = ", ".join(f"{name}={value}" for name, value in (row["inputs"] or {}).items() if value is not None)
        said = f"erased {row['erased']['at']:%Y-%m-%d}: {row['erased']['why']}" if row["erased"] else inputs
        said = row["error"] or said
        click.echo(
            f"{row['prediction']}  {row['at']:%Y-%m-%d %H:%M:%S}Z  {row['status']}  {row['caller']}  "
            f"{row['endpoint']}@{row['version']} ({row['reason']})  {score:>7}  {said[:SHOWN_INPUTS]}"
        )
    if not found.rows:
        click.echo("no call on the record is like that")
    for one in found.counted:
        click.echo(str(one))
    if found.cursor:
        click.echo(f"more: --cursor {found.cursor}")


@audit_group.command("verify")
@click.option("--since", help="Open only files of calls with an event time from then on.")
@click.option("--sample", type=float, default=1.0, show_default=True, help="Open only this share of them, drawn anew.")
@click.option(
    "--anchor", type=click.Path(dir_okay=False, path_type=Path), help="Hold the journal to the anchors of a file."
)
@click.option(
    "--public-key", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="Who must have signed them."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def verify_command(
    project: str | None, since: str | None, sample: float, anchor: Path | None, public_key: Path | None, as_json: bool
) -> None:
    """Prove that nothing on the record was edited; the exit status is 1 when something was."""
    from instar.app import open_app
    from instar.interfaces.moments import moment_if
    from instar.operate import anchoring, audit

    anchors = anchoring.read(anchor) if anchor is not None else None
    moment = moment_if(since)
    with open_app(project, need_project=False, make=False) as app:
        found = audit.verify(
            app.store,
            app.project_name,
            since=moment,
            sample=sample,
            progress=None if as_json or not sys.stderr.isatty() else _progress,
            anchors=anchors,
            public_key=public_key,
        )
    if as_json:
        click.echo(json.dumps(audit_document(found), indent=2))
    else:
        for check in found.checks:
            click.echo(f"{'ok    ' if check.holds else 'BROKEN'} {check.name}: {check.looked_at} looked at")
            for fault in check.faults:
                click.echo(f"       {fault}")
        click.echo(f"{found.project}: {found.words}, {found.entries} entries, head {found.head}")
    if not found.consistent:
        raise SystemExit(1)


def _progress(done: int, total: int) -> None:
    click.echo(f"\r{done} of {total} predictions looked at", err=True, nl=done == total)


def audit_document(found: Audit) -> dict[str, Any]:
    """An audit as JSON."""
    return {
        "project": found.project,
        "consistent": found.consistent,
        "words": found.words,
        "entries": found.entries,
        "head": found.head,
        "checks": [
            {"name": one.name, "holds": one.holds, "looked_at": one.looked_at, "faults": list(one.faults)}
            for one in found.checks
        ],
    }


@audit_group.command("anchor")
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), help="Append it to a file; keep that elsewhere."
)
@click.option("--tag", is_flag=True, help="Keep it as an annotated git tag of the project's repository.")
@click.option("--url", help="Post it as JSON to this address.")
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="SSH key (Ed25519) that signs it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def anchor_command(
    project: str | None, file: Path | None, tag: bool, url: str | None, key: Path | None, as_json: bool
) -> None:
    """Export the journal's head, so that a journal rewritten from its first entry would be found out."""
    from instar.app import open_app
    from instar.operate import anchoring

    with open_app(project, need_project=False, make=False) as app:
        one = anchoring.head(app.store, app.project_name)
        folder = app.project.root if app.project_if_any is not None else Path.cwd()
    if key is not None:
        one = anchoring.sign(one, key)
    if file is not None:
        anchoring.keep_in_file(one, file)
    name = anchoring.keep_as_tag(one, folder) if tag else None
    if url is not None:
        anchoring.send(one, url)
    kept = [*([str(file)] if file else []), *([f"git tag {name}"] if name else []), *([url] if url else [])]
    if as_json:
        click.echo(json.dumps({**vars(one), "kept": kept}, indent=2))
    else:
        signed = "signed" if one.signature else "not signed"
        click.echo(f"{one.project}: entry {one.number}, {one.digest}, {signed}")
        click.echo(f"kept in {', '.join(kept)}" if kept else "kept nowhere: name a --file, a --tag or an --url")


@audit_group.command("erase")
@click.option("--entity", help="Calls about this entity.")
@click.option("--key", help="Calls with this routing key.")
@click.option("--input", "given", help="Calls with this input, as in customer_id=42.")
@click.option("--endpoint", help="Of this endpoint only; default all of the project.")
@click.option("--why", required=True, help="The reason, for the record; never the person's name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def erase_command(
    project: str | None,
    entity: str | None,
    key: str | None,
    given: str | None,
    endpoint: str | None,
    why: str,
    as_json: bool,
) -> None:
    """Erase a person from the record; what is left of the calls can still be proven."""
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.serve.log import erasing, sealing

    selector = selector_of(entity, key, given)
    with open_app(project, need_project=False, make=False) as app:
        require(app.store.actor, Permission.OPERATE)
        asked = erasing.ask(app.store, app.project_name, selector, why, endpoint)
        sealing.seal(app.store)
        erasing.carry_out(app.store)
        one = erasing.get(app.store, asked.id)
    if as_json:
        click.echo(json.dumps(erasure_document(one), indent=2))
    elif one.state == erasing.DONE:
        click.echo(f"{one.id}: {one.predictions} predictions erased; the old files go after a grace of ten minutes")
    else:
        click.echo(f"{one.id}: {one.predictions} predictions erased so far; open segments follow when they are sealed")


def selector_of(entity: str | None, key: str | None, given: str | None) -> Any:
    """Whom an erasure names.

    Raises:
        BadInput: Not exactly one of the three, or an input that is no `name=value`.
    """
    from instar.core.errors import BadInput
    from instar.serve.log import erasing
    from instar.serve.log.searching import condition

    said = [value for value in (entity, key, given) if value is not None]
    if len(said) != 1:
        raise BadInput(
            "whom to erase is not clear", found=f"{len(said)} given", asked="one of --entity, --key and --input"
        )
    if entity is not None:
        return erasing.Selector(erasing.ENTITY, entity)
    if key is not None:
        return erasing.Selector(erasing.KEY, key)
    one = condition(given or "")
    if one.operator != "=":
        raise BadInput("a person is named by a value", found=repr(given), asked="an input such as customer_id=42")
    return erasing.Selector(erasing.INPUT, one.value, one.column)


def erasure_document(one: Erasure) -> dict[str, Any]:
    """An erasure as JSON, without whom it was about."""
    from instar.operate.trace_records import plain

    return {name: plain(value) for name, value in vars(one).items() if name != "selector"}


@audit_group.command("erasures")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def erasures_command(project: str | None, as_json: bool) -> None:
    """List erasures: who asked when and why, and what became of them."""
    from instar.app import open_app
    from instar.serve.log import erasing

    with open_app(project, need_project=False, make=False) as app:
        found = erasing.erasures(app.store, app.project_name)
    if as_json:
        click.echo(json.dumps([erasure_document(one) for one in found], indent=2))
    for one in () if as_json else found:
        click.echo(
            f"{one.id}  {one.asked_at:%Y-%m-%d}  {one.asked_by}  {one.state}  {one.predictions} predictions  {one.why}"
        )


@audit_group.command("hold")
@click.argument("endpoint")
@click.option("--since", help="Calls with an event time from then on; default from the first.")
@click.option("--until", help="Calls with an event time before then; default to the last.")
@click.option("--why", required=True, help="The reason, for the record.")
@click.pass_obj
def hold_command(project: str | None, endpoint: str, since: str | None, until: str | None, why: str) -> None:
    """Keep calls of ENDPOINT whatever their age, and let nobody erase from them, until the hold is released."""
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.interfaces.moments import moment_if
    from instar.serve.log import holds

    span = [moment_if(text) for text in (since, until)]
    with open_app(project, need_project=False, make=False) as app:
        require(app.store.actor, Permission.OPERATE)
        one = holds.place(app.store, app.project_name, endpoint, why, *span)
    click.echo(f"{one.id} stands on {endpoint}: {why}")


@audit_group.command("release")
@click.argument("hold")
@click.option("--why", required=True, help="The reason, for the record.")
@click.pass_obj
def release_command(project: str | None, hold: str, why: str) -> None:
    """Release a HOLD."""
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.serve.log import holds

    with open_app(project, need_project=False, make=False) as app:
        require(app.store.actor, Permission.OPERATE)
        holds.release(app.store, app.project_name, hold, why)
    click.echo(f"{hold} is released: {why}")


@audit_group.command("holds")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def holds_command(project: str | None, as_json: bool) -> None:
    """List holds that stand."""
    from instar.app import open_app
    from instar.operate.trace_records import plain
    from instar.serve.log import holds

    with open_app(project, need_project=False, make=False) as app:
        found = holds.standing(app.store, app.project_name)
    if as_json:
        click.echo(json.dumps([plain(vars(one)) for one in found], indent=2))
    for one in () if as_json else found:
        span = " to ".join(moment.isoformat() if moment else "…" for moment in (one.since, one.until))
        click.echo(f"{one.id}  {one.endpoint}  {span}  {one.placed_by}  {one.why}")


commands: dict[str, click.Command] = {"audit": audit_group}
