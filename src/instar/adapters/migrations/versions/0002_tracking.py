"""Tracking: experiments, runs with parameters, tags, metrics and inputs as rows that can be searched."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("conditions", sa.String(length=80), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
