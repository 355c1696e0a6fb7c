"""What is put on the record of a step's run before its function is called: the records that it reads, and its conditions.

Every input is named by the very record that it was read from, so that it can be read again when newer ones are there.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from instar.core.blobs import Blobs
from instar.core.store import Store
from instar.data import content, tables
from instar.plan.keys import Keys, digest_of_file
from instar.plan.pipeline import Pipeline, Step
from instar.plan.project import Project
from instar.train import conditions
from instar.train.conditions import Conditions
from instar.train.fitting import seed_of

LARGEST_DECLARED = 50_000_000  # bytes; a declared file beyond it is known by its digest only


def sources_of(store: Store, project: Project, step: Step) -> dict[str, str]:
    """Id of the table version that each input of `step` is read from now."""
    found: dict[str, str] = {}
    for item in step.inputs:
        version = tables.latest(store, project.name, item.name)
        if version is not None:
            found[item.name] = version.id
    return found


def of_step(
    store: Store,
    project: Project,
    pipeline: Pipeline,
    step: Step,
    inputs: Mapping[str, str],
    given: pl.DataFrame,
    *,
    way: str,
) -> Conditions:
    """The conditions of a run of `step`; its declared files are kept.

    Args:
        inputs: Table version by the input's name.
        given: The rows that its function is given.
        way: `"trial"` or `"refit"`.
    """
    return conditions.capture(
        way=way,
        seed=seed_of(step),
        contract=project.revision,
        inputs=inputs,
        rows=content.of_rows(given),
        variables=step.options.get("variables", ()),
        public=project.contract.project.public_variables,
        files=of_files(project, pipeline, step, store.blobs),
        root=project.root,
    )


def of_files(project: Project, pipeline: Pipeline, step: Step, blobs: Blobs | None = None) -> dict[str, str]:
    """Content digest of each file that the step declares, by its path in the project; they are kept in `blobs`."""
    found = {}
    for file in Keys(project, pipeline).files(step):
        keep = blobs is not None and file.stat().st_size <= LARGEST_DECLARED
        name = file.relative_to(project.root).as_posix()
        found[name] = blobs.put_file(file) if keep and blobs is not None else digest_of_file(file)
    return found
