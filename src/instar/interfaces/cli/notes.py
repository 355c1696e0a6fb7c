"""`instar note`: what people say about a record, written and read from the terminal."""

from __future__ import annotations

import json

import click

from instar.interfaces.cli.groups import Group


@click.group("note", cls=Group)
def note_group() -> None:
    """Write and read notes on runs, experiments, model versions, tables and other records."""


@note_group.command("add")
@click.argument("subject")
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def add_command(project: str | None, subject: str, text: str, as_json: bool) -> None:
    """Write a note on a record: a run's id, table@3, model@2, a table, a model."""
    from instar.app import open_app
    from instar.core import notes
    from instar.operate.noted import subject_of

    with open_app(project, need_project=False, make=False) as app:
        name = app.project_name
        note = notes.add(app.store, name, subject_of(app.store, name, subject), text)
    click.echo(json.dumps(notes.document(note), indent=2) if as_json else f"{note.id} on {note.subject}")


@note_group.command("ls")
@click.argument("subject", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_command(project: str | None, subject: str | None, limit: int, as_json: bool) -> None:
    """Notes on one record, the oldest first; without one the newest of the project."""
    from instar.app import open_app
    from instar.core import notes
    from instar.operate.noted import subject_of

    with open_app(project, need_project=False, make=False) as app:
        name = app.project_name
        if subject is None:
            found = notes.latest(app.store, name, limit)
        else:
            found = notes.of(app.store, name, subject_of(app.store, name, subject))[-limit:]
    if as_json:
        click.echo(json.dumps([notes.document(note) for note in found], indent=2))
        return
    for note in found:
        edited = ", edited" if note.edited else ""
        click.echo(f"{note.id} on {note.subject}\n  {note.author}, {note.at:%Y-%m-%d %H:%M} UTC{edited}")
        click.echo("".join(f"  {line}\n" for line in note.text.splitlines()), nl=False)
    if not found:
        click.echo("no notes yet; write one: instar note add SUBJECT TEXT")


@note_group.command("edit")
@click.argument("note")
@click.argument("text")
@click.pass_obj
def edit_command(project: str | None, note: str, text: str) -> None:
    """Change a note of your own."""
    from instar.app import open_app
    from instar.core import notes

    with open_app(project, need_project=False, make=False) as app:
        click.echo(f"{notes.edit(app.store, note, text).id} is changed")


@note_group.command("rm")
@click.argument("note")
@click.pass_obj
def remove_command(project: str | None, note: str) -> None:
    """Take a note of your own away."""
    from instar.app import open_app
    from instar.core import notes

    with open_app(project, need_project=False, make=False) as app:
        notes.delete(app.store, note)
    click.echo(f"{note} is taken away")


commands: dict[str, click.Command] = {"note": note_group}
