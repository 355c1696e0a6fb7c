"""Who may come in: every call of the control process is judged here, before its body is read.

Who calls is told by a token, by the session of somebody who signed in with one, or, on a server that trusts its machine, by
nothing at all. Refusals are counted by the minute, so that nobody can fill the record by knocking.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

from instar.core.errors import InstarError, MalformedRequest, NotAllowed
from instar.core.identity import Caller, Permission
from instar.core.settings import Settings
from instar.core.store import Store
from instar.interfaces.api import sessions
from instar.interfaces.api.routes import Bound, Request, Route
from instar.interfaces.api.status import status_of
from instar.serve.access.keyring import LOOPBACK, Keyring, Pass, hostname
from instar.serve.access.visits import NOBODY, Visits

# What a page of another site can send without asking the server first.
FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
ANYBODY = Caller(NOBODY, "nobody")


class Doorkeeper:
    """Judges the calls of one control process."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._trusting = settings.trusting
        self.keyring = Keyring(store.folder, settings)
        self.visits = Visits(store.folder, "control")

    def refuse_strangers(self, method: str, headers: Mapping[str, str]) -> None:
        """A page of another site, open in the user's browser, must not be able to act as the user.

        Raises:
            NotAllowed, MalformedRequest: It names another host, comes from such a page, or has the form of one.
        """
        if self._trusting:
            host = hostname(headers.get("host", "").encode("latin-1"))
            if host not in LOOPBACK:
                raise NotAllowed("the request names another host", found=host, asked="127.0.0.1 or localhost")
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).hostname not in LOOPBACK:
                raise NotAllowed("the request comes from a page of another site", found=origin[:200])
        # Other methods than these two are asked for first by a browser, and such questions are refused.
        if method == "POST":
            media = headers.get("content-type", "application/json").split(";")[0].strip()
            if media in FORMS:
                raise MalformedRequest("forms are not accepted", found=media, asked="application/json")

    def admit(self, route: Route, scope: MutableMapping[str, Any], headers: Mapping[str, str]) -> Caller:
        """Who calls; nobody in particular on a public route.

        Raises:
            Unauthenticated, NotAllowed, TooManyCalls: It is turned away, and that is kept.
        """
        if route.permission is Permission.PUBLIC:
            return ANYBODY
        held: Pass | None = None
        try:
            self.keyring.look()
            held = self._held(scope, headers)
            held.enter(time.time())
            return held.caller
        except InstarError as problem:
            self._turned_away(held.caller.name if held else NOBODY, route, problem, "")
            raise

    def judge(self, route: Route, request: Request) -> None:
        """Raises NotAllowed unless the caller has the route's permission where it is needed, and keeps that."""
        if route.proof is not None:
            route.proof(request)
        project, caller = route.project(request), request.caller
        if route.permission is Permission.PUBLIC:
            return
        if not route.reached(request):
            self._refuse(route, caller, project, NotAllowed(
                f"the token of {caller.name} is for some endpoints alone", subject=f"{caller.kind} {caller.name}",
                found=f"{route.method} {route.path}", asked=", ".join(sorted(caller.endpoints or ())),
                next_step="Ask with a token that is not limited to endpoints.",
            ))  # fmt: skip
        if route.allows(request):
            return
        where = (
            f"in {project}" if project else "in any project" if route.bound is Bound.SOMEWHERE else "in all projects"
        )
        to = "administrate" if route.permission is Permission.ADMIN else route.permission.value
        problem = NotAllowed(
            f"{caller.name} may not {to}{f' {where}' if project else ''}",
            subject=f"{caller.kind} {caller.name}",
            asked=f"the permission to {to} {where}",
            next_step="Ask an administrator of the project for a role that has it: instar whoami says which you have.",
        )
        self._refuse(route, caller, project, problem)

    def _refuse(self, route: Route, caller: Caller, project: str | None, problem: NotAllowed) -> NoReturn:
        self._turned_away(caller.name, route, problem, project or "")
        raise problem

    def _held(self, scope: MutableMapping[str, Any], headers: Mapping[str, str]) -> Pass:
        if not self._trusting and "authorization" not in headers and sessions.COOKIE in headers.get("cookie", ""):
            token = sessions.token_of(self._store, headers["cookie"])
            if token is not None:
                self.keyring.check_host(headers.get("host", "").encode("latin-1"))
                _refuse_other_pages(scope["method"], headers)
                return self.keyring.by_id(token)
        return self.keyring.authenticate(scope["headers"])

    def _turned_away(self, name: str, route: Route, problem: InstarError, project: str) -> None:
        self.visits.refuse(name, f"{route.method} {route.path}", status_of(problem), project)


def _refuse_other_pages(method: str, headers: Mapping[str, str]) -> None:
    """A cookie is sent by the browser, whoever made it ask: what changes something must come from a page of this server.

    Raises:
        NotAllowed: It does not, or does not say so.
    """
    if method in SAFE:
        return
    origin = headers.get("origin")
    same = urlsplit(origin).netloc == headers.get("host") if origin else headers.get("sec-fetch-site") == "same-origin"
    if not same:
        raise NotAllowed(
            "the request comes from a page of another site, or does not say from where", found=origin,
            asked="the header Origin of this server's own pages, or a token",
        )  # fmt: skip
