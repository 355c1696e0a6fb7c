"""API tokens on the record: who may come in from outside, as what, until when, from the moment somebody makes one.

    token, secret = create(store, "flights", Wish("web", roles={"flights": [Role.CALLER]}, kind="service"))
    revoke(store, "flights", "web", caller)

The secret is returned once and kept nowhere; what is kept is its hash. Gateways hear of a change by `serve.granting.publish`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from instar.core import credentials, ids, journal
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import BadInput, Conflict, NotAllowed, NotFound
from instar.core.identity import EVERYWHERE, SYSTEM, Caller, Permission, Role
from instar.core.store import Store

api_token = sa.Table(
    "api_token",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False, index=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("roles", Json, nullable=False),
    sa.Column("endpoints", Json),
    sa.Column("rate", sa.Float),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("used_at", Instant),
    sa.Column("revoked_at", Instant),
    sa.Column("revoked_by", sa.String(200)),
)

USER, SERVICE = "user", "service"
USED_EVERY = timedelta(minutes=1)  # the last use is kept no finer, so that calls cost no writes
MOST_ROLES = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}\Z")
_PROJECT = re.compile(r"\w[\w .\-]{0,199}\Z")


@dataclass(frozen=True)
class Token:
    """A token as it is on the record, without its secret.

    Attributes:
        roles: By project; `*` stands for all.
        endpoints: The only ones that it may ask, see and change; None where its roles alone decide.
        rate: Calls a second that each process lets through; None for no limit.
        used_at: Last use, to about a minute.
    """

    id: str
    name: str
    kind: str
    hash: str
    roles: dict[str, list[str]]
    endpoints: list[str] | None
    rate: float | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None

    def state(self, now: datetime) -> str:
        """`live`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"

    def caller(self) -> Caller:
        """Whom it proves."""
        roles = {project: frozenset(Role(role) for role in held) for project, held in self.roles.items()}
        return Caller(
            self.name, self.kind, roles, None if self.endpoints is None else frozenset(self.endpoints), self.id
        )

    def document(self, now: datetime) -> dict[str, Any]:
        """What people and programs are shown: never the hash."""
        times = ("created_at", "expires_at", "used_at", "revoked_at")
        return {
            "id": self.id, "name": self.name, "kind": self.kind, "state": self.state(now), "roles": self.roles,
            "endpoints": self.endpoints, "rate": self.rate, "created_by": self.created_by,
            "revoked_by": self.revoked_by,
            **{name: getattr(self, name) for name in times},
        }  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """A token that somebody asks for.

    Attributes:
        roles: By project, `*` for all.
        lives: Until it expires; None for no end.
    """

    name: str
    roles: Mapping[str, Sequence[Role]]
    kind: str = USER
    endpoints: Sequence[str] | None = None
    lives: timedelta | None = None
    rate: float | None = None


def create(store: Store, project: str, wish: Wish, caller: Caller) -> tuple[Token, str]:
    """Make a token; returns it and its secret, which nobody can be told again.

    Args:
        project: Whose journal tells of a token for all projects.
        caller: Who asks: an administrator of every project that the token is for.

    Raises:
        BadInput: The wish makes no sense.
        NotAllowed: The caller does not administrate all of these projects.
        Conflict: A live token has that name.
    """
    roles = _roles(wish.roles)
    _check(wish)
    _may_hand_out(caller, roles)
    now, secret = store.clock.wall(), credentials.new_secret()
    token = Token(
        ids.new_id("tokn"), wish.name, wish.kind, credentials.hash_of(secret), roles,
        None if wish.endpoints is None else sorted(set(wish.endpoints)), wish.rate, now, caller.name,
        None if wish.lives is None else now + wish.lives, None, None, None,
    )  # fmt: skip

    def work(tx: Transaction) -> None:
        if any(other.state(now) == "live" for other in _named(tx, wish.name)):
            raise Conflict(
                "a live token has that name", subject=f"token {wish.name}",
                next_step="Choose another name, or revoke that one first.",
            )  # fmt: skip
        tx.execute(api_token.insert().values(**vars(token)))
        shown = {**token.document(now), "expires_at": token.expires_at.isoformat() if token.expires_at else None}
        body = {key: shown[key] for key in ("id", "name", "kind", "roles", "endpoints", "rate", "expires_at")}
        _journal(tx, store, caller, project, "token created", token, body)

    store.database.write(work, durable=True)
    return token, secret


