"""A server that only tracks runs stays light: no library for tables or models, and no worker, until one is asked for."""

from __future__ import annotations

from pathlib import Path

import httpx2

from instar.serve.root.process import ServerTree

HEAVY = ("polars", "numpy", "pyarrow", "deltalake", "onnxruntime", "treelite", "pandas", "sklearn")


def children(pid: int) -> dict[str, str]:
    """What the processes of a server have loaded, by the module that each runs."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                module = (entry / "cmdline").read_bytes().split(b"\0")[2].decode()
                found[module] = (entry / "maps").read_text()
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
    return found


def test_tracking_needs_no_library_for_tables_or_models(tmp_path: Path) -> None:
    with ServerTree.start(tmp_path / ".instar") as server, httpx2.Client(base_url=server.url, timeout=30) as client:
        api = "/api/2.0/mlflow/"
        experiment = client.post(api + "experiments/create", json={"name": "one"}).json()["experiment_id"]
        run = client.post(api + "runs/create", json={"experiment_id": experiment}).json()["run"]["info"]
        point = {"run_id": run["run_id"], "key": "loss", "value": 0.5, "timestamp": 1, "step": 0}
        assert client.post(api + "runs/log-metric", json=point).status_code == 200
        assert client.get(api + "runs/get", params={"run_id": run["run_id"]}).status_code == 200
        file = run["artifact_uri"].removeprefix("mlflow-artifacts:").lstrip("/") + "/note.txt"
        assert client.put("/api/2.0/mlflow-artifacts/artifacts/" + file, content=b"text").status_code == 200
        assert len(client.get("/api/projects/default/runs").json()["runs"]) == 1
        running = children(server.pid)
        assert sorted(running) == ["instar.interfaces.control", "instar.serve.gateway.gateway"]
        for module, loaded in running.items():
            assert [name for name in HEAVY if name in loaded] == [], module
        # And they are there when somebody asks for what needs them.
        assert client.get("/api/projects/default/tables").status_code == 200
        assert "polars" in children(server.pid)["instar.interfaces.control"]
