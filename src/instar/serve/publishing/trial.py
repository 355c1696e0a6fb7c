"""Trying a brought model out before a person lets it answer: loaded and asked once, in a process of its own, as a worker would.

Nothing that came from outside is loaded in the control process, and the process of a trial is behind the fence of workers, and
leaves nothing behind. What the trial finds (two classes or a number) decides how the
version answers, so it is kept with the bundle; what cannot answer is refused with the reason.

    python -m instar.serve.publishing.trial FOLDER DIGEST --store FOLDER --scratch FOLDER   # JSON: what it is, or why not
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from instar.core import errors
from instar.core.database import Instant, Json, Transaction, metadata
from instar.core.errors import Blocked, InstarError, StepFailed, Unavailable
from instar.core.store import Store
from instar.serve.processes import fence
from instar.serve.processes.leftovers import MARK, end_marked
from instar.serve.traffic.routes import bundle_folder
from instar.serve.worker.models import named
from instar.train import bundle, folder_lock, own_environment
from instar.train.bundle import FOLDER, Manifest

BINARY, NUMBER, TENSORS = "binary", "number", "tensors"
TIMEOUT_SECONDS = 180.0
BY_US = ("xgboost", "lightgbm", "onnx")  # flavours whose trees and graphs we read without their libraries, as a rule

log = logging.getLogger("instar.serve")

trial_table = sa.Table(
    "bundle_trial",
    metadata,
    sa.Column("bundle", sa.String(80), primary_key=True),
    sa.Column("task", sa.String(20), nullable=False),
    sa.Column("facts", Json, nullable=False),
    sa.Column("tried_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        task: `"binary"`: a score is the probability of the second of two classes. `"number"`: it is what is predicted.
            `"tensors"`: it answers with tensors.
        facts: The row that it was asked for and what it answered, where it has an example; Python; the lock that it answers
            from, or why it answers from no environment of its own.
    """

    bundle: str
    task: str
    facts: dict[str, Any]
    tried_at: datetime


