"""What a step's code fingerprint sees: every edit that can change its result, and none that cannot."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {
    "pipeline.py": '''"""Steps."""
import functools
import math

import polars as pl

from instar import silver, source
import shapes
from shared import rules
from shared.rules import keep, WORDS, Scaler as Sizer

raw = source("raw")

LIMIT = 3
TABLE = {"a": 1, "b": (2.5, None)}
LATE = pl.col("delay") > LIMIT
TRIPLE = functools.partial(keep, times=3)
SHORT, LONG = (lambda x: x + 1), (lambda x: x + 2)
UNUSED = 1


def retry(times):
    def around(function):
        @functools.wraps(function)
        def inside(*args):
            for _ in range(times):
                return function(*args)
        return inside
    return around


def bound(limit):
    def compare(x):
        return x > limit
    return compare


OVER = bound(10)


@retry(times=2)
def guarded(x):
    return x - 1


@functools.lru_cache(maxsize=8)
def remembered(x):
    return x * 7


def unused():
    return 0


@silver(key=["id"])
def clean(raw, least: int = 5):
    """Make it clean."""
    # a note
    from shared.late import imported_inside
    frame = keep(raw, 2)
    if LIMIT > least and TABLE:
        frame = Sizer(2).scale(frame)
    total = sum(TRIPLE(x) for x in [1, 2] if OVER(x))
    text = f"{total:>{LIMIT}} and {WORDS!r}"
    return guarded(SHORT(rules.outer(frame))), LATE, remembered(1), imported_inside(), shapes.AREA, math.pi, text


@silver()
def lonely(raw):
    return raw
''',
    "shapes.py": "AREA = 4\nOTHER = 5\n",
    "shared/__init__.py": "",
    "shared/rules.py": """
import decimal
from .deep import deepest
from .settings import *

WORDS = ["late", "early"]

class Base:
    FACTOR = 2
    DOUBLE = FACTOR * 2

    def scale(self, x):
        return deepest(x) * self.FACTOR

class Scaler(Base):
    def __init__(self, by):
        self.by = by

    @classmethod
    def of(cls, x):
        return cls(x)

def keep(x, times=1):
    return x

def outer(x, rate=decimal.Decimal("0.1")):
    return helper(x) + STARRED

def helper(x):
    return x + 1
