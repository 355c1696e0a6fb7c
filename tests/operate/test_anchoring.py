from __future__ import annotations

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa

from instar.core import journal
from instar.core.errors import BadInput, Conflict, NotFound, Unavailable
from instar.core.journal import journal_entry, journal_head
from instar.core.store import Store
from instar.operate import anchoring, audit


@pytest.fixture
def journalled(store: Store) -> Store:
    for number in range(3):
        put(store, number)
    return store


def put(store: Store, number: int) -> None:
    store.database.write(
        lambda tx: journal.append(tx, store.clock, store.actor, "flights", "test", f"one {number}", {})
    )


def rewrite_from_the_first_entry(store: Store) -> None:
    """Somebody makes a whole new chain, which holds in itself."""
    store.database.write(lambda tx: (tx.execute(sa.delete(journal_entry)), tx.execute(sa.delete(journal_head))))
    for number in range(10, 15):
        put(store, number)


def test_a_journal_rewritten_whole_is_found_by_its_anchor_alone(journalled: Store, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "heads"
    anchoring.keep_in_file(anchoring.head(journalled, "flights"), file)
    put(journalled, 4)
    anchoring.keep_in_file(anchoring.head(journalled, "flights"), file)
    anchors = anchoring.read(file)
    assert [one.number for one in anchors] == [3, 4]
    found = audit.verify(journalled, "flights", anchors=anchors)
    assert found.words == "consistent, anchored up to entry 4, signatures not looked at"
    rewrite_from_the_first_entry(journalled)
    assert audit.verify(journalled, "flights").words == "consistent, not anchored"
    broken = audit.verify(journalled, "flights", anchors=anchors)
    assert (broken.words, len(broken.checks[-1].faults)) == ("NOT consistent", 2)


def test_a_journal_cut_short_is_found(journalled: Store) -> None:
    one = anchoring.head(journalled, "flights")
    store = journalled
    store.database.write(lambda tx: tx.execute(sa.delete(journal_entry).where(journal_entry.c.number == 3)))
    assert anchoring.check(store, "flights", [one]) == [f"anchor of {one.taken_at}: entry 3 is gone"]


def test_a_chain_that_does_not_hold_is_not_anchored(journalled: Store) -> None:
    journalled.database.write(lambda tx: tx.execute(sa.update(journal_entry).values(actor="mallory")))
    with pytest.raises(Conflict):
        anchoring.head(journalled, "flights")
    with pytest.raises(NotFound):
        anchoring.head(journalled, "nobody's")


def test_an_anchor_of_another_project_vouches_for_nothing(journalled: Store) -> None:
    one = anchoring.head(journalled, "flights")
    assert anchoring.check(journalled, "other", [one]) == ["none of the anchors is of project other"]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not on this machine")
def test_a_signature_holds_for_its_key_and_its_anchor_only(journalled: Store, tmp_path: Path) -> None:
    keys = [tmp_path / "mine", tmp_path / "other"]
    for key in keys:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = [key.with_suffix(".pub") for key in keys]
    one = anchoring.sign(anchoring.head(journalled, "flights"), keys[0])
    assert anchoring.check(journalled, "flights", [one], public[0]) == []
    found = audit.verify(journalled, "flights", anchors=[one], public_key=public[0])
    assert found.words == "consistent, anchored up to entry 3, signed"
    assert "does not hold" in anchoring.check(journalled, "flights", [one], public[1])[0]
    forged = anchoring.Anchor(**{**vars(one), "taken_at": "2030-01-01T00:00:00+00:00"})
    assert "does not hold" in anchoring.check(journalled, "flights", [forged], public[0])[0]
    bare = anchoring.head(journalled, "flights")
    assert "not signed" in anchoring.check(journalled, "flights", [bare], public[0])[0]
    with pytest.raises(NotFound):
        anchoring.sign(bare, tmp_path / "none")
    (tmp_path / "no key").write_text("nothing")
    with pytest.raises(BadInput):
        anchoring.sign(bare, tmp_path / "no key")


def test_a_git_tag_keeps_it(journalled: Store, tmp_path: Path) -> None:
    one = anchoring.head(journalled, "flights")
    with pytest.raises(BadInput):
        anchoring.keep_as_tag(one, tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    for name in ("user.name", "user.email"):
        subprocess.run([*git, "config", name, "a@b"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    name = anchoring.keep_as_tag(one, tmp_path)
    said = subprocess.run([*git, "tag", "-l", "--format=%(contents:subject)", name], check=True, capture_output=True)
    assert anchoring.Anchor(**json.loads(said.stdout)) == one


def test_an_address_takes_it(journalled: Store) -> None:
    taken: list[bytes] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    one = anchoring.head(journalled, "flights")
    address = f"http://127.0.0.1:{server.server_port}/anchors"
    anchoring.send(one, address)
    server.shutdown()
    server.server_close()
    assert anchoring.Anchor(**json.loads(taken[0])) == one
    with pytest.raises(Unavailable):
        anchoring.send(one, address)
    with pytest.raises(BadInput):
        anchoring.send(one, "file:///etc/passwd")


@pytest.mark.parametrize("text", ["nonsense", "{}", '{"project": 1, "number": 2, "digest": 3, "taken_at": "when"}'])
def test_a_line_that_is_no_anchor_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "heads").write_text("\n" + text + "\n")
    with pytest.raises(BadInput, match="line 1"):
        anchoring.read(tmp_path / "heads")
    with pytest.raises(NotFound):
        anchoring.read(tmp_path / "none")
