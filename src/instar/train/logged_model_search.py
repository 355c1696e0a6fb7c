"""Searching logged models by name, state, parameters, tags and metrics, in the language of all searches; newest first.

A metric of a model is its latest value; where the search names data sets, its latest value on one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from instar.core.store import Store
from instar.train.logged_models import LoggedModel, complete, logged_model_table, parameter_table, tag_table
from instar.train.model_links import model_metric_table
from instar.train.pages import Page, read_token, write_token
from instar.train.search_grammar import parse, parse_orders
from instar.train.search_order import sorting
from instar.train.search_query import Condition, Places, Rows, condition
from instar.train.search_words import Type, Vocabulary, prefixes

_ATTRIBUTES: dict[str, tuple[str, Type]] = {
    "name": ("name", "text"),
    "model_id": ("model_id", "text"),
    "id": ("model_id", "text"),
    "model_type": ("model_type", "text"),
    "status": ("status", "text"),
    "state": ("status", "text"),
    "source_run_id": ("source_run_id", "text"),
    "run": ("source_run_id", "text"),
    "experiment_id": ("experiment_id", "text"),
    "creation_timestamp": ("creation_timestamp", "time"),
    "creation_time": ("creation_timestamp", "time"),
    "created": ("creation_timestamp", "time"),
    "last_updated_timestamp": ("last_updated_timestamp", "time"),
    "last_updated_time": ("last_updated_timestamp", "time"),
    "updated": ("last_updated_timestamp", "time"),
}
VOCABULARY = Vocabulary(
    prefixes("attribute", "tag", "parameter", "metric"),
    {"tag": "text", "parameter": "text", "metric": "number"},
    {"attribute": _ATTRIBUTES},
)
TIES = (("creation_timestamp", False), ("model_id", True))

_at = logged_model_table.c
# The words of MLflow's clients for the three states.
STATUS = sa.case((_at.state == "pending", "PENDING"), (_at.state == "ready", "READY"), else_="FAILED")


@dataclass(frozen=True)
class OnDataset:
    """A data set that a metric must have been measured on; an empty digest is any."""

    name: str
    digest: str = ""


def search(
    store: Store,
    project: str,
    *,
    experiments: Sequence[str] | None = None,
    filter: str = "",
    order_by: Sequence[str] = (),
    datasets: Sequence[OnDataset] = (),
    limit: int = 100,
    token: str | None = None,
) -> Page[LoggedModel]:
    """A page of the logged models that pass a filter; deleted ones are never among them.

    Args:
        experiments: Ids; None is all of the project.
        datasets: Metrics count only where they were measured on one of these.
        token: From the page before; the other arguments must be the same.

    Raises:
        BadInput: The filter, the order or the token cannot be read.
    """
    places = _places(datasets)
    tree, orders = parse(filter, VOCABULARY), parse_orders(list(order_by), VOCABULARY)
    with store.database.read() as tx:
        dialect = tx.dialect.name
        wanted: list[Condition] = [_at.project == project, _at.deleted_at.is_(None)]
        if experiments is not None:
            wanted.append(_at.experiment.in_(experiments))
        if tree is not None:
            wanted.append(condition(tree, places, dialect))
        sort = sorting(orders, places, logged_model_table, TIES, frozenset(), dialect)
        question = [project, list(experiments or ()), filter, list(order_by), [vars(one) for one in datasets]]
        if token:
            wanted.append(sort.after(read_token(question, token, len(sort.keys))))
        keys = [key.label(f"sort_{number}") for number, (key, _) in enumerate(sort.keys)]
        query = sa.select(logged_model_table, *keys).select_from(sort.source).where(*wanted)
        rows = tx.execute(query.order_by(*sort.clauses()).limit(limit + 1)).all()
        names = [column.name for column in logged_model_table.c]
        found = [LoggedModel(**{name: getattr(row, name) for name in names}) for row in rows[:limit]]
        place = tuple(rows[limit - 1])[len(names) :] if len(rows) > limit else None
        return Page(complete(tx, found), write_token(question, place) if place is not None else None)


def _places(datasets: Sequence[OnDataset]) -> Places:
    return Places(
        VOCABULARY,
        _at.id,
        {
            "name": _at.name,
            "model_id": _at.id,
            "model_type": _at.model_type,
            "status": STATUS,
            "source_run_id": _at.run,
            "experiment_id": _at.experiment,
            "creation_timestamp": sa.type_coerce(_at.created_at, sa.BigInteger),
            "last_updated_timestamp": sa.type_coerce(_at.updated_at, sa.BigInteger),
        },
        {
            "tag": Rows(tag_table, "model", "key", "value"),
            "parameter": Rows(parameter_table, "model", "key", "value"),
            "metric": Rows(_latest(datasets), "model", "name", "value", nan="nan"),
        },
    )


def _latest(datasets: Sequence[OnDataset]) -> sa.Subquery:
    """The latest value of each metric of each model."""
    metric = model_metric_table.c
    newest = sa.func.row_number().over(
        partition_by=(metric.model, metric.name), order_by=(metric.step.desc(), metric.at.desc(), metric.value.desc())
    )
    query = sa.select(metric.model, metric.name, metric.value, metric.nan, newest.label("place"))
    if datasets:
        asked = [
            sa.and_(metric.dataset_name == one.name, *([metric.dataset_digest == one.digest] if one.digest else []))
            for one in datasets
        ]
        query = query.where(sa.or_(*asked))
    ranked = query.subquery()
    columns = (ranked.c.model, ranked.c.name, ranked.c.value, ranked.c.nan)
    return sa.select(*columns).where(ranked.c.place == 1).subquery()