""",
    "shared/deep.py": "def deepest(x):\n    return x\n\ndef not_reached(x):\n    return x\n",
    "shared/settings.py": "STARRED = 9\n",
    "shared/late.py": "def imported_inside():\n    return 'late'\n",
}

# Each edit, the file, and the name of a part that must be among those that changed.
EDITS = {
    "own body": ("pipeline.py", "LIMIT > least and", "LIMIT >= least and", "pipeline.clean"),
    "own default": ("pipeline.py", "least: int = 5", "least: int = 6", "pipeline.clean"),
    "annotation": ("pipeline.py", "least: int = 5", "least: float = 5", "pipeline.clean"),
    "decorator argument of the step": ("pipeline.py", 'key=["id"]', 'key=["id", "day"]', "pipeline.clean"),
    "constant": ("pipeline.py", "LIMIT = 3", "LIMIT = 4", "pipeline.LIMIT"),
    "constant within a dictionary": ("pipeline.py", "2.5, None", "2.6, None", "pipeline.TABLE"),
    "constant in an expression object": ("pipeline.py", '("delay") > ', '("delay") >= ', "pipeline.LATE"),
    "constant of another file": ("shared/rules.py", '["late", "early"]', '["late"]', "pipeline.WORDS"),
    "constant read from a module": ("shapes.py", "AREA = 4", "AREA = 5", "shapes.AREA"),
    "constant imported by a star": ("shared/settings.py", "STARRED = 9", "STARRED = 8", "shared.rules.STARRED"),
    "helper in another file": (
        "shared/rules.py",
        "times=1):\n    return x",
        "times=1):\n    return 2 * x",
        "shared.rules.keep",
    ),
    "helper of a helper": ("shared/rules.py", "    return x + 1", "    return x + 2", "shared.rules.helper"),
    "helper in a third file": (
        "shared/deep.py",
        "deepest(x):\n    return x",
        "deepest(x):\n    return -x",
        "shared.deep.deepest",
    ),
    "helper's default": ("shared/rules.py", 'Decimal("0.1")', 'Decimal("0.2")', "shared.rules.outer"),
    "class method": ("shared/rules.py", "* self.FACTOR", "+ self.FACTOR", "shared.rules.Base"),
    "class attribute of a base": ("shared/rules.py", "FACTOR = 2\n", "FACTOR = 3\n", "shared.rules.Base"),
    "class's own method": ("shared/rules.py", "self.by = by", "self.by = by + 1", "shared.rules.Scaler"),
    "closure variable": ("pipeline.py", "bound(10)", "bound(11)", "pipeline.bound.<locals>.compare"),
    "closure body": ("pipeline.py", "return x > limit", "return x >= limit", "pipeline.bound.<locals>.compare"),
    "argument of a helper's decorator": ("pipeline.py", "retry(times=2)", "retry(times=3)", "pipeline.guarded"),
    "body of a helper's decorator": (
        "pipeline.py",
        "for _ in range(times)",
        "while times",
        "pipeline.retry.<locals>.around.<locals>.inside",
    ),
    "body of a decorated helper": ("pipeline.py", "return x - 1", "return x - 2", "pipeline.guarded"),
    "body of a cached helper": ("pipeline.py", "return x * 7", "return x * 8", "pipeline.remembered"),
    "argument of a library's decorator": ("pipeline.py", "maxsize=8", "maxsize=9", "pipeline.remembered"),
    "lambda": ("pipeline.py", "lambda x: x + 1", "lambda x: x + 3", "pipeline.<lambda>"),
    "partial": ("pipeline.py", "times=3)\n", "times=4)\n", "pipeline.TRIPLE"),
    "import inside the body": ("shared/late.py", "'late'", "'later'", "shared.late.imported_inside"),
    "f-string": ("pipeline.py", " and {WORDS", " or {WORDS", "pipeline.clean"),
    "library function": ("pipeline.py", "math.pi", "math.e", "pipeline.clean"),
}

SILENT_EDITS = {
    "comment": ("pipeline.py", "# a note", "# another note\n    # and more"),
    "docstring": ("pipeline.py", '"""Make it clean."""', '"""Make it\n    very clean."""'),
    "no docstring": ("pipeline.py", '    """Make it clean."""\n', ""),
    "docstring of a helper": ("shared/rules.py", "    return x + 1", '    """One more."""\n    return x + 1'),
    "layout": (
        "pipeline.py",
        "frame = keep(raw, 2)",
        "frame = (\n        keep(\n            raw, 2,\n        )\n    )",
    ),
    "quotes": ("pipeline.py", '("delay")', "('delay')"),
    "moved down": ("pipeline.py", "import functools\n", "import functools\n\n\n\n"),
    "code that is not reached": ("pipeline.py", "    return 0", "    return 1"),
    "constant that is not read": ("pipeline.py", "UNUSED = 1", "UNUSED = 2"),
    "neighbour in another file": ("shared/deep.py", "not_reached(x):\n    return x", "not_reached(x):\n    return 5"),
    "neighbour constant of a module": ("shapes.py", "OTHER = 5", "OTHER = 6"),
    "other lambda of the line": ("pipeline.py", "lambda x: x + 2", "lambda x: x + 4"),
    "order of imports": ("pipeline.py", "import functools\nimport math\n", "import math\nimport functools\n"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_sees(folder, edit: str) -> None:
    file, old, new, part = EDITS[edit]
    before = folder.write(FILES).fingerprint("clean")
    after = folder.edit(file, old, new).fingerprint("clean")
    assert before.digest != after.digest
    assert part in before.parts
    assert before.parts[part] != after.parts.get(part)


@pytest.mark.parametrize("edit", SILENT_EDITS)
def test_does_not_see(folder, edit: str) -> None:
    before = folder.write(FILES).fingerprint("clean")
    after = folder.edit(*SILENT_EDITS[edit]).fingerprint("clean")
    assert after.parts == before.parts
    assert after == before


def test_a_step_that_reaches_nothing_of_it_keeps_its_fingerprint(folder) -> None:
    before = folder.write(FILES).fingerprint("lonely")
    for file, old, new, part in EDITS.values():
        if part != "pipeline.lonely":
            folder.write(FILES)
            assert folder.edit(file, old, new).fingerprint("lonely") == before


def test_counts_libraries_by_their_version(folder) -> None:
    import polars

    found = folder.write(FILES).fingerprint("clean")
    assert found.distributions == {"polars": polars.__version__}
    assert found.unresolved == ()


def test_swapping_two_helpers_is_seen(folder) -> None:
    text = """
