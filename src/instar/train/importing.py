"""Bringing in the experiments of another tracker: runs with all that they logged, when a team moves, at once or bit by bit.

What the other tracker holds is read by a `Source`, an adapter that knows its files. Bringing in the same again changes
nothing: ids are made of the other tracker's ids, and a run that came over whole is passed by.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from instar.core import ids
from instar.core.errors import BadInput, Conflict, InstarError
from instar.core.store import Store
from instar.train import artifacts, datasets, experiment_search, experiments, run_log, runs
from instar.train.run_records import ACTIVE
from instar.train.run_values import Point

FROM, WHOLE = "imported.from", "imported.whole"  # tags: the other tracker's id, and whether all of it is here
PARENT = "mlflow.parentRunId"
MOST_POINTS = 10_000  # in one transaction


@dataclass(frozen=True)
class ForeignExperiment:
    """An experiment of the other tracker.

    Attributes:
        created: When it was made, in milliseconds since 1970; None where the tracker did not keep it.
    """

    id: str
    name: str
    deleted: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    created: int | None = None

    @property
    def origin(self) -> str:
        """By what it is known again: two trackers number their experiments alike, but not from the same moment on."""
        return self.id if self.created is None else f"{self.id} of {self.created}"


@dataclass(frozen=True)
class ForeignInput:
    """A data set that a run read."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignRun:
    """A run of the other tracker.

    Attributes:
        state: One of `run_records.STATES`.
        artifacts: Folder with its files; None where it has none.
        out_of_reach: Where its files are, when no folder here has them.
    """

    id: str
    name: str
    user: str | None
    state: str
    started: datetime | None
    ended: datetime | None
    deleted: bool
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    inputs: tuple[ForeignInput, ...] = ()
    artifacts: Path | None = None
    out_of_reach: str = ""


class Source(Protocol):
    """What another tracker kept."""

    def experiments(self) -> list[ForeignExperiment]:
        """All of them, the deleted ones too."""

    def runs(self, experiment: ForeignExperiment) -> Iterator[ForeignRun]:
        """Runs of an experiment, the deleted ones too."""

    def points(self, run: ForeignRun) -> Iterator[Point]:
        """All values of all metrics: name, value, step, microseconds since 1970."""


@dataclass
class Brought:
    """What came over.

    Attributes:
        runs: New or completed; `known` were here already.
        left_out: What did not come, and why.
    """

    experiments: int = 0
    runs: int = 0
    known: int = 0
    points: int = 0
    files: int = 0
    size_bytes: int = 0
    left_out: list[str] = field(default_factory=list)


def bring_in(
    store: Store, project: str, source: Source, *, tell: Callable[[str], object] = lambda line: None
) -> Brought:
    """Bring everything of `source` into a project.

    Args:
        tell: Told a line for each experiment.

    Raises:
        BadInput: The source cannot be read.
    """
    done = Brought()
    for foreign in source.experiments():
        own = _experiment(store, project, foreign)
        done.experiments += 1
        count = 0
        for run in source.runs(foreign):
            _run(store, project, own.id, source, run, done)
            count += 1
        if foreign.deleted:
            experiments.delete(store, own.id)
        tell(f"{own.name}: {count} runs")
    return done


def run_id(foreign: str, started: datetime | None) -> str:
    """Our id of a foreign run: always the same one, sorted by when the run began.

    >>> run_id("0a1b", None) == run_id("0a1b", None)
    True
    """
    milliseconds = int(started.timestamp() * 1000) if started is not None else 0
    return ids.id_of("run", max(0, milliseconds), f"imported {foreign}".encode())


def _experiment(store: Store, project: str, foreign: ForeignExperiment) -> experiments.Experiment:
    """Our experiment for a foreign one: the one made for it before, else one of its name."""
    here = experiment_search.search(
        store, [project], filter=f"tags.`{FROM}` = '{_quoted(foreign.origin)}'", view="all", limit=1
    )
    if here.items:
        known = here.items[0]
        own = known if known.state == ACTIVE else experiments.restore(store, known.id)
    else:
        name = foreign.name.strip("/") or foreign.id
        taken = experiments.by_name(store, project, name)
        if foreign.deleted and taken is not None:  # its name is another's by now
            name = f"{name} (deleted {foreign.id})"
        own = experiments.ensure(store, project, name)
    for key, value in {**foreign.tags, FROM: foreign.origin}.items():
        if own.tags.get(key) != value:
            experiments.set_tag(store, own.id, key, value)
    return own


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _run(store: Store, project: str, experiment: str, source: Source, foreign: ForeignRun, done: Brought) -> None:
    own = run_id(foreign.id, foreign.started)
    try:
        known = runs.start(
            store, project, experiment=experiment, id=own, name=foreign.name, user=foreign.user, started=foreign.started,
            state=runs.RUNNING, capture=False, cause="import",
        )  # fmt: skip
        if known.tags.get(WHOLE) == foreign.id:
            done.known += 1
            return
        if known.lifecycle != ACTIVE:
            runs.restore(store, own)
        tags = {**foreign.tags, FROM: foreign.id}
        if foreign.tags.get(PARENT):
            tags["imported.parent"] = foreign.tags[PARENT]
        run_log.log(store, own, parameters=foreign.parameters, tags=tags)
        _points(store, own, source.points(foreign), done)
        _inputs(store, project, own, foreign.inputs)
        _files(store, own, foreign, done)
        run_log.set_tags(store, own, {WHOLE: foreign.id})
        runs.update(store, own, state=foreign.state, ended=foreign.ended)
        if foreign.deleted:
            runs.delete(store, own)
        done.runs += 1
    except (BadInput, Conflict) as error:  # one run that cannot be kept is no reason to lose the others
        done.left_out.append(f"run {foreign.id}: {error}")


def _points(store: Store, run: str, points: Iterable[Point], done: Brought) -> None:
    left = iter(points)
    while batch := list(itertools.islice(left, MOST_POINTS)):
        run_log.log(store, run, points=batch)
        done.points += len(batch)


def _inputs(store: Store, project: str, run: str, inputs: Iterable[ForeignInput]) -> None:
    found = [
        (
            datasets.dataset(project, one.name, one.digest, one.source_type, one.source, one.schema, one.profile),
            one.tags,
        )
        for one in inputs
    ]
    if found:
        datasets.log_inputs(store, run, found)


def _files(store: Store, run: str, foreign: ForeignRun, done: Brought) -> None:
    if foreign.out_of_reach:
        done.left_out.append(f"files of run {foreign.id}: they are at {foreign.out_of_reach}, which is no folder here")
    if foreign.artifacts is None or not foreign.artifacts.is_dir():
        return
    for file in sorted(foreign.artifacts.rglob("*")):
        name = file.relative_to(foreign.artifacts).as_posix()
        if file.is_symlink():  # it may lead anywhere on this machine
            done.left_out.append(f"file {name} of run {foreign.id}: it is a symbolic link")
        elif file.is_file():
            try:
                artifacts.log_artifact(store, run, name, file)
            except InstarError as error:
                done.left_out.append(f"file {name} of run {foreign.id}: {error}")
                continue
            done.files += 1
            done.size_bytes += file.stat().st_size