def change(
    store: Store, project: str, name: str, roles: Mapping[str, Sequence[Role]], caller: Caller, *, owner: bool = False
) -> Token:
    """Give a live token other roles, in place of those that it has.

    Args:
        name: Name or id.
        owner: The caller owns the store's files, and may take away the last administrator.

    Raises:
        NotFound: There is no such live token.
        NotAllowed: The caller does not administrate all projects of the old or the new roles.
        Conflict: It is the last administrator's.
    """
    wanted, now = _roles(roles), store.clock.wall()

    def work(tx: Transaction) -> Token:
        token = _live(tx, name, now)
        _may_hand_out(caller, token.roles)
        _may_hand_out(caller, wanted)
        if not _is_administrator(wanted) and not owner:
            _keep_an_administrator(tx, token, now)
        tx.execute(api_token.update().where(api_token.c.id == token.id).values(roles=wanted))
        body = {"id": token.id, "name": token.name, "roles": wanted, "before": token.roles}
        _journal(tx, store, caller, project, "token changed", token, body, {*wanted})
        return get(tx, token.id)

    return store.database.write(work, durable=True)


def revoke(store: Store, project: str, name: str, caller: Caller, *, owner: bool = False) -> Token:
    """Have a token prove nothing any more. A token may always revoke itself, but for the last administrator's.

    Args, Raises: as `change`.
    """
    now = store.clock.wall()

    def work(tx: Transaction) -> Token:
        token = _live(tx, name, now)
        if token.id != caller.token:
            _may_hand_out(caller, token.roles)
        if not owner:
            _keep_an_administrator(tx, token, now)
        tx.execute(api_token.update().where(api_token.c.id == token.id).values(revoked_at=now, revoked_by=caller.name))
        _journal(tx, store, caller, project, "token revoked", token, {"id": token.id, "name": token.name})
        return get(tx, token.id)

    return store.database.write(work, durable=True)


def note_use(store: Store, used: Mapping[str, datetime]) -> None:
    """Keep when tokens were last used, by id; a write only where what is kept is a minute old."""
    if not used:
        return

    def work(tx: Transaction) -> None:
        for id, at in sorted(used.items()):
            old = sa.or_(api_token.c.used_at.is_(None), api_token.c.used_at <= at - USED_EVERY)
            tx.execute(api_token.update().where(api_token.c.id == id, old).values(used_at=at))

    store.database.write(work)


def tokens(tx: Transaction, *, revoked: bool = True) -> list[Token]:
    """All tokens, the newest first."""
    query = sa.select(api_token).order_by(api_token.c.created_at.desc(), api_token.c.id)
    if not revoked:
        query = query.where(api_token.c.revoked_at.is_(None))
    return [_token(row) for row in tx.execute(query)]


def get(tx: Transaction, id: str) -> Token:
    """The token of an id.

    Raises:
        NotFound: There is none.
    """
    row = tx.execute(sa.select(api_token).where(api_token.c.id == id)).one_or_none()
    if row is None:
        raise NotFound("there is no such token", subject=f"token {id[:100]}", next_step="See instar token ls.")
    return _token(row)


def sees(caller: Caller, token: Token) -> bool:
    """Whether a caller may see that a token is there: its own, and those of projects that it administrates or audits."""
    if token.id == caller.token:
        return True
    needed = (Permission.ADMIN, Permission.AUDIT)
    return any(
        caller.may(permission, None if project == EVERYWHERE else project)
        for project in token.roles
        for permission in needed
    )


