"""Who acts, and what a role may do. One local user for now; every write and every route already asks."""

from __future__ import annotations

import enum
import getpass
from dataclasses import dataclass, field
from functools import cache

from instar.core.errors import NotAllowed


class Permission(enum.StrEnum):
    """What a route or a command needs."""

    READ = "read"
    WRITE_DATA = "write data"
    TRAIN = "train"
    RELEASE = "release"
    APPROVE = "approve"
    OPERATE = "operate"
    PREDICT = "predict"
    ADMIN = "admin"


ALL_PERMISSIONS = frozenset(Permission)


@dataclass(frozen=True)
class Actor:
    """Somebody or something that acts.

    Attributes:
        name: Shown in every record, e.g. `"ada"`.
        kind: `"user"`, `"service"` (an application) or `"system"` (Instar's own controllers).
        permissions: What it may do.
    """

    name: str
    kind: str = "user"
    permissions: frozenset[Permission] = field(default=ALL_PERMISSIONS, repr=False)


SYSTEM = Actor("instar", "system")


@cache  # each call asks who acts, and the system's list of users is a file
def local_user() -> Actor:
    """The person at this machine, owner of the store's files: may do everything."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no such user in a bare container
        name = "local"
    return Actor(name)


def require(actor: Actor, permission: Permission) -> None:
    """Raises NotAllowed unless `actor` has `permission`."""
    if permission not in actor.permissions:
        raise NotAllowed(
            f"{actor.name} may not {permission.value}",
            subject=f"{actor.kind} {actor.name}",
            found=", ".join(sorted(actor.permissions)) or "no permission",
            asked=permission.value,
            next_step="Ask an administrator of the project for the role.",
        )
