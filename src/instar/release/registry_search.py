"""Searching registered models and their versions by name, time, origin and tag, in the language of all searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from instar.core.database import Transaction
from instar.core.store import Store
from instar.release.registered_models import RegisteredModel, model_table, model_tag_table, tags_of
from instar.release.version_records import ModelVersion, version_table, version_tag_table
from instar.train.pages import Page, read_token, write_token
from instar.train.search_grammar import parse, parse_orders
from instar.train.search_order import sorting
from instar.train.search_query import Condition, Places, Rows, condition
from instar.train.search_words import Comparison, Type, Vocabulary, prefixes

_TIMES: dict[str, tuple[str, Type]] = {
    "creation_timestamp": ("creation_timestamp", "time"),
    "created": ("creation_timestamp", "time"),
    "last_updated_timestamp": ("last_updated_timestamp", "time"),
    "timestamp": ("last_updated_timestamp", "time"),
    "updated": ("last_updated_timestamp", "time"),
}
_MODEL_ATTRIBUTES: dict[str, tuple[str, Type]] = {"name": ("name", "text"), **_TIMES}
_VERSION_ATTRIBUTES: dict[str, tuple[str, Type]] = {
    "name": ("name", "text"),
    "model": ("name", "text"),
    "version": ("version_number", "number"),
    "version_number": ("version_number", "number"),
    "number": ("version_number", "number"),
    "run_id": ("run_id", "text"),
    "run": ("run_id", "text"),
    "model_id": ("model_id", "text"),
    "source_path": ("source_path", "text"),
    "source": ("source_path", "text"),
    "stage": ("stage", "text"),
    "current_stage": ("stage", "text"),
    "state": ("state", "text"),
    "origin": ("origin", "text"),
    **_TIMES,
}
MODELS = Vocabulary(prefixes("attribute", "tag"), {"tag": "text"}, {"attribute": _MODEL_ATTRIBUTES})
VERSIONS = Vocabulary(prefixes("attribute", "tag"), {"tag": "text"}, {"attribute": _VERSION_ATTRIBUTES})

# MLflow keeps prompts for language models as registered models, and its clients ask every search to leave them out by this
# tag; here nothing is one, though no model has the tag.
PROMPT_TAG = "mlflow.prompt.is_prompt"


def _is_prompt(asked: Comparison, dialect: str) -> Condition:
    wanted = (asked.operator, str(asked.value).lower()) in (("=", "true"), ("!=", "false"))
    return sa.false() if wanted else sa.true()


_SPECIAL = {("tag", PROMPT_TAG): _is_prompt}
_model, _version = model_table.c, version_table.c
_VERSION_PLACES = Places(
    VERSIONS,
    _version.id,
    {
        "name": _version.model,
        "version_number": _version.number,
        "run_id": _version.run,
        "model_id": _version.logged_model,
        "source_path": _version.source,
        "stage": _version.stage,
        "state": _version.state,
        "origin": _version.origin,
        "creation_timestamp": sa.type_coerce(_version.created_at, sa.BigInteger),
        "last_updated_timestamp": sa.type_coerce(
            sa.func.coalesce(_version.updated_at, _version.created_at), sa.BigInteger
        ),
    },
    {"tag": Rows(version_tag_table, "version", "key", "value")},
    _SPECIAL,
)


def search_models(
    store: Store,
    project: str,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    limit: int = 100,
    token: str | None = None,
) -> Page[RegisteredModel]:
    """A page of the registered models that pass a filter, by name unless asked otherwise.

    Args:
        token: From the page before; the other arguments must be the same.

    Raises:
        BadInput: The filter, the order or the token cannot be read.
    """
    tags = sa.select(model_tag_table).where(model_tag_table.c.project == project).subquery()
    places = Places(
        MODELS,
        _model.name,
        {
            "name": _model.name,
            "creation_timestamp": sa.type_coerce(_model.created_at, sa.BigInteger),
            "last_updated_timestamp": sa.type_coerce(_model.updated_at, sa.BigInteger),
        },
        {"tag": Rows(tags, "model", "key", "value")},
        _SPECIAL,
    )
    ties = (("name", True),)
    with store.database.read() as tx:
        wanted = [_model.project == project]
        rows, after = _page(tx, model_table, places, ties, wanted, filter, order_by, limit, token, [project, "models"])
        named = tags_of(tx, project, [row["name"] for row in rows])
    return Page([RegisteredModel(**row, tags=named.get(row["name"], {})) for row in rows], after)


def search_versions(
    store: Store,
    project: str,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    limit: int = 100,
    token: str | None = None,
) -> Page[ModelVersion]:
    """A page of the versions that pass a filter, those first that changed last unless asked otherwise.

    Raises:
        BadInput: The filter, the order or the token cannot be read.
    """
    ties: tuple[tuple[str, bool], ...] = (("name", True), ("version_number", False))
    if not order_by:
        ties = (("last_updated_timestamp", False), *ties)
    wanted = [_version.project == project, _version.deleted_at.is_(None)]
    with store.database.read() as tx:
        mark = [project, "versions"]
        rows, after = _page(tx, version_table, _VERSION_PLACES, ties, wanted, filter, order_by, limit, token, mark)
    return Page([ModelVersion(**row) for row in rows], after)


def _page(
    tx: Transaction,
    table: sa.Table,
    places: Places,
    ties: Sequence[tuple[str, bool]],
    wanted: Sequence[Condition],
    filter: str,
    order_by: Sequence[str],
    limit: int,
    token: str | None,
    mark: Sequence[str],
) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of a page as dictionaries, and the token of the next page."""
    dialect = tx.dialect.name
    conditions = list(wanted)
    tree = parse(filter, places.vocabulary)
    if tree is not None:
        conditions.append(condition(tree, places, dialect))
    optional = frozenset({"model_id"})
    sort = sorting(parse_orders(list(order_by), places.vocabulary), places, table, ties, optional, dialect)
    question = [*mark, filter, list(order_by)]
    if token:
        conditions.append(sort.after(read_token(question, token, len(sort.keys))))
    keys = [key.label(f"sort_{number}") for number, (key, _) in enumerate(sort.keys)]
    query = sa.select(table, *keys).select_from(sort.source).where(*conditions)
    rows = tx.execute(query.order_by(*sort.clauses()).limit(limit + 1)).all()
    names = [column.name for column in table.c]
    found = [{name: getattr(row, name) for name in names} for row in rows[:limit]]
    place = tuple(rows[limit - 1])[len(names) :] if len(rows) > limit else None
    return found, write_token(question, place) if place is not None else None
