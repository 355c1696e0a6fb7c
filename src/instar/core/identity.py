"""Who acts, and what a role may do: asked by every route, every call and every write, at every moment of the life cycle.

A caller has roles in projects; in one project it is an actor with permissions. The owner of the store's files is the local
user, who may do everything. How a caller proves who it is: `credentials.py`, `serve/access/keyring.py`.

    caller = Caller("ravi", roles={"flights": frozenset({Role.READER})})
    require(caller.within("flights"), Permission.TRAIN)      # raises NotAllowed
"""

from __future__ import annotations

import enum
import getpass
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from instar.core.errors import NotAllowed

EVERYWHERE = "*"  # stands for all projects of the store, those that come later included


class Permission(enum.StrEnum):
    """What a route or a command needs."""

    PUBLIC = "nothing"  # anybody, without saying who
    KNOWN = "to be known"  # any caller that says who it is
    READ = "read"
    WRITE_DATA = "write data"
    TRAIN = "train"
    RELEASE = "release"
    APPROVE = "approve"
    OPERATE = "operate"
    PREDICT = "predict"
    AUDIT = "audit"
    ADMIN = "admin"


ALL_PERMISSIONS = frozenset(Permission)
_OPEN = frozenset({Permission.PUBLIC, Permission.KNOWN})
# What is about a project as a whole, and so nothing for who is limited to some endpoints of it.
_OF_ALL_ENDPOINTS = frozenset({Permission.WRITE_DATA, Permission.TRAIN, Permission.AUDIT, Permission.ADMIN})


class Role(enum.StrEnum):
    """What somebody is in a project."""

    READER = "reader"
    DATA_ENGINEER = "data engineer"
    DATA_SCIENTIST = "data scientist"
    OPERATOR = "operator"
    APPROVER = "approver"
    AUDITOR = "auditor"
    CALLER = "caller"  # an application: it asks endpoints and reports outcomes, and reads nothing
    ADMIN = "admin"


MAY: Mapping[Role, frozenset[Permission]] = {
    Role.READER: _OPEN | {Permission.READ},
    Role.DATA_ENGINEER: _OPEN | {Permission.READ, Permission.WRITE_DATA},
    Role.DATA_SCIENTIST: _OPEN | {Permission.READ, Permission.TRAIN, Permission.RELEASE, Permission.PREDICT},
    Role.OPERATOR: _OPEN | {Permission.READ, Permission.OPERATE, Permission.PREDICT},
    Role.APPROVER: _OPEN | {Permission.READ, Permission.APPROVE},
    Role.AUDITOR: _OPEN | {Permission.READ, Permission.AUDIT},
    Role.CALLER: _OPEN | {Permission.PREDICT},
    Role.ADMIN: ALL_PERMISSIONS,
}


@dataclass(frozen=True)
class Actor:
    """Somebody or something that acts, in one project.

    Attributes:
        name: Shown in every record, e.g. `"ada"`.
        kind: `"user"`, `"service"` (an application) or `"system"` (Instar's own controllers).
        permissions: What it may do.
    """

    name: str
    kind: str = "user"
    permissions: frozenset[Permission] = field(default=ALL_PERMISSIONS, repr=False)


@dataclass(frozen=True)
class Caller:
    """Somebody who calls, as a token or the machine proves it.

    Attributes:
        roles: By project; `EVERYWHERE` stands for all.
        endpoints: The only ones that it may ask, see and change; None where its roles alone decide.
        token: Id of the token that proves it; empty for the local user.
    """

    name: str
    kind: str = "user"
    roles: Mapping[str, frozenset[Role]] = field(default_factory=dict, repr=False)
    endpoints: frozenset[str] | None = None
    token: str = ""

    def permissions(self, project: str | None) -> frozenset[Permission]:
        """What it may do in a project; with None, what it may do in all of the store."""
        held = self.roles.get(EVERYWHERE, frozenset())
        if project is not None:
            held |= self.roles.get(project, frozenset())
        found = _OPEN.union(*(MAY[role] for role in held))
        return found if self.endpoints is None else found - _OF_ALL_ENDPOINTS

    def may(self, permission: Permission, project: str | None) -> bool:
        """Whether it has a permission in a project, or, with None, in all of the store."""
        return permission in self.permissions(project)

    def may_somewhere(self, permission: Permission) -> bool:
        """Whether it has a permission in any project."""
        return any(self.may(permission, project) for project in self.roles)

    def reaches(self, endpoint: str) -> bool:
        """Whether it is not limited to other endpoints than this one."""
        return self.endpoints is None or endpoint in self.endpoints

    def may_ask(self, endpoint: str, project: str) -> bool:
        """Whether it may ask an endpoint of a project for answers."""
        return self.reaches(endpoint) and self.may(Permission.PREDICT, project)

    def may_ask_all(self) -> bool:
        """Whether it may ask every endpoint of the store, those that come later included."""
        return self.endpoints is None and self.may(Permission.PREDICT, None)

    def within(self, project: str | None) -> Actor:
        """The caller as it acts in a project, or in all of the store."""
        return Actor(self.name, self.kind, self.permissions(project))


SYSTEM = Actor("instar", "system")


@cache  # each call asks who acts, and the system's list of users is a file
def local_user() -> Actor:
    """The person at this machine, owner of the store's files: may do everything."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no such user in a bare container
        name = "local"
    return Actor(name)


@cache
def local_caller() -> Caller:
    """The local user as a caller."""
    return Caller(local_user().name, roles={EVERYWHERE: frozenset({Role.ADMIN})})


def require(actor: Actor, permission: Permission) -> None:
    """Raises NotAllowed unless `actor` has `permission`."""
    if permission not in actor.permissions:
        raise NotAllowed(
            f"{actor.name} may not {permission.value}",
            subject=f"{actor.kind} {actor.name}",
            found=", ".join(sorted(actor.permissions - _OPEN)) or "no permission",
            asked=permission.value,
            next_step="Ask an administrator of the project for the role.",
        )
