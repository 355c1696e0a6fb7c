"""Notes on records, and studies of tuning."""

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
