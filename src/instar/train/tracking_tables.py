"""The tables of tracking: experiments, runs and what is logged to them, kept by every trial and read at any later moment.

What a run logs are rows under the run's number (`run.key`), not under its id: rows of metrics are many, so they are small.
A value of a parameter or a tag is cut in two: the first `HEAD` characters, which are indexed, and the rest, which hardly
ever is. A metric that is no number has `nan` 1 and value 0, since SQLite keeps no NaN.
"""

from __future__ import annotations

import sqlalchemy as sa

from instar.core.database import Instant, Json, metadata, rows_where

HEAD = 250  # characters of a value that are indexed; PostgreSQL's B-trees hold keys of 2,700 bytes at most

ACTIVE, DELETED = "active", "deleted"

experiment_table = sa.Table(
    "experiment",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("name", sa.String(500), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("created", Instant, nullable=False),
    sa.Column("updated", Instant, nullable=False),
)
# A deleted experiment gives its name back.
rows_where(
    sa.Index("ux_experiment_active", experiment_table.c.project, experiment_table.c.name, unique=True),
    experiment_table.c.state == ACTIVE,
)
experiment_tag_table = sa.Table(
    "experiment_tag",
    metadata,
    sa.Column("experiment", sa.String(60), sa.ForeignKey("experiment.id"), primary_key=True),
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
run_table = sa.Table(
    "run",
    metadata,
    sa.Column("key", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(60), nullable=False, unique=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("experiment_id", sa.String(60), sa.ForeignKey("experiment.id"), nullable=False),
    sa.Column("name", sa.String(500), nullable=False),
    sa.Column("step", sa.String(200)),
    sa.Column("execution", sa.String(60), index=True),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("lifecycle", sa.String(10), nullable=False),
    sa.Column("deleted_at", Instant),
    sa.Column("deleted_with", sa.String(60)),  # the experiment whose deletion took it along
    sa.Column("error", sa.Text),
    sa.Column("inputs", Json, nullable=False),
    sa.Column("code", Json),
    sa.Column("environment", sa.String(80)),
    sa.Column("conditions", sa.String(80)),
    sa.Column("cause", sa.String(200), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("user_name", sa.String(250)),  # whom a remote client names; the actor is who wrote the record
    sa.Column("process", sa.Integer, nullable=False),
    sa.Column("event_at", Instant, nullable=False),
    sa.Column("started", Instant, nullable=False),
    sa.Column("ended", Instant),
    # Both listings, newest first, are read along an index and stop at the end of the page.
    sa.Index("ix_run_experiment", "experiment_id", "lifecycle", "started", "id"),
    sa.Index("ix_run_project", "project", "lifecycle", "started", "id"),
)
parameter_table = sa.Table(
    "run_parameter",
    metadata,
    sa.Column("run", sa.Integer, sa.ForeignKey("run.key"), primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("value", sa.String(HEAD), nullable=False),
    sa.Column("rest", sa.Text),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Index("ix_run_parameter_value", "name", "value"),
    sqlite_with_rowid=False,
)
tag_table = sa.Table(
    "run_tag",
    metadata,
    sa.Column("run", sa.Integer, sa.ForeignKey("run.key"), primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("value", sa.String(HEAD), nullable=False),
    sa.Column("rest", sa.Text),
    sa.Index("ix_run_tag_value", "name", "value"),
    sqlite_with_rowid=False,
)
# The whole row is the key: a point that arrives twice is kept once, and two values at one moment are both kept. No foreign
# keys on the two tables of metrics: they would cost a look at `run` for every point, and the writer holds the run anyway.
metric_table = sa.Table(
    "run_metric",
    metadata,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, primary_key=True),
    sa.Column("value", sa.Float(53), primary_key=True),
    sa.Column("nan", sa.SmallInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
latest_table = sa.Table(
    "run_latest",
    metadata,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(250), primary_key=True),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("value", sa.Float(53), nullable=False),
    sa.Column("nan", sa.SmallInteger, nullable=False),
    sqlite_with_rowid=False,
)
# The id is made of project, name and digest, so that the same data set is one row without an index of its own.
dataset_table = sa.Table(
    "dataset",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("name", sa.String(500), nullable=False),
    sa.Column("digest", sa.String(250), nullable=False),
    sa.Column("source_type", sa.String(100), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("schema", sa.Text),
    sa.Column("profile", sa.Text),
)
input_table = sa.Table(
    "run_input",
    metadata,
    sa.Column("run", sa.Integer, sa.ForeignKey("run.key"), primary_key=True, autoincrement=False),
    sa.Column("dataset", sa.String(60), sa.ForeignKey("dataset.id"), primary_key=True, index=True),
    sa.Column("context", sa.String(HEAD)),
    sa.Column("tags", Json, nullable=False),
    sqlite_with_rowid=False,
)
# Files kept with a record: `owner` is a run's id, or that of another record with files (a logged model).
artifact_table = sa.Table(
    "artifact",
    metadata,
    sa.Column("owner", sa.String(60), primary_key=True),
    sa.Column("path", sa.String(1000), primary_key=True),
    sa.Column("blob", sa.String(80), nullable=False, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
)
