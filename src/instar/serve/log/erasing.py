"""Erasing a person from the record, when somebody asks: the personal parts go, and all that was proven can still be proven.

    erasure = ask(store, "flights", Selector("entity", "E42"), "request 17 of 3 May")
    carry_out(store)                 # as the controllers do after each sealing

Of a call whose personal part stands apart, that part and its salt go; the leaf of the Merkle tree keeps its second half.
Where the value stands in the open part, because the signature did not call its column personal, the frame is pruned to its
leaf. The rows lose the same and name the erasure. An erasure waits for the segments that were open when it was asked: they are
sealed first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Instant, Json, Transaction, metadata, microseconds
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.ids import new_id
from instar.core.store import Store
from instar.serve.log import calls, catalogue, holds, layout, masking, record, rewriting, sealed_table, segments
from instar.serve.log.catalogue import Unit
from instar.serve.log.layout import Kept
from instar.serve.traffic import routes

ASKED, DONE = "asked", "done"
ENTITY, KEY, INPUT = "entity", "key", "input"
PERSON = "person"

erasure = sa.Table(
    "erasure",
    metadata,
    sa.Column("id", sa.String(60), primary_key=True),
    sa.Column("project", sa.String(200), nullable=False),
    sa.Column("endpoint", sa.String(100)),
    sa.Column("selector", Json),  # gone when it is done: it tells of the person
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("asked_by", sa.String(200), nullable=False),
    sa.Column("asked_at", Instant, nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("done_at", Instant),
    sa.Column("predictions", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True)
class Selector:
    """Whose calls: `by` is `entity`, `key` or `input`; an input has a `column`."""

    by: str
    value: str
    column: str | None = None


@dataclass(frozen=True)
class Erasure:
    """An erasure: who asked when and why, and how many predictions it emptied. `state` is `asked` or `done`."""

    id: str
    project: str
    endpoint: str | None
    selector: dict[str, Any] | None
    why: str
    asked_by: str
    asked_at: datetime
    state: str
    done_at: datetime | None
    predictions: int


def ask(store: Store, project: str, selector: Selector, why: str, endpoint: str | None = None) -> Erasure:
    """Put an erasure on the record; `carry_out` does it.

    Raises:
        BadInput: There is no reason, or no value.
        Conflict: A hold covers calls of the endpoint; who placed it has to release it first.
    """
    if not why.strip() or not selector.value:
        raise BadInput("an erasure needs a value and a reason", found=f"{selector.by}, why {why!r}", asked="both")
    standing = holds.standing(store, project, endpoint)
    if standing:
        raise Conflict(
            "a hold stands on these calls",
            subject=f"endpoint {standing[0].endpoint}",
            found=f"{standing[0].id}: {standing[0].why}",
            next_step=f"Release it first, if that is right: instar audit release {standing[0].id}",
        )
    asked = Erasure(
        new_id("eras"), project, endpoint, {k: v for k, v in vars(selector).items() if v is not None}, why,
        store.actor.name, store.clock.wall(), ASKED, None, 0,
    )  # fmt: skip
    # The journal stays for ever, so it never hears the value.
    facts = {"endpoint": endpoint, "by": selector.by, "column": selector.column, "why": why}

    def work(tx: Transaction) -> None:
        tx.execute(erasure.insert().values(**vars(asked)))
        journal.append(tx, store.clock, store.actor, project, "erasure asked", asked.id, facts)

    store.database.write(work, durable=True)
    return asked


def carry_out(store: Store) -> list[Erasure]:
    """Do what was asked, as far as calls are sealed; returns the erasures that are done now."""
    return [get(store, one.id) for one in erasures(store, state=ASKED) if _carry_out(store, one)]


def erasures(store: Store, project: str | None = None, state: str | None = None) -> list[Erasure]:
    """Erasures, oldest first."""
    query = sa.select(erasure).order_by(erasure.c.id)
    if project is not None:
        query = query.where(erasure.c.project == project)
    if state is not None:
        query = query.where(erasure.c.state == state)
    with store.database.read() as tx:
        return [Erasure(**row._mapping) for row in tx.execute(query)]


def get(store: Store, name: str) -> Erasure:
    """One erasure by id.

    Raises:
        NotFound: None has it.
    """
    with store.database.read() as tx:
        row = tx.execute(sa.select(erasure).where(erasure.c.id == name)).one_or_none()
    if row is None:
        raise NotFound("there is no such erasure", subject=name)
    return Erasure(**row._mapping)


def matches(store: Store, selector: Selector, columns: dict[str, pl.DataType]) -> pl.Expr | None:
    """Which stored rows tell of whom a selector names; null where these columns cannot."""
    if selector.by in (ENTITY, KEY):
        return pl.col(selector.by) == selector.value
    stored, dtype = layout.fields_of(columns.get("inputs")).get(selector.column or "", ("", None))
    if dtype is None:
        return None
    value = pl.col("inputs").struct.field(stored)
    known = [selector.value, *masked(store, selector.column or "", selector.value)]
    if isinstance(dtype, pl.Struct):
        return _tensor_matches(value.struct.field("data"), layout.fields_of(dtype)["data"][1], known)
    if dtype == pl.String:
        return value.is_in(known)
    asked = _number(selector.value, dtype)
    return value == asked if asked is not None else None


def _tensor_matches(data: pl.Expr, dtype: Any, known: list[str]) -> pl.Expr | None:
    """A tensor tells of somebody where one of its texts is theirs, or its one number; in a vector a number means nothing."""
    if dtype.inner == pl.String:
        return data.list.eval(pl.element().is_in(known)).list.any().fill_null(False)
    asked = _number(known[0], dtype.inner)
    return (data.list.len() == 1) & (data.list.first() == asked) if asked is not None else None


def _number(text: str, dtype: Any) -> pl.Expr | None:
    asked = pl.Series([text]).cast(dtype, strict=False)[0]
    return None if asked is None else pl.lit(asked, dtype=dtype)


def masked(store: Store, column: str, value: str) -> list[str]:
    """A personal text as the record has it; none where the store has no key yet."""
    path = routes.serve_folder(store.folder) / masking.KEY_FILE
    return masking.keyed_mask(path.read_bytes())(column, [value]) if path.exists() else []


def _carry_out(store: Store, one: Erasure) -> bool:
    selector = Selector(**(one.selector or {}))
    with sealed_table.alone(store):
        for project, endpoint in catalogue.tables(store):
            if project == one.project and one.endpoint in (None, endpoint):
                sealed_table.repair(store, project, endpoint)
                for unit in catalogue.units(store, project=project, endpoint=endpoint):
                    _erase(store, unit, one, selector)
        if _open(store, one):
            return False
        _finish(store, one)
    return True


def _open(store: Store, one: Erasure) -> bool:
    """Is a segment still to be sealed that was begun before the erasure was asked?"""
    folder = calls.calls_folder(store.folder)
    asked = microseconds(one.asked_at)
    names = segments.list_segments(folder, one.endpoint)
    sealed = catalogue.sealed(store, (name.id for name in names))
    return any(name.id not in sealed and segments.begun_at(name.path(folder)) <= asked for name in names)


def _finish(store: Store, one: Erasure) -> None:
    def work(tx: Transaction) -> None:
        place = erasure.c.id == one.id
        tx.execute(sa.update(erasure).where(place).values(state=DONE, done_at=store.clock.wall(), selector=None))
        count = tx.execute(sa.select(erasure.c.predictions).where(place)).scalar_one()
        journal.append(
            tx, store.clock, store.actor, one.project, "erasure done", one.id, {"predictions": count, "why": one.why}
        )

    store.database.write(work, durable=True)


def _erase(store: Store, unit: Unit, one: Erasure, selector: Selector) -> None:
    which = matches(store, selector, rewriting.schema(store, unit))
    if which is None:
        return
    path = catalogue.tables_folder(store.folder, unit.project) / unit.rows_path
    found = pl.scan_parquet(path).filter(which).select("call", "segment").collect()
    if found.is_empty():
        return
    hold = holds.covering(holds.standing(store, unit.project, unit.endpoint), unit.first_at, unit.last_at)
    if hold is not None:
        raise Conflict("a hold was placed before an erasure was done", subject=one.id, found=hold.id)
    rewriting.check(store, unit)
    told = set(found["call"].to_list())
    pruned, columns = _look(store, unit, told, selector)
    made = sealed_table.make_again(
        store,
        unit,
        (_emptied(part, told, pruned, columns, one.id) for part in rewriting.rows_in_order(store, [unit])),
        (_without(frame, told, pruned) for frame in rewriting.frames_in_order(store, [unit])),
        without=PERSON,
    )
    rows = pl.scan_parquet(path).filter(pl.col("call").is_in(sorted(told))).select(pl.len()).collect().item()

    def also(tx: Transaction) -> None:
        tx.execute(sa.update(erasure).where(erasure.c.id == one.id).values(predictions=erasure.c.predictions + rows))

    facts = {"endpoint": unit.endpoint, "calls": len(told), "predictions": rows, "erasure": one.id, "why": one.why}
    entry = ("calls erased", f"{unit.endpoint}/{made.day}", facts)
    sealed_table.change(
        store, unit.project, unit.endpoint, [unit], [made], entry, transaction=f"erase/{one.id}/{unit.id}", also=also
    )


def _look(store: Store, unit: Unit, told: set[str], selector: Selector) -> tuple[set[str], set[str]]:
    """Calls whose frame has to be pruned, and the columns that stand in personal parts."""
    pruned: set[str] = set()
    columns: set[str] = set()
    personal = False
    for frame in rewriting.frames_in_order(store, [unit]):
        if frame.metadata is None:
            continue
        kind = record.kind(frame.metadata)
        if kind == record.SCHEMA:
            entry = record.decode_entry(frame.metadata)
            assert isinstance(entry, record.Schema)
            columns |= {name for name, _, private in entry.columns if private}
            columns |= {name for name, _, _, private in entry.tensors if private}
        elif kind == record.CALL:
            personal = personal or frame.personal is not None
            if record.call_of(frame.metadata) in told:
                entry = record.decode_entry(frame.metadata)
                assert isinstance(entry, record.Call)
                if frame.personal is None or _in_the_open(entry, selector, columns):
                    pruned.add(entry.call)
    return pruned, columns if personal else set()


def _in_the_open(entry: record.Call, selector: Selector, columns: set[str]) -> bool:
    """Does the part that stays tell of the person, too?"""
    named = entry.key is not None or (entry.work is not None and entry.work.entities is not None)
    return named or (selector.by == INPUT and selector.column not in columns)


def _without(frame: Kept, told: set[str], pruned: set[str]) -> Kept:
    if frame.metadata is None or record.kind(frame.metadata) not in (record.CALL, record.LATER):
        return frame
    call = record.call_of(frame.metadata)
    if call in pruned:
        return frame.pruned()
    return frame.without_person() if call in told and record.kind(frame.metadata) == record.CALL else frame


def _emptied(rows: pl.DataFrame, told: set[str], pruned: set[str], columns: set[str], name: str) -> pl.DataFrame:
    """Rows without what tells of the person, each naming the erasure."""
    hit = pl.col("call").is_in(sorted(told))
    parts = [pl.when(hit).then(pl.lit(None)).otherwise(pl.col(one)).alias(one) for one in ("entity", "key")]
    parts.append(pl.when(hit).then(pl.lit(name)).otherwise(pl.col("erased")).alias("erased"))
    # What was pruned has nothing left that could prove the rest of what was asked, and the client's own id may name a person.
    cut = pl.col("call").is_in(sorted(pruned))
    parts.append(pl.when(cut).then(pl.lit(None)).otherwise(pl.col("request_id")).alias("request_id"))
    if "inputs" in rows.columns:
        fields = list(_fields(rows, cut, hit, columns))
        parts.append(pl.struct(fields).alias("inputs"))
    return rows.with_columns(parts)


def _fields(rows: pl.DataFrame, cut: pl.Expr, hit: pl.Expr, columns: set[str]) -> Iterator[pl.Expr]:
    for name, (stored, dtype) in layout.fields_of(rows.schema["inputs"]).items():
        value = pl.col("inputs").struct.field(stored)
        gone = cut | hit if name in columns else cut
        if name in columns and isinstance(dtype, pl.Struct):  # the frame goes on saying which shape it had
            nothing = pl.lit(None, dtype=layout.fields_of(dtype)["data"][1]).alias("data")
            kept = hit & (value.struct.field("data").list.len() > 0)
            value, gone = pl.when(kept).then(value.struct.with_fields(nothing)).otherwise(value), cut
        yield pl.when(gone).then(pl.lit(None)).otherwise(value).alias(stored)
