"""A server answers what it says of itself at once, and loads the rest behind its first answers, or when it is asked for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from starlette.testclient import TestClient

from instar.app import App
from instar.core.identity import Permission
from instar.core.store import Store
from instar.interfaces.api.application import Application
from instar.interfaces.api.routes import Bound, Reply, Request, Route


def _route(path: str) -> Route:
    def answer(request: Request) -> Reply:
        return Reply({"path": path})

    return Route("GET", path, Permission.READ, answer, bound=Bound.STORE)


def _application(store: Store, loaded: list[str]) -> Application:
    def soon() -> list[Route]:
        loaded.append("soon")
        return [_route("/api/soon")]

    def later() -> list[Route]:
        loaded.append("later")
        return [_route("/api/later")]

    return Application(App(store, None), [_route("/first")], soon=soon, later=later)


def test_what_is_not_loaded_yet_is_loaded_by_the_call_that_asks_for_it(store: Store) -> None:
    loaded: list[str] = []
    with TestClient(_application(store, loaded), base_url="http://127.0.0.1:5000") as client:
        assert client.get("/first").json() == {"path": "/first"}
        assert loaded == []
        assert client.get("/api/soon").json() == {"path": "/api/soon"}
        assert loaded == ["soon"]
        assert client.get("/api/later").json() == {"path": "/api/later"}
        assert client.get("/api/nowhere").status_code == 404
        assert loaded == ["soon", "later"]  # each once


def test_what_comes_soon_is_loaded_once_however_many_ask(store: Store) -> None:
    loaded: list[str] = []
    application = _application(store, loaded)

    async def ask() -> None:
        await asyncio.gather(*(application.load_soon() for _ in range(5)))

    asyncio.run(ask())
    assert loaded == ["soon"]


def test_the_first_answer_needs_no_stage(tmp_path: Path) -> None:
    """What the control process has loaded when it could answer for the first time."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from instar.app import open_app\n"
        "from instar.interfaces.control import build\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with open_app(folder, store_folder=folder / '.instar', need_project=False) as app:\n"
        "    from instar.serve.publishing import snapshot\n"
        "    snapshot.publish(app.store)\n"
        "    build(app)\n"
        "print(*sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    unwanted = ("alembic", "sqlalchemy.dialects.postgresql", "prometheus_client", "instar.operate", "instar.release")
    assert not [name for name in loaded if name.startswith(unwanted)]
    assert "instar.train.tracking_tables" not in loaded
