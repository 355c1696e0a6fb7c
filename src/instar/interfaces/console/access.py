"""The console on access: who may what, who was refused, and the page on which one signs in with a token."""

from __future__ import annotations

from typing import Any

from instar.core.identity import Permission
from instar.interfaces import tokens
from instar.interfaces.api.routes import Reply, Request
from instar.interfaces.console.render import html


def access(request: Request) -> dict[str, Any]:
    """Tokens and refusals, as far as the caller may see them, and what the caller itself may do."""
    audits = request.caller.may_somewhere(Permission.AUDIT)
    return {
        "project": None,
        "home": request.app.project_name,
        "me": tokens.who(request.caller),
        "tokens": tokens.shown(request.app, request.caller),
        "refusals": tokens.refused(request.app, request.caller, None, 100) if audits else [],
        "audits": audits,
    }


def sign_in(request: Request) -> Reply:
    """Console: sign in with a token."""
    return html("sign_in.html", {"project": None})
