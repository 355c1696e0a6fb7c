"""The normal form of source: nothing that leaves the meaning alone changes it, and whatever changes the meaning does.

Programs are drawn at random. Names of locals are each bound in one scope only, so renaming one is replacing its name.
"""

from __future__ import annotations

import ast
import copy
import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.plan.syntax import meaning

GLOBALS, PARAMETERS = ["LIMIT", "helper", "table"], ["raw", "least"]
LOCALS = ["first", "total", "rest", "seen"]


def expressions(names: list[str], depth: int = 2) -> st.SearchStrategy[str]:
    leaves = st.one_of(
        st.sampled_from(names),
        st.integers(0, 99).map(str),
        st.sampled_from(["'late'", "1.5", "None", "True", "b'x'"]),
    )
    if depth == 0:
        return leaves
    inner = expressions(names, depth - 1)
    return st.one_of(
        leaves,
        st.tuples(inner, st.sampled_from(["+", "-", "*", "<", "and"]), inner).map(lambda x: f"({x[0]} {x[1]} {x[2]})"),
        st.tuples(inner, inner).map(lambda x: f"helper({x[0]}, times={x[1]})"),
        inner.map(lambda x: f"[each + {x} for each in table if each]"),
        inner.map(lambda x: f"(lambda given, *more: (given, more, {x}))"),
        inner.map(lambda x: f"raw.columns[{x}]"),
        inner.map(lambda x: f"f'{{{x}!r:>5}}'" if "'" not in x else x),
    )


@st.composite
def functions(draw: st.DrawFn) -> str:
    """Source of a function `step`."""
    known = [*GLOBALS, *PARAMETERS]
    lines = []
    for name in LOCALS:
        value = draw(expressions(known))
        form = draw(st.integers(0, 6))
        if form == 0:
            lines += [f"for {name} in {value}:", f"    helper({name})"]
        elif form == 1:
            lines += [f"with {value} as {name}:", f"    helper({name})"]
        elif form == 2:
            lines += [
                "try:",
                f"    helper({value})",
                f"except ValueError as {name}_error:",
                f"    {name} = {name}_error",
            ]
        elif form == 3:
            lines += [f"if ({name} := {value}):", f"    {name} += 1"]
        elif form == 4:
            lines += [f"{name} = 0", f"def change_{name}():", f"    nonlocal {name}", f"    {name} = {value}"]
        elif form == 5:
            lines += [f"match {value}:", f"    case [1, *{name}]:", f"        helper({name})"]
        else:
            lines += [f"{name} = {value}"]
        known.append(name)
    lines.append(f"return {draw(expressions(known))}, {', '.join(LOCALS)}")
    return "def step(raw, least=5):\n" + "".join(f"    {line}\n" for line in lines)


def text(source: str) -> object:
    found = meaning(ast.parse(source).body[0])
    return found.text, found.chains, found.imports


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(functions(), st.sampled_from([*LOCALS, "each"]))
def test_renaming_a_local_changes_nothing(source: str, name: str) -> None:
    renamed = re.sub(rf"\b{name}\b", "quite_another", source)
    assert text(renamed) == text(source)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(functions(), st.randoms())
def test_comments_docstrings_and_layout_change_nothing(source: str, chance: random.Random) -> None:
    lines = ast.unparse(ast.parse(source)).splitlines()  # other brackets, quotes and spaces
    lines[1:1] = ['    """What it does."""', "    # a note", ""]
    lines = [f"{line}  # {chance.random()}" if chance.random() < 0.5 else line for line in lines]
    assert text("\n\n# before\n" + "\n".join(lines)) == text(source)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(functions(), st.randoms())
def test_a_change_of_meaning_is_seen(source: str, chance: random.Random) -> None:
    tree = ast.parse(source)
    changed = chance.choice(MUTATIONS)(tree, chance)
    if changed is None:  # the program has nothing of that kind
        return
    assert meaning(changed.body[0]) != meaning(tree.body[0]), ast.unparse(changed)


def another_constant(tree: ast.Module, chance: random.Random) -> ast.Module | None:
    def change(node: ast.Constant) -> None:
        node.value = node.value + 1 if type(node.value) in (int, float) else "another"

    return _changed(tree, chance, lambda node: isinstance(node, ast.Constant), change)


def another_type_of_constant(tree: ast.Module, chance: random.Random) -> ast.Module | None:
    def change(node: ast.Constant) -> None:
        node.value = float(node.value)

    return _changed(tree, chance, lambda node: isinstance(node, ast.Constant) and type(node.value) is int, change)


def another_operator(tree: ast.Module, chance: random.Random) -> ast.Module | None:
    def change(node: ast.BinOp) -> None:
        node.op = ast.Div()

    return _changed(tree, chance, lambda node: isinstance(node, ast.BinOp), change)


