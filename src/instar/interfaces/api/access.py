"""The API of access: who one is, tokens, what was refused, and signing in and out in a browser."""

from __future__ import annotations

import msgspec

from instar.core.errors import BadInput
from instar.core.identity import Permission
from instar.core.settings import read_settings
from instar.interfaces import tokens
from instar.interfaces.api import sessions
from instar.interfaces.api.routes import Bound, Reply, Request, Route
from instar.serve.access.keyring import Keyring

MOST_LISTED = 1000


class NewRoles(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /api/tokens/{token}/roles`: by project, `*` for all."""

    roles: dict[str, list[str]]


class SignIn(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /api/session`."""

    token: str


def whoami(request: Request) -> Reply:
    """Who calls, with which roles, and what they allow."""
    return Reply(tokens.who(request.caller))


def list_tokens(request: Request) -> Reply:
    """Tokens of the projects that the caller administrates or audits, the newest first; never a secret."""
    return Reply({"tokens": tokens.shown(request.app, request.caller)})


def make_token(request: Request) -> Reply:
    """Make a token; the answer alone has its secret. `{"name", "roles", "kind", "endpoints", "expires_seconds", "rate"}`"""
    made = tokens.make(request.app, request.caller, request.json(tokens.NewToken))
    return Reply(made, 201, headers={"cache-control": "no-store"})


def change_roles(request: Request) -> Reply:
    """Give a live token, by name or id, other roles."""
    return Reply(tokens.change(request.app, request.caller, request.path["token"], request.json(NewRoles).roles))


def revoke_token(request: Request) -> Reply:
    """Revoke a live token, by name or id: every gateway refuses it within a second. One's own may always be revoked."""
    return Reply(tokens.revoke(request.app, request.caller, request.path["token"]))


def list_refusals(request: Request) -> Reply:
    """What was refused, counted by the minute, the latest first; `?caller=`, `?limit=`."""
    limit = request.query.get("limit", "100")
    if not limit.isdecimal() or not 1 <= int(limit) <= MOST_LISTED:
        raise BadInput("that is no limit", found=limit[:40], asked=f"a number from 1 to {MOST_LISTED}")
    found = tokens.refused(request.app, request.caller, request.query.get("caller"), int(limit))
    return Reply({"refusals": found})


def sign_in(request: Request) -> Reply:
    """Sign in with a token in a browser: the answer sets a cookie that holds for twelve hours."""
    store = request.app.store
    caller = Keyring(store.folder, read_settings()).by_secret(request.json(SignIn).token.strip()).caller
    secure = request.headers.get("x-forwarded-proto") == "https"
    headers = {"set-cookie": sessions.cookie_for(store, caller.token, secure=secure), "cache-control": "no-store"}
    return Reply(tokens.who(caller), headers=headers)


def sign_out(request: Request) -> Reply:
    """Sign out: the browser forgets its cookie."""
    return Reply({}, headers={"set-cookie": sessions.cookie_of_nobody()})


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
