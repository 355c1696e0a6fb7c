"""How the runner makes and keeps a notebook that is a step: it is executed, and what came of it is a run with artifacts.

The run has the environment, the code, the parameters and the inputs like any other; its artifacts are the executed notebook
and the files that the step declares as outputs. A notebook that fails leaves the same: up to the cell that raised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from instar.core.errors import NotFound, StepFailed
from instar.core.ids import digest_of
from instar.core.store import Store
from instar.data import tables
from instar.plan import executions, notebook_step
from instar.plan.executions import Execution
from instar.plan.kinds import Stored
from instar.plan.pipeline import Input, Pipeline, Step
from instar.plan.project import Project
from instar.train import artifacts, conditions, notebook_run, run_records, runs
from instar.train.notebook_run import Executed, Failure
from instar.train.recording import of_files


@dataclass(frozen=True)
class _Made:
    """The run, and the digest of what its cells and files say."""

    run: str
    content: str


class NotebookKind:
    """The `StepKind` of notebooks."""

    def __init__(self, store: Store, project: Project, pipeline: Pipeline) -> None:
        self._store = store
        self._pipeline = pipeline

    def digest(self, project: Project, name: str) -> str | None:
        """Digest of what the newest good execution gave; None when there is none, or its run was deleted."""
        with self._store.database.read() as tx:
            last = executions.last(tx, project.name, name, executions.DONE)
        if last is None or last.ref is None:
            return None
        try:
            run = run_records.get_run(self._store, last.ref)
        except NotFound:
            return None
        return last.digest if run.lifecycle == run_records.ACTIVE else None

    def load(self, project: Project, input: Input, consumer: Step) -> object:
        """A notebook makes no table, so no step reads one."""
        raise NotFound("it makes no table", subject=f"notebook {input.name}")

    def run(
        self,
        project: Project,
        execution: Execution,
        step: Step,
        inputs: Mapping[str, object],
        parameters: Mapping[str, object],
    ) -> object:
        """Execute the notebook as it was when the pipeline was discovered.

        Raises:
            StepFailed: A cell raised, the kernel died, or a declared output was not written.
            Unavailable: The extra `notebook` is not installed.
        """
        path = str(step.options["notebook"])
        file = notebook_step.file_of(step, project.root)
        runs.abandon(self._store, project.name, step.name)
        read = dict(self._versions(project, step))
        about = conditions.capture(
            way=conditions.NOTEBOOK_STEP, contract=project.revision, inputs=read, root=project.root,
            variables=step.options.get("variables", ()), public=project.contract.project.public_variables,
            files=of_files(project, self._pipeline, step, self._store.blobs),
        )  # fmt: skip
        with (
            tempfile.TemporaryDirectory(prefix="instar-given-") as scratch,
            runs.running(
                self._store,
                project.name,
                experiment=step.name,
                step=step.name,
                execution=execution.id,
                parameters=parameters,
                tags={"kind": notebook_step.KIND, "notebook": path},
                inputs=list(read.values()),
                root=project.root,
                conditions=about,
                cause=execution.cause,
            ) as run,
        ):
            given = Path(scratch)
            for name, rows in inputs.items():
                _frame(rows).write_ipc(given / f"{name}.arrow")
            before = dict(_outputs(step, file.parent))
            executed = notebook_run.execute(
                self._pipeline.sources[str(file)],
                folder=file.parent,
                given=given,
                root=project.root,
                put_in=_cell(step, parameters),
            )
            artifacts.log_artifact(self._store, run.id, file.name, executed.text.encode())
            if executed.failure is not None:
                raise _failed(step, path, executed.failure)
            return _Made(run.id, self._keep(run.id, step, file.parent, executed, before))

    def store(self, project: Project, execution: Execution, step: Step, output: object) -> Stored:
        """The run is on the record with all that it left."""
        assert isinstance(output, _Made)
        return Stored(output.run, output.content)

    def _versions(self, project: Project, step: Step) -> Iterator[tuple[str, str]]:
        for item in step.inputs:
            version = tables.latest(self._store, project.name, item.name)
            if version is not None:
                yield item.name, version.id

    def _keep(
        self, run: str, step: Step, folder: Path, executed: Executed, before: Mapping[str, tuple[int, int]]
    ) -> str:
        """Keep the declared outputs with the run; returns the digest of all that it gave."""
        found = dict(_outputs(step, folder))
        kept = {}
        for name, stat in found.items():
            if before.get(name) != stat:
                kept[name] = artifacts.log_artifact(self._store, run, name, folder / name)
        for pattern in step.options["outputs"]:
            if not any(Path(name).match(pattern) for name in kept):
                raise StepFailed(
                    "the notebook did not write an output that is declared",
                    subject=f"step {step.name}",
                    found=", ".join(kept) or "no new file",
                    asked=pattern,
                    next_step=f"Write it from a cell, to the folder {folder.name or '.'}, or correct outputs=.",
                )
        return digest_of([executed.content, dict(sorted(kept.items()))])


def _outputs(step: Step, folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for pattern in step.options["outputs"]:
        for file in sorted(folder.glob(pattern)):
            if file.is_file():
                stat = file.stat()
                yield file.relative_to(folder).as_posix(), (stat.st_mtime_ns, stat.st_size)


def _cell(step: Step, parameters: Mapping[str, object]) -> str:
    """Source of the cell that gives a notebook its inputs and parameters."""
    lines = ["# Given by the pipeline."]
    if step.inputs:
        lines.append("import instar as _instar")
        lines += [f"{item.name} = _instar.table({item.name!r}, {item.form!r})" for item in step.inputs]
    lines += [f"{name} = {_literal(value)}" for name, value in parameters.items()]
    return "\n".join(lines) if len(lines) > 1 else ""


def _literal(value: object) -> str:
    if isinstance(value, float) and value != value:
        return "float('nan')"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return f"float({str(value)!r})"
    return repr(value)


def _frame(rows: Any) -> pl.DataFrame:
    """Rows in any form as a Polars frame, to be handed over as a file."""
    if isinstance(rows, pl.LazyFrame):
        return rows.collect()
    if isinstance(rows, pl.DataFrame):
        return rows
    found = pl.from_arrow(rows) if type(rows).__module__.startswith("pyarrow") else pl.from_pandas(rows)
    assert isinstance(found, pl.DataFrame)
    return found


def _failed(step: Step, path: str, failure: Failure) -> StepFailed:
    if failure.trace:
        print(failure.trace)  # into the log of the execution
    return StepFailed(
        failure.text if not failure.trace else f"the cell raised {failure.text}",
        subject=f"step {step.name}, cell {failure.cell} of {path}",
        next_step=f"See the traceback with: instar logs {step.name}. The notebook as far as it came is with its run.",
    )
