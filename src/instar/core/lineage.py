"""Lineage: the edges between all records, and walks up to the causes and down to the effects.

Nodes are ids of records (`tver_…`, `exec_…`, `run_…`, a bundle's digest, `mver_…`, `eval_…`, `appr_…`, `prev_…`). An edge
points from cause to effect: a table version *is input of* an execution, a run *made* a bundle. Single calls are not
nodes: each names its model version and its table version itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from instar.core.database import Transaction, metadata

lineage_edge = sa.Table(
    "lineage_edge",
    metadata,
    sa.Column("source", sa.String(120), primary_key=True),
    sa.Column("target", sa.String(120), primary_key=True, index=True),
    sa.Column("relation", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
)


@dataclass(frozen=True)
class Edge:
    """`source` is a cause of `target`; `depth` is the number of edges from where the walk began (1 is next to it)."""

    source: str
    relation: str
    target: str
    depth: int = 1


def link(tx: Transaction, project: str, source: str, relation: str, target: str) -> None:
    """Add an edge; adding it again changes nothing."""
    known = sa.select(lineage_edge.c.source).where(
        lineage_edge.c.source == source, lineage_edge.c.target == target, lineage_edge.c.relation == relation
    )
    if tx.execute(known).first() is None:
        tx.execute(lineage_edge.insert().values(source=source, target=target, relation=relation, project=project))


def up(tx: Transaction, node: str, depth: int | None = None) -> list[Edge]:
    """All edges that lead to `node`, nearest first; at most `depth` edges away."""
    return _walk(tx, node, lineage_edge.c.target, lineage_edge.c.source, depth)


def down(tx: Transaction, node: str, depth: int | None = None) -> list[Edge]:
    """All edges that start from `node`, nearest first; at most `depth` edges away."""
    return _walk(tx, node, lineage_edge.c.source, lineage_edge.c.target, depth)


def _walk(tx: Transaction, node: str, near: sa.Column[str], far: sa.Column[str], depth: int | None) -> list[Edge]:
    # UNION (not ALL) over nodes visits each once, so that a diamond does not multiply and a ring ends. Depths are counted
    # here afterwards: carrying them in the recursion would make equal nodes distinct.
    start = sa.select(sa.literal(node, sa.String(120)).label("node")).cte("reached", recursive=True)
    reached = start.union(sa.select(far).join(start, near == start.c.node))
    query = sa.select(lineage_edge).where(near.in_(sa.select(reached.c.node)))
    ahead: dict[str, list[sa.Row[tuple[str, ...]]]] = {}
    for row in tx.execute(query.order_by(lineage_edge.c.source, lineage_edge.c.target, lineage_edge.c.relation)):
        ahead.setdefault(getattr(row, near.name), []).append(row)
    return _breadth_first(ahead, node, far.name, depth)


def _breadth_first(
    ahead: dict[str, list[sa.Row[tuple[str, ...]]]], node: str, far: str, depth: int | None
) -> list[Edge]:
    found: list[Edge] = []
    seen, level, distance = {node}, [node], 0
    while level and (depth is None or distance < depth):
        distance += 1
        rows = [row for name in level for row in ahead.get(name, [])]
        found += [Edge(row.source, row.relation, row.target, distance) for row in rows]
        level = []
        for row in rows:
            name = getattr(row, far)
            if name not in seen:
                seen.add(name)
                level.append(name)
    return found
