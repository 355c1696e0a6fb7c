"""Signing in with a token in a browser: a cookie that names the token, signed, for twelve hours, while people use the console.

The cookie has no secret in it: it holds as long as its token does, so revoking the token ends every session of it.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from http.cookies import CookieError, SimpleCookie

from instar.core.keys import signing_key
from instar.core.store import Store

COOKIE = "instar_session"
SESSION_SECONDS = 12 * 3600


def cookie_for(store: Store, token: str, *, secure: bool) -> str:
    """The `Set-Cookie` header by which a browser stays signed in as a token.

    Args:
        secure: The browser came by TLS, and is to send the cookie by nothing else.
    """
    until = int(time.time()) + SESSION_SECONDS
    value = f"{token}.{until}.{_signature(store, token, until)}"
    return (
        f"{COOKIE}={value}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
    )


def cookie_of_nobody() -> str:
    """The `Set-Cookie` header by which a browser is signed out."""
    return f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"


def token_of(store: Store, cookies: str) -> str | None:
    """The id of the token that a browser is signed in with; None where the cookie is not ours, or too old."""
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return None
    token, _, rest = (morsel.value if morsel is not None else "").partition(".")
    until, _, signature = rest.partition(".")
    if not (until.isascii() and until.isdigit() and len(until) < 13):
        return None
    if not hmac.compare_digest(signature.encode(), _signature(store, token, int(until)).encode()):
        return None
    return token if int(until) > time.time() else None


def _signature(store: Store, token: str, until: int) -> str:
    key = signing_key(store.folder, "sessions")
    return hmac.new(key, f"{token}.{until}".encode(), hashlib.sha256).hexdigest()
