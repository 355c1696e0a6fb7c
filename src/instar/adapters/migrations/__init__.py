"""The history of the database's schema, and the walk along it when a store is opened by a newer program."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from instar.core.database import Database, Transaction
from instar.core.errors import StoreTooNew

# Number of the store's format: the newest migration in `versions/`, and what goes with it in the store's folder.
FORMAT = 3

store_format = sa.table("store_format", sa.column("number", sa.Integer))


def prepare(database: Database) -> None:
    """Bring the database's schema to this program's format: all steps in one transaction, or none.

    Raises:
        StoreTooNew: A later program wrote the store.
    """
    with database.read() as tx:
        found = _format(tx)
    if found > FORMAT:
        raise StoreTooNew(
            "a later version of Instar wrote it",
            subject="store",
            found=f"format {found}",
            asked=f"format {FORMAT} or older",
            next_step="Install the newer Instar; this one would not understand the records.",
        )
    if found < FORMAT:
        database.write(_upgrade, durable=True)


def _format(tx: Transaction) -> int:
    if not sa.inspect(tx).has_table("store_format"):
        return 0
    return int(tx.execute(sa.select(store_format.c.number)).scalar_one())


def _upgrade(tx: Transaction) -> None:
    from instar.adapters.migrations import newest

    if _format(tx) >= FORMAT:  # another process was first
        return
    if not newest.create(tx):
        walk(tx)
    tx.execute(sa.delete(store_format))
    tx.execute(sa.insert(store_format).values(number=FORMAT))


def walk(tx: Transaction) -> None:
    """Take every step of the history that a database has not taken yet."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = tx
    command.upgrade(config, "head")
