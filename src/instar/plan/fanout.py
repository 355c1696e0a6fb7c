"""Steps that run once for each partition of their inputs: which partitions there are, and what each one's key is made of.

    @silver(by="month")
    def clean_flights(flights: pl.LazyFrame, airports: pl.DataFrame): ...   # flights = source("flights", by="month")

A partition's key has the content of that partition in place of the whole input's, so a new month runs one month. Inputs
that are not declared `by` the same are whole, and a change of theirs runs all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from instar.core.ids import digest_of
from instar.plan.keys import Ingredients
from instar.plan.kinds import Partitions, StepKind
from instar.plan.pipeline import Pipeline, Step
from instar.plan.project import Project

NOTHING = digest_of(None)  # content of a partition that an input does not have


def partitions(
    project: Project, pipeline: Pipeline, kinds: Mapping[str, StepKind], step: Step
) -> dict[str, dict[str, str]]:
    """The partitions of a step: for each, the content of that partition of each input that is cut, by the input's name."""
    cut = [item.name for item in step.inputs if pipeline.is_cut(step, item.name)]
    of_inputs: dict[str, Mapping[str, str]] = {}
    for name in cut:
        kind = kinds[pipeline.steps[name].kind]
        assert isinstance(kind, Partitions)
        of_inputs[name] = kind.partitions(project, name)
    names = sorted({partition for found in of_inputs.values() for partition in found})
    return {
        partition: {name: found.get(partition, NOTHING) for name, found in of_inputs.items()} for partition in names
    }


def of_partition(whole: Ingredients, partition: str, contents: Mapping[str, str]) -> Ingredients:
    """What the key of one partition is made of."""
    options = {**whole.options, "partition": partition}
    return replace(whole, inputs={**whole.inputs, **contents}, options=options, partitions={})


def named(contents: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Digest of each partition's contents, as kept with the step's execution: `why` names those that differ."""
    return {
        partition: next(iter(of.values())) if len(of) == 1 else digest_of(dict(of))
        for partition, of in contents.items()
    }
