"""Logged models, registered models with their descriptions and tags, webhooks."""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an older format: restore a backup")
