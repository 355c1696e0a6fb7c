"""Start: `import instar` and `instar --help` beside a Python that does nothing, side by side in turns.

The limits are 150 ms for the import and 300 ms for the help. Each command is a new process; the turns are interleaved, so
that a busy machine slows all alike; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

PYTHON = sys.executable
INSTAR = str(Path(PYTHON).parent / "instar")
COMMANDS = {
    "python -c pass": [PYTHON, "-c", "pass"],
    "import click": [PYTHON, "-c", "import click"],
    "import instar": [PYTHON, "-c", "import instar"],
    "instar --help": [INSTAR, "--help"],
}
LIMITS_MS = {"import instar": 150.0, "instar --help": 300.0}


def main() -> int:
    """Print medians and ratios; fails when a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        _ms(command)  # once for the disk's cache and for compiled files
    for _ in range(options.turns):
        for name, command in COMMANDS.items():
            times[name].append(_ms(command))
    medians = {name: median(values) for name, values in times.items()}
    if options.json:
        print(json.dumps({"median_ms": medians, "turns": options.turns}))
    else:
        bare = medians["python -c pass"]
        print(f"{'command':18} {'median ms':>10} {'lowest':>8} {'highest':>8} {'to bare':>8} {'limit':>7}")
        for name, values in times.items():
            limit = f"{LIMITS_MS[name]:.0f}" if name in LIMITS_MS else ""
            row = f"{medians[name]:10.1f} {min(values):8.1f} {max(values):8.1f} {medians[name] / bare:7.1f}x"
            print(f"{name:18} {row} {limit:>7}")
    return int(any(medians[name] > limit for name, limit in LIMITS_MS.items()))


def _ms(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
