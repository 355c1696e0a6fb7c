"""Which names a piece of Python binds in which scope, as planning needs it to tell what code owns from what it reads.

A local may be renamed without changing what the code does, so its name is no part of a step's key; a parameter may be named
by a caller, and a name within a query may be looked up by it, so those are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

# Calls that look at the names of their caller's locals: Python's own, and libraries' (DuckDB, pandas, numexpr, formulas).
_LOOKS_AT_LOCALS = frozenset({
    "locals", "vars", "dir", "eval", "exec", "globals", "_getframe", "currentframe", "stack", "sql", "query", "execute",
    "evaluate", "from_formula", "dmatrix", "dmatrices", "ols", "glm", "logit", "probit", "poisson", "SQLContext",
})  # fmt: skip
_WORD = re.compile(r"[^\W\d]\w*")


@dataclass
class Scope:
    """Names bound in one scope.

    Attributes:
        names: How each name is written in the normal form; None until it is met, where it may be renamed.
        imported: Those that an import binds.
        is_class: Names of a class body are seen by its own statements, and not by the functions in it.
    """

    names: dict[str, str | None] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)
    is_class: bool = False


def scope_of_function(node: Function, kept: frozenset[str] | None) -> Scope:
    """The scope of a function's body.

    Args:
        kept: Names that stay as they are; None: all.
    """
    arguments = node.args
    scope = Scope()
    found = _Bindings()
    for statement in [node.body] if isinstance(node, ast.Lambda) else node.body:
        found.visit(statement)
    for name in found.bound - found.shared:
        scope.names[name] = name if kept is None or name in kept or name in found.fixed else None
    scope.imported = found.imported - found.shared
    for one in [*arguments.posonlyargs, arguments.vararg, arguments.kwarg]:  # no caller can name them
        if one is not None:
            scope.names[one.arg] = one.arg if kept is None or one.arg in kept else None
    for one in [*arguments.args, *arguments.kwonlyargs]:
        scope.names[one.arg] = one.arg
    return scope


def scope_of_comprehension(node: Comprehension, kept: frozenset[str] | None) -> Scope:
    """The scope of a comprehension's targets."""
    found = _Bindings()
    for generator in node.generators:
        found.visit(generator.target)
    return Scope({name: name if kept is None or name in kept else None for name in found.bound})


def scope_of_body(body: Iterable[ast.AST], *, is_class: bool) -> Scope:
    """The scope of a class or module, whose names are its attributes and stay as they are."""
    found = _Bindings()
    for statement in body:
        found.visit(statement)
    return Scope({name: name for name in found.bound - found.shared}, found.imported, is_class)


def names_to_keep(node: ast.AST) -> frozenset[str] | None:
    """Names of locals which something may look up by their name; None: any of them.

    A word within a longer text may be a query's or a formula's. A text that is one word is a column's name or the like.
    """
    words: set[str] = set()
    silent: set[int] = set()
    for part in walk(node):  # a statement comes before what is in it
        kind = type(part)
        if kind is ast.Expr and is_text(part):
            silent.add(id(part.value))  # type: ignore[attr-defined]
        elif kind is ast.Call:
            called = part.func  # type: ignore[attr-defined]
            if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in _LOOKS_AT_LOCALS:
                return None
        elif kind is ast.Constant and id(part) not in silent:
            text = part.value  # type: ignore[attr-defined]
            if isinstance(text, str) and not text.isidentifier():
                words.update(_WORD.findall(text))
    return frozenset(words)


# Fields that hold texts and numbers, in whichever node, and nodes without content: what is written there is the node's own.
_PLAIN = frozenset({"id", "attr", "arg", "ctx", "op", "ops", "kind", "type_comment", "module", "level", "asname"})
_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {}


def _fields_of(kind: type[ast.AST]) -> tuple[str, ...]:
    found = _FIELDS[kind] = tuple(name for name in kind._fields if name not in _PLAIN)
    return found


def walk(node: ast.AST) -> list[ast.AST]:
    """A node and all in it but operators, each before its own parts; several times as fast as `ast.walk`."""
    found = [node]
    for part in found:  # which grows while it is read
        kind = type(part)
        for name in _FIELDS.get(kind) or _fields_of(kind):
            value = getattr(part, name, None)
            if isinstance(value, ast.AST):
                found.append(value)
            elif type(value) is list:
                found += [one for one in value if isinstance(one, ast.AST)]
    return found


def is_text(statement: ast.AST) -> bool:
    """Is it a string that stands alone, as docstrings and notes under an attribute do? It has no effect."""
    constant = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def without_effectless(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a body that do something: no docstring, no note, no `pass`."""
    return [statement for statement in body if not (is_text(statement) or isinstance(statement, ast.Pass))]


def type_parameters(node: ast.AST) -> list[ast.AST]:
    """`T` of `def f[T]`, which Python has since 3.12."""
    found: list[ast.AST] = getattr(node, "type_params", [])
    return found


@dataclass
class _Bindings:
    """Names that statements bind in the scope they stand in.

    Attributes:
        bound: All of them.
        shared: Those declared global or nonlocal.
        fixed: Those that show in what they name: of functions, classes, and modules imported under their own name.
        imported: Those that an import binds.
    """

    bound: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    fixed: set[str] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)

    def visit(self, node: ast.AST) -> None:
        """Take in what `node` binds, not looking into scopes of their own."""
        kind = type(node)
        if kind is ast.Name:
            if not isinstance(node.ctx, ast.Load):  # type: ignore[attr-defined]
                self.bound.add(node.id)  # type: ignore[attr-defined]
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.bound.add(node.name)
            self.fixed.add(node.name)
            return
        if kind is ast.Lambda:
            return
        if isinstance(node, COMPREHENSIONS):  # its targets are its own; only := reaches out
            for part in ast.walk(node):
                if isinstance(part, ast.NamedExpr):
                    self.visit(part.target)
            return
        if isinstance(node, ast.Global | ast.Nonlocal):
            self.shared.update(node.names)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name is not None:
            self.bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            self.bound.add(node.rest)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
        elif kind.__name__ == "TypeAlias":  # since 3.12
            self.bound.add(node.name.id)  # type: ignore[attr-defined]
            return
        for child in ast.iter_child_nodes(node):
            self.visit(child)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self.bound.add(name)
            self.imported.add(name)
            if isinstance(node, ast.Import) and alias.asname is None:
                self.fixed.add(name)
