"""Data sets as inputs of runs: what a run was fitted or judged on, logged while it trains, found again by name or digest.

A data set whose source is one of our own table versions (`source_type` is `"instar"`, `source` is `tver_…`) also becomes
a cause of the run in the lineage. Others are references to what lies elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from instar.core import lineage
from instar.core.database import Transaction, fetch
from instar.core.errors import BadInput
from instar.core.ids import ALPHABET
from instar.core.store import Store
from instar.train.run_log import writable
from instar.train.run_pages import chosen
from instar.train.run_records import require
from instar.train.run_values import check_key, check_text, check_value
from instar.train.tracking_tables import HEAD, dataset_table, input_table, run_table

CONTEXT = "mlflow.data.context"  # the tag of an input that says what it was for: training, eval
OURS = "instar"  # the source type of our own table versions
LONGEST_NAME, LONGEST_DIGEST = 500, 250  # characters
MOST_SUMMARIES = 1000


@dataclass(frozen=True)
class Dataset:
    """One data set: `schema` and `profile` are texts as the client made them, mostly JSON."""

    id: str
    project: str
    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@dataclass(frozen=True)
class Input:
    """A data set as the input of a run, with the tags of that use."""

    dataset: Dataset
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """That an experiment has runs with such a data set as input."""

    experiment_id: str
    name: str
    digest: str
    context: str | None


def dataset(
    project: str,
    name: str,
    digest: str,
    source_type: str,
    source: str,
    schema: str | None = None,
    profile: str | None = None,
) -> Dataset:
    """A data set, with its id made of project, name and digest.

    Raises:
        BadInput: A name or digest is missing or too long.
    """
    for what, text, longest in (("name", name, LONGEST_NAME), ("digest", digest, LONGEST_DIGEST)):
        if not text or len(text) > longest:
            raise BadInput(
                f"a data set needs a {what}", found=f"{len(text)} characters", asked=f"1 to {longest} characters"
            )
    for text in (name, digest, source_type, source, schema or "", profile or ""):
        check_text(text, "a data set", name[:60])
    number = int.from_bytes(hashlib.blake2b(repr((project, name, digest)).encode(), digest_size=17).digest(), "big")
    letters = "".join(ALPHABET[(number >> shift) & 31] for shift in range(0, 130, 5))
    return Dataset(f"data_{letters}", project, name, digest, source_type, source, schema, profile)


def log_inputs(
    store: Store,
    run: str,
    inputs: Sequence[tuple[Dataset, Mapping[str, str]]],
    also: Callable[[Transaction], None] | None = None,
) -> None:
    """Say that a run read these data sets; the same again adds its tags, and changes nothing else.

    A data set of the same project, name and digest is kept as it was logged first.

    Args:
        also: What is written in the same transaction; it may be run again.

    Raises:
        NotFound: There is no such run.
        Conflict: The run is deleted.
        BadInput: A tag cannot be kept.
    """
    check_tags(inputs)

    def work(tx: Transaction) -> None:
        read(tx, writable(tx, run), inputs)
        if also is not None:
            also(tx)

    if inputs or also is not None:
        store.database.write(work)


def check_tags(inputs: Sequence[tuple[Dataset, Mapping[str, str]]]) -> None:
    """Refuse tags of inputs that cannot be kept.

    Raises:
        BadInput: One is such.
    """
    for _, tags in inputs:
        for key, value in tags.items():
            check_key(key, "tag")
            check_value(value, "tag", key)


def read(tx: Transaction, run: int, inputs: Sequence[tuple[Dataset, Mapping[str, str]]]) -> None:
    """Say within a transaction that the run of that key, whose row is held, read these data sets."""
    about = tx.execute(sa.select(run_table.c.id, run_table.c.project).where(run_table.c.key == run)).one()
    for found, tags in inputs:
        _keep(tx, found)
        _use(tx, run, found, tags)
        if found.source_type == OURS and found.source.startswith("tver_"):
            lineage.link(tx, about.project, found.source, "was read by", about.id)


def inputs_of(store: Store, run: str) -> list[Input]:
    """The data sets that a run read, by name.

    Raises:
        NotFound: There is no such run.
    """
    with store.database.read() as tx:
        number = require(tx, run)
        return inputs_by_run(tx, [number]).get(number, [])


def inputs_by_run(tx: Transaction, keys: Sequence[int]) -> dict[int, list[Input]]:
    """The data sets that runs read, by the run's key, in one query however many runs there are."""
    if not keys:
        return {}
    columns = "d.id, d.project, d.name, d.digest, d.source_type, d.source, d.schema, d.profile"
    query = (
        f"SELECT i.run, i.tags, {columns} FROM run_input AS i JOIN dataset AS d ON d.id = i.dataset"
        f" WHERE i.run IN ({chosen(keys)}) ORDER BY i.run, d.name, d.digest"
    )
    found: dict[int, list[Input]] = {}
    for run, marks, *fields in fetch(tx, query):
        found.setdefault(run, []).append(Input(Dataset(*fields), json.loads(marks)))
    return found


def search_datasets(store: Store, experiments: Sequence[str]) -> list[Summary]:
    """Which data sets the runs of experiments read: each name, digest and context once; the first thousand."""
    query = (
        sa.select(run_table.c.experiment_id, dataset_table.c.name, dataset_table.c.digest, input_table.c.context)
        .join(input_table, input_table.c.run == run_table.c.key)
        .join(dataset_table, dataset_table.c.id == input_table.c.dataset)
        .where(run_table.c.experiment_id.in_(experiments))
        .distinct()
        .order_by(run_table.c.experiment_id, dataset_table.c.name, dataset_table.c.digest, input_table.c.context)
        .limit(MOST_SUMMARIES)
    )
    with store.database.read() as tx:
        return [Summary(*row) for row in tx.execute(query)]


def _keep(tx: Transaction, found: Dataset) -> None:
    if tx.execute(sa.select(dataset_table.c.id).where(dataset_table.c.id == found.id)).first() is None:
        tx.execute(dataset_table.insert().values(vars(found)))


def _use(tx: Transaction, run: int, found: Dataset, tags: Mapping[str, str]) -> None:
    same = (input_table.c.run == run) & (input_table.c.dataset == found.id)
    known = tx.execute(sa.select(input_table.c.tags).where(same)).scalar()
    marks = {**(known or {}), **tags}
    values = {"tags": marks, "context": marks[CONTEXT][:HEAD] if CONTEXT in marks else None}
    if known is None:
        tx.execute(input_table.insert().values(run=run, dataset=found.id, **values))
    else:
        tx.execute(input_table.update().where(same).values(values))
