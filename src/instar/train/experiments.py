"""Experiments: named groups of runs, made before the first run of a question and kept as long as its answer.

    found = ensure(store, "flights", "team/delay/trees")          # the active one of that name, made when there is none
    move(store, found.id, "rail", "delay/trees")                  # ids stay, and the runs go with it
    delete(store, found.id); restore(store, found.id)             # with the runs that it took along

A name may be a path (`team/project/experiment`). It is taken by one active experiment of a project at a time: what is
deleted gives its name back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from instar.core import ids, journal
from instar.core.database import Transaction, fetch, moment
from instar.core.errors import BadInput, Conflict, NotFound
from instar.core.notes import note_table
from instar.core.store import Store
from instar.train.logged_models import logged_model_table
from instar.train.run_values import check_key, check_text, check_value
from instar.train.tracking_tables import ACTIVE, DELETED, experiment_table, experiment_tag_table, run_table

LONGEST_NAME = 500  # characters, as MLflow has it
LONGEST_PROJECT = 200
_ID = re.compile(r"exp_[0-9A-HJKMNP-TV-Z]{26}\Z")


@dataclass(frozen=True)
class Experiment:
    """One experiment on the record.

    Attributes:
        state: `"active"` or `"deleted"`.
        updated: When its name, place, state or tags last changed.
    """

    id: str
    project: str
    name: str
    state: str
    created: datetime
    updated: datetime
    tags: Mapping[str, str] = field(default_factory=dict)


def create(store: Store, project: str, name: str, tags: Mapping[str, str] | None = None) -> Experiment:
    """Make an experiment.

    Raises:
        BadInput: Its name or a tag cannot be kept.
        Conflict: An active one of the project has that name.
    """
    check_name(name)
    marks = _checked(tags or {})

    def work(tx: Transaction) -> Experiment:
        _refuse_taken(tx, project, name)
        made = _insert(tx, store, project, name)
        if marks:
            rows = [{"experiment": made.id, "name": key, "value": value} for key, value in marks.items()]
            tx.execute(experiment_tag_table.insert(), rows)
        _journal(tx, store, made, "experiment created", {"name": name})
        return with_tags(tx, [made])[0]

    return store.database.write(work, durable=True)


def ensure(store: Store, project: str, name: str) -> Experiment:
    """The active experiment of that name; made when there is none."""
    found = by_name(store, project, name)
    if found is not None and found.state == ACTIVE:
        return found
    check_name(name)
    return store.database.write(lambda tx: ensure_in(tx, store, project, name))


def ensure_in(tx: Transaction, store: Store, project: str, name: str) -> Experiment:
    """`ensure` within a transaction that does more; `name` is checked already."""
    found = _active(tx, project, name)
    return found or _insert(tx, store, project, name)


def get(store: Store, id: str) -> Experiment:
    """The experiment of that id.

    Raises:
        NotFound: There is none.
    """
    with store.database.read() as tx:
        return with_tags(tx, [require_experiment(tx, id)])[0]


def by_name(store: Store, project: str, name: str) -> Experiment | None:
    """The active experiment of that name, else the one deleted last, else None."""
    at = experiment_table.c
    query = sa.select(experiment_table).where(at.project == project, at.name == name)
    with store.database.read() as tx:
        found = tx.execute(query.order_by((at.state == ACTIVE).desc(), at.updated.desc(), at.id.desc())).first()
        return with_tags(tx, [Experiment(**found._mapping)])[0] if found is not None and "\0" not in name else None


def rename(store: Store, id: str, name: str) -> Experiment:
    """Give an experiment another name; its id stays.

    Raises:
        NotFound: There is no such experiment.
        Conflict: It is deleted, or the name is taken.
    """
    return _place(store, id, None, name, "experiment renamed")


def move(store: Store, id: str, project: str, name: str) -> Experiment:
    """Put an experiment into another place, with its runs, the models logged to it, and what people noted; ids stay.

    Raises:
        BadInput: That cannot be the name of a project, or of an experiment.
        NotFound: There is no such experiment.
        Conflict: It is deleted, or the name is taken there.
    """
    check_text(project, "the name of a project", repr(project))
    if not project.strip() or len(project) > LONGEST_PROJECT or "/" in project:
        raise BadInput(
            "that cannot be a project", found=repr(project[:80]), asked=f"1 to {LONGEST_PROJECT} characters without /"
        )
    return _place(store, id, project, name, "experiment moved")


def delete(store: Store, id: str) -> Experiment:
    """Hide an experiment and its runs; deleting it again changes nothing.

    Raises:
        NotFound: There is no such experiment.
    """

    def work(tx: Transaction) -> Experiment:
        found = require_experiment(tx, id)
        if found.state == DELETED:
            return with_tags(tx, [found])[0]
        now = store.clock.wall()
        runs = run_table.update().where(run_table.c.experiment_id == id, run_table.c.lifecycle == ACTIVE)
        taken = tx.execute(runs.values(lifecycle=DELETED, deleted_at=now, deleted_with=id)).rowcount
        changed = _update(tx, id, state=DELETED, updated=now)
        _journal(tx, store, changed, "experiment deleted", {"name": found.name, "runs": taken})
        return changed

    return store.database.write(work, durable=True)


def restore(store: Store, id: str) -> Experiment:
    """Bring an experiment back, with the runs that its deletion took along; those deleted before stay so.

    Raises:
        NotFound: There is no such experiment.
        Conflict: Another one has its name by now.
    """

    def work(tx: Transaction) -> Experiment:
        found = require_experiment(tx, id)
        if found.state == ACTIVE:
            return with_tags(tx, [found])[0]
        _refuse_taken(tx, found.project, found.name)
        runs = run_table.update().where(run_table.c.experiment_id == id, run_table.c.deleted_with == id)
        back = tx.execute(runs.values(lifecycle=ACTIVE, deleted_at=None, deleted_with=None)).rowcount
        changed = _update(tx, id, state=ACTIVE, updated=store.clock.wall())
        _journal(tx, store, changed, "experiment restored", {"name": found.name, "runs": back})
        return changed

    return store.database.write(work, durable=True)


def set_tag(store: Store, id: str, key: str, value: str) -> None:
    """Add a tag, or change it.

    Raises:
        NotFound: There is no such experiment.
        Conflict: It is deleted.
    """
    _checked({key: value})

    def work(tx: Transaction) -> None:
        _require_active(tx, id)
        at = experiment_tag_table.c
        same = (at.experiment == id) & (at.name == key)
        if tx.execute(experiment_tag_table.update().where(same).values(value=value)).rowcount == 0:
            tx.execute(experiment_tag_table.insert().values(experiment=id, name=key, value=value))
        _update(tx, id, updated=store.clock.wall())

    store.database.write(work)


def delete_tag(store: Store, id: str, key: str) -> None:
    """Take a tag away.

    Raises:
        NotFound: There is no such experiment, or it has no such tag.
        Conflict: It is deleted.
    """

    def work(tx: Transaction) -> None:
        _require_active(tx, id)
        at = experiment_tag_table.c
        if tx.execute(experiment_tag_table.delete().where(at.experiment == id, at.name == key)).rowcount == 0:
            raise NotFound("the experiment has no such tag", subject=f"experiment {id}", found=key)
        _update(tx, id, updated=store.clock.wall())

    check_key(key, "tag")
    store.database.write(work)


def document(experiment: Experiment) -> dict[str, Any]:
    """An experiment as JSON: times in ISO 8601."""
    return {
        "id": experiment.id,
        "project": experiment.project,
        "name": experiment.name,
        "state": experiment.state,
        "created": experiment.created.isoformat(),
        "updated": experiment.updated.isoformat(),
        "tags": dict(experiment.tags),
    }


def is_id(text: str) -> bool:
    """Whether a text is an experiment's id, and not a name such as `exp_baseline`."""
    return _ID.match(text) is not None


