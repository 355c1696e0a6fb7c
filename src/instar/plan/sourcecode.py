"""Where code comes from, asked when fingerprints are taken: whose file it is, its syntax tree, its distribution."""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import importlib.metadata
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

from instar.plan import terms
from instar.plan.importing import FOREIGN_FOLDERS, is_project_file

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Sources:
    """The source files that count as the user's own: those of the project, and others that belong to no distribution."""

    def __init__(self, root: Path, texts: Mapping[str, str]) -> None:
        self.root = root.resolve()
        self._texts = texts
        self._trees: dict[str, ast.Module | None] = {}
        self._ours: dict[str, bool] = {}

    def is_ours(self, file: str | None) -> bool:
        """Is it followed into, rather than counted by its version?"""
        if not file:
            return False
        if file not in self._ours:
            self._ours[file] = file in self._texts or self._is_ours(file)
        return self._ours[file]

    def _is_ours(self, file: str) -> bool:
        if file.startswith("<") or not file.endswith(".py"):
            return False
        if is_project_file(self.root, file):
            return True
        path = Path(file).resolve()
        if FOREIGN_FOLDERS & set(path.parts):
            return False
        return not any(path.is_relative_to(folder) for folder in _foreign_folders())

    def is_our_module(self, name: str) -> bool:
        """Is the module of that name a file of the project, or one of the user's imported from elsewhere?"""
        top = name.partition(".")[0]
        if not top or top in sys.stdlib_module_names:
            return False
        if (self.root / f"{top}.py").is_file() or (self.root / top / "__init__.py").is_file():
            return True
        if top in sys.modules:
            return self.is_ours(file_of_module(top))
        return (self.root / top).is_dir() and any((self.root / top).glob("*.py"))

    def is_our_folder(self, module: types.ModuleType) -> bool:
        """Is it a folder of project files without an `__init__.py`?"""
        path = list(getattr(module, "__path__", ()))
        return bool(path) and all(is_project_file(self.root, folder) for folder in path)

    def tree(self, file: str) -> ast.Module | None:
        """The syntax tree of a file; None when it has no source."""
        if file not in self._trees:
            try:
                text = self._texts[file] if file in self._texts else Path(file).read_text(encoding="utf-8")
                self._trees[file] = ast.parse(text)
            except (OSError, SyntaxError, ValueError):
                self._trees[file] = None
        return self._trees[file]

    def function(self, code: types.CodeType) -> _Function | None:
        """The function or lambda that a code object was compiled from."""
        tree = self.tree(code.co_filename)
        found = [
            node
            for node in (ast.walk(tree) if tree else ())
            if isinstance(node, _Function) and _first_line(node) == code.co_firstlineno and _name(node) == code.co_name
        ]
        # Several lambdas may begin on one line: take the innermost that the code's positions lie in.
        return max(found, key=lambda node: (_hits(node, code), [-part for part in _size(node)]), default=None)

    def classes(self, cls: type) -> list[ast.ClassDef]:
        """All definitions of a class's qualified name in its module: which of them holds may depend on an `if`."""
        found: list[ast.AST] = [tree] if (tree := self.tree(file_of_module(cls.__module__) or "")) else []
        for name in cls.__qualname__.split("."):
            if name != "<locals>":
                found = [inner for outer in found for inner in _within(outer) if getattr(inner, "name", None) == name]
        return [node for node in found if isinstance(node, ast.ClassDef)]


def without_terms(node: _Function, namespace: Mapping[str, object]) -> _Function:
    """A step's definition without what its decorator says of retries and timeouts, which changes no output."""
    kept = [_without_terms(one, namespace) for one in getattr(node, "decorator_list", [])]
    if isinstance(node, ast.Lambda) or kept == node.decorator_list:
        return node
    bare = copy.copy(node)
    bare.decorator_list = kept
    return bare


