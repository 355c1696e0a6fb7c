"""How far the spools of runs are applied to this store: the one record that makes a delivery count once.

A run's records arrive in numbered frames, one sequence for each process that wrote (`spool.py`). The number of frames that
are applied is kept in the transaction that applies them, so a batch that is sent twice, or cut anew, adds nothing.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from instar.core.database import Instant, Transaction, metadata

position_table = sa.Table(
    "run_spool",
    metadata,
    sa.Column("run", sa.String(60), primary_key=True),
    sa.Column("writer", sa.String(40), primary_key=True),
    sa.Column("applied", sa.BigInteger, nullable=False),  # frames
    sa.Column("heard", Instant, nullable=False),
    sa.Column("place", sa.String(1000), nullable=False),
)


def applied(tx: Transaction, run: str, writer: str) -> int:
    """How many frames of a writer are applied; 0 when none ever came."""
    query = sa.select(position_table.c.applied).where(position_table.c.run == run, position_table.c.writer == writer)
    return int(tx.execute(query.with_for_update()).scalar_one_or_none() or 0)


def move(tx: Transaction, run: str, writer: str, to: int, heard: datetime, place: str) -> None:
    """Say how many frames are applied now, and when and from where the writer was heard of."""
    here = (position_table.c.run == run) & (position_table.c.writer == writer)
    values = {"applied": to, "heard": heard, "place": place}
    if not tx.execute(position_table.update().where(here).values(values)).rowcount:
        tx.execute(position_table.insert().values(run=run, writer=writer, **values))
