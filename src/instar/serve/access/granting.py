"""Publishing who may call: the tokens on the record, as a signed file for every process that answers, right after each change.

tokens.revoke(store, "flights", "web", caller)
publish(store)                    # every gateway of this store refuses it within a second
"""

from __future__ import annotations

import logging
import secrets as chance
from pathlib import Path

from instar.core import credentials, tokens
from instar.core.database import microseconds
from instar.core.errors import Damaged
from instar.core.identity import EVERYWHERE, Role, local_user
from instar.core.keys import keep_secret
from instar.core.locks import one_at_a_time
from instar.core.store import Store
from instar.serve.access.callers import LOCAL, NONE_YET, Callers, Grant, read_callers, write_callers
from instar.serve.traffic.routes import serve_folder

_log = logging.getLogger("instar.serve")


def publish(store: Store, *, say: bool = True) -> int:
    """Write which tokens are live, and that this holds now. Returns the number, which a change alone counts up.

    Args:
        say: False writes nothing where nothing changed.
    """
    with one_at_a_time(serve_folder(store.folder) / "callers.lock"):
        try:
            before = read_callers(store.folder)
        except Damaged as problem:  # what is on the record is the truth, and is written again
            _log.error("%s", problem)
            before = Callers(chance.randbits(40), 0)
        now = store.clock.wall()
        with store.database.read() as tx:
            live = [token for token in tokens.tokens(tx, revoked=False) if token.state(now) == "live"]
        grants = (*_of_owner(store.folder), *(_grant(token) for token in sorted(live, key=lambda token: token.id)))
        changed = before is NONE_YET or grants != before.grants
        number = before.number + changed
        if not changed and not say:
            return number
        write_callers(store.folder, Callers(number, microseconds(now), grants))
        return number


def make_local_token(store_folder: Path) -> None:
    """Have a token for the store's owner, in a file that nobody else may read; programs of the owner find it there."""
    keep_secret(credentials.local_token(store_folder), credentials.new_secret().encode())


def _of_owner(store_folder: Path) -> tuple[Grant, ...]:
    place = credentials.local_token(store_folder)
    if not place.exists():
        return ()
    digest = credentials.hash_of(credentials.of_file(place))
    return (Grant(LOCAL, local_user().name, "user", digest, {EVERYWHERE: (Role.ADMIN.value,)}),)


def _grant(token: tokens.Token) -> Grant:
    return Grant(
        token.id, token.name, token.kind, token.hash, {project: tuple(held) for project, held in token.roles.items()},
        None if token.endpoints is None else tuple(token.endpoints),
        0 if token.expires_at is None else microseconds(token.expires_at), token.rate or 0.0,
    )  # fmt: skip
