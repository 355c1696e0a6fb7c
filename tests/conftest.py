"""What all tests share: a fresh store, real servers, and no skips for want of a tool in continuous integration."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.core.store import Store
from instar.testing import memory_store

# Fits share the machine with servers and with other tests: as in the command line, waiting threads do not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# No index is asked: what tests build environments of, they make themselves.
os.environ.setdefault("UV_OFFLINE", "1")
# Whoever started the tests in the background, or by `nohup`, left these ignored, and so they would be in what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = memory_store(tmp_path)
    yield store
    store.database.close()


def need(tool: str | None, name: str, package: str) -> str:
    """The path of a tool; without it the test skips with a reason, and fails in continuous integration."""
    if tool is not None:
        return tool
    reason = f"{name} is not on this machine: install Debian's package {package} to run this test"
    if os.environ.get("INSTAR_CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that renders pages in tests."""
    return need(shutil.which("chromium") or shutil.which("chromium-browser"), "Chromium", "chromium")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real PostgreSQL server on loopback, made for this test session and ended with it."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb")) or [shutil.which("initdb") or ""]
    binaries = Path(need(found[-1] or None, "PostgreSQL", "postgresql")).parent
    folder = Path(tempfile.mkdtemp(prefix="instar-postgres-"))  # pytest's own folders are closed to other users
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # PostgreSQL refuses to run as root, as which containers often run tests.
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if become:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    run = [*become, str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "instar", "-N"]
    subprocess.run(run, check=True, capture_output=True)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    control = [*become, str(binaries / "pg_ctl"), "-D", str(data), "-w"]
    subprocess.run([*control, "-o", options, "-l", str(folder / "log"), "start"], check=True, capture_output=True)
    yield f"postgresql://instar@127.0.0.1:{port}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True)
    shutil.rmtree(folder)


@pytest.fixture
def postgres_database(postgres: str, tmp_path: Path) -> str:
    """URL of an empty database of the PostgreSQL server."""
    import psycopg

    name = f"test_{abs(hash(str(tmp_path))):x}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{postgres}/{name}"
