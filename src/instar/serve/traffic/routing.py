"""The record of what answers: immutable, numbered policy revisions of each endpoint, made when a rollout or a person decides.

The policy's value and the choice of a route live in `policy.py`; this file keeps revisions in the database, journalled
with who and why. A revision names the bundle of each version, so what answered at a time can be read from it alone.

    set_policy(store, "flights", "delay", champion=3, shadows=[Shadow(1, "rule")], bundles={3: "b3:…", 1: "b3:…"})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from instar.core import ids, journal, lineage
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.store import Store
from instar.serve.traffic.endpoint_signature import signature_of
from instar.serve.traffic.policy import KEY, Arm, Canary, Policy, Retiring, Rule, Shadow
from instar.serve.traffic.policy_check import check

__all__ = [
    "Canary", "Policy", "Revision", "Shadow", "as_of", "current", "endpoints", "get", "history", "set_policy",
]  # fmt: skip

WARM_SECONDS = 3600.0  # for which the champion before stays loaded, by the wall clock

policy_revision = sa.Table(
    "policy_revision",
    metadata,
    sa.Column("endpoint", sa.String(100), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(60), nullable=False, unique=True),
    sa.Column("project", sa.String(200), nullable=False, index=True),
    sa.Column("policy", Json, nullable=False),
    sa.Column("bundles", Json, nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("recorded_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Revision:
    """One policy on the record.

    Attributes:
        bundles: Bundle digest of each version that the policy names.
        cause: Why, in words, or the id of the action that did it.
    """

    id: str
    policy: Policy
    bundles: dict[int, str]
    actor: str
    cause: str
    event_at: datetime
    recorded_at: datetime


def set_policy(
    store: Store,
    project: str,
    endpoint: str,
    *,
    champion: int | None,
    canary: Canary | None = None,
    shadows: Sequence[Shadow] = (),
    arms: Sequence[Arm] = (),
    sticky: str = KEY,
    rules: Sequence[Rule] = (),
    bundles: Mapping[int, str],
    cause: str,
    evidence: Sequence[str] = (),
    expected: int | None = None,
    warm_seconds: float = WARM_SECONDS,
) -> Revision:
    """Make a new revision; the same policy again makes none and returns the current one.

    It takes effect when the next route snapshot is published (`snapshot.publish`).

    Args:
        bundles: Bundle digest by version, for all versions named; more are allowed and dropped.
        cause: Why: shown by `instar live` and in the journal.
        evidence: Ids of records that led to it (`mver_…`, `appr_…`, `roll_…`), linked in the lineage.
        expected: Number of the revision which the caller decided upon.
        warm_seconds: For which a champion that is replaced stays loaded, wall time.

    Raises:
        BadInput: The policy contradicts itself, or a version has no bundle.
        Blocked: Its versions cannot answer the same calls.
        Conflict: The endpoint belongs to another project, or has moved on from `expected`.
    """
    draft = Policy(endpoint, project, 0, champion, canary, tuple(shadows), tuple(arms), sticky, tuple(rules))
    check(draft)
    missing = [version for version in draft.versions if version not in bundles]
    if missing:
        raise BadInput(
            "a version that the policy names has no bundle",
            subject=f"policy of endpoint {endpoint}",
            found=f"version {missing[0]}",
        )
    _check_together(store, draft, {version: bundles[version] for version in draft.versions})
    revision_id = ids.new_id("prev")

    def work(tx: Transaction) -> Revision:
        last = _last(tx, endpoint)
        number = last.policy.number if last else 0
        if last and last.policy.project != project:
            raise Conflict(
                "another project has that endpoint",
                subject=f"endpoint {endpoint}",
                found=last.policy.project,
                asked=project,
                next_step="Endpoint names are unique in a store: rename the problem.",
            )
        if expected is not None and expected != number:
            raise Conflict(
                "its policy has changed since it was looked at",
                subject=f"endpoint {endpoint}",
                found=f"revision {number}",
                asked=f"revision {expected}",
                next_step="Look at the current policy and decide again.",
            )
        named = {version: bundles[version] for version in draft.versions}
        if last and _decided(last) == (draft, named):
            return last
        retiring = _retiring(store, last, draft, warm_seconds)
        policy = msgspec.structs.replace(draft, number=number + 1, retiring=retiring)
        if retiring is not None and last is not None:
            named[retiring.version] = last.bundles[retiring.version]
        revision = Revision(
            revision_id, policy, named, store.actor.name, cause, store.clock.event(), store.clock.wall()
        )
        tx.execute(policy_revision.insert().values(**_row(revision)))
        for node in evidence:
            lineage.link(tx, project, node, "led to", revision.id)
        for bundle in named.values():
            lineage.link(tx, project, bundle, "is routed by", revision.id)
        body = {"cause": cause, "evidence": list(evidence), "number": number + 1, **_body(revision)}
        journal.append(tx, store.clock, store.actor, project, "policy revision", revision.id, body)
        return revision

    return store.database.write(work, durable=True)


def _decided(revision: Revision) -> tuple[Policy, dict[int, str]]:
    """A revision without what follows by itself: its number, and who retires."""
    policy = msgspec.structs.replace(revision.policy, number=0, retiring=None)
    return policy, {version: revision.bundles[version] for version in policy.versions}


def _retiring(store: Store, last: Revision | None, draft: Policy, seconds: float) -> Retiring | None:
    """The champion before, which stays loaded for a while; unless it has another place, or its time is over."""
    if last is None:
        return None
    now = store.clock.wall()
    before, found = last.policy.champion, last.policy.at(microseconds(now)).retiring
    if before is not None and before != draft.champion and seconds > 0:
        found = Retiring(before, microseconds(now + timedelta(seconds=seconds)))
    return None if found is None or found.version in draft.versions else found


def microseconds(moment: datetime) -> int:
    """A moment as microseconds since 1970."""
    return round(moment.timestamp() * 1_000_000)


def current(store: Store, endpoint: str) -> Revision | None:
    """The revision that holds now; None where there is none yet."""
    with store.database.read() as tx:
        return _last(tx, endpoint)


def get(store: Store, endpoint: str, number: int) -> Revision:
    """A revision by number.

    Raises:
        NotFound: The endpoint has no such revision.
    """
    with store.database.read() as tx:
        found = tx.execute(_select(endpoint).where(policy_revision.c.number == number)).one_or_none()
    if found is None:
        raise NotFound(
            "it has no such policy revision", subject=f"endpoint {endpoint}", found=number,
            next_step=f"See which there were: instar route history {endpoint}",
        )  # fmt: skip
    return _revision(found)


def history(store: Store, endpoint: str) -> list[Revision]:
    """All revisions in order."""
    with store.database.read() as tx:
        return [_revision(row) for row in tx.execute(_select(endpoint).order_by(policy_revision.c.number))]


def as_of(store: Store, endpoint: str, moment: datetime) -> Revision | None:
    """The revision that held at an event time; None when it was before the first."""
    query = (
        _select(endpoint).where(policy_revision.c.event_at <= moment).order_by(policy_revision.c.number.desc()).limit(1)
    )
    with store.database.read() as tx:
        found = tx.execute(query).one_or_none()
    return None if found is None else _revision(found)


def endpoints(store: Store, project: str | None = None) -> list[Revision]:
    """The current revision of every endpoint, by name."""
    newest = sa.select(policy_revision.c.endpoint, sa.func.max(policy_revision.c.number).label("number")).group_by(
        policy_revision.c.endpoint
    )
    if project is not None:
        newest = newest.where(policy_revision.c.project == project)
    top = newest.subquery()
    query = (
        sa.select(policy_revision)
        .join(top, sa.and_(policy_revision.c.endpoint == top.c.endpoint, policy_revision.c.number == top.c.number))
        .order_by(policy_revision.c.endpoint)
    )
    with store.database.read() as tx:
        return [_revision(row) for row in tx.execute(query)]


def _check_together(store: Store, policy: Policy, named: Mapping[int, str]) -> None:
    from instar.train import bundle  # a server that only tracks runs has no models

    if all(store.blobs.has(digest) for digest in named.values()):
        signature_of(policy, {version: bundle.load_manifest(store.blobs, digest) for version, digest in named.items()})


def _select(endpoint: str) -> sa.Select[Any]:
    return sa.select(policy_revision).where(policy_revision.c.endpoint == endpoint)


def _last(tx: Transaction, endpoint: str) -> Revision | None:
    found = tx.execute(_select(endpoint).order_by(policy_revision.c.number.desc()).limit(1)).one_or_none()
    return None if found is None else _revision(found)


def _row(revision: Revision) -> dict[str, Any]:
    policy = revision.policy
    return {
        "endpoint": policy.endpoint,
        "number": policy.number,
        "id": revision.id,
        "project": policy.project,
        "actor": revision.actor,
        "cause": revision.cause,
        "event_at": revision.event_at,
        "recorded_at": revision.recorded_at,
        **_body(revision),
    }


def _body(revision: Revision) -> dict[str, Any]:
    plain = msgspec.to_builtins(revision.policy)
    # What most policies have none of is left out, so that a revision reads as it was decided.
    policy = {name: plain[name] for name in ("champion", "canary", "shadows")}
    policy |= {name: plain[name] for name in ("arms", "rules", "retiring") if plain[name]}
    policy |= {"sticky": plain["sticky"]} if revision.policy.sticky != KEY else {}
    return {"policy": policy, "bundles": {str(version): digest for version, digest in revision.bundles.items()}}


def _revision(row: sa.Row[Any]) -> Revision:
    policy = msgspec.convert(
        {**row.policy, "endpoint": row.endpoint, "project": row.project, "number": row.number}, Policy
    )
    bundles = {int(version): digest for version, digest in row.bundles.items()}
    return Revision(row.id, policy, bundles, row.actor, row.cause, row.event_at, row.recorded_at)
