"""An endpoint's traffic from a program: its policy to read, to change with a reason, and to take back.

traffic = server.traffic("delay")
policy = traffic.policy()
traffic.set({**policy, "arms": [{"name": "b", "version": 5, "weight": 10}]}, "compare 5 with the champion")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from instar.interfaces.wire import moment

Send = Callable[..., tuple[Any, Mapping[str, str]]]


class Traffic:
    """One endpoint's traffic.

    Args:
        send: Sends method, path, body, query and headers; returns the answer and its headers.
        path: Of the endpoint in the API.
    """

    def __init__(self, send: Send, path: str) -> None:
        self._send, self._path = send, path
        self._tag: str | None = None

    def policy(self) -> dict[str, Any]:
        """The policy as a document: champion, canary, arms, sticky, rules, shadows.

        Raises:
            NotFound: There is no such endpoint.
        """
        found, headers = self._send("GET", f"{self._path}/policy")
        self._tag = headers["etag"]
        return dict(found["document"])

    def set(
        self, policy: Mapping[str, Any], reason: str, *, expected: int | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Make a policy the endpoint's; returns what changed, and which gateways answer from it.

        Args:
            expected: Number of the revision that it was decided upon, 0 for a new endpoint; by default the last one read.
            dry_run: Say what would change, and change nothing.

        Raises:
            Conflict: The policy has changed since.
            Blocked: A version may not answer callers.
        """
        if expected is None and self._tag is None:
            self.policy()
        tag = self._tag if expected is None else f'"{expected}"'
        body = {"policy": policy, "reason": reason, "dry_run": dry_run}
        found, headers = self._send("PUT", f"{self._path}/policy", body, None, {"if-match": str(tag)})
        self._tag = headers["etag"]
        return dict(found)

    def back(self, reason: str, *, to: int | None = None) -> dict[str, Any]:
        """Return to the policy before, or to that of a revision, as a whole."""
        found, headers = self._send("POST", f"{self._path}/back", {"reason": reason, "to": to})
        self._tag = headers["etag"]
        return dict(found)

    def compare(
        self, versions: Sequence[int] = (), *, since: datetime | None = None, until: datetime | None = None,
        by: Sequence[str] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """Where two versions differ on the same calls; by default the champion and who is beside it."""
        query = {
            "versions": list(versions) or None, "by": list(by) or None,
            "since": moment(since) if since is not None else None, "until": moment(until) if until is not None else None,
        }  # fmt: skip
        return dict(self._send("GET", f"{self._path}/compare", None, query)[0])
