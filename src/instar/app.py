"""Wiring: the only file that builds adapters and hands them to the stages.

with open_app() as app:                    # the project of this folder, and its store
    runner.execute(app.store, app.project, app.pipeline, app.kinds())
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar.core import identity
from instar.core.clock import Clock, EventClock, SystemClock
from instar.core.errors import NotFound
from instar.core.settings import DEFAULT_PROJECT, Settings, read_settings

if TYPE_CHECKING:
    from instar.adapters.source_mlflow_database import MlflowDatabase
    from instar.adapters.source_mlflow_folder import MlflowFolder
    from instar.core.blobs import Blobs
    from instar.core.database import Database
    from instar.core.store import Store
    from instar.operate.proposal import Loop
    from instar.plan.pipeline import Pipeline
    from instar.plan.place import Adapt, Bench, Place
    from instar.plan.project import Project
    from instar.plan.runner import StepKind
    from instar.train.search import Search
    from instar.train.studies import Study

# What the process of a step has imported before the step's own code: see `bench`.
STEP_MODULES = (
    "instar.data.kind",
    "instar.train.model_kind",
    "instar.train.notebook_kind",
    "instar.evaluate.split",
    "instar.adapters.blobs_folder",
    "instar.adapters.database_sqlite",
)


@dataclass
class App:
    """An opened store and the project that works on it, if there is one.

    Attributes:
        store: Ports and folder, as every stage takes them.
        root: The project's folder; None where a store is used without a project.
        start: Where a project was looked for.
        database_url: Where the metadata is.
    """

    store: Store
    root: Path | None
    start: Path | None = None
    database_url: str = ""

    @cached_property
    def project(self) -> Project:
        """The project's contract, read on first use.

        Raises:
            NotFound: There is no `instar.toml`.
            ContractError: It is wrong.
        """
        from instar.plan.project import find_root, load_project

        return load_project(self.root if self.root is not None else find_root(self.start or Path.cwd()))

    @cached_property
    def project_name(self) -> str:
        """The contract's project, or the store's project `default` where there is none."""
        return self.project.name if self.root is not None else DEFAULT_PROJECT

    @property
    def project_if_any(self) -> Project | None:
        """The project's contract; None where the store is used without one."""
        return self.project if self.root is not None else None

    @cached_property
    def pipeline(self) -> Pipeline:
        """The project's steps, discovered on first use."""
        from instar.plan.pipeline import discover

        return discover(self.project)

    def kinds(self) -> Mapping[str, StepKind]:
        """What knows how to load, run and keep each kind of step."""
        return kinds_of(self.store, self.project, self.pipeline)

    def place(self) -> Place:
        """How a step's own process opens this store and project."""
        from instar.plan.place import Place

        clock = self.store.clock
        arguments = {
            "root": self.project.root,
            "contract": self.project.text,
            "folder": self.store.folder,
            "database": self.database_url,
            "actor": self.store.actor,
            "event": None if type(clock) is SystemClock else clock.event(),
        }
        return Place("instar.app:bench", arguments, STEP_MODULES)

    def search(self, study: Study, *, apart: bool = False) -> Search:
        """This process's search of a study's space.

        Args:
            apart: Others search beside it: with the same seed they would propose the same points.

        Raises:
            Unavailable: The library behind it is not installed.
        """
        from instar.adapters.search_optuna import OptunaSearch
        from instar.train import search_space, studies, tuning_loop

        terms = study.terms
        return OptunaSearch(
            studies.file_of(self.store, study), search_space.from_document(terms["space"]),
            tuning_loop.objectives_of(study), sampler=terms["sampler"], pruner=terms["pruner"],
            seed=terms["seed"] + (os.getpid() if apart else 0),
        )  # fmt: skip

    def loop(self) -> Loop:
        """What the life cycle turns with: the project's steps, their kinds, and the prediction log."""
        from instar.operate.proposal import Loop
        from instar.serve.log.calls import CallLog

        place = self.place() if self.database_url else None
        return Loop(self.store, self.project, self.pipeline, self.kinds(), CallLog(self.store), place=place)


def kinds_of(store: Store, project: Project, pipeline: Pipeline) -> Mapping[str, StepKind]:
    """The behaviour of each kind of step."""
    from instar.data.kind import TableKind
    from instar.evaluate.split import cut
    from instar.plan.notebook_step import KIND as NOTEBOOK
    from instar.train.model_kind import ModelKind
    from instar.train.notebook_kind import NotebookKind

    tables = TableKind(store, project, pipeline)
    models = ModelKind(store, project, pipeline, cut=cut)
    books = NotebookKind(store, project, pipeline)
    return {"source": tables, "silver": tables, "gold": tables, "model": models, "baseline": models, NOTEBOOK: books}


