"""What has no value and no code to stand for it: an error that says how to declare it, never a silent gap in the key."""

from __future__ import annotations

import sys

import pytest

from instar.core.errors import PipelineError
from instar.plan.keys import Keys

STEP = """
import collections, itertools, socket, sqlite3, threading
import polars as pl
from instar import silver

class Client:
    def __init__(self, held):
        self.held = held
        self.rule = lambda x: x + 1

OPENED = []

def opened(held):
    OPENED.append(held)
    return held

def bound(limit):
    return lambda x: x > limit

def numbers():
    yield 1

{line}

@silver({declared})
def made():
    return {use}
"""

# What is held: the statement that makes it, how the step uses it, and what the error calls it.
OPAQUE = {
    "an open file": ("HELD = opened(open(__file__))", "HELD.read()", "an open file"),
    "an open file in a list": ("HELD = [opened(open(__file__))]", "HELD[0].read()", "an open file"),
    "a socket": ("HELD = opened(socket.socket())", "HELD.recv(1)", "a socket"),
    "a lock": ("HELD = threading.Lock()", "HELD.acquire()", "a lock"),
    "a reentrant lock": ("HELD = threading.RLock()", "HELD.acquire()", "a lock"),
    "a condition": ("HELD = threading.Condition()", "HELD", "a lock"),
    "a generator": ("HELD = numbers()", "next(HELD)", "a generator"),
    "an iterator": ("HELD = itertools.count()", "next(HELD)", "an iterator"),
    "a connection": (
        "HELD = opened(sqlite3.connect(':memory:'))",
        "HELD.execute('select 1')",
        "a connection to a database",
    ),
    "a lock in an instance": ("HELD = Client(threading.Lock())", "HELD.held", "a lock"),
    "a file in a closure": ("HELD = bound(opened(open(__file__)))", "HELD(1)", "an open file"),
    "an object that no statement of the file makes": ("globals()['HELD'] = pl.col('x')", "HELD", "an object of polars"),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_is_an_error_that_says_how_to_declare_it(folder, kind: str) -> None:
    line, use, word = OPAQUE[kind]
    folder.write({"words.txt": "a", "pipeline.py": STEP.format(line=line, use=use, declared="")})
    with pytest.raises(PipelineError) as caught:
        key(folder)
    error = caught.value
    assert error.subject == "step made"
    assert "pipeline.HELD holds " + word in str(error)
    assert 'ignore=["HELD"]' in error.next_step
    assert "files= or variables=" in error.next_step


@pytest.mark.parametrize("kind", OPAQUE)
def test_what_cannot_change_the_result_may_be_declared_so(folder, kind: str) -> None:
    line, use, _ = OPAQUE[kind]
    folder.write({"words.txt": "a", "pipeline.py": STEP.format(line=line, use=use, declared="ignore=['HELD']")})
    assert key(folder) == key(folder)


# What has no canonical value but is made by a statement that does all the telling: how it is made, and made otherwise.
TOLD = {
    "an object of a library": ("HELD = pl.col('x') + 1", "HELD = pl.col('x') + 2"),
    "a lambda in an instance": ("HELD = Client(1)", "HELD = Client(2)"),
    "a library's object in an instance": ("HELD = Client(pl.col('x'))", "HELD = Client(pl.col('y'))"),
    "a library's object in a closure": ("HELD = bound(pl.col('x'))", "HELD = bound(pl.col('y'))"),
    "a library's object in a closure, by two names": (
        "FIRST = bound(pl.col('x'))\nHELD = FIRST",
        "FIRST = bound(pl.col('y'))\nHELD = FIRST",
    ),
    "functions of a library": ("HELD = [pl.min, pl.max]", "HELD = [pl.min, pl.sum]"),
    "what a condition decides": (
        "FLAG = 1\nif FLAG:\n    HELD = pl.col('x')\nelse:\n    HELD = pl.col('y')",
        "FLAG = 0\nif FLAG:\n    HELD = pl.col('x')\nelse:\n    HELD = pl.col('y')",
    ),
    "what another function puts into it": (
        "HELD = []\ndef fill(f): HELD.append(f)\nfill(pl.min)",
        "HELD = []\ndef fill(f): HELD.append(f)\nfill(pl.max)",
    ),
    "what a decorator gives back": (
        "def wrap(f):\n    return Client((f, pl.col('x')))\n@wrap\ndef HELD(x): return 1",
        "def wrap(f):\n    return Client((f, pl.col('x')))\n@wrap\ndef HELD(x): return 2",
    ),
}


@pytest.mark.parametrize("kind", TOLD)
def test_an_object_counts_by_the_statements_that_made_it(folder, kind: str) -> None:
    line, other = TOLD[kind]
    before = key(folder.write({"pipeline.py": STEP.format(line=line, use="HELD", declared="")}))
    assert key(folder.write({"pipeline.py": STEP.format(line=other, use="HELD", declared="")})) != before
    spaced = STEP.format(line=line.replace(" = ", "  =  "), use="HELD", declared="")
    assert key(folder.write({"pipeline.py": "# another\n" + spaced})) == before


def test_what_cannot_be_followed_is_declared_by_the_name_that_is_told(folder) -> None:
    text = """
import time
import requests_like as requests
from instar import silver
@silver({declared})
def made():
    return time.time(), requests.get("x")
"""
    folder.write({"requests_like.py": "def get(x): return x\n", "pipeline.py": text.format(declared="")})
    found = unresolved(folder)
    assert len(found) == 2
    folder.write({"pipeline.py": text.format(declared="ignore=['time.time']")})
    assert [one.rpartition(" with ")[2] for one in unresolved(folder)] == ["requests.get"]
    folder.write({"pipeline.py": text.format(declared="ignore=['time', 'requests']")})
    assert unresolved(folder) == ()


def key(folder) -> str:
    pipeline = folder.pipeline()
    try:
        return Keys(folder.project(), pipeline).ingredients(pipeline.step("made"), {}).key()
    finally:
        for held in sys.modules["pipeline"].OPENED:
            held.close()


def unresolved(folder) -> tuple[str, ...]:
    pipeline = folder.pipeline()
    return Keys(folder.project(), pipeline).ingredients(pipeline.step("made"), {}).unresolved
