"""One execution of a notebook, while its step runs: in a kernel of this very environment, from the first cell to the last.

The kernel is this interpreter with what is installed for it, not whatever kernel Jupyter knows by name, and it takes no
start-up files of its user. Needs the extra `notebook`.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instar.core.errors import PipelineError, Unavailable
from instar.core.ids import digest_of
from instar.plan.notebooks import PARAMETERS

GIVEN = "INSTAR_GIVEN"  # variable of the kernel: the folder with the inputs of its step
INJECTED = "injected-parameters"  # tag of the cell that is put in, as papermill names it
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Failure:
    """What a cell raised, or that the kernel died in it.

    Attributes:
        cell: The cell's number in the notebook, from 1; 0 when no cell had begun.
        text: One line.
        trace: The traceback as plain text.
    """

    cell: int
    text: str
    trace: str = ""


@dataclass(frozen=True)
class Executed:
    """A notebook that was run: its file with all outputs, and what ended it before its end."""

    text: str
    content: str
    failure: Failure | None = None


def execute(text: str, *, folder: Path, given: Path, root: Path, put_in: str) -> Executed:
    """Run a notebook.

    Args:
        text: Its file.
        folder: The folder that its cells work in.
        given: The folder with its inputs.
        root: The project's folder, whose modules it may import.
        put_in: Source of the cell with inputs and parameters, put after the cell tagged `parameters`, else first.

    Raises:
        Unavailable: The extra is not installed.
        PipelineError: The file is not what the format of notebooks asks for.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    except ImportError as error:
        raise Unavailable(
            "notebooks cannot be run here: the libraries for it are not installed",
            subject="notebook",
            found=f"no {error.name}",
            next_step='Install them: pip install "instar[notebook]"',
        ) from error
    try:
        document = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(document)
    except Exception as error:  # the format's checks raise errors of several libraries
        raise PipelineError(
            "the file is not what the format of notebooks asks for", subject=f"notebook in {folder}", found=str(error)
        ) from None
    if put_in:
        _put_in(document, put_in)
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    failure = None
    with tempfile.TemporaryDirectory(prefix="instar-kernel-") as scratch:
        client = NotebookClient(
            document,
            km=_kernel(Path(scratch)),
            timeout=None,
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute(env=_environment(Path(scratch), given, root))
        except CellExecutionError as error:
            failure = Failure(_failed_cell(document), f"{error.ename}: {error.evalue}", _trace(document))
        except (DeadKernelError, CellTimeoutError):
            failure = Failure(_last_begun(document), "its kernel died")
    written: str = nbformat.writes(document)  # type: ignore[no-untyped-call]
    return Executed(written, content_of(document), failure)


def content_of(document: Mapping[str, Any]) -> str:
    """Digest of what the cells gave: their text, data and errors, in order, without counters and metadata."""
    found: list[object] = []
    for cell in document["cells"]:
        for output in cell.get("outputs", ()):
            kept = {
                key: output[key] for key in ("output_type", "name", "text", "data", "ename", "evalue") if key in output
            }
            found.append(kept)
    return digest_of(found)


def _kernel(scratch: Path) -> Any:
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(KernelSpecManager):
        """The one kernel: this interpreter."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            command = [
                sys.executable,
                "-m",
                "ipykernel_launcher",
                "-f",
                "{connection_file}",
                "--HistoryManager.enabled=False",
            ]
            return KernelSpec(argv=command, display_name="Python", language="python")

    return AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=ThisPython(), connection_file=str(scratch / "kernel.json")
    )


def _environment(scratch: Path, given: Path, root: Path) -> dict[str, str]:
    path = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        GIVEN: str(given),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "IPYTHONDIR": str(scratch / "ipython"),
        "JPY_PARENT_PID": str(os.getpid()),  # the kernel ends when we do, however that is
    }


def _put_in(document: Any, source: str) -> None:
    import nbformat

    place = next((n + 1 for n, cell in enumerate(document.cells) if PARAMETERS in _tags(cell)), 0)
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": [INJECTED]})  # type: ignore[no-untyped-call]
    if document.nbformat_minor < 5:
        cell.pop("id", None)
    document.cells.insert(place, cell)


def _tags(cell: Any) -> list[str]:
    found: list[str] = cell.get("metadata", {}).get("tags", [])
    return found


def _number(document: Any, index: int) -> int:
    """The number that a cell has for its author, who does not know the one put in."""
    return sum(INJECTED not in _tags(cell) for cell in document.cells[: index + 1])


def _failed_cell(document: Any) -> int:
    for index, cell in enumerate(document.cells):
        if any(output.output_type == "error" for output in cell.get("outputs", ())):
            return _number(document, index)
    return 0


def _last_begun(document: Any) -> int:
    """The cell in which it ended: the first that has no number yet."""
    for index, cell in enumerate(document.cells):
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            return _number(document, index)
    return 0


def _trace(document: Any) -> str:
    for cell in document.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return _COLOURS.sub("", "\n".join(output.traceback))
    return ""
