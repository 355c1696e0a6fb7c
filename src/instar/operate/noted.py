"""What a note is about: from the name that a person writes to the subject under which notes are kept, at any moment.

subject_of(store, "flights", "delay@3")          # mver_…
subject_of(store, "flights", "delay")            # model delay
"""

from __future__ import annotations

from instar.core.errors import NotFound
from instar.core.store import Store
from instar.data import versions
from instar.operate import trace
from instar.release import registry
from instar.train import experiments, logged_models, runs


def subject_of(store: Store, project: str, name: str) -> str:
    """The subject of a note: a record's id, or `table NAME`, `model NAME` for the whole of one.

    Args:
        name: An id (of a run the beginning is enough), `table@3`, `model@2`, or the name of a table or a model.

    Raises:
        NotFound: Nothing in the project has that name.
    """
    if name.startswith("run_"):
        run = runs.get_run(store, name)
        if run.project != project:  # do not tell a reader of one project of another's runs
            raise NotFound("there is no such run", subject=f"run {name}")
        return run.id
    if experiments.is_id(name):
        experiment = experiments.get(store, name)
        if experiment.project != project:
            raise NotFound("there is no such experiment", subject=f"experiment {name}")
        return experiment.id
    if name.startswith("m-"):
        return logged_models.get(store, name, project=project).id
    for kind, known in (
        ("table", {one.table for one in versions.tables(store, project)}),
        ("model", {one.model for one in registry.versions(store, project)}),
    ):
        if name.removeprefix(f"{kind} ") in known:
            return f"{kind} {name.removeprefix(f'{kind} ')}"
    return trace.resolve(store, project, name)
