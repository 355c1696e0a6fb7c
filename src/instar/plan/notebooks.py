"""Notebooks as source files, read when a pipeline is planned: their cells, without outputs, counters and metadata.

A notebook that the contract lists under `pipeline` is a module made of those of its code cells which are tagged `step`
(each declares a step) or `instar` (imports and helpers); its other cells are for looking at things. A notebook that is a
step as a whole is a program made of all of its code cells.

>>> module_text([Cell(2, "import polars as pl", ("instar",)), Cell(3, "pl.show_versions()", ())])
'# cell 2\\nimport polars as pl\\n'
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from instar.core.errors import PipelineError
from instar.plan import scopes

SUFFIX = ".ipynb"
STEP, SHARED, PARAMETERS = "step", "instar", "parameters"  # tags of cells
BY_IPYTHON = ("get_ipython", "display", "In", "Out", "exit", "quit")  # names that a kernel has besides Python's own
INJECTED = "injected-parameters"  # tag of the cell that a run puts in, as papermill names it
_MARK = re.compile(r"# cell (\d+)\Z")
# What IPython adds to Python, where a statement could begin: `%magic`, `!program`, `x = !program`, `object?`.
_MAGIC = re.compile(r"^(\s*)((?:[\w,. ]+=\s*)?)([%!])(.*)$")
_HELP = re.compile(r"^\s*\?{0,2}[\w.]+\?{1,2}\s*$|^\s*\?{1,2}[\w.]+\s*$")
_STEP_LIKE = re.compile(r"^@(instar\.)?(silver|gold|model|baseline|check)\b", re.MULTILINE)
_PYTHON_INSIDE = frozenset({"time", "timeit", "capture", "prun"})  # cell magics around a body of Python


@dataclass(frozen=True)
class Cell:
    """A code cell.

    Attributes:
        number: Its place among all cells of the notebook, from 1.
        source: Its text.
        tags: Its tags.
    """

    number: int
    source: str
    tags: tuple[str, ...] = ()

    @property
    def in_pipeline(self) -> bool:
        return STEP in self.tags or SHARED in self.tags


def cells_of(text: str, name: str) -> list[Cell]:
    """The code cells of a notebook's file.

    Raises:
        PipelineError: The text is no notebook of format 4.
    """
    found = []
    for number, cell in enumerate(document(text, name)["cells"], 1):
        if not isinstance(cell, dict) or not isinstance(cell.get("source", ""), str | list):
            raise _no_notebook(name, f"cell {number} is no cell")
        if cell.get("cell_type") != "code":
            continue
        source = cell.get("source", "")
        tags = (cell.get("metadata") or {}).get("tags") or ()
        if INJECTED not in tags:  # it was saved after a run of the pipeline
            found.append(Cell(number, "".join(source), tuple(str(tag) for tag in tags)))
    return found


def document(text: str, name: str) -> dict[str, Any]:
    """A notebook's file as JSON values.

    Raises:
        PipelineError: The text is no notebook of format 4.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _no_notebook(name, f"it is no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        raise _no_notebook(name, "it has no list of cells")
    return found


def module_text(cells: Iterable[Cell]) -> str:
    """The module that the tagged cells make; each begins with a line that says which cell it is."""
    return "".join(f"# cell {cell.number}\n{_without_magics(cell)}\n" for cell in cells if cell.in_pipeline)


def program_text(cells: Iterable[Cell]) -> str:
    """The program that all code cells make, what IPython adds to Python written as the calls that it stands for."""
    return "".join(f"# cell {cell.number}\n{_as_python(cell)}\n" for cell in cells)


def place(text: str, line: int) -> str:
    """Where a line of a module or program lies: `cell 3, line 2`."""
    lines = text.splitlines()[:line]
    for above, written in enumerate(reversed(lines)):
        mark = _MARK.match(written)
        if mark is not None:
            return f"cell {mark[1]}, line {above}"
    return f"line {line}"


def prove(cells: list[Cell], name: str) -> None:
    """Raises PipelineError when a notebook cannot be a file of a pipeline."""
    tagged = [cell for cell in cells if cell.in_pipeline]
    if not tagged:
        likely = [str(cell.number) for cell in cells if _STEP_LIKE.search(cell.source)]
        raise PipelineError(
            "it has no cell that is tagged as part of the pipeline",
            subject=f"notebook {name}",
            found=f"cell {', '.join(likely)} looks like a step" if likely else f"{len(cells)} code cells",
            asked=f"the tag {STEP!r} on each cell that declares a step, {SHARED!r} on imports and helpers",
            next_step="Add the tags in Jupyter: View, Right Sidebar, Cell Tags.",
        )
    for cell in tagged:
        for line in cell.source.splitlines():
            if line.lstrip().startswith(("!", "%%")):
                raise PipelineError(
                    f"a cell of the pipeline cannot hold {line.strip()!r}, which only a notebook understands",
                    subject=f"notebook {name}, cell {cell.number}",
                    next_step="Move it to a cell of its own, without a tag.",
                )


def missing_name(cells: Iterable[Cell], name: str) -> int | None:
    """The cell outside of the pipeline which defines a name that the pipeline lacks."""
    for cell in cells:
        if not cell.in_pipeline:
            text = _as_python(cell)
            if _is_python(text) and name in scopes.scope_of_body(ast.parse(text).body, is_class=False).names:
                return cell.number
    return None


def defaults_of(cells: Iterable[Cell], name: str) -> dict[str, object]:
    """Parameters of a notebook: what the cell tagged `parameters` assigns literal values to, and the values.

    Raises:
        PipelineError: Several cells have the tag, or the cell is no Python.
    """
    tagged = [cell for cell in cells if PARAMETERS in cell.tags]
    if len(tagged) > 1:
        raise PipelineError(
            f"several cells are tagged {PARAMETERS!r}",
            subject=f"notebook {name}",
            found=", ".join(f"cell {cell.number}" for cell in tagged),
            asked="one",
        )
    found: dict[str, object] = {}
    for cell in tagged:
        for statement in tree_of(_as_python(cell), f"notebook {name}, cell {cell.number}").body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
            if isinstance(statement, ast.AnnAssign):
                target = statement.target
            if isinstance(target, ast.Name) and isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value:
                try:
                    found[target.id] = ast.literal_eval(statement.value)
                except ValueError:  # worked out, so nothing that a caller sets
                    continue
    return found


def tree_of(text: str, subject: str) -> ast.Module:
    """The syntax tree of a program made of cells.

    Raises:
        PipelineError: A cell is no Python.
    """
    try:
        return ast.parse(text)
    except SyntaxError as error:
        where = place(text, error.lineno or 0)
        raise PipelineError(
            f"a cell cannot be read as Python: {error.msg}",
            subject=f"{subject}, {where}",
            next_step="Correct the cell.",
        ) from None


def without_outputs(text: str, name: str) -> str:
    """A notebook's file without what running it leaves: equal for the same cells, however often they were run."""
    found = document(text, name)
    for cell in found["cells"]:
        cell.pop("id", None)
        if cell.get("cell_type") == "code":
            cell["outputs"], cell["execution_count"] = [], None
            tags: Mapping[str, Any] = cell.get("metadata") or {}
            cell["metadata"] = {"tags": tags["tags"]} if tags.get("tags") else {}
    kept = {"cells": found["cells"], "metadata": {}, "nbformat": found.get("nbformat", 4), "nbformat_minor": 4}
    return json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _no_notebook(name: str, why: str) -> PipelineError:
    return PipelineError(
        f"the file is no notebook: {why}",
        subject=f"notebook {name}",
        asked="a Jupyter notebook of format 4",
        next_step="Open and save it in Jupyter, or name another file.",
    )


def _without_magics(cell: Cell) -> str:
    """Settings of the display are left out; what else is no Python was refused."""
    if _is_python(cell.source):
        return cell.source
    return "\n".join(
        _indent(line) + "pass" if line.lstrip().startswith("%") or _HELP.match(line) else line
        for line in cell.source.splitlines()
    )


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _as_python(cell: Cell) -> str:
    source = cell.source
    if _is_python(source):
        return source
    first, _, body = source.lstrip().partition("\n")
    if first.startswith("%%"):
        magic, _, rest = first[2:].partition(" ")
        if magic in _PYTHON_INSIDE:
            return f"get_ipython().run_line_magic({magic!r}, {rest!r})\n{_as_python(Cell(cell.number, body))}"
        return f"get_ipython().run_cell_magic({magic!r}, {rest!r}, {body!r})"
    return "\n".join(_line_as_python(line) for line in source.splitlines())


def _line_as_python(line: str) -> str:
    if _HELP.match(line):
        return _indent(line) + "pass"
    found = _MAGIC.match(line)
    if found is None:
        return line
    indent, target, kind, rest = found.groups()
    if kind == "!":
        return f"{indent}{target}get_ipython().system({rest!r})"
    magic, _, argument = rest.lstrip("%").partition(" ")
    return f"{indent}{target}get_ipython().run_line_magic({magic!r}, {argument!r})"


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True
