"""Alembic's environment: runs migrations on the open transaction that `prepare` hands in."""

from alembic import context

from instar.core.database import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
# `prepare` holds the transaction over all steps, so that a failed one leaves nothing; Alembic must not begin its own.
context.run_migrations()
