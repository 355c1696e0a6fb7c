"""Tracking: experiments, runs with parameters, tags, metrics and inputs as rows that can be searched."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
