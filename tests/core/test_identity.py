"""Who may do what."""

from __future__ import annotations

import pytest

from instar.core.errors import NotAllowed
from instar.core.identity import Actor, Permission, local_user, require


def test_the_local_user_may_do_everything() -> None:
    for permission in Permission:
        require(local_user(), permission)


def test_others_may_do_only_what_they_were_given() -> None:
    reader = Actor("ravi", permissions=frozenset({Permission.READ}))
    require(reader, Permission.READ)
    with pytest.raises(NotAllowed, match="ravi may not approve"):
        require(reader, Permission.APPROVE)
