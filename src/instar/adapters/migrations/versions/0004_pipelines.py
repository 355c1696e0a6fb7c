"""Pipelines: attempts, partitions and logs of executions, schedules."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("execution", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("execution", sa.Column("partition", sa.String(length=200), nullable=True))
    op.add_column("execution", sa.Column("log", sa.String(length=80), nullable=True))
    op.add_column("pipeline_run", sa.Column("resumes", sa.String(length=60), nullable=True))
    op.create_table(
        "firing",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("schedule", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=300), nullable=False),
        sa.Column("cause", sa.String(length=400), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("fired", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.Column("taken_up", sa.Integer(), nullable=False),
        sa.Column("pipe", sa.String(length=60), nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_firing")),
        sa.UniqueConstraint("project", "schedule", "key", name="uq_firing_key"),
    )


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
