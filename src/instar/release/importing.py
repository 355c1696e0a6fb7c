"""Bringing in the registered models of another tracker, after its runs: versions with their files, tags, stages and aliases.

A version becomes a logged model of the run that made it, and its folder a bundle, as if a client had just registered it.
Bringing in the same again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from instar.core import ids
from instar.core.errors import InstarError, NotFound
from instar.core.store import Store
from instar.release import aliases, registered_models, registry
from instar.release.version_records import ModelVersion
from instar.train import artifacts, experiments, logged_models, runs
from instar.train.importing import FROM, run_id
from instar.train.logged_models import LoggedModel

GROUP = "imported models"  # experiment of versions whose run did not come over

# Closes a logged model, its folder packed; judging a folder's pickles is handed in with it.
Pack = Callable[[Store, LoggedModel], LoggedModel]


@dataclass(frozen=True)
class ForeignVersion:
    """A version of the other registry.

    Attributes:
        run: The other tracker's id of the run that made it, and when that run began; empty when it names none.
        folder: Its files; None where they are not here.
    """

    number: int
    source: str
    run: str = ""
    run_started: datetime | None = None
    description: str = ""
    stage: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class ForeignModel:
    """A registered model of the other registry."""

    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    versions: tuple[ForeignVersion, ...] = ()


class ModelSource(Protocol):
    """What another tracker's registry kept."""

    def models(self) -> Iterator[ForeignModel]:
        """Registered models with their versions, in order of name and number."""


@dataclass
class Brought:
    """What came over; `left_out` says what did not, and why."""

    models: int = 0
    versions: int = 0
    known: int = 0
    left_out: list[str] = field(default_factory=list)


def bring_in(
    store: Store, project: str, source: ModelSource, pack: Pack, derived: aliases.Derive | None = None
) -> Brought:
    """Bring the registered models of `source` into a project whose runs came over before.

    Args:
        derived: Resolves `champion` and `challenger`, which cannot be set on a model that an endpoint serves.
    """
    done = Brought()
    for foreign in source.models():
        try:
            _model(store, project, foreign)
        except InstarError as error:
            done.left_out.append(f"model {foreign.name!r}: {error}")
            continue
        done.models += 1
        here = registry.versions(store, project, foreign.name)
        with store.database.read() as tx:
            tags = registry.tags_of(tx, [version.id for version in here])
        known = {tags.get(version.id, {}).get(FROM): version for version in here}
        numbers: dict[int, int] = {}
        for one in foreign.versions:
            origin = f"{foreign.name}/{one.number} of {one.run or one.source}"  # another tracker has a clf/1 as well
            try:
                if origin in known:
                    numbers[one.number] = known[origin].number
                    done.known += 1
                    continue
                made = _version(store, project, foreign.name, origin, one, pack)
            except InstarError as error:
                done.left_out.append(f"{foreign.name} version {one.number}: {error}")
                continue
            numbers[one.number] = made.number
            done.versions += 1
            if made.number != one.number:
                done.left_out.append(f"the number of {foreign.name} version {one.number}: it is {made.name} here")
        for alias, number in foreign.aliases.items():
            try:
                if number in numbers:
                    aliases.set_alias(store, project, foreign.name, alias, numbers[number], derived)
            except InstarError as error:
                done.left_out.append(f"alias {alias} of {foreign.name}: {error}")
    return done


def _model(store: Store, project: str, foreign: ForeignModel) -> None:
    try:
        known = registered_models.get(store, project, foreign.name)
    except NotFound:
        known = registered_models.create(store, project, foreign.name, description=foreign.description)
    for key, value in foreign.tags.items():
        if known.tags.get(key) != value:
            registered_models.set_tag(store, project, foreign.name, key, value)


def _version(store: Store, project: str, model: str, origin: str, foreign: ForeignVersion, pack: Pack) -> ModelVersion:
    if foreign.folder is None or not foreign.folder.is_dir():
        raise NotFound("its files are not here", subject=foreign.source)
    run, experiment = _maker(store, project, foreign)
    name = model.split("/")[-1].replace(":", "-").replace(".", "-")
    # The same one each time: an import that was broken off goes on with what it left.
    id = f"m-{ids.digest(f'{project} {origin}'.encode())[3:35]}"
    logged = logged_models.create(store, project, experiment=experiment, name=name, run=run, tags={FROM: origin}, id=id)
    for file in sorted(foreign.folder.rglob("*")):
        if file.is_file() and not file.is_symlink():
            artifacts.log_artifact(store, logged.id, file.relative_to(foreign.folder).as_posix(), file)
    ready = pack(store, logged)
    made = registry.register_logged(
        store, project, model, bundle=str(ready.bundle), source=foreign.source, run=run, logged_model=logged.id,
        description=foreign.description, tags={**foreign.tags, FROM: origin},
    )  # fmt: skip
    if foreign.stage:
        made = registry.set_stage(store, made, foreign.stage)
    return made


def _maker(store: Store, project: str, foreign: ForeignVersion) -> tuple[str, str]:
    """Our run that made a version and its experiment; no run where it did not come over."""
    if foreign.run:
        try:
            run = runs.get_run(store, run_id(foreign.run, foreign.run_started))
            return run.id, run.experiment_id
        except NotFound:
            pass
    return "", experiments.ensure(store, project, GROUP).id
