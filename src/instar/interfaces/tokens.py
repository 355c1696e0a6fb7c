"""Tokens as people and programs ask for them, over HTTP or on the store's files: what is asked, done and shown, in one place.

Every verb takes the opened store, the caller and plain values, and gives a document; none ever has a secret but `make`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from instar.app import App
from instar.core import refusals, tokens
from instar.core.errors import BadInput
from instar.core.identity import Caller, Permission, Role
from instar.core.tokens import Wish
from instar.serve.access import granting
from instar.serve.access.callers import LOCAL


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token that is asked for: `roles` by project, `*` for all; `expires_seconds` from now on, or never."""

    name: str
    roles: dict[str, list[str]]
    kind: str = tokens.USER
    endpoints: list[str] | None = None
    expires_seconds: float | None = None
    rate: float | None = None


def make(app: App, caller: Caller, asked: NewToken) -> dict[str, Any]:
    """Make a token; the document has its secret, which nobody is told again."""
    lives = None if asked.expires_seconds is None else _seconds(asked.expires_seconds)
    wish = Wish(asked.name, roles_of(asked.roles), asked.kind, asked.endpoints, lives, asked.rate)
    token, secret = tokens.create(app.store, app.project_name, wish, caller)
    granting.publish(app.store)
    return {**token.document(token.created_at), "secret": secret}


def change(app: App, caller: Caller, name: str, roles: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Give a live token, by name or id, other roles."""
    store = app.store
    token = tokens.change(store, app.project_name, name, roles_of(roles), caller, owner=_is_owner(caller))
    granting.publish(store)
    return token.document(store.clock.wall())


def revoke(app: App, caller: Caller, name: str) -> dict[str, Any]:
    """Revoke a live token, by name or id: every gateway refuses it within a second."""
    store = app.store
    token = tokens.revoke(store, app.project_name, name, caller, owner=_is_owner(caller))
    granting.publish(store)
    return token.document(store.clock.wall())


def shown(app: App, caller: Caller) -> list[dict[str, Any]]:
    """The tokens that a caller may see, the newest first."""
    with app.store.database.read() as tx:
        found = tokens.tokens(tx)
    return [token.document(app.store.clock.wall()) for token in found if tokens.sees(caller, token)]


def refused(app: App, caller: Caller, of: str | None, limit: int) -> list[dict[str, Any]]:
    """The refusals that a caller may see: of all, or of the projects that it audits.

    Args:
        of: Name of the caller who was refused; None for all.
    """
    everything = caller.may(Permission.AUDIT, None)
    projects = None if everything else [p for p in caller.roles if caller.may(Permission.AUDIT, p)]
    with app.store.database.read() as tx:
        return refusals.refusals(tx, projects=projects, caller=of, limit=limit)


def who(caller: Caller) -> dict[str, Any]:
    """A caller, its roles and what they allow, by project."""
    roles = {project: sorted(held) for project, held in sorted(caller.roles.items())}
    may = {project: sorted(caller.permissions(project)) for project in caller.roles}
    endpoints = None if caller.endpoints is None else sorted(caller.endpoints)
    return {
        "name": caller.name, "kind": caller.kind, "token": caller.token, "roles": roles, "may": may,
        "endpoints": endpoints,
    }  # fmt: skip


def roles_of(asked: Mapping[str, Sequence[str]]) -> dict[str, list[Role]]:
    """Roles by project, from their names.

    Raises:
        BadInput: There is no such role.
    """
    known = {role.value for role in Role}
    for held in asked.values():
        for name in held:
            if name not in known:
                raise BadInput("there is no such role", found=repr(name[:60]), asked=", ".join(sorted(known)))
    return {project: [Role(name) for name in held] for project, held in asked.items()}


def _seconds(value: float) -> timedelta:
    if not 0 < value <= 3.2e9:
        raise BadInput("a token lives for some time to come", found=value, asked="seconds, up to 100 years")
    return timedelta(seconds=value)


def _is_owner(caller: Caller) -> bool:
    return caller.token in ("", LOCAL)
