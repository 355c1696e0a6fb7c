"""The entrance of a gateway: who calls, may they, not too often, and what is kept of those who are turned away.

    held = entrance.enter(scope["headers"], "POST", path)           # 401, 403, 429; the caller of the record
    entrance.require(held, "POST", path, endpoint.name, endpoint.policy.project)

gRPC's metadata is such a list of headers, too. `RULES` is the table of what a gateway answers by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from instar.core.errors import InstarError, NotAllowed
from instar.core.identity import EVERYWHERE, Permission
from instar.core.settings import Settings
from instar.core.watching import FolderWatch
from instar.serve.access.keyring import Headers, Keyring, Pass
from instar.serve.access.visits import NOBODY, Visits
from instar.serve.protocol import replies
from instar.serve.traffic.routes import serve_folder

LOOK_SECONDS = 20.0  # between two looks at who may call, when nothing told that it changed
AGAIN_SECONDS = 2.0  # after which what could not be left for the record is offered again
GATHER_SECONDS = 0.2  # for which news are gathered
BLIND_LOOK_SECONDS = 0.1  # where the system tells of no changed files

# What a gateway answers by itself, and what it asks for. `READ` is enough to be told what an endpoint is.
RULES: Mapping[str, tuple[Permission, ...]] = {
    "GET /v2/health/live": (Permission.PUBLIC,),
    "GET /v2/health/ready": (Permission.PUBLIC,),
    "GET /v2": (Permission.KNOWN,),
    "GET /v2/openapi.json": (Permission.KNOWN,),
    "POST /v2/repository/index": (Permission.KNOWN,),
    "POST /v2/repository/models/{endpoint}/load": (Permission.PREDICT, Permission.READ),
    "POST /v2/repository/models/{endpoint}/unload": (Permission.PREDICT, Permission.READ),
    "GET /v2/models/{endpoint}/openapi.json": (Permission.PREDICT, Permission.READ),
    "GET /v2/models/{endpoint}": (Permission.PREDICT, Permission.READ),
    "GET /v2/models/{endpoint}/ready": (Permission.PREDICT, Permission.READ),
    "GET /v2/models/{endpoint}/versions/{version}": (Permission.PREDICT, Permission.READ),
    "GET /v2/models/{endpoint}/versions/{version}/ready": (Permission.PREDICT, Permission.READ),
    "POST /v2/models/{endpoint}/infer": (Permission.PREDICT,),
    "POST /v2/models/{endpoint}/records": (Permission.PREDICT,),
    "POST /v2/models/{endpoint}/versions/{version}/infer": (Permission.PREDICT,),
    "POST /v2/models/{endpoint}/versions/{version}/records": (Permission.PREDICT,),
    "POST /endpoints/{endpoint}/invocations": (Permission.PREDICT,),
    "POST /invocations": (Permission.PREDICT,),
    "GET /ping": (Permission.PUBLIC,),
    "GET /endpoints/{endpoint}/ping": (Permission.PREDICT, Permission.READ),
    "GET /endpoints/{endpoint}/health": (Permission.PREDICT, Permission.READ),
    "GET /endpoints/{endpoint}/version": (Permission.PREDICT, Permission.READ),
    "GET /metrics": (Permission.READ,),
}

# The methods of gRPC's port, each with the rule that it is answered under.
GRPC_METHODS: Mapping[str, str] = {
    "ServerLive": "GET /v2/health/live",
    "ServerReady": "GET /v2/health/ready",
    "Check": "GET /v2/health/ready",
    "ServerMetadata": "GET /v2",
    "RepositoryIndex": "POST /v2/repository/index",
    "RepositoryModelLoad": "POST /v2/repository/models/{endpoint}/load",
    "RepositoryModelUnload": "POST /v2/repository/models/{endpoint}/unload",
    "ModelMetadata": "GET /v2/models/{endpoint}",
    "ModelReady": "GET /v2/models/{endpoint}/ready",
    "ModelInfer": "POST /v2/models/{endpoint}/infer",
}

_WORDS = {word for rule in RULES for word in rule.split(" ", 1)[1].split("/")}


class Entrance:
    """What stands before all that one gateway answers.

    Args:
        name: Of the gateway's process.
    """

    def __init__(self, store_folder: Path, settings: Settings, name: str) -> None:
        self._folder = store_folder
        self.keyring = Keyring(store_folder, settings)
        self._visits = Visits(store_folder, name)
        stale = settings.identity_max_stale_seconds
        self._look_seconds = min(LOOK_SECONDS, stale / 4) if stale is not None else LOOK_SECONDS

    def enter(self, headers: Headers, method: str, path: str) -> Pass:
        """Who calls; counts the call.

        Raises:
            Unauthenticated, NotAllowed, TooManyCalls: It is turned away, and that is kept.
        """
        held: Pass | None = None
        try:
            held = self.keyring.authenticate(headers)
            held.enter(time.time())
            return held
        except InstarError as problem:
            self._turned_away(held, method, path, problem)
            raise

    def know(self, headers: Headers, method: str, path: str) -> Pass:
        """Who calls, before it is a call that counts.

        Raises:
            Unauthenticated, NotAllowed: It is turned away, and that is kept.
        """
        try:
            return self.keyring.authenticate(headers)
        except InstarError as problem:
            self._turned_away(None, method, path, problem)
            raise

    def require(self, held: Pass, method: str, path: str, endpoint: str, project: str) -> None:
        """Raises NotAllowed unless the caller may ask the endpoint for answers, and keeps that."""
        if held.may_ask(endpoint, project):
            return
        try:
            held.require(endpoint, project)
        except NotAllowed as problem:
            self._turned_away(held, method, path, problem, project)
            raise

    def require_sight(self, held: Pass, method: str, path: str, endpoint: str, project: str) -> None:
        """Raises NotAllowed unless the caller may know of the endpoint, and keeps that."""
        if not self.sees(held, endpoint, project):
            self.require(held, method, path, endpoint, project)

    def sees(self, held: Pass, endpoint: str, project: str) -> bool:
        """Whether the caller may know of an endpoint."""
        caller = held.caller
        return held.may_ask(endpoint, project) or (caller.reaches(endpoint) and caller.may(Permission.READ, project))

    def require_reader(self, held: Pass, method: str, path: str, projects: Iterable[str]) -> None:
        """Raises NotAllowed unless the caller may read of all endpoints of these projects, and keeps that."""
        caller = held.caller
        reads = caller.may_somewhere(Permission.READ) and all(caller.may(Permission.READ, one) for one in projects)
        if caller.endpoints is not None or not reads:
            problem = NotAllowed(
                f"{caller.name} may not read of all endpoints", subject=path,
                asked=f"the permission to {Permission.READ} in every project with an endpoint",
            )  # fmt: skip
            self._turned_away(held, method, path, problem, EVERYWHERE)
            raise problem

    async def watch(self) -> None:
        """Take up who may call as it changes, and leave what was seen for the record, for ever."""
        folder = serve_folder(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        watch, changed, loop = FolderWatch(folder), asyncio.Event(), asyncio.get_running_loop()

        def told() -> None:
            watch.clear()
            changed.set()

        self._visits.tell = changed.set

        if watch.tells:
            loop.add_reader(watch.fileno(), told)
        try:
            while True:
                changed.clear()
                self.keyring.look()
                told_all = self._visits.leave(self.keyring.passes())
                await asyncio.sleep(GATHER_SECONDS)
                with contextlib.suppress(TimeoutError):
                    seconds = self._look_seconds if told_all else AGAIN_SECONDS
                    await asyncio.wait_for(changed.wait(), seconds if watch.tells else BLIND_LOOK_SECONDS)
        finally:
            if watch.tells:
                loop.remove_reader(watch.fileno())
            watch.close()

    def _turned_away(self, held: Pass | None, method: str, path: str, problem: InstarError, project: str = "") -> None:
        name = held.caller.name if held is not None else NOBODY
        self._visits.refuse(name, f"{method[:10]} {_form(path)}", replies.status_of(problem), project)


def _form(path: str) -> str:
    """The path with names of endpoints left out, so that a caller cannot make up many: `/v2/models/{endpoint}/infer`."""
    parts = path.split("/")
    for at, word in ((2, "models"), (3, "models"), (1, "endpoints")):
        if parts[at : at + 1] == [word]:
            parts[at + 1 : at + 2] = ["{endpoint}"]
            break
    return "/".join(part if part in _WORDS else "{…}" for part in parts[:8])