def another_name(tree: ast.Module, chance: random.Random) -> ast.Module | None:
    """Reads another local, parameter or global than before."""

    def change(node: ast.Name) -> None:
        node.id = chance.choice([name for name in [*GLOBALS, *PARAMETERS, *LOCALS] if name != node.id])

    return _changed(tree, chance, lambda node: isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load), change)


def another_keyword(tree: ast.Module, chance: random.Random) -> ast.Module | None:
    def change(node: ast.keyword) -> None:
        node.arg = "repeat"

    return _changed(tree, chance, lambda node: isinstance(node, ast.keyword), change)


def another_attribute(tree: ast.Module, chance: random.Random) -> ast.Module | None:
    def change(node: ast.Attribute) -> None:
        node.attr = "schema"

    return _changed(tree, chance, lambda node: isinstance(node, ast.Attribute), change)


def statement_less(tree: ast.Module, chance: random.Random) -> ast.Module | None:
    changed = copy.deepcopy(tree)
    body = changed.body[0].body  # type: ignore[attr-defined]
    del body[chance.randrange(len(body))]
    return changed


MUTATIONS = [
    another_constant,
    another_type_of_constant,
    another_operator,
    another_name,
    another_keyword,
    another_attribute,
    statement_less,
]


def _changed(tree, chance, fits, change):  # type: ignore[no-untyped-def]
    changed = copy.deepcopy(tree)
    found = [node for node in ast.walk(changed) if fits(node)]
    if not found:
        return None
    change(chance.choice(found))
    return changed


# Names that are looked up as text keep their place in the key: to rename one of these locals alone changes what is done.
LOOKED_UP = [
    "def f(a):\n    late = a\n    return duckdb.sql(QUERY)",
    "def f(a):\n    late = a\n    return a.query('delay > @late')",
    "def f(a):\n    late = a\n    return locals()",
    "def f(a):\n    late = a\n    return eval(a)",
    "def f(a):\n    late = a\n    return run('select * from late')",
    "def f(a):\n    late = a\n    return f'{late=}'",
    "def f(a):\n    late = a\n    return (lambda: duckdb.sql(a))()",
]


@pytest.mark.parametrize("source", LOOKED_UP)
def test_a_local_that_is_looked_up_by_its_name_keeps_it(source: str) -> None:
    assert text(source.replace("late = a", "other = a")) != text(source)


@pytest.mark.parametrize(
    ("source", "other"),
    [
        ("def f(x): return x", "def f(y): return y"),  # a caller may name it
        ("def f(): import a as b; return b.c", "def f(): import d as b; return b.c"),
        ("def f(): from a import b; return b", "def f(): from .a import b; return b"),
        (
            "def f():\n  def g(): return 1\n  return g",
            "def f():\n  def h(): return 1\n  return h",
        ),  # it shows in __name__
        (
            "def f(a):\n  b = a\n  def g(b): return b\n  return g",
            "def f(a):\n  b = a\n  def g(c): return b\n  return g",
        ),
        ("def f(a):\n  global x\n  x = a", "def f(a):\n  global y\n  y = a"),
        ("def f(a): return [b for b in a]", "def f(a): return [a for b in a]"),
        ("class A:\n  x = 1", "class A:\n  y = 1"),
        ("def f(*, a=1): pass", "def f(a=1): pass"),
        ("def f(a, /): return a", "def f(a): return a"),
        ("def f(*a): return a", "def f(**a): return a"),
        ("async def f(): pass", "def f(): pass"),
        ("def f(): return [x async for x in y]", "def f(): return [x for x in y]"),
        ("def f(): return f'{x}'", "def f(): return f'{x!r}'"),
        ("def f(): return 'a' 'b'", "def f(): return 'a', 'b'"),
        ("def f(): return 1", "def f(): return True"),
        ("def f(): return -0.0", "def f(): return 0.0"),
    ],
)
def test_these_are_not_the_same(source: str, other: str) -> None:
    assert text(source) != text(other)


@pytest.mark.parametrize(
    ("source", "other"),
    [
        ("def f(): import numpy as np; return np.pi", "def f(): import numpy as xp; return xp.pi"),
        ("def f(): from a import b; return b()", "def f(): from a import b as c; return c()"),
        ("def f(*a, **k): return a, k", "def f(*b, **c): return b, c"),
        ("def f(a, /): return a", "def f(b, /): return b"),
        ("def f(a):\n  b = a\n  return lambda: b", "def f(a):\n  c = a\n  return lambda: c"),
        ("def f(a):\n  late = a['late']\n  return late", "def f(a):\n  x = a['late']\n  return x"),
    ],
)
def test_these_are_the_same(source: str, other: str) -> None:
    assert text(source) == text(other)


def test_long_chains_are_no_matter() -> None:
    branches = "".join(f"    elif a == {n}: b = {n}\n" for n in range(1500))
    long_sum = " + ".join(["a"] * 1500)
    found = meaning(ast.parse(f"def f(a):\n    if a: b = 0\n{branches}    return b, {long_sum}").body[0])
    assert found.text.count("'a'") > 3000