@contextmanager
def bench(arguments: Mapping[str, Any], texts: Mapping[str, str], adapt: Adapt) -> Iterator[Bench]:
    """Store, project and kinds in the process of one step: the opener that `App.place` names.

    Args:
        arguments: What `App.place` says.
        texts: The project's files as the walk has imported them, by path.
        adapt: To be applied to the pipeline.
    """
    from instar.adapters.blobs_folder import FolderBlobs
    from instar.core.store import Store
    from instar.plan.pipeline import discover
    from instar.plan.place import Bench
    from instar.plan.project import Project, parse_contract, revision_of

    clock = SystemClock() if arguments["event"] is None else EventClock(arguments["event"])
    contract = parse_contract(arguments["contract"])
    project = Project(arguments["root"], contract, revision_of(contract), arguments["contract"])
    folder: Path = arguments["folder"]
    database = open_database(arguments["database"])
    try:
        store = Store(folder, database, FolderBlobs(folder / "blobs"), clock, arguments["actor"])
        pipeline = adapt(discover(project, texts))
        yield Bench(store, project, pipeline, kinds_of(store, project, pipeline))
    finally:
        database.close()


@contextmanager
def open_app(
    start: Path | str | None = None,
    *,
    store_folder: Path | None = None,
    clock: Clock | None = None,
    settings: Settings | None = None,
    need_project: bool = True,
    make: bool = True,
) -> Iterator[App]:
    """Open the store of the project in which `start` (default: this folder) lies.

    Args:
        store_folder: Overrides the settings' place of the store.
        clock: Event time; the machine's clock by default.
        need_project: False: where no project is, the store of that folder is opened without one.
        make: Whether a store that is not there is made then; a project's store always is.

    Raises:
        NotFound: No folder from `start` upwards has an `instar.toml`, and there is no store to use without one.
        StoreTooNew: A later program wrote the store.
    """
    from instar.plan.project import find_root_if_any

    settings = settings or read_settings()
    start = Path(start) if start is not None else Path.cwd()
    root = find_root_if_any(start, need=need_project)
    folder = store_folder or settings.store_folder(root if root is not None else start)
    if root is None and not make and not settings.database and not (folder / "instar.db").exists():
        raise NotFound(
            "there is neither a project nor a store",
            subject=f"folder {start}",
            asked=f"an instar.toml here or above, or a store at {folder}",
            next_step="Name a store with INSTAR_STORE, or make a project with `instar init`, or a store with `instar up`.",
        )
    database_url = settings.database_url(folder)
    store = open_store(folder, database_url, clock)
    try:
        yield App(store, root, start, database_url)
    finally:
        store.database.close()


def open_store(folder: Path, database_url: str, clock: Clock | None = None) -> Store:
    """Open a store, making it or bringing it to this program's format when needed.

    Raises:
        StoreError: Its database cannot be opened; the message has the database's own words.
        StoreTooNew: A later program wrote it.
    """
    import sqlalchemy as sa

    from instar.adapters import migrations
    from instar.adapters.blobs_folder import FolderBlobs
    from instar.core.store import Store

    folder.mkdir(parents=True, exist_ok=True)
    database = open_database(database_url)
    try:
        migrations.prepare(database)
    except sa.exc.DBAPIError as error:
        from instar.core.errors import StoreError

        database.close()
        raise StoreError(
            f"its database cannot be opened: {error.orig}",
            subject=f"store {folder}",
            next_step="Start the database server or mend its address in INSTAR_DATABASE; a SQLite file may be damaged.",
        ) from error
    return Store(folder, database, FolderBlobs(folder / "blobs"), clock or SystemClock(), identity.local_user())


def staging(folder: Path) -> Blobs:
    """Blobs that lie beside a spool until a store has them."""
    from instar.adapters.blobs_folder import FolderBlobs

    return FolderBlobs(folder)


def open_database(url: str) -> Database:
    """The adapter for a database URL: `sqlite:///FILE` or `postgresql://…`."""
    if url.startswith("sqlite:///"):
        from instar.adapters.database_sqlite import SqliteDatabase

        return SqliteDatabase(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgresql+psycopg://")):
        from instar.adapters.database_postgres import PostgresDatabase

        return PostgresDatabase(url)
    from instar.core.errors import StoreError

    raise StoreError(
        "no database speaks that URL",
        subject="INSTAR_DATABASE",
        found=url.split("://")[0] + "://…",
        asked="sqlite:///FILE or postgresql://USER@HOST/NAME",
    )


def open_source(path: Path, artifacts: Path | None = None) -> MlflowDatabase | MlflowFolder:
    """The reader of another tracker's store: a SQLite file or an `mlruns` folder of MLflow.

    Raises:
        BadInput: It is neither.
    """
    if path.is_dir():
        from instar.adapters.source_mlflow_folder import MlflowFolder

        return MlflowFolder(path)
    from instar.adapters.source_mlflow_database import MlflowDatabase

    return MlflowDatabase(path, artifacts)