from instar import silver
def one(x): return 1
def two(x): return 2
first, second = one, two
@silver()
def made(): return first(0) - second(0)
"""
    before = folder.write({"pipeline.py": text}).fingerprint("made")
    after = folder.edit("pipeline.py", "= one, two", "= two, one").fingerprint("made")
    assert before.digest != after.digest


def test_global_objects_count_by_the_statements_that_made_and_changed_them(folder) -> None:
    text = """
import logging
from instar import silver
from collections import Counter
def level(): return 10
log = logging.getLogger("x")
log.setLevel(level())
seen = Counter()
seen["a"] = 1
@silver()
def made():
    log.info("made")
    return seen
"""
    before = folder.write({"pipeline.py": text}).fingerprint("made")
    assert folder.edit("pipeline.py", "return 10", "return 20").fingerprint("made").digest != before.digest
    folder.write({"pipeline.py": text})
    assert folder.edit("pipeline.py", 'seen["a"] = 1', 'seen["a"] = 2').fingerprint("made").digest != before.digest
    assert before.unresolved == ()


def test_instances_count_by_class_and_state(folder) -> None:
    text = """
from dataclasses import dataclass, field
from enum import Enum
from instar import silver
class Way(Enum):
    UP = 1
    DOWN = 2
@dataclass
class Config:
    limit: int
    way: Way = Way.UP
    more: dict = field(default_factory=dict)
    def over(self, x): return x > self.limit
config = Config(3)
config.more["self"] = config
@silver()
def made(): return config.over(2)
"""
    before = folder.write({"pipeline.py": text}).fingerprint("made")
    for old, new in [
        ("Config(3)", "Config(4)"),
        ("x > self.limit", "x < self.limit"),
        ("Config(3)", "Config(3, Way.DOWN)"),
    ]:
        folder.write({"pipeline.py": text})
        assert folder.edit("pipeline.py", old, new).fingerprint("made").digest != before.digest


def test_recursion_and_rings_end(folder) -> None:
    text = """
from instar import silver
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
@silver()
def made(): return even(4) and made
"""
    before = folder.write({"pipeline.py": text}).fingerprint("made")
    after = folder.edit("pipeline.py", "n != 0", "n > 0").fingerprint("made")
    assert before.digest != after.digest
    assert {name for name in before.parts if before.parts[name] != after.parts[name]} == {"pipeline.odd"}


def test_functions_registered_for_types_are_reached(folder) -> None:
    text = """
import contextlib, functools
from instar import silver
@functools.singledispatch
def show(x): return 0
@show.register
def _(x: int): return 1
@contextlib.contextmanager
def opened():
    yield 5
@silver()
def made():
    with opened() as x:
        return show(x)
