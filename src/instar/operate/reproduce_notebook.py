"""A notebook, made again: a step that is one, or one in which `instar.run` was called; all its cells, in a kernel of their own.

The notebook is the one that was kept with the run, not today's. Of a step, what each cell gave and each declared file is
compared; of a run in a notebook, what it logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from instar.core.errors import Blocked, InstarError
from instar.core.ids import digest
from instar.core.store import Store
from instar.operate import reproduce_command, reproduce_step
from instar.operate.reproduce_run import Attempt, Prepared, Recorded, environment_for, limit
from instar.plan.notebooks import INJECTED, SUFFIX
from instar.train import conditions, environment, notebook_run
from instar.train.environments import Interpreter
from instar.train.notebook_run import Executed
from instar.train.verdict import Results

KEPT, CELLS = "instar/notebook.ipynb", "instar/cells.py"  # where `instar.run` keeps them
_CELL = "# %%\n"


def prepare(store: Store, recorded: Recorded, scratch: Path, interpreter: Interpreter, *, newest: bool) -> Prepared:
    """Write the inputs of a step beside the code, and find the notebook.

    Raises:
        Blocked: The notebook was not kept, or an input is gone.
    """
    if recorded.conditions.way == conditions.NOTEBOOK:
        return _free(store, recorded, scratch, interpreter)
    return _step(store, recorded, scratch, interpreter, newest)


def cells(text: str) -> dict[str, Any]:
    """A notebook made of the cells that a kernel had run, as `instar.run` keeps them where no file is known."""
    sources = [part.strip("\n") for part in text.split(_CELL) if part.strip()]
    found: list[dict[str, Any]] = [
        {"cell_type": "code", "metadata": {}, "source": one, "outputs": [], "execution_count": None} for one in sources
    ]
    return {"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}


def _free(store: Store, recorded: Recorded, scratch: Path, interpreter: Interpreter) -> Prepared:
    root = scratch / "code"
    folder, paths = reproduce_command.places(recorded, root)
    text = _kept(store, recorded)

    def start(variables: dict[str, str]) -> str:
        try:
            done = _execute(recorded, text, folder, root, None, interpreter, paths, variables)
        except InstarError as error:
            return str(error)
        return _failure(done)

    return Prepared(reproduce_command.recording(store, recorded, start), {})


def _kept(store: Store, recorded: Recorded) -> str:
    files = recorded.run.artifacts
    if (kept := files.get(KEPT)) is not None and store.blobs.has(kept):
        return store.blobs.get(kept).decode()
    if (kept := files.get(CELLS)) is not None and store.blobs.has(kept):
        return json.dumps(cells(store.blobs.get(kept).decode()))
    raise Blocked("its notebook was not kept", subject=f"run {recorded.run.id}", found=", ".join(files) or "no files")


def _step(store: Store, recorded: Recorded, scratch: Path, interpreter: Interpreter, newest: bool) -> Prepared:
    run, root = recorded.run, scratch / "code"
    path = run.tags.get("notebook", "")
    name = Path(path).name
    kept = run.artifacts.get(name)
    if not path.endswith(SUFFIX) or kept is None or not store.blobs.has(kept):
        raise Blocked("its notebook was not kept", subject=f"run {run.id}", found=path or "no notebook")
    text = store.blobs.get(kept).decode()
    folder = (root / path).parent
    folder.mkdir(parents=True, exist_ok=True)
    used, causes = reproduce_step.pinned(store, recorded, newest)
    for table, version in used.items():
        reproduce_step.rows_of(store, version).write_ipc(scratch / f"{table}.arrow")
    outputs = {path: blob for path, blob in run.artifacts.items() if path != name}
    was = {**cell_digests(text), **outputs}

    def attempt() -> Attempt:
        for output in outputs:
            (folder / output).unlink(missing_ok=True)
        paths = tuple(str(root / one) for one in recorded.conditions.paths)
        nothing = Results({}, {})
        try:
            done = _execute(recorded, text, folder, root, scratch, interpreter, paths, {})
        except InstarError as error:
            return Attempt(nothing, nothing, recorded.conditions, recorded.environment, error=str(error))
        now = {**cell_digests(done.text), **_files(folder, outputs)}
        about = _about(recorded, interpreter)
        here = environment.capture() if interpreter.digest is None else recorded.environment
        whole = {**dict.fromkeys(now, ""), **was}  # a cell that said nothing, and says something now
        return Attempt(Results({}, whole), Results({}, now), about, here, error=_failure(done))

    return Prepared(attempt, {table: version.id for table, version in used.items()}, causes)


def cell_digests(text: str) -> dict[str, str]:
    """Digest of what each cell of an executed notebook gave, by the number that it has for its author."""
    found, number = {}, 0
    for cell in json.loads(text)["cells"]:
        if INJECTED in cell.get("metadata", {}).get("tags", ()):
            continue
        number += 1
        if cell.get("outputs"):
            found[f"cell {number}"] = notebook_run.content_of({"cells": [cell]})
    return found


def _files(folder: Path, outputs: Mapping[str, str]) -> dict[str, str]:
    return {name: digest((folder / name).read_bytes()) for name in outputs if (folder / name).is_file()}


def _about(recorded: Recorded, interpreter: Interpreter) -> conditions.Conditions:
    """Conditions of the kernel, which cannot say them: of here, and what it was given as recorded."""
    was = recorded.conditions
    here = conditions.capture(way=was.way, contract=was.contract, inputs=was.inputs)
    given = environment_for(was, interpreter, (), {})
    threads = was.threads if here.threads.usable >= was.threads.usable else here.threads
    return msgspec.structs.replace(
        here, threads=threads, seeds=was.seeds, values=was.values, files=was.files, rows=was.rows,
        variables={name: digest(given.get(name, "").encode()) for name in was.variables},
    )  # fmt: skip


def _execute(
    recorded: Recorded, text: str, folder: Path, root: Path, given: Path | None, interpreter: Interpreter, paths: tuple[str, ...],
    variables: Mapping[str, str],
) -> Executed:  # fmt: skip
    return notebook_run.execute(
        text,
        folder=folder,
        given=given,
        root=root,
        put_in=next(_injected(text), ""),
        python=interpreter.python,
        variables=environment_for(recorded.conditions, interpreter, paths, variables),
        before=limit(recorded.conditions),
    )


def _injected(text: str) -> Iterator[str]:
    """Source of the cell with inputs and parameters that the step put in."""
    for cell in json.loads(text)["cells"]:
        if INJECTED in cell.get("metadata", {}).get("tags", ()):
            yield "".join(cell["source"])


def _failure(done: Executed) -> str:
    return f"cell {done.failure.cell}: {done.failure.text}" if done.failure is not None else ""
