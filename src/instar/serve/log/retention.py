"""The end of a record's time: what the contract keeps no longer goes after sealing; what stays says what went, by which policy.

    [problem.delay.record]
    keep = "400d"        # predictions, whole
    inputs = "90d"       # what was asked; who asked, when, and what was answered stay

A unit goes, or loses its inputs, when the newest call in it is too old. The catalogue keeps the root of each segment, and the
journal says which policy took its frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl
import sqlalchemy as sa

from instar.core.database import Transaction
from instar.core.store import Store
from instar.serve.log import catalogue, holds, record, rewriting, sealed_table
from instar.serve.log.catalogue import Unit
from instar.serve.log.layout import Kept

INPUTS = "inputs"


@dataclass(frozen=True)
class Terms:
    """How long predictions and their inputs are kept, in event time; for ever where nothing is said."""

    keep: timedelta | None = None
    inputs: timedelta | None = None


@dataclass(frozen=True)
class Gone:
    """What went, or would go: a unit's predictions and bytes, whole or its inputs only."""

    unit: Unit
    what: str
    policy: str

    @property
    def size(self) -> int:
        return self.unit.rows_size + self.unit.frames_size


def expire(store: Store, project: str, terms: Mapping[str, Terms], *, dry_run: bool = False) -> list[Gone]:
    """Take what the terms keep no longer.

    Args:
        terms: By endpoint.
        dry_run: Only say what would go.
    """
    found = []
    for endpoint, one in terms.items():
        with sealed_table.alone(store):
            for gone in list(_due(store, project, endpoint, one)):
                found.append(gone)
                if not dry_run:
                    sealed_table.repair(store, project, endpoint)
                    (_drop if gone.what == "predictions" else _thin)(store, gone)
    return found


def _due(store: Store, project: str, endpoint: str, terms: Terms) -> Iterator[Gone]:
    now = store.clock.event()
    standing = holds.standing(store, project, endpoint)
    for unit in catalogue.units(store, project=project, endpoint=endpoint):
        if holds.covering(standing, unit.first_at, unit.last_at) is not None:
            continue
        if terms.keep is not None and unit.last_at < now - terms.keep:
            yield Gone(unit, "predictions", f"keep = {_days(terms.keep)}")
        elif terms.inputs is not None and unit.last_at < now - terms.inputs and INPUTS not in unit.lost:
            yield Gone(unit, INPUTS, f"inputs = {_days(terms.inputs)}")


def _drop(store: Store, gone: Gone) -> None:
    unit = gone.unit

    def also(tx: Transaction) -> None:
        place = catalogue.segment.c.id.in_(unit.segments)
        tx.execute(sa.update(catalogue.segment).where(place).values(state=catalogue.DROPPED))

    facts = {
        "endpoint": unit.endpoint,
        "policy": gone.policy,
        "predictions": unit.predictions,
        "dropped": list(unit.segments),
    }
    entry = ("calls dropped", f"{unit.endpoint}/{unit.day}", facts)
    sealed_table.change(store, unit.project, unit.endpoint, [unit], [], entry, transaction=f"drop/{unit.id}", also=also)


def _thin(store: Store, gone: Gone) -> None:
    unit = gone.unit
    rewriting.check(store, unit)
    made = sealed_table.make_again(
        store,
        unit,
        map(_without_inputs, rewriting.rows_in_order(store, [unit])),
        map(_pruned, rewriting.frames_in_order(store, [unit])),
        without=INPUTS,
    )
    facts = {"endpoint": unit.endpoint, "policy": gone.policy, "predictions": unit.predictions}
    entry = ("inputs dropped", f"{unit.endpoint}/{made.day}", facts)
    sealed_table.change(store, unit.project, unit.endpoint, [unit], [made], entry, transaction=f"thin/{unit.id}")


def _without_inputs(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop(INPUTS, strict=False)


def _pruned(frame: Kept) -> Kept:
    """The leaf stands for a call's frame; other entries tell of nobody's inputs."""
    is_call = frame.metadata is not None and record.kind(frame.metadata) == record.CALL
    return frame.pruned() if is_call else frame


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):g}d"
