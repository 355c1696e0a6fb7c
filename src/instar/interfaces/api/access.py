"""The API of access: who one is, tokens, what was refused, and signing in and out in a browser."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from instar.core import refusals, tokens
from instar.core.errors import BadInput
from instar.core.identity import MAY, Caller, Permission, Role
from instar.core.settings import read_settings
from instar.core.tokens import Wish
from instar.interfaces.api import sessions
from instar.interfaces.api.routes import Bound, Reply, Request, Route
from instar.serve import granting
from instar.serve.keyring import Keyring

MOST_LISTED = 1000


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/tokens`: `roles` by project, `*` for all; `expires_seconds` from now on."""

    name: str
    roles: dict[str, list[str]]
    kind: str = tokens.USER
    endpoints: list[str] | None = None
    expires_seconds: float | None = None
    rate: float | None = None


class NewRoles(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /api/tokens/{token}/roles`."""

    roles: dict[str, list[str]]


class SignIn(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/session`."""

    token: str


def whoami(request: Request) -> Reply:
    """Who calls, with which roles, and what they allow."""
    return Reply(who(request.caller))


def list_tokens(request: Request) -> Reply:
    """Tokens of the projects that the caller administrates or audits, the newest first; never a secret."""
    return Reply({"tokens": shown(request)})


def make_token(request: Request) -> Reply:
    """Make a token; the answer alone has its secret. `{"name", "roles", "kind", "endpoints", "expires_seconds", "rate"}`"""
    body = request.json(NewToken)
    lives = None if body.expires_seconds is None else _seconds(body.expires_seconds)
    wish = Wish(body.name, roles_of(body.roles), body.kind, body.endpoints, lives, body.rate)
    token, secret = tokens.create(request.app.store, request.app.project_name, wish, request.caller)
    granting.publish(request.app.store)
    answer = {**token.document(token.created_at), "secret": secret}
    return Reply(answer, 201, headers={"cache-control": "no-store"})


def change_roles(request: Request) -> Reply:
    """Give a live token, by name or id, other roles."""
    store, caller = request.app.store, request.caller
    roles = roles_of(request.json(NewRoles).roles)
    token = tokens.change(
        store, request.app.project_name, request.path["token"], roles, caller, owner=_is_owner(caller)
    )
    granting.publish(store)
    return Reply(token.document(store.clock.wall()))


def revoke_token(request: Request) -> Reply:
    """Revoke a live token, by name or id: every gateway refuses it within a second. One's own may always be revoked."""
    store, caller = request.app.store, request.caller
    token = tokens.revoke(store, request.app.project_name, request.path["token"], caller, owner=_is_owner(caller))
    granting.publish(store)
    return Reply(token.document(store.clock.wall()))


def list_refusals(request: Request) -> Reply:
    """What was refused, counted by the minute, the latest first; `?caller=`, `?limit=`."""
    return Reply({"refusals": refused(request, request.query.get("caller"), request.query.get("limit", "100"))})


def sign_in(request: Request) -> Reply:
    """Sign in with a token in a browser: the answer sets a cookie that holds for twelve hours."""
    store = request.app.store
    caller = Keyring(store.folder, read_settings()).by_secret(request.json(SignIn).token.strip()).caller
    secure = request.headers.get("x-forwarded-proto") == "https"
    headers = {"set-cookie": sessions.cookie_for(store, caller.token, secure=secure), "cache-control": "no-store"}
    return Reply(who(caller), headers=headers)


def sign_out(request: Request) -> Reply:
    """Sign out: the browser forgets its cookie."""
    return Reply({}, headers={"set-cookie": sessions.cookie_of_nobody()})


def who(caller: Caller) -> dict[str, Any]:
    """A caller as a document."""
    roles = {project: sorted(held) for project, held in sorted(caller.roles.items())}
    may = {project: sorted(set().union(*(MAY[role] for role in held))) for project, held in caller.roles.items()}
    endpoints = None if caller.endpoints is None else sorted(caller.endpoints)
    return {"name": caller.name, "kind": caller.kind, "token": caller.token, "roles": roles, "may": may,
            "endpoints": endpoints}  # fmt: skip


def shown(request: Request) -> list[dict[str, Any]]:
    """The tokens that a caller may see."""
    store = request.app.store
    with store.database.read() as tx:
        found = tokens.tokens(tx)
    return [token.document(store.clock.wall()) for token in found if tokens.sees(request.caller, token)]


def refused(request: Request, caller: str | None, limit: str) -> list[dict[str, Any]]:
    """The refusals that a caller may see: of all, or of the projects that it audits."""
    if not limit.isdecimal() or not 1 <= int(limit) <= MOST_LISTED:
        raise BadInput("that is no limit", found=limit[:40], asked=f"a number from 1 to {MOST_LISTED}")
    everything = request.caller.may(Permission.AUDIT, None)
    projects = None if everything else [p for p in request.caller.roles if request.caller.may(Permission.AUDIT, p)]
    with request.app.store.database.read() as tx:
        return refusals.refusals(tx, projects=projects, caller=caller, limit=int(limit))


def roles_of(asked: dict[str, list[str]]) -> dict[str, list[Role]]:
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
    return caller.token in ("", granting.LOCAL)


routes = [
    Route("GET", "/api/whoami", Permission.KNOWN, whoami),
    Route("GET", "/api/tokens", Permission.AUDIT, list_tokens, bound=Bound.SOMEWHERE),
    Route("POST", "/api/tokens", Permission.ADMIN, make_token, bound=Bound.SOMEWHERE),
    Route("PUT", "/api/tokens/{token}/roles", Permission.ADMIN, change_roles, bound=Bound.SOMEWHERE),
    Route("DELETE", "/api/tokens/{token}", Permission.KNOWN, revoke_token),
    Route("GET", "/api/refusals", Permission.AUDIT, list_refusals, bound=Bound.SOMEWHERE),
    Route("POST", "/api/session", Permission.PUBLIC, sign_in),
    Route("DELETE", "/api/session", Permission.PUBLIC, sign_out),
]
