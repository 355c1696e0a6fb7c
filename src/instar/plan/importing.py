"""Importing a project's own files when the pipeline is planned: always from the source as it is now, never from a cache.

Python's byte-code cache compares modification times in whole seconds, so an edit made within the second would be missed.
Project files are therefore compiled from their text, and the very text is kept: fingerprints are taken of what runs.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import linecache
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from instar.core.errors import PipelineError
from instar.plan import notebooks

FOREIGN_FOLDERS = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})


def pipeline_files(root: Path, patterns: str | Sequence[str]) -> list[Path]:
    """Files named by the contract's `pipeline`: paths or patterns such as `"steps/*.py"`, in that order.

    Raises:
        PipelineError: One of them fits no file, or a file that is neither Python nor a notebook.
    """
    root = root.resolve()
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        files = sorted(file for file in root.glob(pattern) if is_project_file(root, file))
        if not files:
            raise PipelineError(
                "the project's pipeline file is missing",
                subject=f"project {root.name}",
                found="no such file",
                asked=str(root / pattern),
                next_step="Create it, or name another one under `pipeline` in the section [project] of instar.toml.",
            )
        found.update(dict.fromkeys(files))
    for file in found:
        if file.suffix not in (".py", notebooks.SUFFIX):
            raise PipelineError(
                "steps are declared in Python files and notebooks",
                subject=f"project {root.name}",
                found=file.name,
                asked="a file that ends in .py or .ipynb",
            )
    return list(found)


def import_afresh(
    root: Path, files: Sequence[Path], texts: Mapping[str, str] | None = None
) -> tuple[list[types.ModuleType], Mapping[str, str]]:
    """Import `files` and whatever project modules they import, all from source.

    Modules of a project imported before are forgotten first: two projects may each have their `helpers.py`. The modules
    keep their plain names, so that what is pickled from them can be unpickled wherever the files are.

    Args:
        texts: Text to take for a file instead of what the disk has, by path: as it was when keys were taken of it.

    Returns:
        The modules in the order of `files`, and a live mapping of each imported path to its text.

    Raises:
        PipelineError: A file cannot be imported.
    """
    root = root.resolve()
    forget()
    finder = ProjectFinder(root, texts or {})
    sys.meta_path.insert(_before_path_finder(), finder)
    sys.path.append(str(root))  # for folders without __init__.py, which only the ordinary finder joins together
    importlib.invalidate_caches()
    modules = []
    for file in files:
        name = ".".join(file.resolve().relative_to(root).with_suffix("").parts)
        try:
            modules.append(importlib.import_module(name))
        except PipelineError:
            raise
        except Exception as error:
            raise PipelineError(
                f"the file cannot be imported: {type(error).__name__}: {error}",
                subject=f"{file.name}{_line_of(error, finder.sources)}",
                next_step=_next_step(error, file, finder.sources),
            ) from error
    return modules, finder.sources


def forget() -> None:
    """Forget the project that was imported last: its modules and its place on the path."""
    for finder in [one for one in sys.meta_path if isinstance(one, ProjectFinder)]:
        sys.meta_path.remove(finder)
        if str(finder.root) in sys.path:
            sys.path.remove(str(finder.root))
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file in finder.sources or (file is None and _is_folder_of(module, finder.root)):
                del sys.modules[name]
        for path in finder.sources:
            linecache.cache.pop(path, None)


def is_project_file(root: Path, file: str | Path) -> bool:
    """Is it a file of the user's project, and not of a virtual environment or a store within it?"""
    try:
        inside = Path(file).resolve().relative_to(root)
    except ValueError:
        return False
    return not any(part.startswith(".") or part in FOREIGN_FOLDERS for part in inside.parts)


class ProjectFinder:
    """Finds the modules of one project, before any installed module but after those of Python itself."""

    def __init__(self, root: Path, texts: Mapping[str, str]) -> None:
        self.root = root
        self.texts = texts
        self.sources: dict[str, str] = {}

    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in sys.stdlib_module_names:
            return None
        texts_, sources = self.texts, self.sources

        class Loader(_SourceOnlyLoader):
            texts = texts_
            kept = sources

        class NotebookLoader(Loader):
            is_notebook = True

        for folder in [str(self.root)] if path is None else list(path):
            if is_project_file(self.root, folder):
                loaders = (Loader, [".py"]), (NotebookLoader, [notebooks.SUFFIX])
                found = importlib.machinery.FileFinder(folder, *loaders).find_spec(fullname)
                if found is not None and found.loader is not None:
                    return found
        return None


class _SourceOnlyLoader(importlib.machinery.SourceFileLoader):
    """Compiles the text of a file and keeps it; neither reads nor writes byte code."""

    is_notebook = False
    texts: Mapping[str, str]
    kept: dict[str, str]

    def path_stats(self, path: str) -> Mapping[str, object]:
        raise OSError("no byte code for project files")  # the documented way to be compiled from source

    def get_data(self, path: str) -> bytes:
        known = self.texts.get(str(path))
        data = super().get_data(path) if known is None else b""
        self.kept[str(path)] = importlib.util.decode_source(data) if known is None else known
        return data

    def get_code(self, fullname: str) -> types.CodeType:
        # From the text, not the bytes: it is what fingerprints are taken of, and its coding has been read already.
        path = self.get_filename(fullname)
        self.get_data(path)
        text = self.kept[path]
        if self.is_notebook:
            name = Path(path).name
            cells = notebooks.cells_of(text, name)
            notebooks.prove(cells, name)
            text = notebooks.module_text(cells)
            # Tracebacks show the cell's line and not that of the file.
            linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        return compile(text, path, "exec", dont_inherit=True)


def _before_path_finder() -> int:
    for index, finder in enumerate(sys.meta_path):
        if finder is importlib.machinery.PathFinder:
            return index
    return len(sys.meta_path)


def _is_folder_of(module: object, root: Path) -> bool:
    """Is it a namespace package whose folders are all in the project?"""
    path = getattr(module, "__path__", None)
    return path is not None and bool(list(path)) and all(is_project_file(root, folder) for folder in path)


def place_of(path: str, line: int, sources: Mapping[str, str]) -> str:
    """Where a line of an imported file lies, as its author sees it: `line 7`, or `cell 3, line 2` of a notebook."""
    if not path.endswith(notebooks.SUFFIX):
        return f"line {line}"
    return notebooks.place(notebooks.module_text(notebooks.cells_of(sources[path], path)), line)


def _line_of(error: BaseException, sources: Mapping[str, str]) -> str:
    found = (error.filename or "", error.lineno or 0) if isinstance(error, SyntaxError) else ("", 0)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in sources:
            found = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    path, line = found
    return f", {place_of(path, line, sources) if path in sources else f'line {line}'}" if line else ""


def _next_step(error: Exception, file: Path, sources: Mapping[str, str]) -> str:
    if isinstance(error, NameError) and file.suffix == notebooks.SUFFIX and error.name:
        cells = notebooks.cells_of(sources[str(file)], file.name)
        number = notebooks.missing_name(cells, error.name)
        if number is not None:
            return (
                f"Cell {number} defines {error.name}: tag it {notebooks.SHARED!r}, so that it is part of the pipeline."
            )
    return "Correct the file; nothing was run."
