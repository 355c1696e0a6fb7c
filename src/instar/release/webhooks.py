"""Webhooks: who wants to be told when the registry changes, and the deliveries that are still to be made.

An event is put down in the transaction of the change that it tells of, one row for each webhook that asked for it, so that
nothing is lost when a process dies; `delivery` takes it from there. Names of events and the form of their payloads are
those of MLflow's webhooks.

    create(store, "flights", "ci", "https://ci.example.org/hook", ["model_version.created"], secret="…")
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core import ids, journal
from instar.core.database import Instant, Json, Transaction, metadata, rows_where
from instar.core.errors import BadInput, NotFound
from instar.core.identity import Permission, require
from instar.core.store import Store
from instar.release import targets

ACTIVE, DISABLED = "ACTIVE", "DISABLED"

# What can be asked for, with the data that a test sends.
EVENTS: dict[str, dict[str, Any]] = {
    "registered_model.created": {"name": "example", "tags": {"team": "operations"}, "description": "An example"},
    "model_version.created": {
        "name": "example", "version": "1", "source": "models:/m-0", "run_id": None, "tags": {}, "description": None,
    },
    "model_version_tag.set": {"name": "example", "version": "1", "key": "checked", "value": "yes"},
    "model_version_tag.deleted": {"name": "example", "version": "1", "key": "checked"},
    "model_version_alias.created": {"name": "example", "alias": "stable", "version": "1"},
    "model_version_alias.deleted": {"name": "example", "alias": "stable"},
}  # fmt: skip

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
_REFERENCE = ("env:", "file:")

webhook_table = sa.Table(
    "webhook",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False, index=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("events", Json, nullable=False),
    sa.Column("secret", sa.Text),  # a reference, never the secret
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
)
delivery_table = sa.Table(
    "webhook_delivery",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("webhook", sa.String(40), nullable=False, index=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("event", sa.String(60), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", Instant, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
)
# What is due is looked for every second: only what waits is in the index.
rows_where(
    sa.Index("ix_webhook_delivery_waiting", delivery_table.c.next_at),
    delivery_table.c.state == "waiting",
)


@dataclass(frozen=True)
class Webhook:
    """Somebody who wants to be told.

    Attributes:
        id: `hook_…`.
        events: Names from `EVENTS`.
        secret: Reference to the secret which signs the deliveries (`env:NAME` or `file:PATH`); None: they are not signed.
        status: `"ACTIVE"` or `"DISABLED"`.
    """

    id: str
    project: str
    name: str
    description: str
    url: str
    events: Sequence[str]
    secret: str | None
    status: str
    created_at: datetime
    updated_at: datetime


def create(
    store: Store,
    project: str,
    name: str,
    url: str,
    events: Sequence[str],
    *,
    description: str = "",
    secret: str | None = None,
    status: str = ACTIVE,
) -> Webhook:
    """Put a webhook on the record.

    Args:
        secret: Signs each delivery: `env:NAME`, `file:PATH`, or the secret itself, which is then kept in a file of the
            store that only its owner reads.

    Raises:
        BadInput: The address is not one that may be called, or an event is unknown.
    """
    require(store.actor, Permission.ADMIN)
    targets.check(url)
    now = store.clock.wall()
    hook_id = ids.new_id("hook")
    hook = Webhook(
        hook_id, project, _named(name), description, url, _known(events), _kept(store, hook_id, secret), _state(status), now,
        now,
    )  # fmt: skip

    def work(tx: Transaction) -> None:
        tx.execute(webhook_table.insert().values(**vars(hook)))
        _note(tx, store, hook, "webhook", {"name": hook.name, "events": list(hook.events), "status": hook.status})

    store.database.write(work, durable=True)
    return hook


def get(store: Store, project: str, hook_id: str) -> Webhook:
    """A webhook.

    Raises:
        NotFound: The project has none of that id.
    """
    query = sa.select(webhook_table).where(webhook_table.c.project == project, webhook_table.c.id == hook_id)
    with store.database.read() as tx:
        row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound("there is no such webhook", subject=f"webhook {hook_id}")
    return Webhook(**row._mapping)


def webhooks(store: Store, project: str, *, limit: int = 100, after: str = "") -> list[Webhook]:
    """Webhooks of a project in the order in which they were made, those after the id `after`."""
    query = sa.select(webhook_table).where(webhook_table.c.project == project, webhook_table.c.id > after)
    with store.database.read() as tx:
        return [Webhook(**row._mapping) for row in tx.execute(query.order_by(webhook_table.c.id).limit(limit))]


def update(store: Store, project: str, hook_id: str, changes: Mapping[str, Any]) -> Webhook:
    """Change fields of a webhook: `name`, `description`, `url`, `events`, `secret`, `status`."""
    require(store.actor, Permission.ADMIN)
    before = get(store, project, hook_id)
    values: dict[str, Any] = {"updated_at": store.clock.wall()}
    checks = {"name": _named, "events": _known, "status": _state}
    for field, value in changes.items():
        if field == "url":
            targets.check(value)
        if field == "secret":
            value = _kept(store, hook_id, value)
        values[field] = checks[field](value) if field in checks else value
    after = Webhook(**{**vars(before), **values})

    def work(tx: Transaction) -> None:
        tx.execute(webhook_table.update().where(webhook_table.c.id == hook_id).values(**values))
        _note(tx, store, after, "webhook changed", {"fields": sorted(changes)})

    store.database.write(work, durable=True)
    return after


def delete(store: Store, project: str, hook_id: str) -> None:
    """Forget a webhook, its secret, and what was still to be delivered to it."""
    require(store.actor, Permission.ADMIN)
    hook = get(store, project, hook_id)

    def work(tx: Transaction) -> None:
        tx.execute(delivery_table.delete().where(delivery_table.c.webhook == hook_id))
        tx.execute(webhook_table.delete().where(webhook_table.c.id == hook_id))
        _note(tx, store, hook, "webhook deleted", {"name": hook.name})

    store.database.write(work, durable=True)
    _secret_file(store, hook_id).unlink(missing_ok=True)


def announce(tx: Transaction, store: Store, project: str, event: str, data: Mapping[str, Any]) -> None:
    """Put an event down for every webhook that asked for it, inside the transaction of the change that it tells of."""
    query = sa.select(webhook_table.c.id, webhook_table.c.events).where(
        webhook_table.c.project == project, webhook_table.c.status == ACTIVE
    )
    asked = [row.id for row in tx.execute(query) if event in row.events]
    if not asked:
        return
    now = store.clock.wall()
    text = payload(event, data, now)
    tx.execute(
        delivery_table.insert(),
        [
            {
                "id": ids.new_id("sent"), "webhook": hook, "project": project, "event": event, "payload": text,
                "state": "waiting", "attempts": 0, "next_at": now, "created_at": now,
            }
            for hook in asked
        ],
    )  # fmt: skip


def payload(event: str, data: Mapping[str, Any], at: datetime) -> str:
    """The body of a delivery, which stays the same in every attempt."""
    entity, _, action = event.partition(".")
    told = {"entity": entity, "action": action, "timestamp": at.isoformat(), "data": dict(data)}
    return ids.canonical_json(told).decode()


def secret_of(store: Store, hook: Webhook) -> str | None:
    """The secret itself, for whoever signs.

    Raises:
        NotFound: What the reference names is not there.
    """
    if hook.secret is None:
        return None
    kind, _, place = hook.secret.partition(":")
    if kind == "env":
        found = os.environ.get(place)
    else:
        path = store.folder / place
        found = path.read_text().rstrip("\n") if path.is_file() else None
    if not found:
        raise NotFound("its secret is not there", subject=f"webhook {hook.name}", found=f"{kind}:{place}")
    return found


def _kept(store: Store, hook_id: str, secret: str | None) -> str | None:
    """The reference under which a secret is found again."""
    if not secret:
        return None
    if secret.startswith(_REFERENCE):
        return secret
    path = _secret_file(store, hook_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.chmod(path.parent, 0o700)
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
    aside.replace(path)
    return f"file:{path.relative_to(store.folder)}"


def _secret_file(store: Store, hook_id: str) -> Path:
    return store.folder / "secrets" / hook_id


def _named(name: str) -> str:
    if not _NAME.match(name):
        raise BadInput(
            "that cannot be the name of a webhook", found=repr(name[:80]),
            asked="1 to 63 letters, digits, dots, - and _, a letter or digit at both ends",
        )  # fmt: skip
    return name


def _known(events: Sequence[str]) -> list[str]:
    wrong = [event for event in events if event not in EVENTS]
    if wrong or not events:
        raise BadInput(
            "there is no such event" if wrong else "a webhook is told of at least one event",
            found=wrong[0] if wrong else None, asked=", ".join(EVENTS),
        )  # fmt: skip
    return list(dict.fromkeys(events))


def _state(status: str) -> str:
    if status not in (ACTIVE, DISABLED):
        raise BadInput("that is no status of a webhook", found=status, asked=f"{ACTIVE} or {DISABLED}")
    return status


def _note(tx: Transaction, store: Store, hook: Webhook, kind: str, body: dict[str, Any]) -> None:
    journal.append(tx, store.clock, store.actor, hook.project, kind, hook.id, body)
