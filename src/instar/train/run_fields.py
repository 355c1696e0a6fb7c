"""What may be asked of runs, and where it is kept: MLflow's attributes with their other spellings, and our own."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from instar.train.run_records import ABANDONED, KILLED, STATES
from instar.train.search_query import Condition, Places, Rows, compare
from instar.train.search_words import Comparison, Type, Vocabulary, prefixes
from instar.train.tracking_tables import (
    dataset_table,
    experiment_table,
    input_table,
    latest_table,
    parameter_table,
    run_table,
    tag_table,
)

# How MLflow's clients call a state; for them a run whose process died was killed.
STATUS = {state: KILLED.upper() if state == ABANDONED else state.upper() for state in STATES}

_ATTRIBUTES: dict[str, tuple[Type, tuple[str, ...]]] = {
    "run_id": ("text", ("id",)),
    "run_name": ("text", ("run name", "Run name", "Run Name", "name")),
    "user_id": ("text", ("user",)),
    "status": ("text", ()),
    "start_time": ("time", ("created", "Created", "started")),
    "end_time": ("time", ("ended",)),
    "artifact_uri": ("text", ()),
    "experiment_id": ("text", ()),
    "lifecycle": ("text", ("lifecycle_stage",)),
    "experiment": ("text", ()),
    "project": ("text", ()),
    "state": ("text", ()),
    "step": ("text", ()),
    "execution": ("text", ()),
    "error": ("text", ()),
    "cause": ("text", ()),
    "actor": ("text", ()),
    "seconds": ("number", ()),
}
OPTIONAL = frozenset({"end_time", "step", "execution", "error", "seconds"})
TIES = (("start_time", False), ("run_id", True))

VOCABULARY = Vocabulary(
    prefixes("metric", "parameter", "tag", "attribute", "dataset"),
    {"metric": "number", "parameter": "text", "tag": "text"},
    {
        "attribute": {
            spelling: (name, type_) for name, (type_, more) in _ATTRIBUTES.items() for spelling in (name, *more)
        },
        "dataset": {name: (name, "text") for name in ("name", "digest", "context")},
    },
)


def artifact_uri(experiment: str, run: str) -> str:
    """Where MLflow's clients find a run's artifacts: behind the server that they talk to."""
    return f"mlflow-artifacts:/{experiment}/{run}/artifacts"


def _status(comparison: Comparison, dialect: str) -> Condition:
    # There are six states only: the words are compared here, the database looks for the states.
    from instar.train.search_match import matches

    return run_table.c.state.in_([state for state, word in STATUS.items() if matches(comparison, word)])


def _dataset(comparison: Comparison, dialect: str) -> Condition:
    use, data = input_table.alias(), dataset_table.alias()
    value: sa.ColumnElement[Any] = use.c.context if comparison.field.key == "context" else data.c[comparison.field.key]
    there = sa.select(use.c.run).join(data, data.c.id == use.c.dataset)
    if comparison.operator == "IS NULL":
        return run_table.c.key.not_in(there.where(value.is_not(None)))
    return run_table.c.key.in_(there.where(compare(comparison, value, dialect)))


def _micros(column: sa.Column[Any]) -> sa.ColumnElement[int]:
    return sa.type_coerce(column, sa.BigInteger)


_run = run_table.c
_experiment = sa.select(experiment_table.c.name).where(experiment_table.c.id == _run.experiment_id).scalar_subquery()

PLACES = Places(
    VOCABULARY,
    _run.key,
    {
        "run_id": _run.id,
        # A run without a name of its own is called by its step, or by its id.
        "run_name": sa.case((_run.name == "", sa.func.coalesce(_run.step, _run.id)), else_=_run.name),
        "user_id": sa.func.coalesce(_run.user_name, _run.actor),
        "status": sa.case((_run.state == ABANDONED, KILLED.upper()), else_=sa.func.upper(_run.state)),
        "start_time": _micros(_run.started),
        "end_time": _micros(_run.ended),
        "artifact_uri": sa.literal("mlflow-artifacts:/") + _run.experiment_id + "/" + _run.id + "/artifacts",
        "experiment_id": _run.experiment_id,
        "lifecycle": _run.lifecycle,
        "experiment": _experiment,
        "project": _run.project,
        "state": _run.state,
        "step": _run.step,
        "execution": _run.execution,
        "error": _run.error,
        "cause": _run.cause,
        "actor": _run.actor,
        "seconds": sa.cast(_micros(_run.ended) - _micros(_run.started), sa.Float) / 1e6,
    },
    {
        "metric": Rows(latest_table, "run", "name", "value", nan="nan"),
        "parameter": Rows(parameter_table, "run", "name", "value", rest="rest"),
        "tag": Rows(tag_table, "run", "name", "value", rest="rest"),
    },
    {("attribute", "status"): _status, **{("dataset", key): _dataset for key in ("name", "digest", "context")}},
)
