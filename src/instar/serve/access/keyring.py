"""Who calls: from the headers of a request to a caller, or a refusal, in every process that answers, at the moment of a call.

    keyring = Keyring(store.folder, read_settings())
    pass_ = keyring.authenticate(scope["headers"])     # raises Unauthenticated; Callers are in `serve/callers.json`
    pass_.enter(now)                                   # raises TooManyCalls

A header that was verified is remembered until the file changes, so that most calls cost one look in a dictionary: Python's
keyed hash, and then bytes that are equal already. A secret that is not known is hashed, and found by its hash.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from math import ceil
from pathlib import Path
from urllib.parse import urlsplit

from instar.core import credentials
from instar.core.errors import Damaged, NotAllowed, TooManyCalls, Unauthenticated
from instar.core.identity import EVERYWHERE, Caller, Role, local_caller
from instar.core.settings import Settings
from instar.serve.access.callers import LOCAL, NONE_YET, Callers, Grant, callers_file, read_callers
from instar.serve.access.rates import Rates, key_of, rates_file

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MOST_REMEMBERED = 4096  # verified headers; when more come, all are verified anew
WARN_SECONDS = 60.0  # between two words about callers that are not heard of any more
QUIET_SECONDS = 90.0  # after which the control side, which speaks each 20 s, is taken to be away

# By these a proxy says that it speaks for somebody else, who is not on this machine.
PROXIED = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"})
_AWKWARD = PROXIED | {b"origin"}

Headers = Iterable[tuple[bytes, bytes]]

_log = logging.getLogger("instar.serve")


class Pass:
    """A proven caller.

    Args:
        rate: Calls a second that all processes of the server let through together; 0 for no limit.
        rates: Where they are counted.

    Attributes:
        caller: Who it is.
        until: Seconds since 1970 when its token expires; infinite for none.
        used_at: Seconds since 1970 of its last call here.
    """

    __slots__ = ("_asks", "_key", "_rate", "_rates", "caller", "until", "used_at")

    def __init__(
        self, caller: Caller, until: float = float("inf"), rate: float = 0.0, rates: Rates | None = None
    ) -> None:
        self.caller = caller
        self.until = until
        self.used_at = 0.0
        self._rate, self._rates = rate, rates
        self._key = key_of(caller.token or caller.name) if rate else 0
        self._asks: dict[tuple[str, str], bool] = {}

    def enter(self, now: float) -> None:
        """Count a call.

        Raises:
            TooManyCalls: It calls more often than its token allows.
        """
        self.used_at = now
        if not self._rate or self._rates is None:
            return
        wait = self._rates.take(self._key, self._rate, now)
        if wait:
            problem = TooManyCalls(
                "it calls too often", subject=f"{self.caller.kind} {self.caller.name}",
                asked=f"{self._rate:g} calls a second", next_step="Wait as long as Retry-After says.",
            )  # fmt: skip
            problem.retry_after = max(1, ceil(wait))
            raise problem

    def may_ask(self, endpoint: str, project: str) -> bool:
        """Whether it may ask an endpoint of a project."""
        found = self._asks.get((endpoint, project))
        if found is None:
            found = self._asks[endpoint, project] = self.caller.may_ask(endpoint, project)
        return found

    def require(self, endpoint: str, project: str) -> None:
        """Raises NotAllowed unless it may ask an endpoint of a project."""
        if not self.may_ask(endpoint, project):
            raise NotAllowed(
                f"{self.caller.name} may not ask it for answers", subject=f"endpoint {endpoint}",
                found=f"{self.caller.kind} {self.caller.name}", asked="a token for it, with the role caller",
                next_step="Ask an administrator of the project for the role.",
            )  # fmt: skip


class Keyring:
    """All callers that a process knows.

    Args:
        settings: Whether callers on this machine are trusted, under which names the server is reached, and how old the
            last word about tokens may be.
    """

    def __init__(self, store_folder: Path, settings: Settings) -> None:
        self._folder = store_folder
        self._trusting = settings.trusting
        self._hosts = frozenset(settings.hosts)
        self._max_stale = settings.identity_max_stale_seconds
        self._owner = Pass(local_caller())
        self._rates = Rates(rates_file(store_folder))
        self._callers: Callers = NONE_YET
        self._seen: tuple[int, int] = (0, 0)
        self._by_hash: dict[str, tuple[Grant, Pass]] = {}
        self._by_id: dict[str, Pass] = {}
        self._known: dict[bytes, Pass] = {}
        self._local_hosts: set[bytes] = set()  # `Host` headers that were found to name this machine
        self._stale = False
        self._warned = 0.0
        self.look()

    @property
    def number(self) -> int:
        """Of the callers in use."""
        return self._callers.number

    def authenticate(self, headers: Headers) -> Pass:
        """Who sends these headers.

        Raises:
            Unauthenticated: Nobody who is known, or nobody says who it is where that is asked.
            NotAllowed: The request names another host, or comes from a page of another site.
        """
        found = dict(headers)
        header = found.get(b"authorization")
        if header is None:
            return self._without(found)
        self.check_host(found.get(b"host", b""))
        held = self._known.get(header)
        if held is not None and held.until > time.time() and not self._stale:
            return held
        secret = credentials.of_header(header)
        if secret is None:
            raise _unknown("the header Authorization has no token", "Bearer, or Basic with the token as password")
        held = self.by_secret(secret)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[header] = held
        return held

    def by_secret(self, secret: str) -> Pass:
        """Whom a secret proves.

        Raises:
            Unauthenticated: Nobody.
        """
        if not credentials.is_secret(secret):
            raise _unknown("that is no token: a letter is missing or wrong", f"{credentials.PREFIX}…")
        digest = credentials.hash_of(secret)
        grant, held = self._by_hash.get(digest, (None, None))
        if grant is None or held is None or not credentials.same(grant.hash, digest):
            raise _unknown("nobody has that token: it was never made, or is revoked", None)
        return self._current(held)

    def by_id(self, token: str) -> Pass:
        """Whom a token proves that was proven before, as a session does.

        Raises:
            Unauthenticated: Nobody any more.
        """
        held = self._by_id.get(token)
        if held is None:
            raise _unknown("the token is revoked", None)
        return self._current(held)

    def owner(self) -> Pass:
        """The local user."""
        return self._owner

    def look(self) -> None:
        """Take up the file of callers when it is another one; what cannot be trusted changes nothing."""
        try:
            status = os.stat(callers_file(self._folder))
        except FileNotFoundError:
            self._age()
            return
        mark = (status.st_mtime_ns, status.st_ino)
        if mark != self._seen:
            self._seen = mark
            try:
                self._take_up(read_callers(self._folder))
            except Damaged as problem:
                _log.error("%s", problem)
        self._age()

    def _take_up(self, callers: Callers) -> None:
        self._callers, before = callers, self._callers
        if callers.grants == before.grants:
            return
        # A grant that did not change keeps its pass, and with it when it was used.
        old = {grant.id: (grant, held) for grant, held in self._by_hash.values()}
        self._by_hash = {}
        for grant in callers.grants:
            known = old.get(grant.id)
            self._by_hash[grant.hash] = (grant, known[1] if known and known[0] == grant else _pass(grant, self._rates))
        self._by_id = {grant.id: held for grant, held in self._by_hash.values()}
        self._known.clear()

    def passes(self) -> Iterable[Pass]:
        """All proven callers, for what was used since."""
        return self._by_id.values()

    def _age(self) -> None:
        age = time.time() - self._callers.made_at / 1e6
        self._stale = self._max_stale is not None and age > self._max_stale and bool(self._callers.grants)
        if self._callers.grants and age > QUIET_SECONDS and time.monotonic() > self._warned:
            self._warned = time.monotonic() + WARN_SECONDS
            _log.warning(
                "no word about tokens for %d s: the control process is away; %s", age,
                "tokens are refused (INSTAR_IDENTITY_MAX_STALE)" if self._stale else "those known still hold",
            )  # fmt: skip

    def _current(self, held: Pass) -> Pass:
        if held.until <= time.time():
            raise _unknown("the token is expired", None)
        if self._stale:
            raise _unknown(
                f"the last word about tokens is more than {self._max_stale} s old, so none is believed", None,
                "Start the control process again; INSTAR_IDENTITY_MAX_STALE says how long one may be without it.",
            )  # fmt: skip
        return held

    def _without(self, headers: dict[bytes, bytes]) -> Pass:
        """Who calls without saying who: the owner on this machine, where that is believed."""
        if not self._trusting:
            self.check_host(headers.get(b"host", b""))
            raise _unknown("nobody says who calls", "a token")
        sent = headers.get(b"host", b"")
        if sent in self._local_hosts and _AWKWARD.isdisjoint(headers):
            return self._owner
        host = hostname(sent)
        if host not in LOOPBACK:
            raise NotAllowed("the request names another host", found=host, asked="127.0.0.1 or localhost")
        if len(self._local_hosts) < MOST_REMEMBERED:
            self._local_hosts.add(sent)
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).hostname not in LOOPBACK:
            raise NotAllowed("the request comes from a page of another site", found=origin.decode("latin-1")[:200])
        if not PROXIED.isdisjoint(headers):
            raise _unknown(
                "it comes through a proxy, which speaks for others", "a token",
                "Name the server's hosts in INSTAR_HOSTS, and give every caller a token.",
            )  # fmt: skip
        return self._owner

    def check_host(self, sent: bytes) -> None:
        """Raises NotAllowed for a `Host` header which names none of the hosts that the server was told to be."""
        if not self._hosts:
            return
        host = hostname(sent)
        if host not in self._hosts and host not in LOOPBACK:
            raise NotAllowed(
                "the request names another host", found=host, asked=f"one of {', '.join(sorted(self._hosts))}"
            )


def require_administrator(store_folder: Path, host: str) -> None:
    """Raises NotAllowed unless somebody has a token that administrates all of a store which is to be served beyond loopback."""
    now = time.time() * 1e6
    for grant in read_callers(store_folder).grants:
        if (
            Role.ADMIN in grant.roles.get(EVERYWHERE, ())
            and (not grant.until or grant.until > now)
            and grant.id != LOCAL
        ):
            return
    raise NotAllowed(
        "nothing listens beyond loopback before there is an administrator",
        subject="server", found=host, asked="127.0.0.1, or a token of an administrator of all projects",
        next_step="Make one: instar token create NAME --role admin --all-projects",
    )  # fmt: skip


def hostname(value: bytes) -> str | None:
    """The name in a `Host` header, without the port."""
    try:
        return urlsplit("//" + value.decode("latin-1")).hostname
    except ValueError:
        return None


def _pass(grant: Grant, rates: Rates) -> Pass:
    known = {role.value for role in Role}  # a role of a later Instar gives nothing here
    roles = {project: frozenset(Role(role) for role in held if role in known) for project, held in grant.roles.items()}
    endpoints = None if grant.endpoints is None else frozenset(grant.endpoints)
    caller = Caller(grant.name, grant.kind, roles, endpoints, grant.id)
    return Pass(caller, grant.until / 1e6 if grant.until else float("inf"), grant.rate, rates)


def _unknown(what: str, asked: str | None, next_step: str = "") -> Unauthenticated:
    return Unauthenticated(
        what, subject="caller", asked=asked,
        next_step=next_step or "Send the header Authorization: Bearer TOKEN; instar token create makes one.",
    )  # fmt: skip
