"""Tracking: experiments, runs with parameters, tags, metrics and inputs as rows that can be searched."""

import json

import sqlalchemy as sa
from alembic import op

from instar.core import ids

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

HEAD = 250
RUN = "id, project, step, execution, state, error, inputs, code, environment, cause, actor, process, event_at, started, ended"


def upgrade() -> None:
    for table in ("run_metric", "run_artifact", "run"):  # children first
        op.execute(f"CREATE TABLE old_{table} AS SELECT * FROM {table}")
        op.drop_table(table)
    _create()
    _carry_over(op.get_bind())
    for table in ("run_metric", "run_artifact", "run"):
        op.drop_table(f"old_{table}")


def _create() -> None:
    op.create_table(
        "experiment",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiment")),
    )
    op.create_index(
        "ux_experiment_active",
        "experiment",
        ["project", "name"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "experiment_tag",
        sa.Column("experiment", sa.String(length=60), nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["experiment"], ["experiment.id"], name=op.f("fk_experiment_tag_experiment")),
        sa.PrimaryKeyConstraint("experiment", "name", name=op.f("pk_experiment_tag")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("experiment_id", sa.String(length=60), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("step", sa.String(length=200), nullable=True),
        sa.Column("execution", sa.String(length=60), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("lifecycle", sa.String(length=10), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_with", sa.String(length=60), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("environment", sa.String(length=80), nullable=True),
        sa.Column("conditions", sa.String(length=80), nullable=True),
        sa.Column("cause", sa.String(length=200), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("user_name", sa.String(length=250), nullable=True),
        sa.Column("process", sa.Integer(), nullable=False),
        sa.Column("event_at", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiment.id"], name=op.f("fk_run_experiment_id_experiment")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_run")),
        sa.UniqueConstraint("id", name=op.f("uq_run_id")),
    )
    op.create_index(op.f("ix_run_execution"), "run", ["execution"], unique=False)
    op.create_index("ix_run_experiment", "run", ["experiment_id", "lifecycle", "started", "id"], unique=False)
    op.create_index("ix_run_project", "run", ["project", "lifecycle", "started", "id"], unique=False)
    _create_logged()
    _create_inputs()


def _create_logged() -> None:
    op.create_table(
        "run_parameter",
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("value", sa.String(length=HEAD), nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.key"], name=op.f("fk_run_parameter_run")),
        sa.PrimaryKeyConstraint("run", "name", name=op.f("pk_run_parameter")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_run_parameter_value", "run_parameter", ["name", "value"], unique=False)
    op.create_table(
        "run_tag",
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("value", sa.String(length=HEAD), nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run"], ["run.key"], name=op.f("fk_run_tag_run")),
        sa.PrimaryKeyConstraint("run", "name", name=op.f("pk_run_tag")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_run_tag_value", "run_tag", ["name", "value"], unique=False)
    op.create_table(
        "run_metric",
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("nan", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("run", "name", "step", "at", "value", "nan", name=op.f("pk_run_metric")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_latest",
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("nan", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run", "name", name=op.f("pk_run_latest")),
        sqlite_with_rowid=False,
    )


def _create_inputs() -> None:
    op.create_table(
        "dataset",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("digest", sa.String(length=250), nullable=False),
        sa.Column("source_type", sa.String(length=100), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset")),
    )
    op.create_table(
        "run_input",
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dataset", sa.String(length=60), nullable=False),
        sa.Column("context", sa.String(length=HEAD), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.key"], name=op.f("fk_run_input_run")),
        sa.ForeignKeyConstraint(["dataset"], ["dataset.id"], name=op.f("fk_run_input_dataset")),
        sa.PrimaryKeyConstraint("run", "dataset", name=op.f("pk_run_input")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_run_input_dataset"), "run_input", ["dataset"], unique=False)
    op.create_table(
        "artifact",
        sa.Column("owner", sa.String(length=60), nullable=False),
        sa.Column("path", sa.String(length=1000), nullable=False),
        sa.Column("blob", sa.String(length=80), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "path", name=op.f("pk_artifact")),
    )
    op.create_index(op.f("ix_artifact_blob"), "artifact", ["blob"], unique=False)


def _carry_over(tx: sa.Connection) -> None:
    groups = tx.execute(
        sa.text("SELECT project, experiment, min(started) AS first FROM old_run GROUP BY project, experiment")
    )
    for group in groups.all():
        values = {"id": ids.new_id("exp"), "project": group.project, "name": group.experiment, "at": group.first}
        tx.execute(sa.text("INSERT INTO experiment VALUES (:id, :project, :name, 'active', :at, :at)"), values)
    tx.execute(
        sa.text(
            f"INSERT INTO run ({RUN}, experiment_id, name, lifecycle)"
            f" SELECT {', '.join('r.' + name for name in RUN.split(', '))}, e.id, '', 'active' FROM old_run AS r"
            " JOIN experiment AS e ON e.project = r.project AND e.name = r.experiment ORDER BY r.id"
        )
    )
    runs = tx.execute(sa.text("SELECT run.key, o.parameters, o.tags FROM old_run AS o JOIN run ON run.id = o.id")).all()
    parameters = [
        {"run": run.key, "name": name, **_halves(_text(value)), "kind": _kind(value)}
        for run in runs
        for name, value in json.loads(run.parameters).items()
    ]
    tags = [
        {"run": run.key, "name": name, **_halves(str(value))}
        for run in runs
        for name, value in json.loads(run.tags).items()
    ]
    if parameters:
        tx.execute(sa.text("INSERT INTO run_parameter VALUES (:run, :name, :value, :rest, :kind)"), parameters)
    if tags:
        tx.execute(sa.text("INSERT INTO run_tag VALUES (:run, :name, :value, :rest)"), tags)
    for statement in (
        "INSERT INTO run_metric SELECT run.key, m.name, m.step, m.at, coalesce(m.value, 0),"
        " CASE WHEN m.value IS NULL THEN 1 ELSE 0 END FROM old_run_metric AS m JOIN run ON run.id = m.run",
        "INSERT INTO run_latest SELECT run, name, step, at, value, nan FROM (SELECT run_metric.*, row_number() OVER"
        " (PARTITION BY run, name ORDER BY step DESC, at DESC, nan, value DESC) AS place FROM run_metric) AS m WHERE place = 1",
        "INSERT INTO artifact SELECT run, path, blob, size FROM old_run_artifact",
    ):
        tx.execute(sa.text(statement))


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "bool", int: "int", float: "float", str: "text"}.get(type(value), "json")


def _text(value: object) -> str:
    return str(value) if _kind(value) != "json" else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _halves(text: str) -> dict[str, object]:
    return {"value": text[:HEAD], "rest": text[HEAD:] or None}


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
