"""A run of a step, made again: its inputs are taken from the versions that it read, and a process fits once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import polars as pl

from instar.core.errors import Blocked, Damaged, NotFound
from instar.core.store import Store
from instar.data import tables, versions
from instar.data.publishing import file_digest
from instar.data.versions import TableVersion
from instar.operate.reproduce_run import Attempt, Prepared, Recorded, call
from instar.train import bundle, bundles
from instar.train.bundle import Manifest
from instar.train.environments import Interpreter
from instar.train.repeating import Outcome, Request
from instar.train.verdict import Cause, Results


def prepare(store: Store, recorded: Recorded, scratch: Path, interpreter: Interpreter, *, newest: bool) -> Prepared:
    """Write the inputs beside the code.

    Raises:
        Blocked: An input is gone.
    """
    run = recorded.run
    used, causes = pinned(store, recorded, newest)
    (scratch / "inputs").mkdir()
    found = {name: str(scratch / "inputs" / name) for name in used}
    for name, version in used.items():
        rows_of(store, version).write_parquet(found[name], compression="lz4")
    manifest = _own_bundle(store, run.id, scratch / "recorded")
    request = Request(
        root=str(scratch / "code"), way=recorded.conditions.way, step=run.step or "",
        table=_table(store, recorded, list(used)), tables=found, parameters=dict(run.parameters),
        threshold=run.metrics.get("threshold"), bundle=str(scratch / "recorded") if manifest else "",
    )  # fmt: skip
    asked = scratch / "request.json"
    asked.write_bytes(msgspec.json.encode(request))

    def attempt() -> Attempt:
        told = scratch / "outcome.json"
        told.unlink(missing_ok=True)
        command = [interpreter.python, "-P", "-m", "instar.operate.again", str(asked), str(told)]
        failure = call(command, scratch / "code", recorded.conditions, interpreter)
        if not told.exists():
            return _failed(recorded, failure)
        return _attempt(recorded, manifest, msgspec.json.decode(told.read_bytes(), type=Outcome))

    return Prepared(attempt, {name: version.id for name, version in used.items()}, causes)


def pinned(store: Store, recorded: Recorded, newest: bool) -> tuple[dict[str, TableVersion], tuple[Cause, ...]]:
    """The version that each input is read from, by its name, and what is not as it was.

    Raises:
        Blocked: An input is gone.
    """
    used, causes = {}, []
    for name, ref in _inputs(store, recorded).items():
        used[name], cause = _version(store, recorded.run.project, name, ref, newest)
        causes += [cause] if cause else []
    return used, tuple(causes)


def rows_of(store: Store, version: TableVersion) -> pl.DataFrame:
    """All rows of a version.

    Raises:
        Blocked: They cannot be read.
    """
    try:
        return tables.scan(store, version).collect()
    except (pl.exceptions.PolarsError, Damaged) as error:
        raise _gone(f"input {version.ref}", f"its rows cannot be read: {error}") from error


def _attempt(recorded: Recorded, manifest: Manifest | None, outcome: Outcome) -> Attempt:
    run = recorded.run
    # What is logged of a bundle after the fit, such as its parity, is no result of the fit.
    metrics = {name: value for name, value in run.metrics.items() if name in outcome.metrics}
    digests, again = {}, {}
    if outcome.scores and (known := run.tags.get("instar.scores")):
        digests["scores"], again["scores"] = known, outcome.scores
    if manifest is not None:
        for name, was, now in (
            ("portable form", manifest.portable.file if manifest.portable else "", outcome.portable),
            ("native form", manifest.native or "", outcome.native),
        ):
            if was:
                digests[name], again[name] = was, now
    return Attempt(
        Results(metrics, digests), Results(outcome.metrics, again), outcome.conditions, outcome.environment,
        outcome.difference, outcome.code, outcome.error,
    )  # fmt: skip


def _failed(recorded: Recorded, failure: str) -> Attempt:
    nothing = Results({}, {})
    return Attempt(nothing, nothing, recorded.conditions, recorded.environment, error=failure or "it said nothing")


def _inputs(store: Store, recorded: Recorded) -> Mapping[str, str]:
    """The record of each input by its name; of runs from before these were kept, of the tables alone."""
    if recorded.conditions.inputs:
        return recorded.conditions.inputs
    found = {}
    for ref in recorded.run.inputs:
        try:
            found[versions.get(store, recorded.run.project, ref).table] = ref
        except NotFound:
            raise _gone(recorded.run.id, ref) from None
    return found


def _table(store: Store, recorded: Recorded, used: Sequence[str]) -> str:
    """The input with features and target: the first that the run named."""
    first = recorded.run.inputs[0] if recorded.run.inputs else ""
    for name, ref in _inputs(store, recorded).items():
        if ref == first:
            return name
    return used[0]


def _version(store: Store, project: str, name: str, ref: str, newest: bool) -> tuple[TableVersion, Cause | None]:
    try:
        recorded = versions.get(store, project, ref)
    except NotFound:
        recorded = None
    if newest or recorded is None:
        latest = tables.latest(store, project, name) if newest else None
        if latest is None:
            raise _gone(f"input {name}", ref)
        if recorded is not None and recorded.content == latest.content:
            return latest, None
        was = recorded.ref if recorded else ref
        return latest, Cause("input", name, ref, latest.id, f"the input {name} was {was} and is {latest.ref}")
    changed = _changed(store, recorded)
    if changed is None:
        return recorded, None
    again = _same_content(store, recorded)
    if again is not None:
        return again, None
    if (versions.folder(store, project, name) / changed).exists():
        text = f"the input {recorded.ref} was changed after it was recorded: its file {changed} is another"
        return recorded, Cause("input", name, recorded.content, "another content", text)
    raise _gone(f"input {recorded.ref}", changed)


def _changed(store: Store, version: TableVersion) -> str | None:
    """The first file of a version that is gone or not what its manifest says; None when all hold."""
    place = versions.folder(store, version.project, version.table)
    try:
        listed = versions.files(store, version)
    except (NotFound, Damaged):
        return "its manifest"
    for file in listed:
        if not (place / file.path).exists() or file_digest(place / file.path) != file.digest:
            return file.path
    return None


def _same_content(store: Store, version: TableVersion) -> TableVersion | None:
    """Another version with the very same rows, whose files hold."""
    for one in reversed(versions.versions(store, version.project, version.table)):
        if one.id != version.id and one.content == version.content and _changed(store, one) is None:
            return one
    return None


def _own_bundle(store: Store, run: str, folder: Path) -> Manifest | None:
    with store.database.read() as tx:
        made = bundles.of_run(tx, run)
    if not made or not store.blobs.has(made[-1]):
        return None
    return bundle.unpack(store.blobs, made[-1], folder)


def _gone(subject: str, what: str) -> Blocked:
    return Blocked(
        "it is gone from the store, so the run cannot be made again as it was", subject=subject, found=what,
        next_step="Restore the store from a backup, or make the run on today's inputs: --newest.",
    )  # fmt: skip


def first_distributions(store: Store, execution: str | None) -> tuple[str, ...]:
    """Distributions that the code of the step reaches, as the key of its execution has them."""
    from instar.plan import executions

    if execution is None:
        return ()
    with store.database.read() as tx:
        found = executions.get(tx, execution)
    return tuple(found.ingredients.get("distributions", {})) if found else ()
