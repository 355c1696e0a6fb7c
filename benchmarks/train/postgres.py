"""A PostgreSQL server of one's own for the benchmark, durable as PostgreSQL comes; none where it is not installed."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import free_port


@contextmanager
def server(folder: Path) -> Iterator[str | None]:
    """Its address, without a database."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb")) or [shutil.which("initdb") or ""]
    if not found[-1]:
        print("PostgreSQL is not on this machine: SQLite only", file=sys.stderr)
        yield None
        return
    binaries, port = Path(found[-1]).parent, free_port()
    place = Path(tempfile.mkdtemp(prefix="instar-postgres-"))  # a folder that PostgreSQL's own user may enter
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if become:
        shutil.chown(place, "postgres", "postgres")
    data = place / "data"
    make = [*become, str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "instar"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    control = [*become, str(binaries / "pg_ctl"), "-D", str(data), "-w"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    start = [*control, "-o", options, "-l", str(place / "log"), "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
    try:
        yield f"postgresql://instar@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(place, ignore_errors=True)


def create(address: str) -> str:
    """URL of a new, empty database."""
    import psycopg

    name = f"bench_{time.time_ns()}"
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{address}/{name}"
