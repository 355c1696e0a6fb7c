"""Tables as outputs of steps: how the pipeline's runner finds, reads, makes and keeps the output of source, silver and gold.

Inputs are read pinned, at the version that was newest when the step began, in the form that the step declares. What a
step gives back is split into clean rows and quarantine, checked, profiled and written as one version born of the
execution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from instar.core.errors import BadInput, Damaged, EmptySource, NotFound
from instar.core.store import Store
from instar.data import checks as checking
from instar.data import forms, ingest, tables
from instar.data import parts as parts_of
from instar.data.checks import Check
from instar.data.features import as_frame, serving_rows
from instar.data.ingest import Delivery
from instar.data.tables import TableVersion
from instar.data.versions import File
from instar.plan.executions import Execution
from instar.plan.kinds import Stored
from instar.plan.pipeline import Input, Pipeline, Step
from instar.plan.project import Project

QUARANTINE_SUFFIX = "__quarantine"


class TableKind:
    """The kind of steps whose output is a table; remembers which versions each step of a walk has read."""

    def __init__(self, store: Store, project: Project, pipeline: Pipeline) -> None:
        self._store = store
        self._pipeline = pipeline
        self._read: dict[str, dict[str, TableVersion]] = {}

    def digest(self, project: Project, name: str) -> str | None:
        """Content digest of the newest version; None when there is none."""
        version = tables.latest(self._store, project.name, name)
        return version.content if version else None

    def digests(self, project: Project, names: Iterable[str]) -> Mapping[str, str]:
        """Content digests of the newest versions of many tables."""
        return tables.digests(self._store, project.name, names)

    def load(self, project: Project, input: Input, consumer: Step) -> object:
        """The newest version, pinned, in the form that the consumer declares.

        Raises:
            NotFound: Nothing was written yet.
        """
        version = _newest(self._store, project.name, input.name)
        self._read.setdefault(consumer.name, {})[input.name] = version
        return forms.convert(tables.scan(self._store, version), input.form)

    def run(
        self,
        project: Project,
        execution: Execution,
        step: Step,
        inputs: Mapping[str, object],
        parameters: Mapping[str, object],
    ) -> object:
        """Call the step's function and make its rows; for a source, take in its files."""
        if step.kind == "source":
            found = inputs.get("files", ())
            assert isinstance(found, Sequence)
            return [_delivery(path) for path in found]
        assert step.function is not None
        return as_frame(step.function(**inputs, **parameters))

    def store(self, project: Project, execution: Execution, step: Step, output: object) -> Stored:
        """Write clean rows as the step's next version, and bad ones with their reasons into its quarantine."""
        if step.kind == "source":
            return _stored(self._land(project.name, execution, step, output))
        assert isinstance(output, pl.DataFrame)
        clean, bad = checking.split_quarantine(output)
        born = _born(execution, list(self._read.pop(step.name, {}).values()))
        order = row_order(step)
        key = [name for name in step.options.get("key") or () if name in clean.columns]
        checks = [*key_checks(step), *declared_checks(self._pipeline, step.name)]
        version = tables.write_version(
            self._store, project.name, step.name, step.kind, clean, key=key, order=order, checks=checks, **born
        )
        if bad is not None:
            name = step.name + QUARANTINE_SUFFIX
            tables.write_version(self._store, project.name, name, "quarantine", bad, order=order, **born)
        return _stored(version)

    def partitions(self, project: Project, name: str) -> Mapping[str, str]:
        """Content of each partition of the newest version."""
        version = tables.latest(self._store, project.name, name)
        return parts_of.contents(self._store, version) if version else {}

    def load_part(self, project: Project, input: Input, consumer: Step, partition: str) -> object:
        """One partition of the newest version, pinned, in the form that the consumer declares."""
        version = _newest(self._store, project.name, input.name)
        return forms.convert(parts_of.scan_part(self._store, version, partition), input.form)

    def store_part(self, project: Project, execution: Execution, step: Step, output: object) -> Stored:
        """Keep the rows that the function made of one partition, bad ones with their reasons among them."""
        assert isinstance(output, pl.DataFrame)
        return Stored(*parts_of.keep(self._store, output, row_order(step), step.name))

    def has_part(self, project: Project, step: Step, partition: str, part: Stored) -> bool:
        """Is the part in the table, or still kept?"""
        if self._store.blobs.has(part.ref):
            return True
        file = parts_of.held(self._store, project.name, step.name).get(partition)
        return file is not None and file.content == part.digest

    def join(self, project: Project, execution: Execution, step: Step, parts: Mapping[str, Stored]) -> Stored:
        """Write the parts as one version, and their bad rows, by partition too, as one of the quarantine."""
        name, aside = step.name, step.name + QUARANTINE_SUFFIX
        held, held_aside = (parts_of.held(self._store, project.name, table) for table in (name, aside))
        clean: dict[str, pl.DataFrame | File] = {}
        bad: dict[str, pl.DataFrame | File] = {}
        for partition, part in parts.items():
            file = held.get(partition)
            if file is not None and file.content == part.digest:
                clean[partition] = file
                bad |= {partition: held_aside[partition]} if partition in held_aside else {}
                continue
            good, refused = checking.split_quarantine(parts_of.read(self._store, part.ref))
            clean[partition] = good
            bad |= {partition: refused} if refused is not None else {}
        read = [tables.of_content(self._store, project.name, item, digest) for item, digest in execution.inputs.items()]
        born = _born(execution, [version for version in read if version is not None])
        key, order = list(step.options.get("key") or ()), row_order(step)
        checks = [*key_checks(step), *declared_checks(self._pipeline, name)]
        version = parts_of.write(
            self._store, project.name, name, step.kind, clean, key=key, order=order, checks=checks, **born
        )
        if bad:
            parts_of.write(self._store, project.name, aside, "quarantine", bad, order=order, **born)
        elif held_aside:  # no row is bad any more
            empty = tables.scan(self._store, _newest(self._store, project.name, aside)).head(0).collect()
            tables.write_version(self._store, project.name, aside, "quarantine", empty, order=order, **born)
        return _stored(version)

    def recall(self, project: Project, step: Step, ref: str) -> Stored | None:
        """Make an earlier version current again, without running the step; None when it is not there any more."""
        try:
            version = tables.get(self._store, project.name, ref)
            tables.scan(self._store, version)
        except (NotFound, Damaged):
            return None
        return _stored(tables.restore(self._store, version, cause=f"recall {version.ref}"))

    def _land(self, project: str, execution: Execution, step: Step, output: object) -> TableVersion:
        assert isinstance(output, list)
        if not output:
            raise EmptySource(
                "it has no files to land",
                subject=f"source {step.name}",
                asked=step.options.get("path") or f"instar ingest {step.name} FILE",
            )
        checks = declared_checks(self._pipeline, step.name)
        return ingest.land(
            self._store,
            project,
            step,
            output,
            cause=execution.cause,
            mode="overwrite",  # the files of a source with a path are the whole table
            execution=execution.id,
            transaction=execution.key,
            checks=checks,
        )


