"""One source file of a project, asked when fingerprints are taken: which of its lines made a function, a class or a global."""

from __future__ import annotations

import ast
import functools
import types
from collections.abc import Iterator

from instar.plan.scopes import Function, walk
from instar.plan.syntax import Target

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)


class SourceFile:
    """A file and what is found in it; each index is made once, when it is first asked for.

    Attributes:
        text: The file as it was imported.
        tree: Its syntax tree.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)

    def function(self, code: types.CodeType) -> Function | None:
        """The function or lambda that a code object was compiled from."""
        found = self._functions.get((code.co_firstlineno, code.co_name), [])
        if len(found) < 2:
            return found[0] if found else None
        # Several lambdas may begin on one line: take the innermost that the code's positions lie in.
        return max(found, key=lambda node: (_hits(node, code), [-part for part in _size(node)]))

    def classes(self, qualified: str) -> list[ast.ClassDef]:
        """All definitions of a class's qualified name: which of them holds may depend on an `if`."""
        top, *inner = [name for name in qualified.split(".") if name != "<locals>"]
        found = self._definitions.get(top, [])
        for name in inner:
            found = [one for outer in found for one in _by_name(outer).get(name, ())]
        return [node for node in found if isinstance(node, ast.ClassDef)]

    def statements_about(self, name: str, *, mentions: bool = True) -> list[ast.AST]:
        """Top-level statements which make or change the global `name`, and the conditions that they stand under.

        Args:
            name: The global.
            mentions: Also calls that stand alone and name it, such as `log.setLevel(10)` or `set_up(log)`.
        """
        made, mentioned = self._statements
        found = [*made.get(name, ()), *(mentioned.get(name, ()) if mentions else ())]
        return sorted({id(one): one for one in found}.values(), key=_place)

    def import_of(self, name: str) -> Target | None:
        """The import statement at the top which binds `name`, where nothing else does."""
        return None if name in self._statements[0] else self._imports.get(name)

    @functools.cached_property
    def _functions(self) -> dict[tuple[int, str], list[Function]]:
        """As code objects name them: first line and name."""
        found: dict[tuple[int, str], list[Function]] = {}
        for node in walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                found.setdefault((_first_line(node), _name(node)), []).append(node)
        return found

    @functools.cached_property
    def _definitions(self) -> dict[str, list[ast.AST]]:
        return _by_name(self.tree)

    @functools.cached_property
    def _statements(self) -> tuple[dict[str, list[ast.AST]], dict[str, list[ast.AST]]]:
        """Top-level statements by the names that they make or change, and by those that calls standing alone mention."""
        made: dict[str, list[ast.AST]] = {}
        mentioned: dict[str, list[ast.AST]] = {}
        for statement, under in _top_level(self.tree):
            call = isinstance(statement, ast.Expr)
            for name in _names_of(statement):
                (mentioned if call else made).setdefault(name, []).extend((statement, *under))
        return made, mentioned

    @functools.cached_property
    def _imports(self) -> dict[str, Target]:
        found: dict[str, Target] = {}
        for statement, _ in _top_level(self.tree):
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    found.setdefault(alias.asname or alias.name, (statement.level, statement.module or "", alias.name))
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    if alias.asname is not None:
                        found.setdefault(alias.asname, (0, alias.name, None))
        return found


def _names_of(statement: ast.AST) -> set[str]:
    """Names that a top-level statement makes or changes; those that it reads, where it is a call that stands alone."""
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    if isinstance(statement, ast.Expr):
        return {part.id for part in walk(statement) if isinstance(part, ast.Name)}
    return {name for part in walk(statement) if _is_stored(part) and (name := _root_name(part)) is not None}


def _top_level(tree: ast.Module) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
    """Statements that run when a module is imported, and the conditions that each stands under.

    A loop counts as one statement. Those within `if`, `with`, `match` and `try` stand alone.
    """
    ahead: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(node, ()) for node in reversed(tree.body)]
    while ahead:
        node, under = ahead.pop()
        if isinstance(node, _DEFINITIONS):
            if node.decorator_list:  # what a decorator gives back may be anything
                yield node, under
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler | ast.match_case | ast.Match):
            inside = list(ast.iter_child_nodes(node))
            deeper = (*under, *(child for child in inside if not isinstance(child, _BLOCKS)))
            ahead += [(child, deeper) for child in reversed(inside) if isinstance(child, _BLOCKS)]
            if isinstance(node, ast.With):  # which binds names itself
                yield from ((item, under) for item in node.items)
        elif isinstance(node, ast.stmt):
            yield node, under


def _by_name(node: ast.AST) -> dict[str, list[ast.AST]]:
    """Definitions directly in the scope of `node`, by name."""
    found: dict[str, list[ast.AST]] = {}
    for child in _within(node):
        found.setdefault(str(getattr(child, "name", "")), []).append(child)
    return found


def _within(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _DEFINITIONS):
            yield child
        elif not isinstance(child, ast.Lambda):
            yield from _within(child)


def _is_stored(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def _root_name(node: ast.AST) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _place(node: ast.AST) -> tuple[int, int]:
    if isinstance(node, ast.withitem):
        node = node.context_expr
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _first_line(node: Function) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])


def _name(node: Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _hits(node: Function, code: types.CodeType) -> int:
    if not isinstance(node, ast.Lambda):
        return 0
    body: ast.expr = node.body
    start, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    places = [(line or 0, column or 0) for line, _, column, _ in code.co_positions() if column is not None]
    return len([place for place in places if start <= place < end])


def _size(node: Function) -> tuple[int, int]:
    return ((node.end_lineno or 0) - node.lineno, (node.end_col_offset or 0) - node.col_offset)