def try_out(store: Store, digest: str) -> Trial:
    """Try a bundle out and keep what was found; once it was found, it is not tried again.

    Raises:
        UnsafeModel: A file may not be loaded.
        Unavailable: A package is not installed here.
        Blocked: It answers in a form that is not served.
        StepFailed, Damaged: It cannot be loaded, or fails on its own example.
    """
    known = trial_of(store, digest)
    if known is not None:
        return known
    folder = bundle_folder(store.folder, digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    manifest = bundle.unpack(store.blobs, digest, folder)
    if manifest.folder is not None and manifest.folder.unservable:
        raise Blocked(manifest.folder.unservable, subject=f"model {manifest.model}")
    said = _where_it_answers(store, folder, digest, manifest)
    trial = Trial(digest, said["task"], said["facts"], store.clock.wall())

    def work(tx: Transaction) -> None:
        tx.execute(trial_table.delete().where(trial_table.c.bundle == digest))
        tx.execute(trial_table.insert().values(**vars(trial)))

    store.database.write(work)
    return trial


def trial_of(store: Store, digest: str) -> Trial | None:
    """What was found when a bundle was tried out; None when it never was."""
    with store.database.read() as tx:
        row = tx.execute(sa.select(trial_table).where(trial_table.c.bundle == digest)).one_or_none()
    return None if row is None else Trial(**row._mapping)


def restore_lock(store: Store, digest: str, manifest: Manifest) -> None:
    """Have a logged folder answer from the lock that it was tried out with, also where the store's environments were removed."""
    if manifest.folder is None or folder_lock.kept(store, manifest) is not None:
        return
    found = trial_of(store, digest)
    if found is not None and "lock" in found.facts:
        folder_lock.keep(store, manifest, found.facts["lock"])


def threshold_of(store: Store, digest: str, manifest: Manifest) -> float | None:
    """Where a version decides; None for one that predicts a number, or tensors."""
    if manifest.tensors is not None:
        return None
    if manifest.command is not None:
        return manifest.threshold if manifest.command.decides else None
    if manifest.plain is not None:
        return manifest.threshold if manifest.plain.decides else None
    if manifest.folder is None:
        return manifest.threshold
    trial = trial_of(store, digest)
    return None if trial is not None and trial.task == NUMBER else manifest.threshold


def _where_it_answers(store: Store, folder: Path, digest: str, manifest: Manifest) -> dict[str, Any]:
    """Ask it in the environment that it is to answer from, which is settled here for a folder that somebody logged.

    That is what it requires; where that is not to be had, what is installed beside Instar, if it answers from there. Trees and
    graphs are read by us, as far as we can.
    """
    if manifest.folder is None:
        return _ask(store, folder, digest, manifest, own_environment.prepare(store, manifest))
    if manifest.folder.served_as in BY_US or own_environment.is_here(store, manifest):
        try:
            return _ask(store, folder, digest, manifest, "")
        except (Unavailable, Blocked) as problem:
            if manifest.folder.served_as not in BY_US:
                raise
            here: InstarError = problem
        own, why = _settle(store, manifest)
        if why is None:
            return _ask(store, folder, digest, manifest, own)
        raise type(here)(
            here.what, subject=here.subject, found=here.found, asked=here.asked,
            next_step=f"{here.next_step or ''} Its own environment cannot be had: {why.what} ({why.found}).".strip(),
        ) from why  # fmt: skip
    own, why = _settle(store, manifest)
    said = _ask(store, folder, digest, manifest, own)
    if why is not None:
        log.warning("model %s answers from the environment of the server: %s", manifest.model, why)
        said["facts"]["not_its_own"] = str(why)
    return said


def _settle(store: Store, manifest: Manifest) -> tuple[str, InstarError | None]:
    """The environment that a folder requires, ready; or why it cannot be, and then it has none."""
    try:
        own_environment.settle(store, manifest)
        return own_environment.prepare(store, manifest, tell=log.warning), None
    except InstarError as problem:
        own_environment.unsettle(store, manifest, str(problem))
        return "", problem


def _ask(store: Store, folder: Path, digest: str, manifest: Manifest, environment: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "instar.serve.publishing.trial", str(folder), digest, "--store", str(store.folder)]
    command += ["--environment", environment] if environment else []
    with tempfile.TemporaryDirectory(prefix="instar-trial-") as scratch:
        try:
            done = subprocess.run(
                [*command, "--scratch", scratch], capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
                stdin=subprocess.DEVNULL, env={**os.environ, MARK: scratch},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"it did not load within {TIMEOUT_SECONDS:.0f} s", subject=f"model {manifest.model}"
            ) from None
        finally:
            end_marked(scratch)
    last = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        said: dict[str, Any] = json.loads(last[0])
    except ValueError:
        told = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise StepFailed(f"its trial ended: {told[0][:300]}", subject=f"model {manifest.model}") from None
    if "error" in said:
        kind = getattr(errors, said["error"], StepFailed)
        facts = {name: said[name] for name in ("subject", "found", "asked", "next_step") if said.get(name)}
        where = {"found": f"in its own environment {environment[:11]}"} if environment else {}
        raise kind(said["what"], **{"subject": f"model {manifest.model}", **where, **facts})
    lock = folder_lock.kept(store, manifest) if environment and manifest.folder is not None else None
    if lock is not None:
        said["facts"]["lock"] = lock.requirements  # named on the record, so that it stays
    return said


def main(arguments: list[str] | None = None) -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="instar.serve.publishing.trial")
    parser.add_argument("folder", type=Path)
    parser.add_argument("digest")
    parser.add_argument("--environment", help="name of the environment that it is asked in")
    parser.add_argument(
        "--store", type=Path, required=True, help="the store's folder, of which that bundle alone is read"
    )
    parser.add_argument(
        "--scratch", type=Path, required=True, help="a folder of its own, the only one that it may write to"
    )
    options = parser.parse_args(arguments)
    if fence.wanted():
        fence.around_model(options.store, options.scratch, options.folder, options.environment or "")
    try:
        said: dict[str, Any] = _try(options.folder, options.digest, options.store, options.environment)
    except InstarError as error:
        said = {
            "error": type(error).__name__,
            "what": error.what,
            "subject": error.subject,
            "next_step": error.next_step,
        }
        said |= {"found": error.found and str(error.found), "asked": error.asked and str(error.asked)}
    print(json.dumps(said), flush=True)


