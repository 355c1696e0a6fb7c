"""Logged models, registered models with their descriptions and tags, webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _versions()
    _models()
    _logged_models()
    _webhooks()


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")


def _versions() -> None:
    # A bundle may have several numbers, and the name and number of a deleted version are free: both uniques go.
    with op.batch_alter_table("model_version") as batch:
        batch.drop_constraint("uq_model_version_project_model_bundle", type_="unique")
        batch.drop_constraint("uq_model_version_project_model_number", type_="unique")
        for name in ("description", "source", "run_link"):
            batch.add_column(sa.Column(name, sa.Text(), nullable=False, server_default=""))
        batch.add_column(sa.Column("logged_model", sa.String(length=40), nullable=True))
        batch.add_column(sa.Column("updated_at", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "ux_model_version_current", "model_version", ["project", "model", "number"], unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"), postgresql_where=sa.text("deleted_at IS NULL"),
    )  # fmt: skip
    op.create_index("ix_model_version_project_model_bundle", "model_version", ["project", "model", "bundle"])
    op.create_table(
        "model_version_tag",
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=250), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", "key", name=op.f("pk_model_version_tag")),
    )


def _models() -> None:
    op.create_table(
        "registered_model",
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_registered_model")),
    )
    op.create_table(
        "registered_model_tag",
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=250), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "model", "key", name=op.f("pk_registered_model_tag")),
    )
    # Until now a model was there because a version named it.
    op.execute(
        "INSERT INTO registered_model (project, name, description, created_by, created_at, updated_at, last_number) "
        "SELECT project, model, '', min(registered_by), min(created_at), max(created_at), max(number) "
        "FROM model_version GROUP BY project, model"
    )


def _logged_models() -> None:
    op.create_table(
        "logged_model",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("experiment", sa.String(length=60), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("model_type", sa.String(length=500), nullable=False),
        sa.Column("run", sa.String(length=60), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("bundle", sa.String(length=80), nullable=True),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logged_model")),
    )
    op.create_index("ix_logged_model_experiment_created_at", "logged_model", ["experiment", "created_at"])
    op.create_index("ix_logged_model_run", "logged_model", ["run"])
    for name in ("logged_model_tag", "logged_model_parameter"):
        op.create_table(
            name,
            sa.Column("model", sa.String(length=40), nullable=False),
            sa.Column("key", sa.String(length=250), nullable=False),
            sa.Column("value", sa.Text(), nullable=False),
            sa.PrimaryKeyConstraint("model", "key", name=op.f(f"pk_{name}")),
        )
    op.create_table(
        "logged_model_metric",
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("run", sa.String(length=60), nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("nan", sa.SmallInteger(), nullable=False),
        sa.Column("dataset_name", sa.String(length=500), nullable=False),
        sa.Column("dataset_digest", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint(
            "model", "name", "dataset_name", "dataset_digest", "run", "step", "at", name=op.f("pk_logged_model_metric")
        ),
    )
    op.create_table(
        "run_model",
        sa.Column("run", sa.String(length=60), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("model", sa.String(length=40), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("run", "role", "model", name=op.f("pk_run_model")),
    )
    op.create_index("ix_run_model_model", "run_model", ["model"])
    op.create_table(
        "artifact_finding",
        sa.Column("blob", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("refused", sa.Text(), nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("blob", name=op.f("pk_artifact_finding")),
    )
    op.create_table(
        "bundle_trial",
        sa.Column("bundle", sa.String(length=80), nullable=False),
        sa.Column("task", sa.String(length=20), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("tried_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bundle", name=op.f("pk_bundle_trial")),
    )


def _webhooks() -> None:
    op.create_table(
        "webhook",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
    )
    op.create_index("ix_webhook_project", "webhook", ["project"])
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("webhook", sa.String(length=40), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("event", sa.String(length=60), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
    )
    op.create_index("ix_webhook_delivery_webhook", "webhook_delivery", ["webhook"])
    op.create_index(
        "ix_webhook_delivery_waiting", "webhook_delivery", ["next_at"],
        sqlite_where=sa.text("state = 'waiting'"), postgresql_where=sa.text("state = 'waiting'"),
    )  # fmt: skip