def rows_to_serve(
    store: Store,
    project: str,
    pipeline: Pipeline,
    gold_step: str,
    replacements: Mapping[str, pl.DataFrame | pl.LazyFrame],
) -> pl.DataFrame:
    """Feature rows for rows of the moment: the gold step's own function over its newest inputs, some of them replaced.

    Args:
        gold_step: The step that makes the training rows.
        replacements: Rows of the moment by the name of the input they stand for; columns that the real input has and the
            replacement lacks are null.

    Raises:
        NotFound: An input was never written.
        MissingColumn: A replacement is for a table which the step does not read.
    """
    step = pipeline.step(gold_step)
    assert step.function is not None
    wanted = {item.name: item.form for item in step.inputs}
    real = {name: tables.scan(store, _newest(store, project, name)) for name in wanted}
    rows = serving_rows(
        step.function, real, replacements, step.parameters, lambda name, frame: forms.convert(frame, wanted[name])
    )
    return rows.drop(checking.REASON, strict=False)


def row_order(step: Step) -> list[str]:
    """Columns in whose order a step's rows are kept, so that equal rows make equal content however they were computed."""
    event_time = step.options.get("event_time")
    return [*(step.options.get("key") or ()), *([event_time] if event_time else [])]


def key_checks(step: Step) -> list[Check]:
    """A declared key must name one row: an error for a silver table, whose key is traced by, a warning for gold."""
    names = row_order(step)
    if not step.options.get("key"):
        return []
    found = checking.unique(names)
    return [found] if step.kind == "silver" else [Check(found.name, found.expression, "warn")]


def declared_checks(pipeline: Pipeline, table: str) -> list[Check]:
    """The project's checks on a table.

    Raises:
        BadInput: A check's function does not return expressions by name.
    """
    found = []
    for step in pipeline.checks.get(table, ()):
        expressions = step.function()
        if not isinstance(expressions, Mapping) or not all(isinstance(e, pl.Expr) for e in expressions.values()):
            raise BadInput(
                "a check must return a Polars expression for each name",
                subject=f"check {step.name} of {table}",
                found=type(expressions).__name__,
                asked="dict of name to expression",
            )
        found += [Check(name, expression, step.severity) for name, expression in expressions.items()]
    return found


def _born(execution: Execution, inputs: list[TableVersion]) -> dict[str, Any]:
    """What a version says of where it comes from."""
    return {
        "execution": execution.id,
        "transaction": execution.key,
        "inputs": [version.id for version in inputs],
        "cause": execution.cause,
    }


def _newest(store: Store, project: str, table: str) -> TableVersion:
    version = tables.latest(store, project, table)
    if version is None:
        raise NotFound(
            "nothing was written to it yet",
            subject=f"table {table}",
            next_step=f"Land its data with instar ingest {table} FILE, or run the step that makes it.",
        )
    return version


def _delivery(path: object) -> Delivery:
    assert isinstance(path, Path)
    # The file's own time, not the time of the run: landing the same file again is then the same delivery.
    landed = datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else datetime.now(UTC)
    return Delivery(path.name, path, landed)


def _stored(version: TableVersion) -> Stored:
    return Stored(version.id, version.content)
