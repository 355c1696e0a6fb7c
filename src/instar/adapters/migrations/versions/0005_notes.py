"""Notes on records, how far the spools of runs are applied, and studies of tuning."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "note",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("subject", sa.String(length=400), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("edited", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_note")),
    )
    op.create_index(op.f("ix_note_subject"), "note", ["subject"], unique=False)
    op.create_table(
        "run_spool",
        sa.Column("run", sa.String(length=60), nullable=False),
        sa.Column("writer", sa.String(length=40), nullable=False),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.Column("heard", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.String(length=1000), nullable=False),
        sa.PrimaryKeyConstraint("run", "writer", name=op.f("pk_run_spool")),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("project", sa.String(length=200), nullable=False),
        sa.Column("step", sa.String(length=200), nullable=False),
        sa.Column("problem", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=60), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint("project", "key", name=op.f("uq_study_project_key")),
    )


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
