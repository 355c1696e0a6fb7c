"""Approval: who allowed a version to be routed to, on which evidence, until when; asked for after each evaluation.

An approval is bound to digests: the bundle, and the report of the evaluation. The contract's policy says who may give it:
`automatic` approves whatever passed its gates, `four-eyes` wants somebody else than the proposer. A gate that did not pass
holds an approval back, unless somebody waived it (`waivers`). A model without a problem has no gates: a
person allows it on their own word (`allow`).

    approval = decide(store, version, evaluation, policy="automatic")
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from instar.core import ids, journal, lineage
from instar.core.database import Instant, Transaction, metadata
from instar.core.errors import BadInput, Blocked, Conflict, GateFailed, NotAllowed
from instar.core.identity import Permission, require
from instar.core.store import Store
from instar.evaluate.evaluation import Evaluation
from instar.evaluate.gates import Verdict
from instar.plan import revisions
from instar.release import bars, registry
from instar.release.registry import ModelVersion
from instar.release.waivers import effective_verdict

ApprovalPolicy = Literal["automatic", "four-eyes", "person"]
ApprovalState = Literal["asked", "approved", "withdrawn"]

approval_table = sa.Table(
    "approval",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("version", sa.String(40), nullable=False, index=True),
    sa.Column("bundle", sa.String(80), nullable=False),
    sa.Column("evaluation", sa.String(40), nullable=False),
    sa.Column("evidence", sa.String(80), nullable=False),
    sa.Column("contract", sa.String(80), nullable=False),
    sa.Column("policy", sa.String(20), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("proposed_by", sa.String(200), nullable=False),
    sa.Column("approved_by", sa.String(200)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Approval:
    """Who allowed a version, on which evidence.

    Attributes:
        id: `appr_…`.
        version: Id of the model version; `bundle` is its digest.
        evaluation: Id of the evidence; `evidence` is the digest of its report, `contract` the revision of its gates.
        state: `asked` while a second person is waited for, `approved`, or `withdrawn`.
        proposed_by: Who registered the version.
        approved_by: Who approved: a person, or `"policy automatic"`.
        expires_at: End in event time; None holds until it is withdrawn.
    """

    id: str
    project: str
    version: str
    bundle: str
    evaluation: str
    evidence: str
    contract: str
    policy: ApprovalPolicy
    state: ApprovalState
    proposed_by: str
    approved_by: str | None
    reason: str
    expires_at: datetime | None
    created_at: datetime
    event_at: datetime

    def holds(self, at: datetime) -> bool:
        """Does it allow new routes at this moment of event time?"""
        return self.state == "approved" and (self.expires_at is None or at < self.expires_at)


def document(approval: Approval) -> dict[str, Any]:
    """An approval as JSON values."""
    ends = approval.expires_at.isoformat() if approval.expires_at else None
    times = {"created_at": approval.created_at.isoformat(), "event_at": approval.event_at.isoformat()}
    return {**approval.__dict__, "expires_at": ends, **times}


def decide(
    store: Store,
    version: ModelVersion,
    evaluation: Evaluation,
    policy: ApprovalPolicy,
    *,
    expires_at: datetime | None = None,
    note: str = "",
    cause: str = "user",
) -> Approval:
    """Approve a version by its problem's policy, on the evidence of an evaluation.

    A version which this evidence approved already keeps its approval, so asking again is harmless.

    Args:
        policy: `"automatic"`, or `"four-eyes"`: the store's actor must be a person other than the one who registered it.
        expires_at: End of the approval in event time.
        note: What the approver wants on the record.
        cause: Who or what asked: `"user"`, or the id of an action.

    Raises:
        Conflict: The evaluation is of another bundle.
        GateFailed: A gate failed or is undecided, and nobody waived it.
        Blocked: A second person has to approve; that it was asked for is on the record. Or the version is barred.
        NotAllowed: The actor may not approve.
    """
    require(store.actor, Permission.APPROVE)
    if evaluation.bundle != version.bundle:
        raise Conflict(
            "the evidence is about another bundle", subject=version.name, found=evaluation.bundle, asked=version.bundle
        )
    now = store.clock.event()
    _require_not_barred(store, version, now)
    _require_passed(version, effective_verdict(store, evaluation, now))
    alone = policy == "four-eyes" and (store.actor.kind != "user" or store.actor.name == version.registered_by)
    approved_by = None if alone else "policy automatic" if policy == "automatic" else store.actor.name

    def work(tx: Transaction) -> Approval:
        known = _newest(tx, version, evaluation.report_json)
        if known is not None and (known.holds(now) or (alone and known.state == "asked")):
            return known
        approval = _draft(
            store, version, now, expires_at, policy=policy, approved_by=approved_by,
            evaluation=evaluation.id, evidence=evaluation.report_json, contract=evaluation.contract,
            reason=note or evaluation.verdict.reason,
        )  # fmt: skip
        _put(tx, store, approval, version, cause)
        return approval

    approval = store.database.write(work, durable=True)
    if approval.state == "asked":
        raise Blocked(
            f"four eyes are asked for, and {store.actor.name} is the one who proposed it"
            if store.actor.kind == "user"
            else "four eyes are asked for, and a controller is nobody's second pair",
            subject=version.name,
            found=f"proposed by {version.registered_by}",
            asked="the approval of another person",
            next_step=f"Let somebody else run `instar approve {version.name}`; the request is on the record as {approval.id}.",
        )
    return approval


def allow(
    store: Store, version: ModelVersion, *, note: str, expires_at: datetime | None = None, cause: str = "user"
) -> Approval:
    """Approve a version of a model without a problem, on a person's word; the evidence is the bundle itself.

    A version that somebody allowed already keeps its approval.

    Raises:
        NotAllowed: The actor may not approve, or is no person.
        Blocked: The version is barred.
    """
    require(store.actor, Permission.APPROVE)
    if store.actor.kind != "user":
        raise NotAllowed(
            "without gates only a person approves", subject=version.name, found=f"{store.actor.kind} {store.actor.name}"
        )
    now = store.clock.event()
    _require_not_barred(store, version, now)

    def work(tx: Transaction) -> Approval:
        known = _newest(tx, version, version.bundle)
        if known is not None and known.holds(now):
            return known
        approval = _draft(
            store, version, now, expires_at, policy="person", approved_by=store.actor.name,
            evaluation="", evidence=version.bundle, contract="", reason=note or "no problem asks for gates",
        )  # fmt: skip
        _put(tx, store, approval, version, cause)
        return approval

    return store.database.write(work, durable=True)


def withdraw(store: Store, version: ModelVersion, reason: str) -> list[Approval]:
    """Take back all that allows a version, and what was asked for: no new route leads to it. Where it answers, it goes on.

    Returns:
        What was taken back, oldest first.

    Raises:
        NotAllowed: The actor may not approve.
        BadInput: There is no reason.
        Conflict: Nobody has approved it, or it was taken back already.
    """
    require(store.actor, Permission.APPROVE)
    if not reason.strip():
        raise BadInput("an approval is taken back for a reason", subject=version.name, asked="why, in a few words")

    def work(tx: Transaction) -> list[Approval]:
        standing = (approval_table.c.version == version.id, approval_table.c.state != "withdrawn")
        rows = tx.execute(sa.select(approval_table).where(*standing).order_by(approval_table.c.id))
        taken = [replace(Approval(**row._mapping), state="withdrawn") for row in rows]
        if not taken:
            raise Conflict("no approval of it stands", subject=version.name, found=version.state)
        tx.execute(approval_table.update().where(*standing).values(state="withdrawn"))
        if version.state == "approved":
            registry.write_state(tx, version, "registered")
        body = {"version": version.name, "version_id": version.id, "reason": reason}
        for one in taken:
            journal.append(tx, store.clock, store.actor, one.project, "approval withdrawn", one.id, body)
        return taken

    return store.database.write(work, durable=True)


def approvals(store: Store, project: str, *, version: str | None = None) -> list[Approval]:
    """Approvals of a project, oldest first; of one version (by id) if named."""
    query = sa.select(approval_table).where(approval_table.c.project == project)
    if version is not None:
        query = query.where(approval_table.c.version == version)
    with store.database.read() as tx:
        return [Approval(**row._mapping) for row in tx.execute(query.order_by(approval_table.c.id))]


def holding(store: Store, version: ModelVersion, at: datetime | None = None) -> Approval | None:
    """The newest approval that allows new routes to a version at `at` (event time; now by default)."""
    moment = at or store.clock.event()
    holds = [found for found in approvals(store, version.project, version=version.id) if found.holds(moment)]
    return holds[-1] if holds else None


def require_approved(store: Store, version: ModelVersion, at: datetime | None = None) -> Approval:
    """The approval that allows new routes to a version.

    What a person allowed while its model had no problem counts no more when the contract in effect has one: then there are
    gates. A live route stays until it is changed.

    Raises:
        Blocked: There is none, it expired, or it was given before there were gates.
    """
    found = holding(store, version, at)
    if found is None:
        raise Blocked(
            "no approval allows it to be routed to",
            subject=version.name,
            found=version.state,
            next_step=f"Approve it with `instar approve {version.name}`.",
        )
    if found.policy == "person" and _has_problem(store, version):
        raise Blocked(
            "it was approved before there was a problem of its name, so it passed no gates and cannot be its champion",
            subject=version.name,
            found=f"{found.id}, given by {found.approved_by}",
            asked="a version that passed the gates of the problem",
            next_step="Register it under another name and serve it there, or make it a step of the pipeline.",
        )
    return found


def _has_problem(store: Store, version: ModelVersion) -> bool:
    with store.database.read() as tx:
        contract = revisions.current(tx, version.project)
    return contract is not None and version.model in contract.contract.get("problem", {})


def _require_passed(version: ModelVersion, verdict: Verdict) -> None:
    if verdict.state == "passed":
        return
    blamed = verdict.failed or tuple(check for check in verdict.undecided if check.blocking)
    raise GateFailed(
        f"it cannot be approved: {verdict.reason}",
        subject=version.name,
        found=f"{blamed[0].name}: {blamed[0].found}",
        asked=blamed[0].asked,
        next_step="Compare it with the champion in its report, or let somebody waive the gate.",
    )


def _require_not_barred(store: Store, version: ModelVersion, at: datetime) -> None:
    held = bars.barred(store, version, at)
    if held is not None:
        raise Blocked(
            f"it is barred until {held.until.isoformat()}: {held.reason}",
            subject=version.name,
            next_step="Wait for the end of the cool-down, or bring a new candidate.",
        )


def _newest(tx: Transaction, version: ModelVersion, evidence: str) -> Approval | None:
    query = (
        sa.select(approval_table)
        .where(approval_table.c.version == version.id, approval_table.c.evidence == evidence)
        .order_by(approval_table.c.id.desc())
        .limit(1)
    )
    row = tx.execute(query).one_or_none()
    return None if row is None else Approval(**row._mapping)


def _draft(
    store: Store,
    version: ModelVersion,
    now: datetime,
    expires_at: datetime | None,
    *,
    policy: ApprovalPolicy,
    approved_by: str | None,
    evaluation: str,
    evidence: str,
    contract: str,
    reason: str,
) -> Approval:
    """An approval as it will be written; without somebody who gave it, it is asked for."""
    return Approval(
        id=ids.new_id("appr"),
        project=version.project,
        version=version.id,
        bundle=version.bundle,
        evaluation=evaluation,
        evidence=evidence,
        contract=contract,
        policy=policy,
        state="asked" if approved_by is None else "approved",
        proposed_by=version.registered_by,
        approved_by=approved_by,
        reason=reason,
        expires_at=expires_at,
        created_at=store.clock.wall(),
        event_at=now,
    )


def _put(tx: Transaction, store: Store, approval: Approval, version: ModelVersion, cause: str) -> None:
    tx.execute(approval_table.insert().values(**approval.__dict__))
    if approval.state == "approved":
        registry.write_state(tx, version, "approved")
        if approval.evaluation:
            lineage.link(tx, approval.project, approval.evaluation, "is the evidence of", approval.id)
        lineage.link(tx, approval.project, version.id, "was approved by", approval.id)
    body: dict[str, Any] = {
        "version": version.name,
        "version_id": version.id,
        "bundle": approval.bundle,
        "evaluation": approval.evaluation,
        "evidence": approval.evidence,
        "contract": approval.contract,
        "policy": approval.policy,
        "proposed_by": approval.proposed_by,
        "approved_by": approval.approved_by,
        "reason": approval.reason,
        "expires_at": approval.expires_at.isoformat() if approval.expires_at else None,
        "cause": cause,
    }
    kind = "approval" if approval.state == "approved" else "approval asked"
    journal.append(tx, store.clock, store.actor, approval.project, kind, approval.id, body)
