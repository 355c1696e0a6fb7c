"""Names of versions: movable aliases that people set, and the two that follow from what an endpoint answers with.

On a model that an endpoint serves, `champion` and `challenger` are no aliases: they follow from the endpoint's policy, so
whoever sets or resolves such a name hands in how (`derived`). On a model without an endpoint they are names like any other.

    set_alias(store, "flights", "delay", "stable", 3)
"""

from __future__ import annotations

import re
from collections.abc import Callable

import sqlalchemy as sa

from instar.core import journal
from instar.core.database import Transaction
from instar.core.errors import BadInput, NotAllowed, NotFound
from instar.core.identity import Permission, require
from instar.core.store import Store
from instar.release import webhooks
from instar.release.version_records import alias_table, first, of_model, version_table

# Names that follow from the policy of the model's endpoint.
DERIVED = ("champion", "challenger")
# What `Derive` says of a model that no endpoint serves: the name is an alias like any other.
FREE = 0
# From a model and a derived name to a version's number: None when nothing has that name now, `FREE` without an endpoint.
Derive = Callable[[str, str], int | None]

_ALIAS = re.compile(r"[\w-]{1,100}\Z")
_RESERVED = re.compile(r"\d+\Z|[vV]\d+\Z|latest\Z|mver_", re.IGNORECASE)


def set_alias(
    store: Store, project: str, model: str, alias: str, number: int | None, derived: Derive | None = None
) -> None:
    """Point a name at a version, or take the name away with None.

    Args:
        derived: Says whether an endpoint serves the model; without it `champion` and `challenger` are refused.

    Raises:
        NotAllowed: The name follows from an endpoint's policy.
        BadInput: The name cannot be told from a number or an id.
        NotFound: There is no such version.
    """
    require(store.actor, Permission.RELEASE)
    if alias in DERIVED and (derived is None or derived(model, alias) != FREE):
        raise NotAllowed(
            f"{alias} follows from what the endpoint answers with, and cannot be set",
            subject=f"{model}@{alias}",
            next_step=f"Use `instar promote {model}@{number or 'N'}` or `instar rollback {model}`.",
        )
    if not _ALIAS.match(alias) or _RESERVED.match(alias):
        raise BadInput(
            "that cannot be an alias", found=repr(alias[:120]),
            asked="letters, digits, - or _, and nothing like a number, v1, latest or an id",
        )  # fmt: skip

    def work(tx: Transaction) -> None:
        here = (alias_table.c.project == project, alias_table.c.model == model, alias_table.c.alias == alias)
        before = tx.execute(sa.select(alias_table.c.number).where(*here)).scalar()
        if before == number:
            return
        tx.execute(alias_table.delete().where(*here))
        told: dict[str, str] = {"name": model, "alias": alias}
        if number is not None:
            if first(tx, of_model(project, model).where(version_table.c.number == number)) is None:
                raise NotFound("there is no such model version", subject=f"{model}@{number}")
            tx.execute(alias_table.insert().values(project=project, model=model, alias=alias, number=number))
            told |= {"version": str(number)}
        event = "model_version_alias.created" if number is not None else "model_version_alias.deleted"
        webhooks.announce(tx, store, project, event, told)
        body = {"alias": alias, "number": number, "before": before}
        journal.append(tx, store.clock, store.actor, project, "model alias", f"{model}@{alias}", body)

    store.database.write(work, durable=True)


def aliases(store: Store, project: str, model: str) -> dict[str, int]:
    """The names set for a model, with the numbers that they point at."""
    with store.database.read() as tx:
        return of_models(tx, project, [model]).get(model, {})


def of_models(tx: Transaction, project: str, models: list[str]) -> dict[str, dict[str, int]]:
    """The names set, by model, in one query however many there are."""
    query = sa.select(alias_table).where(alias_table.c.project == project, alias_table.c.model.in_(models))
    found: dict[str, dict[str, int]] = {}
    for row in tx.execute(query.order_by(alias_table.c.alias)):
        found.setdefault(row.model, {})[row.alias] = row.number
    return found


def drop(tx: Transaction, project: str, model: str, number: int) -> None:
    """Take all names from a version, inside the transaction that deletes it."""
    mine = (alias_table.c.project == project, alias_table.c.model == model, alias_table.c.number == number)
    tx.execute(alias_table.delete().where(*mine))


def number_of(tx: Transaction, project: str, model: str, alias: str, derived: Derive | None) -> int | None:
    """The number that a name stands for; None when nothing has it."""
    if alias in DERIVED:
        number = derived(model, alias) if derived is not None else None
        if number != FREE:
            return number
    here = (alias_table.c.project == project, alias_table.c.model == model, alias_table.c.alias == alias)
    return tx.execute(sa.select(alias_table.c.number).where(*here)).scalar()