def check_name(name: str) -> None:
    """Refuse a name that no experiment can have.

    Raises:
        BadInput: It is empty or too long, reads as an id, or cannot be kept.
    """
    if not isinstance(name, str) or not name.strip() or is_id(name):
        raise BadInput("an experiment needs a name", found=repr(name), asked="such as team/delay/trees")
    if len(name) > LONGEST_NAME:
        raise BadInput(
            "the name of an experiment is too long", found=f"{len(name)} characters", asked=f"at most {LONGEST_NAME}"
        )
    check_text(name, "the name of an experiment", repr(name))


def require_experiment(tx: Transaction, id: str) -> Experiment:
    """The experiment of that id, without its tags.

    Raises:
        NotFound: There is none.
    """
    query = "SELECT id, project, name, state, created, updated FROM experiment WHERE id = ?"
    found = fetch(tx, query, (id,)) if "\0" not in id else []
    if not found:
        raise NotFound(
            "there is no such experiment", subject=f"experiment {id}", next_step="List them with: instar experiments ls"
        )
    id, project, name, state, created, updated = found[0]
    return Experiment(id, project, name, state, moment(created), moment(updated))


def with_tags(tx: Transaction, found: list[Experiment]) -> list[Experiment]:
    """The experiments with their tags, in one query however many they are."""
    tags: dict[str, dict[str, str]] = {}
    at = experiment_tag_table.c
    query = sa.select(experiment_tag_table).where(at.experiment.in_([one.id for one in found]))
    for row in tx.execute(query.order_by(at.name)) if found else ():
        tags.setdefault(row.experiment, {})[row.name] = row.value
    return [Experiment(**{**vars(one), "tags": tags.get(one.id, {})}) for one in found]


