"""The door to the benchmarks: `./run bench` runs every area, `./run bench AREA` one of them, `./run bench --list` names them.

An area is a folder here with a `bench.py`, which prints its figures beside those of the peer that it must beat, measured in
the same run on the same machine. Further arguments go to it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    """Run what was asked for; returns the exit status, not 0 if any area failed."""
    known = areas()
    if arguments[:1] in (["--list"], ["-h"], ["--help"]):
        for name, about in known.items():
            print(f"{name:10} {about}")
        return 0
    named = [one for one in arguments[:1] if not one.startswith("-")]
    for name in named:
        if name not in known:
            print(f"there is no area {name!r}; there are: {', '.join(known)}", file=sys.stderr)
            return 2
    failed = []
    for name in named or known:
        print(f"\n== {name}: {known[name]}", flush=True)
        command = [sys.executable, str(HERE / name / "bench.py"), *arguments[len(named) :]]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def areas() -> dict[str, str]:
    """Areas by name, with the first line of what each says of itself."""
    found = {}
    for file in sorted(HERE.glob("*/bench.py")):
        text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        found[file.parent.name] = text.splitlines()[0] if text else ""
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
