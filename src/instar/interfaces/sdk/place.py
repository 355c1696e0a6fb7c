"""Where the records of a run go, found when it starts and looked up again at each try: a server, the store here, or only a spool.

A server that was named (`url=`, `INSTAR_URL`) is the only one asked. Else a server that runs on the store of the project
here, and without one the store itself, whose files belong to this user. Without a project, all stays in the user's own spool.
"""

from __future__ import annotations

import os
import socket
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instar.core.settings import DEFAULT_PROJECT, read_settings
from instar.plan.project import find_root_if_any
from instar.train.delivery import Sink
from instar.train.spool import FOLDER, About

if TYPE_CHECKING:
    from instar.core.store import Store


@dataclass(frozen=True)
class Place:
    """Where a run is recorded.

    Attributes:
        project: Whose run it is; empty for the server's own, whichever server it will be.
        root: The project's folder; None outside of any.
        spool: Folder of the spool.
        url: The server that was named; None when none was.
        store: Folder of the store of the project here; None outside of any.
    """

    project: str
    root: Path | None
    spool: Path
    url: str | None
    store: Path | None

    @property
    def told(self) -> str:
        """Machine and folder of the spool, as the record says where a run's files lie."""
        return f"{socket.gethostname()}:{self.spool}"  # as `train.syncing.told`, without its imports


def find(project: str | None = None, url: str | None = None, start: Path | None = None) -> Place:
    """The place of a run that starts in the folder `start` (default: this one). Nothing is opened or asked."""
    settings = read_settings()
    here, url = start or Path.cwd(), url or settings.url
    root = find_root_if_any(here)
    folder = settings.store_folder(root or here)
    here_is_one = root is not None or settings.store or settings.database or (folder / "instar.db").exists()
    store = folder if here_is_one else None
    own = DEFAULT_PROJECT if here_is_one and url is None else ""
    name = project or (project_name(root) if root is not None else None) or own
    return Place(name, root, store / FOLDER if store else own_spool(), url, store)


def sink(place: Place) -> Sink | None:
    """A way to where the records go, as things are now; None when there is nowhere.

    Raises:
        InstarError: The store here cannot be opened.
    """
    from instar.interfaces.sdk.http import HttpSink
    from instar.serve.root.process import running

    if place.url is not None:
        return HttpSink(place.url, store_folder=place.store)
    if place.store is None:
        return None
    server = running(place.store)
    if server is not None:
        return HttpSink(server.url, store_folder=place.store)
    from instar.app import open_store
    from instar.train.intake import StoreSink

    return StoreSink(
        open_store(place.store, read_settings().database_url(place.store)), own=True, close_model=_close_model
    )


def _close_model(store: Store, model: str) -> None:
    from instar.release import packing  # loaded when a run logs a model, which few do

    packing.close(store, model)


class Sinks:
    """The ways for spools that somebody left, each opened once: to the server named now or then, else to the store here.

    Args:
        url: The server for all of them.
        here: The place whose store takes the spools that lie in it.
    """

    def __init__(self, url: str | None = None, here: Place | None = None) -> None:
        self._url, self._here = url, here
        self._open: dict[str | None, Sink | None] = {}

    def find(self, about: About, *, at_home: bool, delivered: bool = False) -> Sink | None:
        """The way for one spool; None when there is none.

        Args:
            at_home: It lies in the store here.
            delivered: It was delivered before: then no other server than its own is given it, too.
        """
        from instar.interfaces.sdk.http import HttpSink

        if delivered and None not in (self._url, about.url) and self._url != about.url:
            return None
        url = self._url or about.url or (self._here.url if self._here is not None else None)
        if url is None and not at_home:
            return None
        if url not in self._open:
            self._open[url] = HttpSink(url) if url else sink(self._here) if self._here is not None else None
        return self._open[url]

    def close(self) -> None:
        """Let go of them."""
        for one in self._open.values():
            if one is not None:
                one.close()


def own_spool() -> Path:
    """The user's spool, for runs outside of any project."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "instar" / FOLDER


def project_name(root: Path) -> str | None:
    """The project's name. A contract that is wrong elsewhere is no reason not to record a run."""
    try:
        contract = tomllib.loads((root / "instar.toml").read_text("utf-8"))
        return str(contract["project"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