def _place(store: Store, id: str, project: str | None, name: str, kind: str) -> Experiment:
    check_name(name)

    def work(tx: Transaction) -> Experiment:
        found = _require_active(tx, id)
        where = project or found.project
        if (found.project, found.name) == (where, name):
            return with_tags(tx, [found])[0]
        _refuse_taken(tx, where, name)
        changed = _update(tx, id, project=where, name=name, updated=store.clock.wall())
        if where != found.project:
            _take_along(tx, id, where)
            _journal(tx, store, found, kind, {"name": found.name, "to": f"{where}/{name}"})
        _journal(tx, store, changed, kind, {"name": name, "from": f"{found.project}/{found.name}"})
        return changed

    return store.database.write(work, durable=True)


def _take_along(tx: Transaction, id: str, project: str) -> None:
    """Move what belongs to an experiment to its new project."""
    runs = sa.select(run_table.c.id).where(run_table.c.experiment_id == id)
    models = sa.select(logged_model_table.c.id).where(logged_model_table.c.experiment == id)
    noted = note_table.c.subject
    told = (noted == id) | noted.in_(runs) | noted.in_(models)
    tx.execute(note_table.update().where(told).values(project=project))
    tx.execute(logged_model_table.update().where(logged_model_table.c.experiment == id).values(project=project))
    tx.execute(run_table.update().where(run_table.c.experiment_id == id).values(project=project))


def _active(tx: Transaction, project: str, name: str) -> Experiment | None:
    # At the start of every run: asked of the driver, which takes a tenth of the time.
    query = "SELECT id, created, updated FROM experiment WHERE project = ? AND name = ? AND state = 'active'"
    found = fetch(tx, query, (project, name))
    return Experiment(found[0][0], project, name, ACTIVE, moment(found[0][1]), moment(found[0][2])) if found else None


def _refuse_taken(tx: Transaction, project: str, name: str) -> None:
    taken = _active(tx, project, name)
    if taken is not None:
        raise Conflict(
            "an active experiment has that name", subject=f"experiment {name}", found=taken.id,
            next_step="Choose another name, or delete or rename the other one.",
        )  # fmt: skip


def _require_active(tx: Transaction, id: str) -> Experiment:
    found = require_experiment(tx, id)
    if found.state != ACTIVE:
        raise Conflict(
            "the experiment is deleted", subject=f"experiment {id}", found=found.state, asked=ACTIVE,
            next_step="Restore it first.",
        )  # fmt: skip
    return found


def _insert(tx: Transaction, store: Store, project: str, name: str) -> Experiment:
    now = store.clock.wall()
    made = Experiment(ids.new_id("exp"), project, name, ACTIVE, now, now)
    tx.execute(
        experiment_table.insert().values({column.name: getattr(made, column.name) for column in experiment_table.c})
    )
    return made


def _update(tx: Transaction, id: str, **values: Any) -> Experiment:
    tx.execute(experiment_table.update().where(experiment_table.c.id == id).values(values))
    return with_tags(tx, [require_experiment(tx, id)])[0]


def _journal(tx: Transaction, store: Store, experiment: Experiment, kind: str, body: dict[str, Any]) -> None:
    journal.append(tx, store.clock, store.actor, experiment.project, kind, experiment.id, body)


def _checked(tags: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in tags.items():
        check_key(key, "tag")
        check_value(value, "tag", key)
    return tags