def _token(row: Any) -> Token:
    return Token(**row._mapping)


def _named(tx: Transaction, name: str) -> list[Token]:
    either = sa.or_(api_token.c.name == name, api_token.c.id == name)
    return [_token(row) for row in tx.execute(sa.select(api_token).where(either))]


def _live(tx: Transaction, name: str, now: datetime) -> Token:
    """A token that is not revoked; of several of a name, the live one before those which expired."""
    found = [token for token in _named(tx, name) if token.revoked_at is None]
    if not found:
        raise NotFound("there is no such token", subject=f"token {name[:100]}", next_step="See instar token ls.")
    return next((token for token in found if token.state(now) == "live"), found[0])


def _roles(asked: Mapping[str, Sequence[Role]]) -> dict[str, list[str]]:
    if not asked or not all(asked.values()):
        raise BadInput("a token needs a role", asked=", ".join(Role))
    if len(asked) > MOST_ROLES:
        raise BadInput("the token is for too many projects", found=len(asked), asked=f"{MOST_ROLES}, or all")
    for project in asked:
        if project != EVERYWHERE and not _PROJECT.match(project):
            raise BadInput("that is no name of a project", found=repr(project[:100]))
    return {project: sorted({Role(role).value for role in held}) for project, held in sorted(asked.items())}


def _check(wish: Wish) -> None:
    if not _NAME.match(wish.name) or wish.name == SYSTEM.name or credentials.PREFIX in wish.name:
        raise BadInput(
            "that is no name for a token", found=repr(credentials.masked(wish.name[:100])),
            asked="letters, digits, . _ @ and -; not instar",
        )  # fmt: skip
    if wish.kind not in (USER, SERVICE):
        raise BadInput("that is no kind of token", found=wish.kind, asked=f"{USER} or {SERVICE}")
    if wish.lives is not None and not timedelta(0) < wish.lives <= timedelta(days=36_500):
        raise BadInput("a token lives for some time to come", found=wish.lives, asked="up to 100 years")
    if wish.rate is not None and not 0 < wish.rate <= 1e9:
        raise BadInput("that is no rate", found=wish.rate, asked="calls a second, more than 0")
    if wish.endpoints is not None and (not wish.endpoints or any(len(name) > 100 for name in wish.endpoints)):
        raise BadInput("name the endpoints that it may ask, or none for all of its projects")


def _may_hand_out(caller: Caller, roles: Mapping[str, Sequence[str]]) -> None:
    for project in roles:
        if not caller.may(Permission.ADMIN, None if project == EVERYWHERE else project):
            raise NotAllowed(
                f"{caller.name} does not administrate {'all projects' if project == EVERYWHERE else project}",
                subject=f"{caller.kind} {caller.name}", asked=f"the role {Role.ADMIN}",
                next_step="Ask an administrator of it.",
            )  # fmt: skip


def _is_administrator(roles: Mapping[str, Sequence[str]]) -> bool:
    return Role.ADMIN in roles.get(EVERYWHERE, ())


def _keep_an_administrator(tx: Transaction, token: Token, now: datetime) -> None:
    if not _is_administrator(token.roles) or token.state(now) != "live":
        return
    others = (other for other in tokens(tx, revoked=False) if other.id != token.id and other.state(now) == "live")
    if not any(_is_administrator(other.roles) for other in others):
        raise Conflict(
            "it is the last token of an administrator of all projects", subject=f"token {token.name}",
            next_step="Make another one first, or do it on the server's machine, as the owner of its store.",
        )  # fmt: skip


def _journal(
    tx: Transaction, store: Store, caller: Caller, project: str, kind: str, token: Token, body: dict[str, Any],
    also: set[str] | None = None,
) -> None:  # fmt: skip
    """Tell every project that the token is for: one entry in each one's chain."""
    named = {project if one == EVERYWHERE else one for one in {*token.roles, *(also or ())}}
    for one in sorted(named):
        journal.append(tx, store.clock, caller.within(one), one, kind, token.id, body)
