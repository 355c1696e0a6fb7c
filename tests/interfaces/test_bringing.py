"""Models brought over HTTP: the same version as from here; what leads out, fills the disk or was cut off is refused."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from instar.app import App
from instar.core import ids
from instar.core.errors import BadInput, UnsafeModel
from instar.core.store import Store
from instar.interfaces import control
from instar.interfaces.api import bringing
from instar.interfaces.cli.model_files import import_file
from instar.interfaces.sdk import client as sdk
from instar.interfaces.sdk.bringing import pack
from instar.release import registry
from instar.release.brought import Terms, bring
from instar.testing import memory_store
from instar.train import bundle

pytest.importorskip("onnx")

from tests.train import graphs

PROJECT = "default"
ADDRESS = f"/api/projects/{PROJECT}/models/tumour/versions"
COMMAND = 'command = ["./serve"]\n[[inputs]]\nname = "x"\ndatatype = "FP64"\nmax = 9\n'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = memory_store(tmp_path / "store")
    yield store
    store.database.close()


@pytest.fixture
def server(store: Store) -> Iterator[TestClient]:
    application = control.build(App(store, None), bringing.routes)
    with TestClient(application, base_url="http://127.0.0.1:5000") as client:
        yield client


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    file = tmp_path / "tumour.onnx"
    file.write_bytes(graphs.same("FP32"))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "program"
    (place / "parts").mkdir(parents=True)
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text("a secret")
    (place / "model.toml").write_text(COMMAND)
    (place / "parts" / "weights.txt").write_text("1 2 3")
    (place / "serve").write_text("#!/bin/sh\n")
    (place / "serve").chmod(0o755)
    return place


@pytest.fixture
def connect(server: TestClient) -> Callable[..., sdk.Client]:
    """A client whose transport is the application."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/api/projects":
            return httpx2.Response(200, json={"own": PROJECT})
        headers = {name: value for name, value in request.headers.items() if name != "transfer-encoding"}
        reply = server.request(request.method, str(request.url), content=request.read(), headers=headers)
        return httpx2.Response(reply.status_code, content=reply.content)

    def connecting(url: str = "http://127.0.0.1:5000", *, project: str | None = None) -> sdk.Client:
        return sdk.Client(url, project=project, transport=httpx2.MockTransport(answer))

    return connecting


def test_a_file_is_the_version_that_it_would_be_here(
    store: Store, graph: Path, connect: Callable[..., sdk.Client]
) -> None:
    with connect() as client:
        told = client.import_model(graph, "tumour", personal=["x"], limits=["x=0..1"])
        assert client.import_model(graph, "tumour", personal=["x"], limits=["x=0..1"]) == told
    assert (told["version"], told["form"]) == ("tumour@1", "onnx")
    assert "input    x FP32 [-1, 2], personal, 0 to 1" in told["about"]
    here = bring(store, PROJECT, "tumour", graph, Terms(personal=("x",), limits=bringing.read_named(["x=0..1"])))
    assert (here.version.name, here.bundle) == ("tumour@1", told["bundle"])


def test_a_folder_is_the_version_that_it_would_be_here(
    store: Store, folder: Path, connect: Callable[..., sdk.Client]
) -> None:
    with connect() as client:
        told = client.import_model(folder, "tumour")
    assert (told["version"], told["form"]) == ("tumour@1", "command")
    manifest = bundle.load_manifest(store.blobs, told["bundle"])
    assert manifest.command is not None
    assert sorted(manifest.command.files) == ["model.toml", "parts/weights.txt", "serve"]
    assert manifest.command.executable == ("serve",)
    assert bring(store, PROJECT, "tumour", folder).bundle == told["bundle"]


def test_the_command_brings_to_the_server_that_is_configured(
    folder: Path, connect: Callable[..., sdk.Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sdk, "connect", connect)
    monkeypatch.setenv("INSTAR_URL", "http://127.0.0.1:5000")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(import_file, [str(folder), "--name", "tumour"], obj=None, catch_exceptions=False)
    assert "tumour@1: command, b3:" in done.output
    assert "command  ./serve; 3 files" in done.output
    assert "input    x FP64, 9 or less" in done.output
    assert not (tmp_path / ".instar").exists()
    arguments = [str(folder), "--name", "tumour", "--url", "http://127.0.0.1:5000", "--json"]
    told = json.loads(CliRunner().invoke(import_file, arguments, obj=None, catch_exceptions=False).output)
    assert told["version"] == "tumour@1"


def post(server: TestClient, body: bytes, media: str = "application/zip", **query: Any) -> Any:
    asked = {"digest": ids.digest(body), **query}
    return server.post(ADDRESS, content=body, params=asked, headers={"content-type": media})


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compress) as packed:
        for name, data in entries:
            packed.writestr(name, data, compress)
    return made.getvalue()


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("weights")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


TOML = ("model.toml", COMMAND.encode())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (archive(TOML, ("../../evil", b"x")), "leads out"),
        (archive(TOML, ("/etc/evil", b"x")), "leads out"),
        (archive(TOML, ("a\\..\\..\\evil", b"x")), "leads out"),
        (archive(TOML, (link(), b"/etc/passwd")), "symbolic link"),
        (archive(TOML, ("zeros", bytes(64 << 20)), compress=zipfile.ZIP_DEFLATED), "far more"),
        (archive(TOML, ("a", b"x"), ("a/b", b"x")), "cannot be unpacked"),
        (archive(TOML)[:-30], "cannot be read"),
        (b"no archive", "no zip archive"),
    ],
    ids=["up", "absolute", "backslashes", "link", "bomb", "file and folder", "cut off", "none"],
)
def test_an_archive_that_would_do_harm_is_refused(
    server: TestClient, store: Store, tmp_path: Path, body: bytes, why: str
) -> None:
    reply = post(server, body)
    assert (reply.status_code, reply.json()["type"]) == (422, UnsafeModel.__name__)
    assert why in reply.json()["error"]
    assert not list(tmp_path.rglob("evil"))
    assert registry.versions(store, PROJECT) == []


def test_what_was_cut_off_or_is_not_named_is_refused(server: TestClient, store: Store, graph: Path) -> None:
    body, media = graph.read_bytes(), "application/octet-stream"
    for changed, why in (
        ({"digest": ids.digest(b"other")}, "not what its digest says"),
        ({"digest": ""}, "digest of the content is not given"),
        ({}, "does not say what it is"),
        ({"file": "model.pkl"}, "does not say what it is"),
        ({"form": "onnx", "batch": "some"}, "no way to batch"),
        ({"form": "onnx", "limit": "x"}, "no limit"),
        ({"form": "onnx", "personal": "z"}, "no such input"),
    ):
        reply = post(server, body, media, **changed)
        assert (reply.status_code, why in reply.json()["error"]) == (400, True), reply.text
    in_folder = post(server, archive(TOML), personal="x")
    assert (in_folder.status_code, "model.toml of a folder" in in_folder.json()["error"]) == (400, True)
    assert server.post(ADDRESS.replace("tumour", "a%00b"), params={"digest": ids.digest(b"")}).status_code == 400
    assert registry.versions(store, PROJECT) == []


def test_links_are_not_followed_into_an_archive(folder: Path, tmp_path: Path) -> None:
    (folder / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="a link"):
        pack(folder, tmp_path / "made.zip")
