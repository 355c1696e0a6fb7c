"""What differs between runs: parameters, metrics, inputs, environment, conditions and code, when people compare them.

The first run is what the others are compared with. Equal things are left out; a run that has none of something has None.

    differences(store, [first, second]).parameters == {"rate": [0.1, 0.3]}
"""

from __future__ import annotations

import difflib
import io
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from instar.core.blobs import Blobs
from instar.core.store import Store
from instar.train import environment
from instar.train.run_records import Run

Row = list[Any]  # one value a run
MOST_LINES = 400  # of the difference of one file; a longer one is cut, and says so


@dataclass(frozen=True)
class FileDifference:
    """One file that differs between the first run and another.

    Attributes:
        run: The other run.
        lines: A unified difference; empty for files that are no text.
        cut: Lines that were left out.
    """

    run: str
    file: str
    lines: tuple[str, ...]
    cut: int = 0


@dataclass(frozen=True)
class Differences:
    """All that differs, by name, one value a run."""

    parameters: Mapping[str, Row] = field(default_factory=dict)
    metrics: Mapping[str, Row] = field(default_factory=dict)
    inputs: Mapping[str, Row] = field(default_factory=dict)
    environment: Mapping[str, Row] = field(default_factory=dict)
    conditions: Mapping[str, Row] = field(default_factory=dict)
    commits: Mapping[str, Row] = field(default_factory=dict)
    code: tuple[FileDifference, ...] = ()


def differences(store: Store, runs: Sequence[Run]) -> Differences:
    """Everything in which the runs differ."""
    environments = [_environment(store.blobs, run) for run in runs]
    conditions = [_flat(_json(store.blobs, run.conditions)) for run in runs]
    return Differences(
        parameters=differing([run.parameters for run in runs]),
        metrics=differing([{name: _plain(value) for name, value in run.metrics.items()} for run in runs]),
        inputs=differing([{"table versions": ", ".join(run.inputs) or None} for run in runs]),
        environment=differing(environments),
        conditions=differing(conditions),
        commits=differing([{"commit": (run.code or {}).get("commit")} for run in runs]),
        code=tuple(_code(store.blobs, runs)),
    )


def differing(columns: Sequence[Mapping[str, Any]]) -> dict[str, Row]:
    """Names under which not all columns have one value, sorted, with the value of each."""
    names = sorted({name for column in columns for name in column})
    rows = {name: [column.get(name) for column in columns] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def _plain(value: float) -> float | str:
    """Values that JSON has no number for become words, and then equal themselves."""
    return value if math.isfinite(value) else str(value)


def _environment(blobs: Blobs, run: Run) -> dict[str, Any]:
    if run.environment is None or not blobs.has(run.environment):
        return {}
    found = environment.load(blobs, run.environment)
    machine = {name: getattr(found, name) for name in ("python", "implementation", "system", "machine")}
    return {**machine, **found.distributions}


def _json(blobs: Blobs, digest: str | None) -> Any:
    return msgspec.json.decode(blobs.get(digest)) if digest and blobs.has(digest) else {}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested objects under dotted names."""
    if isinstance(value, dict):
        pairs: Iterable[tuple[Any, Any]] = value.items()
        return {name: leaf for key, inner in pairs for name, leaf in _flat(inner, f"{path}.{key}".strip(".")).items()}
    return {path: value} if path else {}


def _code(blobs: Blobs, runs: Sequence[Run]) -> Iterable[FileDifference]:
    if not runs:
        return
    first = _files(blobs, runs[0])
    for run in runs[1:]:
        digest = (run.code or {}).get("content")
        if digest is None or digest == (runs[0].code or {}).get("content"):
            continue
        other = _files(blobs, run)
        for file in sorted(first.keys() | other.keys()):
            if first.get(file) != other.get(file):
                yield _difference(run.id, file, first.get(file), other.get(file))


def _files(blobs: Blobs, run: Run) -> dict[str, bytes]:
    digest = (run.code or {}).get("content")
    if digest is None or not blobs.has(digest):
        return {}
    with zipfile.ZipFile(io.BytesIO(blobs.get(digest))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _difference(run: str, file: str, before: bytes | None, after: bytes | None) -> FileDifference:
    try:
        texts = [data.decode().splitlines() if data is not None else [] for data in (before, after)]
    except UnicodeDecodeError:
        return FileDifference(run, file, ())
    lines = list(difflib.unified_diff(texts[0], texts[1], fromfile=file, tofile=file, lineterm="", n=2))[2:]
    return FileDifference(run, file, tuple(lines[:MOST_LINES]), max(0, len(lines) - MOST_LINES))


def ranked(runs: Sequence[Run], metric: str, *, minimise: bool = True) -> list[Run]:
    """Runs in the order of a metric, the best first; those without it, or with no number, last."""

    def place(run: Run) -> tuple[bool, float]:
        value = run.metrics.get(metric, math.nan)
        return (math.isnan(value), value if minimise else -value)

    return sorted(runs, key=place)
