"""The process in which a step's run is made again: `python -P -m instar.operate.again REQUEST OUTCOME`, both JSON files.

It runs in the environment of that run, with the code, the inputs, the threads and the seeds of that run, and touches no store.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from instar.evaluate.split import cut
from instar.train.repeating import Request, repeat


def main(request: str, outcome: str) -> None:
    """Do what the request asks, and write what came of it."""
    asked = msgspec.json.decode(Path(request).read_bytes(), type=Request)
    Path(outcome).write_bytes(msgspec.json.encode(repeat(asked, cut)))


if __name__ == "__main__":
    main(*sys.argv[1:])
