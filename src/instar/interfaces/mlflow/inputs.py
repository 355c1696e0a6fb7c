"""What a run read, over MLflow's protocol: data sets and models, logged while it trains and shown with it ever after.

A data set of a client is a reference, or, with the source type `instar` and an id `tver_…`, one of our table versions. The
tables that a pipeline's run was fitted on are shown to clients as data sets, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces.mlflow import experiments
from instar.interfaces.mlflow.errors import invalid
from instar.interfaces.mlflow.frame import Call, Message, Operation, required
from instar.interfaces.mlflow.limits import DATASETS_A_BATCH, good_key, good_value
from instar.interfaces.mlflow.messages import (
    DatasetInput,
    DatasetMessage,
    DatasetSummary,
    ModelInput,
    ModelOutput,
    Pair,
    RunInputs,
    RunOutputs,
    SearchDatasets,
)
from instar.interfaces.mlflow.words import pairs
from instar.train import datasets, model_links
from instar.train.datasets import CONTEXT, OURS, Dataset
from instar.train.model_links import MADE, READ
from instar.train.run_pages import HeadRow

if TYPE_CHECKING:
    from instar.data.versions import TableVersion

MOST_EXPERIMENTS = 20
SHOWN_DIGEST = 32  # letters of a table version's digest that clients see: they keep 36
# The longest texts that MLflow takes, in characters.
LONGEST_SOURCE, LONGEST_SCHEMA, LONGEST_PROFILE, LONGEST_TAG = 65_535, 1_048_575, 16_777_215, 500


class Summaries(Message):
    """Answer: data sets of experiments."""

    dataset_summaries: list[DatasetSummary]


def search(call: Call, asked: SearchDatasets) -> Summaries:
    """Which data sets the runs of experiments read."""
    if not asked.experiment_ids:
        raise invalid("SearchDatasets request must specify at least one experiment_id.")
    if len(asked.experiment_ids) > MOST_EXPERIMENTS:
        raise invalid(
            f"SearchDatasets request cannot specify more than {MOST_EXPERIMENTS} experiment_ids. "
            f"Received {len(asked.experiment_ids)} experiment_ids."
        )
    known = [
        experiments.of_project(call.store, call.project, id).id for id in experiments.ids(call, asked.experiment_ids)
    ]
    found = datasets.search_datasets(call.store, known)
    return Summaries([DatasetSummary(one.experiment_id, one.name, one.digest, one.context) for one in found])


def read(call: Call, inputs: Sequence[DatasetInput]) -> list[tuple[Dataset, dict[str, str]]]:
    """Data sets of a message, with the tags of their use, as they are kept.

    Raises:
        Refusal: One is not named, or a text is too long.
    """
    if len(inputs) > DATASETS_A_BATCH:
        raise invalid(f"A request can contain at most {DATASETS_A_BATCH} datasets. Got {len(inputs)}.")
    found = []
    for place, one in enumerate(inputs):
        path = f"datasets[{place}].dataset"
        about = one.dataset or DatasetMessage()
        made = datasets.dataset(
            call.project,
            good_value(required(about.name, f"{path}.name"), f"{path}.name", datasets.LONGEST_NAME),
            good_value(required(about.digest, f"{path}.digest"), f"{path}.digest", datasets.LONGEST_DIGEST),
            good_value(required(about.source_type, f"{path}.source_type"), f"{path}.source_type", 100),
            good_value(required(about.source, f"{path}.source"), f"{path}.source", LONGEST_SOURCE),
            good_value(about.schema, f"{path}.schema", LONGEST_SCHEMA) or None,
            good_value(about.profile, f"{path}.profile", LONGEST_PROFILE) or None,
        )
        tags = {
            good_key(required(tag.key, "key")): good_value(tag.value, "value", LONGEST_TAG) for tag in one.tags or ()
        }
        found.append((made, tags))
    return found


def inputs_of(store: Store, runs: Sequence[HeadRow]) -> dict[int, RunInputs]:
    """What runs read, by the run's key; a run that read nothing is left out."""
    with store.database.read() as tx:
        logged = datasets.inputs_by_run(tx, [head[0] for head in runs])
        models = model_links.models_of(tx, [head[1] for head in runs], READ)
    fitted = {head[0]: json.loads(head[-1]) for head in runs if head[-1] != "[]"}
    known = _tables(store, {id for ids in fitted.values() for id in ids})
    found: dict[int, RunInputs] = {}
    for key, run, *_ in runs:
        own = logged.get(key, ())
        said = {one.dataset.source for one in own if one.dataset.source_type == OURS}
        shown = [_table(known[id]) for id in fitted.get(key, ()) if id in known and id not in said]
        shown += [DatasetInput(pairs(one.tags), _dataset(one.dataset)) for one in own]
        fed = [ModelInput(model) for model, _ in models.get(run, ())]
        if shown or fed:
            found[key] = RunInputs(shown, fed)
    return found


def outputs_of(store: Store, runs: Sequence[HeadRow]) -> dict[str, RunOutputs]:
    """The models that runs made, by the run's id; a run that made none is left out."""
    with store.database.read() as tx:
        models = model_links.models_of(tx, [head[1] for head in runs], MADE)
    return {run: RunOutputs([ModelOutput(model, step) for model, step in made]) for run, made in models.items()}


def _dataset(found: Dataset) -> DatasetMessage:
    return DatasetMessage(found.name, found.digest, found.source_type, found.source, found.schema, found.profile)


def _tables(store: Store, ids: set[str]) -> dict[str, TableVersion]:
    if not ids:
        return {}
    from instar.data import versions  # loads Polars, which a server of clients alone can do without

    return {one.id: one for one in versions.of_ids(store, sorted(ids))}


def _table(version: TableVersion) -> DatasetInput:
    digest = version.content.removeprefix("b3:")[:SHOWN_DIGEST]
    profile = json.dumps({"num_rows": version.rows})
    return DatasetInput(
        [Pair(CONTEXT, "training")], DatasetMessage(version.ref, digest, OURS, version.id, profile=profile)
    )


operations = [
    Operation("POST", "experiments/search-datasets", Permission.READ, search, SearchDatasets),
]
