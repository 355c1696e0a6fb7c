"""Notes: by person, changed and taken away by their author only, kept as they were written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from instar.core import notes
from instar.core.errors import BadInput, NotAllowed, NotFound
from instar.core.identity import Actor
from instar.core.store import Store


def test_notes_of_a_record_come_back_oldest_first_and_as_they_were_written(store: Store) -> None:
    bob = replace(store, actor=Actor("bob"))
    first = notes.add(store, "p", "run_1", "  <b>bold</b> & 🦋\nsecond line ")
    second = notes.add(bob, "p", "run_1", "agreed")
    notes.add(store, "p", "run_2", "elsewhere")
    notes.add(store, "q", "run_1", "another project's")
    assert notes.of(store, "p", "run_1") == [first, second]
    assert (first.text, first.author, second.author) == ("<b>bold</b> & 🦋\nsecond line", "ada", "bob")
    assert [note.text for note in notes.latest(store, "p", 2)] == ["elsewhere", "agreed"]


def test_only_the_author_changes_or_takes_away_a_note(store: Store) -> None:
    note = notes.add(store, "p", "run_1", "mine")
    bob = replace(store, actor=Actor("bob"))
    for act in (lambda: notes.edit(bob, note.id, "his"), lambda: notes.delete(bob, note.id)):
        with pytest.raises(NotAllowed, match="author"):
            act()
    edited = notes.edit(store, note.id, "still mine")
    assert (edited.text, edited.at) == ("still mine", note.at)
    assert edited.edited is not None
    notes.delete(store, note.id)
    assert notes.of(store, "p", "run_1") == []
    with pytest.raises(NotFound):
        notes.delete(store, note.id)


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "x" * (notes.LONGEST_NOTE + 1)])
def test_what_is_no_text_is_refused(store: Store, text: str) -> None:
    with pytest.raises(BadInput):
        notes.add(store, "p", "run_1", text)
    assert notes.latest(store, "p") == []


def test_the_same_note_delivered_twice_is_one(store: Store) -> None:
    note = notes.add(store, "p", "run_1", "once")
    store.database.write(lambda tx: notes.insert(tx, note))
    assert notes.of(store, "p", "run_1") == [note]
