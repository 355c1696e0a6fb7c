"""MLPerf's load generator against an endpoint with the record on: scenarios Server (random arrivals), Offline (all at once)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "rivals")]

import hot_path  # noqa: E402
import servers  # noqa: E402

from instar.serve.publishing import snapshot  # noqa: E402
from instar.serve.root.process import ServerTree  # noqa: E402

OFFLINE_RATE = 30_000.0  # more than can be answered: the scenario must last as long as it was told to


def main(arguments: list[str] | None = None) -> int:
    """Print what the generator says; fails where a call failed or the Server scenario does not hold its latency."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1000.0, help="queries a second in the scenario Server")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each scenario, at least")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as scratch:
        folder = Path(scratch)
        made, row = hot_path.make_store(folder)
        (folder / "body").write_bytes(servers.tensor(row, 1))
        with ServerTree.start(made.folder, control=False) as server:
            snapshot.wait_acknowledged(made, snapshot.publish(made))
            found = {
                scenario: scenario_of(server.url + hot_path.PATH, folder, scenario, options.rate, options.seconds)
                for scenario in ("server", "offline")
            }
        made.database.close()
    for scenario, said in found.items():
        print(f"{scenario}: {facts(said['summary'])}; {said['failed']} failed")
    held = found["server"]["summary"].get("Result is") == "VALID"
    return 0 if held and not any(said["failed"] for said in found.values()) else 1


def scenario_of(url: str, folder: Path, scenario: str, rate: float, seconds: float) -> dict[str, Any]:
    """One scenario, in the generator's own environment."""
    place = folder / scenario
    place.mkdir()
    expected = rate if scenario == "server" else OFFLINE_RATE
    command = [
        str(servers.environment("loadgen")), str(servers.HERE / "run_loadgen.py"), url, str(folder / "body"), scenario,
        str(expected), str(seconds), str(place),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def facts(summary: dict[str, str]) -> str:
    """What counts of a summary."""
    names = ("Result is", "Completed samples per second", "Samples per second", "99.00 percentile latency (ns)")
    return ", ".join(f"{name}: {summary[name]}" for name in names if name in summary)


if __name__ == "__main__":
    sys.exit(main())
