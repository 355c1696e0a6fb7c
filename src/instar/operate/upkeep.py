"""Upkeep of the prediction log, while a server is up: seal, merge, erase what was asked, take what is kept no longer.

Each part follows the record, so a look that a crash cut short is finished by the next one. What is found damaged raises an
alert; it is never passed over in silence.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from instar.core.database import Transaction
from instar.core.errors import Conflict
from instar.core.ids import new_id
from instar.core.store import Store
from instar.operate import alerts
from instar.operate.measurement import BREACH, Measurement, keep
from instar.plan.contract import Contract
from instar.serve.log import erasing, merging, retention, sealing
from instar.serve.log.catalogue import Unit

log = logging.getLogger("instar.controllers")

MONITOR = "record"


def look(store: Store, project: str, terms: Mapping[str, retention.Terms]) -> None:
    """One look at the log of all endpoints; what the terms say is done to those of the project."""
    for name, reason in sealing.look(store).damaged:
        raise_alert(store, project, name.endpoint, name.id, reason)

    def damaged(unit: Unit, reason: str) -> None:
        raise_alert(store, unit.project, unit.endpoint, unit.rows_path, reason)

    merging.merge(store, damaged=damaged)
    try:
        for one in erasing.carry_out(store):
            log.info("erasure %s is done: %d predictions", one.id, one.predictions)
    except Conflict as held:
        log.warning("an erasure waits: %s", held)
    for gone in retention.expire(store, project, terms):
        log.info(
            "%s of %d predictions of %s went: %s", gone.what, gone.unit.predictions, gone.unit.endpoint, gone.policy
        )


def terms_of(contract: Contract) -> dict[str, retention.Terms]:
    """How long the record of each endpoint is kept, by its contract."""
    return {
        name: retention.Terms(problem.record.keep, problem.record.inputs)
        for name, problem in contract.problem.items()
        if problem.record is not None
    }


def raise_alert(store: Store, project: str, endpoint: str, subject: str, reason: str) -> None:
    """Open an alert about a damaged part of the record, unless one on it stands."""
    log.error("the record of %s is damaged: %s: %s", endpoint, subject, reason)
    standing = alerts.alerts(store, project, endpoint=endpoint, state=alerts.OPEN)
    if any((one.metric, one.subject) == (MONITOR, subject[:200]) for one in standing):
        return
    now = store.clock.event()
    found = Measurement(
        f"{new_id('meas')}/{MONITOR}", project, endpoint, MONITOR, subject[:200], now, now, 1.0, 0.0, BREACH, 0,
        store.clock.wall(), detail={"why": reason},
    )  # fmt: skip

    def work(tx: Transaction) -> None:
        keep(tx, [found])
        alerts.update(tx, store.clock, store.actor, project, [found])

    store.database.write(work, durable=True)
