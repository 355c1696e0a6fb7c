"""Notes on records over HTTP: what people say about runs, experiments, model versions, tables and all other records."""

from __future__ import annotations

import msgspec

from instar.core import notes
from instar.core.errors import NotFound
from instar.core.identity import Permission
from instar.interfaces.api.routes import Reply, Request, Route
from instar.operate.noted import subject_of


class NewNote(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/notes`."""

    subject: str
    text: str


class NewText(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT …/notes/{note}`."""

    text: str


def list_notes(request: Request) -> Reply:
    """Notes on one record (`?subject=`), the oldest first; without it the newest of the project."""
    store, project, asked = request.app.store, request.path["project"], request.query.get("subject")
    found = notes.of(store, project, subject_of(store, project, asked)) if asked else notes.latest(store, project)
    return Reply({"notes": [notes.document(note) for note in found]})


def add_note(request: Request) -> Reply:
    """Write a note on a record."""
    body: NewNote = request.json(NewNote)
    store, project = request.app.store, request.path["project"]
    note = notes.add(store, project, subject_of(store, project, body.subject), body.text)
    return Reply(notes.document(note), status=201)


def edit_note(request: Request) -> Reply:
    """Change one's own note."""
    body: NewText = request.json(NewText)
    return Reply(notes.document(notes.edit(request.app.store, _of_project(request), body.text)))


def delete_note(request: Request) -> Reply:
    """Take one's own note away."""
    notes.delete(request.app.store, _of_project(request))
    return Reply({"deleted": request.path["note"]})


def _of_project(request: Request) -> str:
    note = notes.get(request.app.store, request.path["note"])
    if note.project != request.path["project"]:  # do not tell a reader of one project of another's notes
        raise NotFound("there is no such note", subject=f"note {note.id}")
    return note.id


routes = [
    Route("GET", "/api/projects/{project}/notes", Permission.READ, list_notes),
    Route("POST", "/api/projects/{project}/notes", Permission.TRAIN, add_note),
    Route("PUT", "/api/projects/{project}/notes/{note}", Permission.TRAIN, edit_note),
    Route("DELETE", "/api/projects/{project}/notes/{note}", Permission.TRAIN, delete_note),
]
