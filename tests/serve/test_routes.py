from __future__ import annotations

import os
from pathlib import Path

import pytest

from instar.core.errors import Damaged
from instar.serve.traffic import routes
from instar.serve.traffic.routes import Ack
from tests.serve import fakes


def test_a_snapshot_comes_back_whole(tmp_path: Path) -> None:
    assert routes.read_snapshot(tmp_path) == routes.EMPTY
    versions = [fakes.version(tmp_path, 1), fakes.version(tmp_path, 2, native=True)]
    assert fakes.route(tmp_path, versions) == 1
    snapshot = routes.read_snapshot(tmp_path)
    assert snapshot.number == 1
    assert snapshot.endpoints["delay"].signature == fakes.SIGNATURE
    assert snapshot.workers() == {versions[1].worker: [versions[1]], "portable": [versions[0]]}


@pytest.mark.parametrize("change", [(b'"champion":1', b'"champion":2'), (b"}", b""), (b"signature", b"signatrue")])
def test_a_changed_snapshot_is_refused(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    fakes.route(tmp_path, [fakes.version(tmp_path, 1)])
    file = routes.routes_file(tmp_path)
    data = file.read_bytes()
    assert change[0] in data
    file.write_bytes(data.replace(*change, 1))
    with pytest.raises(Damaged):
        routes.read_snapshot(tmp_path)


def test_acknowledgements_come_back(tmp_path: Path) -> None:
    assert routes.read_ack(tmp_path, "AAAAAA") is None
    ack = Ack(5, 3, 9, {"delay@2": "why"}, None)
    routes.write_ack(tmp_path, "AAAAAA", ack)
    assert routes.read_ack(tmp_path, "AAAAAA") == ack


def test_sockets_of_a_deep_store_have_names_that_the_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir("/")
    short = Path("/srv/instar")
    assert routes.worker_socket(short, 7) == short / "serve" / "run" / "worker-7.sock"
    deep = tmp_path / ("d" * 90) / ".instar"
    folder = routes.make_run_folder(deep)
    assert deep not in folder.parents
    assert folder.stat().st_mode & 0o777 == 0o700
    assert routes.run_folder(deep) != routes.run_folder(tmp_path / ("e" * 90) / ".instar")


def test_a_bundles_folder_names_its_bundle(tmp_path: Path) -> None:
    folder = routes.bundle_folder(tmp_path, "b3:00ff")
    assert routes.bundle_of(folder) == "b3:00ff"
    assert os.sep not in folder.name