def _without_terms(decorator: ast.expr, namespace: Mapping[str, object]) -> ast.expr:
    if not isinstance(decorator, ast.Call) or all(one.arg not in terms.NAMES for one in decorator.keywords):
        return decorator
    if getattr(_named(decorator.func, namespace), "__module__", None) != "instar.plan.steps":
        return decorator
    keywords = [one for one in decorator.keywords if one.arg not in terms.NAMES]
    return ast.copy_location(ast.Call(decorator.func, decorator.args, keywords), decorator)


def _named(node: ast.expr, namespace: Mapping[str, object]) -> object:
    """What a plain or dotted name stands for; None when that is not known."""
    if isinstance(node, ast.Attribute):
        return getattr(_named(node.value, namespace), node.attr, None)
    return namespace.get(node.id) if isinstance(node, ast.Name) else None


def file_of_module(name: str) -> str | None:
    """The source file of an imported module."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return file if isinstance(file, str) else None


def import_of(tree: ast.Module | None, name: str) -> tuple[int, str, str | None] | None:
    """The import statement at a module's top which binds `name`: level, module and attribute."""
    for statement in _top_level(tree):
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return statement.level, statement.module or "", alias.name
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.asname == name:
                    return 0, alias.name, None
    return None


def assigned_names(tree: ast.Module | None) -> set[str]:
    """Names that a module's top-level statements assign."""
    return {
        part.id
        for statement in _top_level(tree)
        for part in ast.walk(statement)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }


def statements_about(tree: ast.Module | None, name: str) -> list[ast.stmt]:
    """Top-level statements of a module which make or change the global `name`."""
    found = []
    for statement in _top_level(tree):
        if isinstance(statement, ast.Expr):
            mentions = any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(statement))
        else:
            mentions = any(_root_name(part) == name for part in ast.walk(statement) if _is_stored(part))
        if mentions:
            found.append(statement)
    return found


def held_by(function: types.FunctionType) -> Iterator[object]:
    """What a function's closure and attributes hold, and what dictionaries and lists among them hold."""
    held = list(vars(function).values())
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not bound yet
            held.append(cell.cell_contents)
    for value in held:
        yield value
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, list | tuple):
            yield from value


def distributions_of(module: str) -> dict[str, str]:
    """Installed distributions that provide a module, with their versions; none for the standard library."""
    top = module.partition(".")[0]
    if not top or top in sys.stdlib_module_names or top == "__main__":
        return {}
    return _versions(top)


@functools.cache
def _versions(top: str) -> dict[str, str]:
    found = {}
    for name in _provided().get(top) or [top]:  # one that is installed in place may not list its files
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _provided() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@functools.cache
def _foreign_folders() -> tuple[Path, ...]:
    """Folders whose code counts by version: Python's own, and Instar's, which may be installed in place."""
    paths = {sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib")}
    return (*(Path(path).resolve() for path in paths), Path(__file__).resolve().parent.parent)


def _top_level(tree: ast.Module | None) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported, those within `if`, `try` and the like among them."""
    ahead: list[ast.AST] = list(tree.body) if tree else []
    while ahead:
        node = ahead.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler | ast.match_case | ast.Match):
            ahead[:0] = list(ast.iter_child_nodes(node))
        elif isinstance(node, ast.stmt):
            yield node


def _is_stored(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def _root_name(node: ast.AST) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """Definitions directly in the scope of `node`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
        elif not isinstance(child, ast.Lambda):
            yield from _within(child)


def _first_line(node: _Function) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])


def _name(node: _Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _hits(node: _Function, code: types.CodeType) -> int:
    if not isinstance(node, ast.Lambda):
        return 0
    body: ast.expr = node.body
    start, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    places = [(line or 0, column or 0) for line, _, column, _ in code.co_positions() if column is not None]
    return len([place for place in places if start <= place < end])


def _size(node: _Function) -> tuple[int, int]:
    return ((node.end_lineno or 0) - node.lineno, (node.end_col_offset or 0) - node.col_offset)