def _try(folder: Path, digest: str, store_folder: Path, environment: str | None) -> dict[str, Any]:
    from instar.serve.worker.loading import EnvironmentLoader, load

    manifest = bundle.decode((folder / bundle.MANIFEST_FILE).read_bytes())
    own = EnvironmentLoader(store_folder, environment) if environment else None
    if own is None:
        model: Any = load(folder, named=digest)
    else:
        try:
            model = own(folder, digest)
        except InstarError as problem:
            raise named(problem) from problem
    try:
        return _tried(folder, model, manifest)
    finally:
        close = getattr(model, "close", None)  # of what runs beside this process
        if close is not None:
            close()


def _tried(folder: Path, model: Any, manifest: Manifest) -> dict[str, Any]:
    decides = getattr(model, "decides", True)
    facts: dict[str, Any] = {"python": sys.version.split()[0]}
    if manifest.tensors is not None:
        return {"task": TENSORS, "facts": facts | _asked(model, manifest.tensors)}
    if manifest.command is not None or manifest.plain is not None:
        return {"task": BINARY if decides else NUMBER, "facts": facts | _scored(model, manifest.inputs)}
    row = _example(folder / FOLDER, manifest)
    if row is not None:
        facts |= {"asked": row, "score": float(model.score({name: [value] for name, value in row.items()})[0])}
    return {"task": BINARY if decides else NUMBER, "facts": facts}


def _asked(model: Any, tensors: bundle.Tensors) -> dict[str, Any]:
    """What a tensor model answers to one row of made-up values, which not every model takes."""
    from instar.train.stacking import example

    try:
        outputs = model.infer({one.name: example(one, 0)[:1] for one in tensors.inputs if not one.optional})
    except Exception as error:
        return {"asked": "made-up values", "refused": f"{type(error).__name__}: {error}"[:300]}
    return {"asked": "made-up values", "answered": {name: list(array.shape) for name, array in outputs.items()}}


def _scored(model: Any, columns: tuple[bundle.Column, ...]) -> dict[str, Any]:
    """What a program or a class answers to one row of made-up values, which not every model takes."""
    row = made_up(columns)
    try:
        return {"asked": row, "score": float(model.score({name: [value] for name, value in row.items()})[0])}
    except InstarError as error:
        return {"asked": row, "refused": str(error)[:300]}


def made_up(columns: tuple[bundle.Column, ...]) -> dict[str, Any]:
    """A row of values of each column's datatype."""
    values = {"BOOL": True, "BYTES": "a", "INT32": 1, "INT64": 1}
    return {one.name: values.get(one.datatype, 1.0) for one in columns}


def _example(folder: Path, manifest: Manifest) -> dict[str, Any] | None:
    """The first row of the example that was logged with the model, where it has the columns of the signature."""
    try:
        kept = json.loads((folder / "input_example.json").read_text())
        names = [column.name for column in manifest.inputs]
        if isinstance(kept, dict) and {"columns", "data"} <= kept.keys():
            row = dict(zip(kept["columns"], kept["data"][0], strict=True))
        else:
            rows = kept["inputs"] if isinstance(kept, dict) and "inputs" in kept else kept
            row = dict(zip(names, rows[0], strict=True))
        return {name: row[name] for name in names}
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


if __name__ == "__main__":
    main()
