"""What refers to what, read from all records of all stages at once, at the moment when it is asked what may be removed.

Every text of every table is searched for digests and ids. So nothing that a record names is ever taken for garbage, also not
by a table that a later version adds: a list of places to look at would be wrong on the day on which somebody forgets a line.
Left out is what names things without keeping them: the journal and lineage say what was, executions what a step once made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from instar.core.blobs import Blobs
from instar.core.database import Transaction
from instar.core.errors import NotFound

DIGEST = re.compile(r"b3:[0-9a-f]{64}")
_IN_BYTES = re.compile(rb"b3:[0-9a-f]{64}")
_NODE = re.compile(r"b3:[0-9a-f]{64}|run_[0-9A-Za-z]{20,56}|m-[0-9a-f]{32}")
LARGEST_READ = 8_000_000  # bytes; a larger blob is data, and names nothing

# Tables that keep nothing, and of `execution` all but the log.
_SAY_WHAT_WAS = frozenset(
    {
        "journal_entry", "journal_head", "lineage_edge", "lease", "pipeline_run", "webhook_delivery", "artifact_finding",
        "bundle_trial",
    }
)  # fmt: skip
_KEPT_COLUMNS = {"execution": {"log"}, "firing": set[str]()}
# Rows that belong to a run, and go with it.
_OF_RUNS = frozenset(
    {
        "run", "run_tag", "run_parameter", "run_metric", "run_latest", "run_input", "run_spool", "run_model", "dataset",
        "artifact", "artifact_finding", "bundle", "logged_model", "logged_model_tag", "logged_model_parameter",
        "logged_model_metric", "note", "experiment", "experiment_tag",
    }
)  # fmt: skip
_WORDS = {
    "model_version": "the registered version", "evaluation": "the evaluation", "approval": "the approval",
    "policy_revision": "the policy of endpoint", "rollout": "the rollout", "contract_revision": "the contract",
    "action": "the action", "study": "the study",
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A record that names something: `what` in words, with its key."""

    node: str
    what: str


def digests_named(tx: Transaction) -> set[str]:
    """All digests that records name."""
    found: set[str] = set()
    for _, column in _texts(tx, keys=False):
        for text in tx.execute(sa.select(column).where(column.like("%b3:%"))).scalars():
            found.update(DIGEST.findall(text))
    return found


def follow(blobs: Blobs, named: set[str]) -> set[str]:
    """The digests, and all that the blobs under them name in turn: manifests name files, bundles their parts."""
    marked, waiting = set(named), list(named)
    while waiting:
        for inner in _inside(blobs, waiting.pop()):
            if inner not in marked:
                marked.add(inner)
                waiting.append(inner)
    return marked


def who_refers(tx: Transaction, nodes: set[str]) -> dict[str, list[Reference]]:
    """Records of other kinds that name one of the nodes: runs, bundles, logged models."""
    found: dict[str, list[Reference]] = {}
    if not nodes:
        return found
    for table, column in _texts(tx, keys=True):
        if table.name in _OF_RUNS:
            continue
        key = list(table.primary_key.columns)
        likely = sa.or_(column.like("%b3:%"), column.like("run%"), column.like('%"run%'), column.like("%m-%"))
        for row in tx.execute(sa.select(column.label("text"), *key).where(likely)):
            for node in set(_NODE.findall(row.text)) & nodes:
                what = f"{_WORDS.get(table.name, table.name)} {_shown(table, row._mapping)}"
                found.setdefault(node, []).append(Reference(node, what))
    return found


def _inside(blobs: Blobs, digest: str) -> Iterator[str]:
    try:
        file = blobs.path(digest)
        if file.stat().st_size > LARGEST_READ:
            return
        data = file.read_bytes()
    except (NotFound, FileNotFoundError):  # a digest of something else than a blob
        return
    for found in _IN_BYTES.findall(data):
        yield found.decode()


def _texts(tx: Transaction, *, keys: bool) -> Iterator[tuple[sa.Table, sa.Column[Any]]]:
    """Every column of text that can hold a digest, of the tables as they are in this database.

    Args:
        keys: Also columns that are too short for a digest, and hold ids.
    """
    present = sa.MetaData()
    present.reflect(bind=tx)
    for table in present.sorted_tables:
        if table.name in _SAY_WHAT_WAS:
            continue
        for column in table.columns:
            length = getattr(column.type, "length", None)
            wide = length is None or length >= 67 or (keys and length >= 30)
            if (
                isinstance(column.type, sa.String)
                and wide
                and column.name in _KEPT_COLUMNS.get(table.name, {column.name})
            ):
                yield table, column


def _shown(table: sa.Table, row: Mapping[Any, Any]) -> str:
    return "/".join(str(row[column.name]) for column in table.primary_key.columns)
