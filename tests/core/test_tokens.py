"""Tokens on the record: made, changed, revoked, journalled without their secret; nobody gives more than they administrate."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from instar.app import open_store
from instar.core import credentials, journal, refusals, tokens
from instar.core.errors import BadInput, Conflict, NotAllowed, NotFound
from instar.core.identity import EVERYWHERE, Caller, Permission, Role, local_caller
from instar.core.store import Store
from instar.core.tokens import Token, Wish

OWNER = local_caller()


def make(store: Store, name: str, roles: dict[str, list[Role]], caller: Caller = OWNER) -> Token:
    return tokens.create(store, "flights", Wish(name, roles), caller)[0]


def test_a_token_is_made_once_and_only_its_hash_is_kept(store: Store) -> None:
    wish = Wish("web", {"flights": [Role.CALLER]}, "service", ["delay"], timedelta(days=90), 100.0)
    token, secret = tokens.create(store, "flights", wish, OWNER)
    assert credentials.is_secret(secret)
    with store.database.read() as tx:
        assert tokens.tokens(tx) == [token]
        entry = journal.latest(tx, "flights", 1)[0]
        everything = repr(tx.exec_driver_sql("select * from api_token").all()) + repr(entry)
    assert entry.kind == "token created"
    assert secret not in everything
    assert token.hash not in repr(entry)
    assert token.hash == credentials.hash_of(secret)
    assert "hash" not in token.document(store.clock.wall())
    assert token.caller().may_ask("delay", "flights")
    assert not token.caller().may_ask("other", "flights")
    assert not token.caller().may(Permission.READ, "flights")


def test_on_postgres_too(postgres_database: str, tmp_path: Path) -> None:
    there = open_store(tmp_path, postgres_database)
    token = make(there, "ci", {"flights": [Role.DATA_SCIENTIST], "other": [Role.READER]})
    tokens.note_use(there, {token.id: there.clock.wall()})
    one = refusals.Refusal(there.clock.wall(), "ci", "GET /x", 403, "flights")
    refusals.note(there, {one: 2})
    refusals.note(there, {one: 3})
    assert tokens.revoke(there, "flights", "ci", OWNER).revoked_by == OWNER.name
    with there.database.read() as tx:
        assert [row["count"] for row in refusals.refusals(tx)] == [5]
        assert tokens.get(tx, token.id).used_at is not None
        assert [entry.kind for entry in journal.entries(tx, "other")] == ["token created", "token revoked"]
    there.database.close()


def test_a_name_is_free_again_when_its_token_is_revoked(store: Store) -> None:
    make(store, "web", {"flights": [Role.CALLER]})
    with pytest.raises(Conflict, match="a live token has that name"):
        make(store, "web", {"flights": [Role.READER]})
    tokens.revoke(store, "flights", "web", OWNER)
    with pytest.raises(NotFound):
        tokens.revoke(store, "flights", "web", OWNER)
    again = make(store, "web", {"flights": [Role.READER]})
    assert tokens.revoke(store, "flights", again.id, OWNER).id == again.id


@pytest.mark.parametrize("name", ["", "instar", "a b", "-x", "é", "x" * 101, "a\0", credentials.PREFIX + "secret"])
def test_a_bad_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(BadInput):
        make(store, name, {"flights": [Role.READER]})


@pytest.mark.parametrize(
    "more", [{"kind": "robot"}, {"lives": timedelta(0)}, {"rate": 0.0}, {"endpoints": []}, {"roles": {}}]
)
def test_a_senseless_wish_is_refused(store: Store, more: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        tokens.create(store, "flights", Wish(**{"name": "x", "roles": {"flights": [Role.READER]}, **more}), OWNER)  # type: ignore[arg-type]


def test_nobody_gives_or_takes_what_they_do_not_administrate(store: Store) -> None:
    ada = make(store, "ada", {"flights": [Role.ADMIN]}).caller()
    other = make(store, "bob", {"fraud": [Role.READER]})
    make(store, "cleo", {"flights": [Role.READER]}, ada)
    for roles in (
        {"fraud": [Role.READER]},
        {EVERYWHERE: [Role.READER]},
        {"flights": [Role.ADMIN], "fraud": [Role.READER]},
    ):
        with pytest.raises(NotAllowed):
            make(store, "dan", roles, ada)
    with pytest.raises(NotAllowed):
        tokens.revoke(store, "flights", other.id, ada)
    with pytest.raises(NotAllowed):
        tokens.change(store, "flights", "bob", {"flights": [Role.ADMIN]}, ada)
    assert tokens.change(store, "flights", "cleo", {"flights": [Role.OPERATOR]}, ada).roles == {"flights": ["operator"]}
    cleo = tokens.revoke(store, "flights", "cleo", ada)
    assert tokens.sees(ada, cleo)
    assert not tokens.sees(ada, other)


def test_the_last_administrator_cannot_be_locked_out_but_by_the_owner(store: Store) -> None:
    root = make(store, "root", {EVERYWHERE: [Role.ADMIN]}).caller()
    with pytest.raises(Conflict, match="last token of an administrator"):
        tokens.revoke(store, "flights", "root", root)
    with pytest.raises(Conflict, match="last token of an administrator"):
        tokens.change(store, "flights", "root", {EVERYWHERE: [Role.READER]}, root)
    make(store, "second", {EVERYWHERE: [Role.ADMIN]}, root)
    tokens.revoke(store, "flights", "root", root)
    tokens.revoke(store, "flights", "second", OWNER, owner=True)


def test_a_caller_revokes_itself(store: Store) -> None:
    web = make(store, "web", {"flights": [Role.CALLER]}).caller()
    assert tokens.revoke(store, "flights", "web", web).revoked_by == "web"


def test_the_last_use_is_written_once_a_minute(store: Store) -> None:
    token = make(store, "web", {"flights": [Role.CALLER]})
    now = store.clock.wall()
    for seconds in (0, 30, 59):
        tokens.note_use(store, {token.id: now + timedelta(seconds=seconds)})
    with store.database.read() as tx:
        assert tokens.get(tx, token.id).used_at == now
    tokens.note_use(store, {token.id: now + timedelta(seconds=61)})
    with store.database.read() as tx:
        assert tokens.get(tx, token.id).used_at == now + timedelta(seconds=61)
