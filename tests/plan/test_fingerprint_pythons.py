"""The same source has the same fingerprint on every Python that is supported: each one on this machine is asked.

The golden number stands for those that are not here: whoever has one runs this test on it. It must not change unless the
rules of the fingerprint do, and then every step of every project runs once more. `RENEW_GOLDEN=1` writes it anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SUPPORTED = (11, 12, 13, 14)  # as `requires-python` says

CHILD = """
import ast, hashlib, json, pathlib, sys, types

# Other interpreters have neither blake3 nor polars: the digests are compared with each other, so any hash will do.
fake = types.ModuleType("blake3")
fake.blake3 = hashlib.sha256
sys.modules["blake3"] = fake
from instar.plan import importing, pipeline, syntax
from instar.plan.fingerprint import fingerprint

root, ours = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
modules, sources = importing.import_afresh(root, [root / "pipeline.py"])
steps = pipeline.assemble(modules, sources).steps
found = {name: fingerprint(step.function, root=root, sources=sources) for name, step in steps.items() if step.function}
prints = {name: [one.digest, dict(one.parts), list(one.unresolved)] for name, one in found.items()}
texts = {file.name: hashlib.sha256(syntax.meaning(ast.parse(file.read_text("utf-8"))).text.encode()).hexdigest()
         for file in sorted(ours.glob("*.py"))}
print(json.dumps([f"3.{sys.version_info.minor}", prints, texts]))
"""
EVERYTHING = '''
import datetime, re
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple
from instar import silver

WHEN = datetime.datetime(2013, 1, 1, tzinfo=datetime.timezone.utc)
WORD = re.compile(r"a+b", re.I)
PLACE = Path("a") / "b"
SIZES = {3, 1, 2}
RARE = "\\u00e9\\U0001fadf\\u1c8a"
BIG = 1e400, 0.1, -0.0, 1j, b"\\x00", ..., 10**20

class Pair(NamedTuple):
    left: int
    right: "int" = 2

class Meta(type):
    x = 1
    y = x + 1

class Thing(metaclass=Meta):
    """Doc."""
    size: int = 3
    """Note."""
    def __init__(self): self.pairs = [Pair(1)]
    @property
    def first(self): return self.pairs[0].left
    @staticmethod
    def still(): return SIZES

async def waits(x):
    async with x as y:
        return [z async for z in y]

def spread(*args, key=lambda a: a, **rest):
    first, *others = args
    try:
        match first:
            case {"a": 1, **more} if more: return more
            case [1, 2, *_] | (3 | 4): return Pair(left=0)
            case str() as text: return text
    except* ValueError as group:
        raise group
    finally:
        del others
    with open("x") as a, open("y") as b:
        global SHARED
        SHARED = [i for j in a for i in j if (k := i)]
    def inner():
        nonlocal first
        first = f"{k!r:>{len(rest)}}{first}" "tail" f"{{}}{first=}" rf"\\d{first:%H}"
        return first
    return {**rest, "x": {y: y for y in b}}, (yield from inner()), -1, not first, a @ b, a if b else [*b], a[1:2, ::3]

@silver()
def made(table: "pl.DataFrame" = None, *, limit: float = 0.5):
    """Doc."""
    assert WHEN and WORD and PLACE and SIZES and RARE and BIG, "all"
    for i in range(3):
        while i: break
        else: continue
    return spread(Thing()), waits, limit, Decimal("1.10"), lambda *, q=limit: q
'''


def interpreter(minor: int) -> str | None:
    """A Python of that version on this machine; what is found but cannot start is no Python (a shim of pyenv, for one)."""
    if minor == sys.version_info.minor:
        return sys.executable
    places = [shutil.which(f"python3.{minor}"), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}")]
    for place in places:
        if place is not None and subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(place)
    return None


def answer(python: str, root: Path) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-c", CHILD, str(root), str(ROOT / "src" / "instar" / "plan")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("minor", SUPPORTED)
def test_is_the_same_on_all_supported_pythons(folder, minor: int) -> None:
    python = interpreter(minor)
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} on this machine")
    folder.write({"pipeline.py": EVERYTHING})
    version, prints, _ = answer(python, folder.root)
    assert version == f"3.{minor}"
    reached = {"pipeline.made", "pipeline.spread", "pipeline.Thing", "pipeline.Meta", "pipeline.RARE"}
    assert reached <= set(prints["made"][1])
    golden = Path(__file__).parent / "golden" / "fingerprint.sha256"
    summary = hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()
    if os.environ.get("RENEW_GOLDEN") and python == sys.executable:
        golden.write_text(summary + "\n")
    assert golden.read_text().strip() == summary


def test_real_files_read_the_same_on_all_pythons_here(folder) -> None:
    folder.write({"pipeline.py": EVERYTHING})
    here = [python for minor in SUPPORTED if (python := interpreter(minor)) is not None]
    first, *others = [answer(python, folder.root) for python in here]
    assert len(first[2]) > 20
    for other in others:
        assert other[2] == first[2], other[0]


def test_the_supported_pythons_are_those_that_the_package_says() -> None:
    assert f'requires-python = ">=3.{SUPPORTED[0]},<3.{SUPPORTED[-1] + 1}"' in (ROOT / "pyproject.toml").read_text()
