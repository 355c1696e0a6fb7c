"""Putting many small units of a day together into few large ones, after sealing, so that a log of years is not a log of files.

What is merged stands in the journal: which files went and which came, with their digests. Roots are over frames, and frames stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from instar.core.errors import Damaged
from instar.core.ids import new_id
from instar.core.store import Store
from instar.serve.log import catalogue, rewriting, sealed_table
from instar.serve.log.catalogue import Unit

SMALL = 250_000  # predictions; a larger unit is left as it is
LARGEST = 1_000_000  # predictions of a merged unit
MANY = 32  # small units of a day that is not over yet


def merge(
    store: Store, *, many: int = MANY, damaged: Callable[[Unit, str], None] = lambda unit, reason: None
) -> list[Unit]:
    """Merge what is worth it: many small units of one day, or the last ones of a day that is over.

    Args:
        many: Small units of a day that is not over, from which on they are merged.
        damaged: Told of a unit whose files are not as they were sealed: it is left as it is.

    Returns:
        The units that were made.
    """
    made = []
    for project, endpoint in catalogue.tables(store):
        with sealed_table.alone(store):
            for day, group in _groups(store, project, endpoint, many, damaged):
                sealed_table.repair(store, project, endpoint)
                made.append(_merge(store, project, endpoint, day, group))
    return made


def _groups(
    store: Store, project: str, endpoint: str, many: int, damaged: Callable[[Unit, str], None]
) -> Iterator[tuple[str, list[Unit]]]:
    today = store.clock.wall().date().isoformat()
    by_day: dict[tuple[str, str], list[Unit]] = {}
    for one in catalogue.units(store, project=project, endpoint=endpoint):
        if one.predictions < SMALL:
            by_day.setdefault((one.day, one.lost), []).append(one)
    for (day, _), found in sorted(by_day.items()):
        least = 2 if day < today else many
        if len(found) < least:
            continue
        alike: dict[str, list[Unit]] = {}
        for one in found:
            if _there(store, one):
                alike.setdefault(repr(rewriting.schema(store, one)), []).append(one)
        for group in alike.values():
            if len(group) >= least:
                for part in _not_too_large([one for one in group if _whole(store, one, damaged)]):
                    yield day, part


def _there(store: Store, one: Unit) -> bool:
    return (catalogue.tables_folder(store.folder, one.project) / one.rows_path).exists()


def _whole(store: Store, one: Unit, damaged: Callable[[Unit, str], None]) -> bool:
    try:
        rewriting.check(store, one)
    except Damaged as problem:
        damaged(one, str(problem))
        return False
    return True


def _not_too_large(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    group: list[Unit] = []
    for one in units:
        if group and sum(other.predictions for other in group) + one.predictions > LARGEST:
            if len(group) > 1:
                yield group
            group = []
        group.append(one)
    if len(group) > 1:
        yield group


def _merge(store: Store, project: str, endpoint: str, day: str, group: Sequence[Unit]) -> Unit:
    names = [name for one in group for name in one.segments]
    made = sealed_table.make_unit(
        store,
        project,
        endpoint,
        day,
        new_id("part"),
        rewriting.rows_in_order(store, group),
        rewriting.frames_in_order(store, group),
        names,
        lost=group[0].lost,
    )
    if made.predictions != sum(one.predictions for one in group):
        raise Damaged("merging lost rows", subject=f"{endpoint}, {day}", found=made.predictions)
    facts = {"endpoint": endpoint, "day": day, "segments": len(names), "predictions": made.predictions}
    sealed_table.change(
        store,
        project,
        endpoint,
        group,
        [made],
        ("calls merged", f"{endpoint}/{day}", facts),
        transaction=f"merge/{made.id}",
    )
    return made
