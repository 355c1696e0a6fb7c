"""What models cost to serve: the accounts of running servers (`accounts.py`) in the store, by the hour, and read from there.

for line in costs(store, since=yesterday): print(line.endpoint, line.version, line.cpu_seconds)
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import sqlalchemy as sa

from instar.core.database import Instant, Transaction, metadata
from instar.core.settings import Settings
from instar.core.store import Store
from instar.serve.root.accounts import GB, VERSION, Account, Line, usage_folder
from instar.serve.traffic import routing

REMEMBERED = timedelta(days=2)  # for which a file's name is kept, after it was taken in

serving_usage = sa.Table(
    "serving_usage",
    metadata,
    sa.Column("hour", Instant, primary_key=True),
    sa.Column("what", sa.String(100), primary_key=True),
    sa.Column("endpoint", sa.String(100), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("bundle", sa.String(80), primary_key=True),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("cpu_seconds", sa.Float, nullable=False),
    sa.Column("byte_seconds", sa.Float, nullable=False),
    sa.Column("busy_seconds", sa.Float, nullable=False),
    sa.Column("starts", sa.BigInteger, nullable=False),
)

serving_account = sa.Table(
    "serving_account",
    metadata,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("taken_at", Instant, nullable=False),
)

SUMS = ("calls", "rows", "cpu_seconds", "byte_seconds", "busy_seconds", "starts")

_log = logging.getLogger("instar.serve")


@dataclass(frozen=True)
class Cost:
    """What one version, or one part of the server that serves all, used in a span of time.

    Attributes:
        what: `version`, or which process.
        project: Of the endpoint; empty for parts that serve all.
        busy_seconds: Wall time of scoring.
        money: By the prices in settings; None without them.
    """

    what: str
    project: str
    endpoint: str
    version: int
    calls: int
    rows: int
    cpu_seconds: float
    gb_hours: float
    busy_seconds: float
    starts: int
    money: float | None = None


def take_in(store: Store) -> int:
    """Take accounts that lie in files into the store, each once; returns how many.

    A file that cannot be read is left where it lies, and said so in the log.
    """
    taken = 0
    for file in sorted(usage_folder(store.folder).glob("*.json")):
        try:
            account = msgspec.json.decode(file.read_bytes(), type=Account)
        except FileNotFoundError:  # another took it in
            continue
        except msgspec.DecodeError as problem:
            _log.error("the account %s cannot be read: %s", file.name, problem)
            continue
        _take(store, file, account)
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        taken += 1
    return taken


def _take(store: Store, file: Path, account: Account) -> None:
    hour = datetime.fromtimestamp(account.until // 1_000_000, UTC).replace(minute=0, second=0, microsecond=0)
    now = store.clock.wall()

    def work(tx: Transaction) -> None:
        named = serving_account.c.name == file.name
        if tx.execute(sa.select(serving_account.c.name).where(named)).first() is not None:
            return  # we were ended between the record and the file's removal
        tx.execute(serving_account.insert().values(name=file.name, taken_at=now))
        tx.execute(serving_account.delete().where(serving_account.c.taken_at < now - REMEMBERED))
        for line in account.lines:
            _add(tx, hour, line)

    store.database.write(work)


def _add(tx: Transaction, hour: datetime, line: Line) -> None:
    table = serving_usage.c
    key = {"what": line.what, "endpoint": line.endpoint, "version": line.version, "bundle": line.bundle}
    sums = {name: getattr(line, name) for name in SUMS}
    mine = sa.and_(table.hour == hour, *(table[name] == value for name, value in key.items()))
    grown = {name: table[name] + value for name, value in sums.items()}
    if not tx.execute(serving_usage.update().where(mine).values(**grown)).rowcount:
        tx.execute(serving_usage.insert().values(hour=hour, **key, **sums))


def costs(
    store: Store,
    *,
    project: str | None = None,
    endpoint: str | None = None,
    since: datetime | None = None,
    prices: Settings | None = None,
) -> list[Cost]:
    """What versions used, the dearest first, and then what the server used for all of them together.

    Args:
        project: Only its endpoints; parts that serve all are in every project's list.
        endpoint: Only that one, and no parts that serve all.
        since: From the hour of this moment on.
        prices: Of a CPU hour and a GB hour.
    """
    table = serving_usage.c
    keys = [table.what, table.endpoint, table.version]
    query = sa.select(*keys, *(sa.func.sum(table[name]).label(name) for name in SUMS)).group_by(*keys)
    if since is not None:
        query = query.where(table.hour >= since.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
    if endpoint is not None:
        query = query.where(table.endpoint == endpoint)
    projects = {one.policy.endpoint: one.policy.project for one in routing.endpoints(store)}
    with store.database.read() as tx:
        rows = tx.execute(query).all()
    found = []
    for row in rows:
        owner = projects.get(row.endpoint, "")
        if project is not None and row.what == VERSION and owner != project:
            continue
        gb_hours = row.byte_seconds / GB / 3600
        one = Cost(
            row.what, owner, row.endpoint, row.version, int(row.calls), int(row.rows), row.cpu_seconds, gb_hours,
            row.busy_seconds, int(row.starts),
        )  # fmt: skip
        found.append(replace(one, money=money(one, prices)))
    return sorted(found, key=lambda one: (one.what != VERSION, -one.cpu_seconds, one.endpoint, one.version))


def money(cost: Cost, prices: Settings | None) -> float | None:
    """What it comes to, where a price is set."""
    if prices is None or (prices.cpu_hour_price is None and prices.gb_hour_price is None):
        return None
    return cost.cpu_seconds / 3600 * (prices.cpu_hour_price or 0.0) + cost.gb_hours * (prices.gb_hour_price or 0.0)
