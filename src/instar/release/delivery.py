"""Delivering webhooks: takes what is due from the table, signs it, sends it, and tries again later what was not taken.

The headers are those of MLflow's webhooks: `X-MLflow-Signature: v1,` and the HMAC-SHA256 (base64) of
`DELIVERY.TIMESTAMP.BODY` under the webhook's secret, `X-MLflow-Delivery-Id`, `X-MLflow-Timestamp` (Unix seconds). All
attempts of one delivery have one id, by which a receiver knows a repeated one.

    deliver_due(store)                 # in the background of the control process
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from instar.core.database import Transaction
from instar.core.errors import InstarError
from instar.core.store import Store
from instar.release import targets, webhooks
from instar.release.webhooks import ACTIVE, Webhook, delivery_table, webhook_table

log = logging.getLogger("instar.webhooks")

TIMEOUT_SECONDS = 10.0
# Seconds to the next attempt; after the last of them a delivery has failed.
BACKOFF_SECONDS = (1, 5, 30, 120, 600, 1800, 3600, 7200)
AGAIN = frozenset({408, 425, 429})  # and all from 500 on: everything else a receiver means
CLAIM_SECONDS = 60  # who dies while he delivers leaves it to the next one after so long
KEPT = timedelta(days=7)  # how long what was delivered, or failed, can be looked at
AT_ONCE = 50
LOOK_SECONDS, QUIET_SECONDS = 1.0, 10.0
LARGEST_ANSWER_BYTES = 4096

SIGNATURE, DELIVERY, TIMESTAMP = "X-MLflow-Signature", "X-MLflow-Delivery-Id", "X-MLflow-Timestamp"


@dataclass(frozen=True)
class Answer:
    """What a receiver said; `status` None: it was not reached, and `error` says why."""

    status: int | None
    body: str = ""
    error: str = ""

    @property
    def taken(self) -> bool:
        return self.status is not None and self.status < 300


def run(store: Store, stop: threading.Event) -> None:
    """Deliver what is due until `stop` is set."""
    while not stop.wait(LOOK_SECONDS if _anybody(store) else QUIET_SECONDS):
        try:
            while deliver_due(store) == AT_ONCE:
                pass
        except InstarError:
            log.exception("a look at webhooks failed; the next one tries again")


def deliver_due(store: Store) -> int:
    """Attempt every delivery that is due, some at a time; returns how many were attempted."""
    due = _claim(store)
    for row in due:
        _attempt(store, row)
    return len(due)


def send_example(store: Store, hook: Webhook, event: str | None = None) -> Answer:
    """Send an example of an event, by default the first that the webhook asks for; nothing is kept of it."""
    name = event or hook.events[0]
    text = webhooks.payload(name, webhooks.EVENTS[name], store.clock.wall())
    return _send(store, hook, f"test-{hook.id}", text)


def signature(secret: str, delivery: str, timestamp: str, body: str) -> str:
    """The value of the signature's header."""
    mac = hmac.new(secret.encode(), f"{delivery}.{timestamp}.{body}".encode(), hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def _claim(store: Store) -> list[Any]:
    """Deliveries that are due, which nobody else attempts meanwhile."""
    now = store.clock.wall()
    due = delivery_table.c.state == "waiting", delivery_table.c.next_at <= now
    with store.database.read() as tx:
        if tx.execute(sa.select(delivery_table.c.id).where(*due).limit(1)).first() is None:
            return []

    def work(tx: Transaction) -> list[Any]:
        rows = tx.execute(sa.select(delivery_table).where(*due).order_by(delivery_table.c.next_at).limit(AT_ONCE)).all()
        mine = delivery_table.update().where(delivery_table.c.id.in_([row.id for row in rows]))
        tx.execute(mine.values(next_at=now + timedelta(seconds=CLAIM_SECONDS), attempts=delivery_table.c.attempts + 1))
        old = delivery_table.c.state != "waiting", delivery_table.c.created_at < now - KEPT
        tx.execute(delivery_table.delete().where(*old))
        return list(rows)

    return store.database.write(work)


def _attempt(store: Store, row: Any) -> None:
    hook = _hook(store, row.webhook)
    if hook is None or hook.status != ACTIVE:
        _end(store, row.id, "dropped", Answer(None, error="the webhook is gone, or was switched off"))
        return
    answer = _send(store, hook, row.id, row.payload)
    if answer.taken:
        _end(store, row.id, "delivered", answer)
        return
    final = answer.status is not None and answer.status < 500 and answer.status not in AGAIN
    if final or row.attempts >= len(BACKOFF_SECONDS):
        log.warning("webhook %s: event %s was not taken: %s", hook.name, row.event, answer.error or answer.status)
        _end(store, row.id, "failed", answer)
        return
    later = store.clock.wall() + timedelta(seconds=BACKOFF_SECONDS[row.attempts])
    _end(store, row.id, "waiting", answer, later)


def _send(store: Store, hook: Webhook, delivery: str, body: str) -> Answer:
    stamp = str(int(store.clock.wall().timestamp()))
    headers = {"Content-Type": "application/json", DELIVERY: delivery, TIMESTAMP: stamp, "User-Agent": "instar"}
    try:
        secret = webhooks.secret_of(store, hook)
        if secret is not None:
            headers[SIGNATURE] = signature(secret, delivery, stamp, body)
        target = targets.check(hook.url)
        connection = targets.connect(target, TIMEOUT_SECONDS)
        try:
            connection.request("POST", target.path, body.encode(), headers)
            reply = connection.getresponse()  # no redirect is followed: it could lead where no target may
            text = reply.read(LARGEST_ANSWER_BYTES).decode(errors="replace")
        finally:
            connection.close()
    except InstarError as error:
        return Answer(None, error=" ".join(error.describe().split()))
    except (OSError, http.client.HTTPException) as error:
        return Answer(None, error=f"{type(error).__name__}: {error}")
    return Answer(reply.status, text)


def _end(store: Store, delivery: str, state: str, answer: Answer, next_at: datetime | None = None) -> None:
    now = store.clock.wall()
    values: dict[str, Any] = {"state": state, "status": answer.status, "error": answer.error or None}
    values |= {"next_at": next_at} if next_at is not None else {"ended_at": now}
    row = delivery_table.update().where(delivery_table.c.id == delivery)
    store.database.write(lambda tx: tx.execute(row.values(**values)))


def _hook(store: Store, id: str) -> Webhook | None:
    with store.database.read() as tx:
        row = tx.execute(sa.select(webhook_table).where(webhook_table.c.id == id)).one_or_none()
    return None if row is None else Webhook(**row._mapping)


def _anybody(store: Store) -> bool:
    with store.database.read() as tx:
        return tx.execute(sa.select(webhook_table.c.id).limit(1)).first() is not None
