"""Serving: answers a second with the record on, beside the servers that people use, in one run on one machine.

./run bench serve [rivals]        one row of 30 floats, beside MLServer, KServe, Triton, LitServe, BentoML, Ray, MLflow
./run bench serve hot             Instar alone, beside an echo on the same HTTP stack, with processor time by process
./run bench serve versions        champion, shadows and a native rule, beside a home-made server
./run bench serve overload        up to ten times what the server can answer
./run bench serve many            a thousand models in little memory
./run bench serve loadgen         MLPerf's load generator, scenarios Server and Offline
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

PARTS = {
    "rivals": "comparison", "hot": "hot_path", "versions": "versions", "overload": "overload", "many": "many_models",
    "loadgen": "loadgen",
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run one part; returns its exit status."""
    part = arguments[0] if arguments and not arguments[0].startswith("-") else "rivals"
    if part not in PARTS:
        print(__doc__, file=sys.stderr)
        return 2
    sys.path.insert(0, str(Path(__file__).parent))
    return importlib.import_module(PARTS[part]).main([one for one in arguments if one != part]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
