"""The evaluation: the recorded evidence on one bundle, made after a fit and before anything is registered or approved.

It speaks of a bundle and a table version, never of an entry of the registry. Its report is kept twice, as one HTML page for
people and as JSON for machines; the record names both by digest, with the verdict, the split and the contract revision.
`judging` makes evaluations; here they are kept and found.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from instar.core import journal, lineage
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import NotFound
from instar.core.store import Store
from instar.evaluate.gates import Relation, Verdict

evaluation_table = sa.Table(
    "evaluation",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("problem", sa.String(200), nullable=False),
    sa.Column("bundle", sa.String(80), nullable=False, index=True),
    sa.Column("opponent", sa.String(80)),
    sa.Column("relation", sa.String(20), nullable=False),
    sa.Column("table_version", sa.String(60), nullable=False),
    sa.Column("contract", sa.String(80), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("verdict", Json, nullable=False),
    sa.Column("metrics", Json, nullable=False),
    sa.Column("split", Json, nullable=False),
    sa.Column("report_json", sa.String(80), nullable=False),
    sa.Column("report_html", sa.String(80), nullable=False),
    sa.Column("cause", sa.String(200), nullable=False),
    sa.Column("key", sa.String(80), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.UniqueConstraint("project", "key"),
)


@dataclass(frozen=True)
class Evaluation:
    """The evidence on one bundle, on the record.

    Attributes:
        id: `eval_…`.
        bundle, opponent: Digests of candidate and champion; no opponent for a first version.
        relation: `"first"`, `"recipe"` or `"refit"`.
        table_version: Version of the gold table that was judged on.
        contract: Contract revision whose gates were applied.
        verdict: What the gates said.
        metrics: By version (`"candidate"`, `"champion"`), by metric: value, low, high, n.
        split: Bounds, rows and digest of each part of the cut.
        report_json, report_html: Digests of the report.
        cause: Who or what asked for it.
    """

    id: str
    project: str
    problem: str
    bundle: str
    opponent: str | None
    relation: Relation
    table_version: str
    contract: str
    verdict: Verdict
    metrics: dict[str, dict[str, dict[str, Any]]]
    split: dict[str, Any]
    report_json: str
    report_html: str
    cause: str
    created_at: datetime
    event_at: datetime


def document(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON values."""
    times = {"created_at": evaluation.created_at.isoformat(), "event_at": evaluation.event_at.isoformat()}
    verdict = {**asdict(evaluation.verdict), "reason": evaluation.verdict.reason}
    return {**evaluation.__dict__, "verdict": verdict, **times}


def record(
    store: Store,
    evaluation: Evaluation,
    key: str,
    *,
    judged_as: str | None = None,
) -> Evaluation:
    """Put an evaluation on the record with its journal entry and lineage; the one of the same key stands if there is one.

    Args:
        key: Idempotency key: digest of what was asked.
        judged_as: Evaluation whose checks on cost this one takes over.
    """

    def work(tx: Transaction) -> Evaluation:
        known = _find(tx, evaluation.project, key)
        if known is not None:
            return known
        values = {field: getattr(evaluation, field) for field in evaluation.__dataclass_fields__}
        values["verdict"] = asdict(evaluation.verdict)
        tx.execute(evaluation_table.insert().values(**values, state=evaluation.verdict.state, key=key))
        _link(tx, evaluation, judged_as)
        body = {
            "problem": evaluation.problem,
            "bundle": evaluation.bundle,
            "opponent": evaluation.opponent,
            "relation": evaluation.relation,
            "table_version": evaluation.table_version,
            "contract": evaluation.contract,
            "split": {name: part["digest"] for name, part in evaluation.split.items()},
            "verdict": evaluation.verdict.state,
            "reason": evaluation.verdict.reason,
            "report": evaluation.report_json,
            "judged_as": judged_as,
            "cause": evaluation.cause,
            "key": key,
        }
        journal.append(tx, store.clock, store.actor, evaluation.project, "evaluation", evaluation.id, body)
        return evaluation

    return store.database.write(work, durable=True)


def _link(tx: Transaction, evaluation: Evaluation, judged_as: str | None) -> None:
    project, target = evaluation.project, evaluation.id
    lineage.link(tx, project, evaluation.bundle, "was judged in", target)
    lineage.link(tx, project, evaluation.table_version, "gave the judge rows of", target)
    if evaluation.opponent:
        lineage.link(tx, project, evaluation.opponent, "was the opponent in", target)
    if judged_as:
        lineage.link(tx, project, judged_as, "gave the verdict on cost to", target)


def of_key(store: Store, project: str, key: str) -> Evaluation | None:
    """The evaluation with an idempotency key, if it is on the record."""
    with store.database.read() as tx:
        return _find(tx, project, key)


def get_evaluation(store: Store, evaluation: str) -> Evaluation:
    """An evaluation by its id.

    Raises:
        NotFound: There is none.
    """
    with store.database.read() as tx:
        row = tx.execute(sa.select(evaluation_table).where(evaluation_table.c.id == evaluation)).one_or_none()
    if row is None:
        raise NotFound(
            "there is no such evaluation", subject=evaluation, next_step="List versions with `instar models ls`."
        )
    return _from_row(row)


def evaluations(
    store: Store, project: str, *, bundle: str | None = None, problem: str | None = None
) -> list[Evaluation]:
    """Evaluations of a project, oldest first; of one bundle or problem if named."""
    query = sa.select(evaluation_table).where(evaluation_table.c.project == project)
    if bundle is not None:
        query = query.where(evaluation_table.c.bundle == bundle)
    if problem is not None:
        query = query.where(evaluation_table.c.problem == problem)
    with store.database.read() as tx:
        return [_from_row(row) for row in tx.execute(query.order_by(evaluation_table.c.id))]


def _find(tx: Transaction, project: str, key: str) -> Evaluation | None:
    query = sa.select(evaluation_table).where(evaluation_table.c.project == project, evaluation_table.c.key == key)
    row = tx.execute(query).one_or_none()
    return None if row is None else _from_row(row)


def _from_row(row: sa.Row[Any]) -> Evaluation:
    values = dict(row._mapping)
    del values["key"], values["state"]
    return Evaluation(**{**values, "verdict": msgspec.convert(values["verdict"], Verdict)})
