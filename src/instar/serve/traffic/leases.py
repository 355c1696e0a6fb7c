"""Leases of canaries: word from the controllers that they still watch a candidate, while it answers a share of the calls.

The controllers renew each lease at each look. A gateway that hears of no renewal within the canary's lease gives its share
back to the champion, by itself, and the record says so; when word comes again, the share is the canary's again until the
rollout's rule decides. The file is signed, as routes are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from instar.core.errors import Damaged
from instar.core.locks import one_at_a_time
from instar.serve.traffic.routes import KEY, serve_folder
from instar.serve.traffic.signed_file import read_signed, write_signed


class Lease(msgspec.Struct, frozen=True):
    """The last word on one endpoint's canary.

    Attributes:
        policy: Number of the policy revision that it is about.
        renewed: Wall time, microseconds since 1970.
    """

    policy: int
    renewed: int


_leases = msgspec.json.Decoder(dict[str, Lease])


def leases_file(store_folder: Path) -> Path:
    return serve_folder(store_folder) / "leases.json"


def read_leases(store_folder: Path) -> dict[str, Lease]:
    """Leases by endpoint.

    Raises:
        Damaged: The file is not what the control side of this store wrote.
    """
    body = read_signed(store_folder, leases_file(store_folder), KEY)
    return {} if body is None else _leases.decode(body)


def begin(store_folder: Path, policies: Mapping[str, int], now: int) -> None:
    """Begin the leases of these policies, by endpoint, that have none yet: they are about to be published.

    Args:
        now: Wall time, microseconds since 1970.
    """
    with _writing(store_folder, policies) as known:
        for name, number in policies.items():
            if name not in known or known[name].policy != number:
                known[name] = Lease(number, now)


def renew(store_folder: Path, policies: Mapping[str, int], now: int) -> dict[str, Lease]:
    """Say that the canaries of these policies, by endpoint, are watched; returns what was known before."""
    with _writing(store_folder, policies) as known:
        before = dict(known)
        known.update({name: Lease(number, now) for name, number in policies.items()})
    return before


@contextmanager
def _writing(store_folder: Path, policies: Mapping[str, int]) -> Iterator[dict[str, Lease]]:
    if not policies:
        yield {}
        return
    with one_at_a_time(serve_folder(store_folder) / "leases.lock"):
        try:
            known = read_leases(store_folder)
        except Damaged:
            known = {}  # it says nothing that is not known here: it is written again
        before = dict(known)
        yield known
        if known != before:
            write_signed(store_folder, leases_file(store_folder), KEY, msgspec.json.encode(known))


def remaining(lease: Lease | None, policy: int, seconds: float, now: int) -> float:
    """Seconds that a canary still has its share, when its lease is read at wall time `now`.

    A clock that was set back never makes it longer than the lease.
    """
    if lease is None or lease.policy != policy:
        return seconds
    return min(max(seconds - (now - lease.renewed) / 1e6, 0.0), seconds)