"""
    before = folder.write({"pipeline.py": text}).fingerprint("made")
    for old, new in [("return 1", "return 2"), ("yield 5", "yield 6"), ("return 0", "return 3")]:
        folder.write({"pipeline.py": text})
        assert folder.edit("pipeline.py", old, new).fingerprint("made").digest != before.digest


def test_names_what_cannot_be_followed(folder) -> None:
    text = """
import os
import datetime
import importlib
import random
import requests_like as requests
import polars as pl
from instar import silver
def hidden(name):
    return getattr(os, name)
@silver()
def made():
    pl.read_csv("file.csv")
    open("x")
    eval("1")
    os.environ["HOME"]
    importlib.import_module("a" + "b")
    datetime.datetime.now()
    random.random()
    missing
    return hidden("name"), getattr(os, "name")
"""
    found = folder.write({"pipeline.py": text, "requests_like.py": ""}).fingerprint("made").unresolved
    for expected in [
        "pipeline.hidden, line 10: getattr on a computed name",
        "reads a file with pl.read_csv",
        "reads a file with open",
        "with eval",
        "reads a variable with os.environ",
        "with importlib.import_module",
        "reads the clock with datetime.datetime.now",
        "draws at random with random.random",
        "the name missing is not known",
    ]:
        assert any(expected in one for one in found), expected
    assert len(found) == 9


def test_the_place_of_the_project_does_not_count(folder, tmp_path: Path) -> None:
    text = """
from pathlib import Path
from instar import silver
ROOT = Path(__file__).parent
LIST = ROOT / "list.txt"
@silver()
def made(): return LIST, ROOT, __name__
"""
    before = folder.write({"pipeline.py": text}).fingerprint("made")
    other = tmp_path / "elsewhere"
    shutil.copytree(folder.root, other)
    assert type(folder)(other).write({}).fingerprint("made") == before


CHILD = """
import hashlib, json, pathlib, sys, types

# Other interpreters have neither blake3 nor polars: the digests are compared with each other, so any hash will do.
fake = types.ModuleType("blake3")
fake.blake3 = hashlib.sha256
sys.modules["blake3"] = fake
from instar.plan import importing, pipeline
from instar.plan.fingerprint import fingerprint

root = pathlib.Path(sys.argv[1])
modules, sources = importing.import_afresh(root, [root / "pipeline.py"])
steps = pipeline.assemble(modules, sources).steps
found = {name: fingerprint(step.function, root=root, sources=sources) for name, step in steps.items() if step.function}
print(json.dumps({name: [one.digest, dict(one.parts), list(one.unresolved)] for name, one in found.items()}))
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


def interpreters() -> list[str]:
    """Interpreters of other Python versions on this machine."""
    found = {f"3.{sys.version_info.minor}": sys.executable}
    for minor in range(11, 16):
        places = [
            shutil.which(f"python3.{minor}"),
            *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}"),
        ]
        for place in places:
            name = f"3.{minor}"
            if place is not None and name not in found and _runs(str(place)):
                found[name] = str(place)
    return list(found.values())


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def test_is_the_same_on_all_supported_pythons(folder) -> None:
    folder.write({"pipeline.py": EVERYTHING})
    answers = []
    for python in interpreters():
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [python, "-c", CHILD, str(folder.root)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    for answer in answers[1:]:
        assert answer == answers[0]
    assert {"pipeline.made", "pipeline.spread", "pipeline.Thing", "pipeline.Meta", "pipeline.RARE"} <= set(
        answers[0]["made"][1]
    )
    # Kept as a number so that a Python which is not on this machine is compared, too: it must not change unless the
    # fingerprint's rules do, and then every step of every project runs once more.
    golden = Path(__file__).parent / "golden" / "fingerprint.sha256"
    summary = hashlib.sha256(json.dumps(answers[0], sort_keys=True).encode()).hexdigest()
    if os.environ.get("RENEW_GOLDEN"):
        golden.write_text(summary + "\n")
    assert golden.read_text().strip() == summary
