"""Pipelines: attempts, partitions and logs of executions, schedules."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
