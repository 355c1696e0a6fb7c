"""What a fingerprint follows beyond the edits of the table in `test_key_edits.py`: objects, rings, wrappers, what it names."""

from __future__ import annotations

import shutil
from pathlib import Path


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
