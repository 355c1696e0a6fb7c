"""Where code comes from, asked when fingerprints are taken: whose file it is and what it says."""

from __future__ import annotations

import ast
import contextlib
import functools
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

from instar.plan import notebooks
from instar.plan.decorators import telling
from instar.plan.importing import FOREIGN_FOLDERS, is_project_file
from instar.plan.sourcefile import SourceFile
from instar.plan.suspects import suspects
from instar.plan.syntax import Meaning, meaning


class Sources:
    """The source files that count as the user's own: those of the project, and others that belong to no distribution.

    Files are read and understood once, so the fingerprints of one plan share it.
    """

    def __init__(self, root: Path, texts: Mapping[str, str]) -> None:
        self.root = root.resolve()
        self._texts = texts
        self._files: dict[str, SourceFile | None] = {}
        self._ours: dict[str, bool] = {}
        self._our_modules: dict[str, bool] = {}
        self._meanings: dict[int, tuple[Meaning, tuple[tuple[int, str], ...]]] = {}

    def is_ours(self, file: str | None) -> bool:
        """Is it followed into, rather than counted by its version?"""
        if not file:
            return False
        if file not in self._ours:
            self._ours[file] = file in self._texts or self._is_ours(file)
        return self._ours[file]

    def _is_ours(self, file: str) -> bool:
        if file.startswith("<") or not file.endswith(".py") or ".zip/" in file:  # some Pythons lie in an archive
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
        if top not in self._our_modules:
            self._our_modules[top] = self._is_our_module(top)
        return self._our_modules[top]

    def _is_our_module(self, top: str) -> bool:
        if any((self.root / name).is_file() for name in (f"{top}.py", f"{top}.ipynb", f"{top}/__init__.py")):
            return True
        if top in sys.modules:
            return self.is_ours(file_of_module(top))
        return (self.root / top).is_dir() and any((self.root / top).glob("*.py"))

    def is_our_folder(self, module: types.ModuleType) -> bool:
        """Is it a folder of project files without an `__init__.py`?"""
        path = list(getattr(module, "__path__", ()))
        return bool(path) and all(is_project_file(self.root, folder) for folder in path)

    def file(self, path: str | None) -> SourceFile | None:
        """A source file; None when it cannot be read."""
        if not path:
            return None
        if path not in self._files:
            try:
                text = self._texts[path] if path in self._texts else Path(path).read_text(encoding="utf-8")
                if path.endswith(notebooks.SUFFIX):
                    text = notebooks.module_text(notebooks.cells_of(text, path))
                self._files[path] = SourceFile(text)
            except (OSError, SyntaxError, ValueError):
                self._files[path] = None
        return self._files[path]

    def text(self, path: str) -> str:
        """A file as it was when the pipeline was discovered."""
        return self._texts[path]

    def place(self, path: str | None, line: int) -> str:
        """Where a line lies, as its author sees it: `line 7`, or `cell 3, line 2` of a notebook."""
        file = self.file(path) if path and path.endswith(notebooks.SUFFIX) else None
        return notebooks.place(file.text, line) if file else f"line {line}"

    def meaning(self, node: ast.AST, namespace: Mapping[str, object]) -> tuple[Meaning, tuple[tuple[int, str], ...]]:
        """What a piece of code of a module says; line and description of what in it cannot be followed."""
        known = self._meanings.get(id(node))
        if known is None:  # its file keeps the node alive, so the id stays its own
            known = self._meanings[id(node)] = (meaning(telling(node, namespace)), tuple(suspects(node)))
        return known


def file_of_module(name: str) -> str | None:
    """The source file of an imported module."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return file if isinstance(file, str) else None


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


@functools.cache
def _foreign_folders() -> tuple[Path, ...]:
    """Folders whose code counts by version: Python's own, and Instar's, which may be installed in place."""
    paths = {sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib")}
    return (*(Path(path).resolve() for path in paths), Path(__file__).resolve().parent.parent)
