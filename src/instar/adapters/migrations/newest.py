"""The newest schema in one piece: an empty SQLite store is made of it when it is first opened, and walks no history.

    python -m instar.adapters.migrations.newest      # after a migration was added: writes newest_sqlite.sql again

A walk along all migrations takes a quarter of a second, which every first start would pay. That both ways end in the same
schema is tested. PostgreSQL, where a database is made once for many users, walks.
"""

from __future__ import annotations

from pathlib import Path

from instar.core.database import Transaction

FILE = Path(__file__).with_name("newest_sqlite.sql")
_END = ";\n\n"


def create(tx: Transaction) -> bool:
    """Make the newest schema in an empty database; False where it is not empty, or not SQLite."""
    if tx.dialect.name != "sqlite" or tx.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").first() is not None:
        return False
    for statement in FILE.read_text(encoding="utf-8").split(_END)[:-1]:
        tx.exec_driver_sql(statement)
    return True


def written(tx: Transaction) -> str:
    """The statements that make the schema of a database without records, and say which migration is its last."""
    found = tx.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name")
    statements = [str(row.sql) for row in found]
    last = tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    statements.append(f"INSERT INTO alembic_version (version_num) VALUES ('{last}')")
    return "".join(statement + _END for statement in statements)


def main() -> None:
    """Write the file again."""
    import tempfile

    from instar.adapters import migrations
    from instar.adapters.database_sqlite import SqliteDatabase

    with tempfile.TemporaryDirectory() as folder:
        database = SqliteDatabase(Path(folder) / "instar.db")
        database.write(migrations.walk)
        with database.read() as tx:
            FILE.write_text(written(tx), encoding="utf-8")
        database.close()


if __name__ == "__main__":
    main()
