"""Which edits of a project change the key of a step, and which do not: the table, run through real files and `Keys`.

Each edit is made in a project on the disk, which is then imported afresh, and the key is what the runner would look up. An
edit of `CHANGES` must change the key of the step `clean`, and the ingredient that the row names must be among those that
`instar why` tells of. An edit of `SILENT` must leave the key and all of its ingredients as they were.
"""

from __future__ import annotations

import pytest

from instar.plan import reach
from instar.plan.keys import Ingredients, Keys
from instar.plan.why import differences

PIPELINE = '''"""Steps."""
import functools
import math

import polars as pl

from instar import silver, source
import shapes
from shared import rules
from shared.rules import keep, WORDS, Scaler as Sizer

raw = source("raw")

LIMIT = 3
UNUSED = 1
TABLE = {"a": 1, "b": (2.5, None)}
LATE = pl.col("delay") > LIMIT
TRIPLE = functools.partial(keep, times=3)
SHORT, LONG = (lambda x: x + 1), (lambda x: x + 2)


def retry(times):
    def around(function):
        @functools.wraps(function)
        def inside(*args):
            for _ in range(times):
                return function(*args)
        return inside
    return around


def bound(limit, seen=None):
    most = limit + 1
    def compare(x):
        return x > most
    return compare


OVER = bound(10)
BELOW = bound(pl.lit(5))


@retry(times=2)
def guarded(x):
    return x - 1


@functools.lru_cache(maxsize=8)
def remembered(x):
    return x * 7


def unused():
    return 0


class Policy:
    GRACE = 5

    def __init__(self, share=0.5):
        self.share = share
        self.late = lambda x: x > 15

    def allows(self, x):
        return x < self.GRACE


Policy.AFTER = 6
Sizer.FACTOR = 4
Sizer.half = rules.helper
policy = Policy(0.25)
guarded.weight = 2


@silver(key=["id"], files=["words.txt"], variables=["SCALE"], retries=1)
def clean(raw, least: int = 5):
    """Make it clean."""
    # a note
    from shared.late import imported_inside
    frame = keep(raw, 2)
    if LIMIT > least and TABLE:
        frame = Sizer(2).scale(frame)
    total = sum(TRIPLE(x) for x in [1, 2] if OVER(x))
    parts = {name: size * 2 for name, size in {"a": 1}.items()}
    text = f"{total:>{LIMIT}} and {WORDS!r}"
    try:
        result = guarded(SHORT(rules.outer(frame))), LATE, remembered(1), imported_inside(), shapes.AREA, math.pi
    except ValueError as error:
        result = str(error)
    return result, policy.allows(parts), BELOW, text


@silver()
def lonely(raw):
    return raw
'''

FILES = {
    "pipeline.py": PIPELINE,
    "words.txt": "late\n",
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
    doubled = x * 2
    return doubled + 1
""",
    "shared/deep.py": "def deepest(x):\n    return x\n\ndef not_reached(x):\n    return x\n",
    "shared/settings.py": "STARRED = 9\n",
    "shared/late.py": "def imported_inside():\n    return 'late'\n",
}
P, R, D = "pipeline.py", "shared/rules.py", "shared/deep.py"

# Kind of edit: the file, the text before and after, and the ingredient by which `why` tells of it.
CHANGES = {
    "own body": (P, "LIMIT > least and", "LIMIT >= least and", "pipeline.clean"),
    "own body, another local": (P, "policy.allows(parts)", "policy.allows(text)", "pipeline.clean"),
    "own default": (P, "least: int = 5", "least: int = 6", "pipeline.clean"),
    "annotation": (P, "least: int = 5", "least: float = 5", "pipeline.clean"),
    "decorator argument of the step": (P, 'key=["id"]', 'key=["id", "day"]', "pipeline.clean"),
    "constant": (P, "LIMIT = 3", "LIMIT = 4", "pipeline.LIMIT"),
    "constant within a dictionary": (P, "2.5, None", "2.6, None", "pipeline.TABLE"),
    "constant in an expression object": (P, '("delay") > ', '("delay") >= ', "pipeline.LATE"),
    "constant that an expression object reads": (P, "> LIMIT\n", "> UNUSED\n", "pipeline.LATE"),
    "constant of another file": (R, '["late", "early"]', '["late"]', "pipeline.WORDS"),
    "constant read from a module": ("shapes.py", "AREA = 4", "AREA = 5", "shapes.AREA"),
    "constant imported by a star": ("shared/settings.py", "STARRED = 9", "STARRED = 8", "shared.rules.STARRED"),
    "helper in another file": (R, "times=1):\n    return x", "times=1):\n    return 2 * x", "shared.rules.keep"),
    "helper of a helper": (R, "doubled + 1", "doubled + 2", "shared.rules.helper"),
    "helper in a third file": (D, "deepest(x):\n    return x", "deepest(x):\n    return -x", "shared.deep.deepest"),
    "helper's default": (R, 'Decimal("0.1")', 'Decimal("0.2")', "shared.rules.outer"),
    "attribute of a helper": (P, "guarded.weight = 2", "guarded.weight = 3", "pipeline.retry.<locals>.around.<locals>.inside"),
    "class method": (R, "* self.FACTOR", "+ self.FACTOR", "shared.rules.Base"),
    "class attribute": (P, "GRACE = 5", "GRACE = 6", "pipeline.Policy"),
    "class attribute of a base": (R, "FACTOR = 2\n", "FACTOR = 3\n", "shared.rules.Base"),
    "class attribute that is set afterwards": (P, "Policy.AFTER = 6", "Policy.AFTER = 7", "pipeline.Policy"),
    "class attribute that another file sets": (P, "Sizer.FACTOR = 4", "Sizer.FACTOR = 5", "shared.rules.Scaler"),
    "method that another file sets": (P, "Sizer.half = rules.helper", "Sizer.half = keep", "shared.rules.Scaler"),
    "class's own method": (R, "self.by = by", "self.by = by + 1", "shared.rules.Scaler"),
    "state of an instance": (P, "Policy(0.25)", "Policy(0.75)", "pipeline.policy"),
    "lambda that an instance holds": (P, "x > 15", "x > 16", "pipeline.Policy.__init__.<locals>.<lambda>"),
    "closure cell": (P, "bound(10)", "bound(11)", "pipeline.bound.<locals>.compare#2"),
    "closure cell without a value": (P, "pl.lit(5)", "pl.lit(6)", "pipeline.BELOW as made"),
    "closure body": (P, "return x > most", "return x >= most", "pipeline.bound.<locals>.compare"),
    "argument of a helper's decorator": (P, "retry(times=2)", "retry(times=3)", "pipeline.guarded"),
    "body of a helper's decorator": (P, "for _ in range(times)", "while times", "pipeline.retry.<locals>.around.<locals>.inside"),
    "body of a decorated helper": (P, "return x - 1", "return x - 2", "pipeline.guarded"),
    "body of a cached helper": (P, "return x * 7", "return x * 8", "pipeline.remembered"),
    "argument of a library's decorator": (P, "maxsize=8", "maxsize=9", "pipeline.remembered"),
    "lambda": (P, "lambda x: x + 1", "lambda x: x + 3", "pipeline.<lambda>"),
    "comprehension": (P, "size * 2", "size * 3", "pipeline.clean"),
    "condition of a comprehension": (P, "if OVER(x))", "if not OVER(x))", "pipeline.clean"),
    "imported alias": (P, "keep, WORDS, Scaler as Sizer", "helper as keep, WORDS, Scaler as Sizer", "pipeline.clean"),
    "imported alias of a library": (P, "import math\n", "import cmath as math\n", "pipeline.clean"),
    "partial's argument": (P, "times=3)\n", "times=4)\n", "pipeline.TRIPLE"),
    "partial's function": (P, "partial(keep, times=3)", "partial(rules.outer, rate=3)", "pipeline.TRIPLE"),
    "import inside the body": ("shared/late.py", "'late'", "'later'", "shared.late.imported_inside"),
    "f-string": (P, " and {WORDS", " or {WORDS", "pipeline.clean"),
    "library function": (P, "math.pi", "math.e", "pipeline.clean"),
    "declared file": ("words.txt", "late\n", "late\nearly\n", "words.txt"),
}  # fmt: skip

# Kind of edit: the file, the text before and after.
SILENT = {
    "comment": (P, "# a note", "# another note\n    # and more"),
    "docstring": (P, '"""Make it clean."""', '"""Make it\n    very clean, total."""'),
    "no docstring": (P, '    """Make it clean."""\n', ""),
    "docstring of a helper": (R, "    doubled = x", '    """One more."""\n    doubled = x'),
    "docstring of a class": (P, "class Policy:\n", 'class Policy:\n    """What is allowed."""\n\n'),
    "formatting": (P, "frame = keep(raw, 2)", "frame = (\n        keep(\n            raw, 2,\n        )\n    )"),
    "quotes": (P, '("delay")', "('delay')"),
    "moved down": (P, "import functools\n", "import functools\n\n\n\n"),
    "rename of a local": (P, "frame", "rows"),
    "rename of a local in an f-string": (P, "total", "amount"),
    "rename of a local of a helper": (R, "doubled", "twice"),
    "rename of a comprehension's variable": (P, "name: size * 2 for name, size", "key: n * 2 for key, n"),
    "rename of an exception's variable": (
        P,
        "as error:\n        result = str(error)",
        "as e:\n        result = str(e)",
    ),
    "rename of a captured local": (P, "most", "limit_and_one"),
    "rename of the arguments of a wrapper": (P, "*args", "*given"),
    "rename of a library's alias": (P, "pl", "polars_"),
    "code that is not reached": (P, "    return 0", "    return 1"),
    "constant that is not read": (P, "UNUSED = 1", "UNUSED = 2"),
    "neighbour in another file": (D, "not_reached(x):\n    return x", "not_reached(x):\n    return 5"),
    "neighbour constant of a module": ("shapes.py", "OTHER = 5", "OTHER = 6"),
    "other lambda of the line": (P, "lambda x: x + 2", "lambda x: x + 4"),
    "order of imports": (P, "import functools\nimport math\n", "import math\nimport functools\n"),
    "annotation of a local": (R, "doubled = x * 2", "doubled: float = x * 2"),
    "retries": (P, "retries=1", 'retries=2, timeout="5m"'),
    "what the key need not follow": (P, "retries=1", 'retries=1, ignore=["time.time"]'),
    "file that is not declared": ("other.txt", "", "text"),
}


def ingredients(folder, step: str = "clean") -> Ingredients:
    project, pipeline = folder.project(), folder.pipeline()
    return Keys(project, pipeline).ingredients(pipeline.step(step), {"raw": "b3:rows"})


@pytest.fixture
def before(folder) -> Ingredients:
    folder.write({**FILES, "other.txt": ""})
    return ingredients(folder)


def told(before: Ingredients, after: Ingredients) -> set[str]:
    return {reason.name for reason in differences(before.plain(), after.plain())}


@pytest.mark.parametrize("edit", CHANGES)
def test_changes_the_key(folder, before: Ingredients, edit: str) -> None:
    file, old, new, name = CHANGES[edit]
    folder.edit(file, old, new)
    after = ingredients(folder)
    assert after.key() != before.key()
    assert name in told(before, after)


@pytest.mark.parametrize("edit", SILENT)
def test_leaves_the_key(folder, before: Ingredients, edit: str) -> None:
    folder.edit(*SILENT[edit])
    after = ingredients(folder)
    assert told(before, after) == set()
    assert after == before


def test_a_variable_that_is_declared_changes_the_key(folder, before: Ingredients, monkeypatch) -> None:
    monkeypatch.setenv("OTHER", "1")
    assert ingredients(folder).key() == before.key()
    monkeypatch.setenv("SCALE", "2")
    after = ingredients(folder)
    assert after.key() != before.key()
    assert told(before, after) == {"SCALE"}


def test_an_upgrade_of_a_library_that_is_reached_changes_the_key(folder, before: Ingredients, monkeypatch) -> None:
    import polars

    assert before.distributions == {"polars": polars.__version__}
    assert before.unresolved == ()

    def upgraded(name: str):
        def found(module: str) -> dict[str, str]:
            top = module.partition(".")[0]
            return {"polars": "99.0" if name == "polars" else polars.__version__} if top == "polars" else {}

        return found

    monkeypatch.setattr(reach, "distributions_of", upgraded("sklearn"))
    assert ingredients(folder).key() == before.key()
    monkeypatch.setattr(reach, "distributions_of", upgraded("polars"))
    after = ingredients(folder)
    assert after.key() != before.key()
    assert told(before, after) == {"polars"}


def test_a_step_that_reaches_nothing_of_it_keeps_its_key(folder) -> None:
    folder.write(FILES)
    before = ingredients(folder, "lonely")
    for file, old, new, _ in CHANGES.values():
        folder.write(FILES)
        folder.edit(file, old, new)
        assert ingredients(folder, "lonely") == before


def test_each_edit_of_the_table_is_one(folder) -> None:
    for file, old, new in [*(row[:3] for row in CHANGES.values()), *SILENT.values()]:
        assert old in {**FILES, "other.txt": ""}[file], old
        assert old != new
