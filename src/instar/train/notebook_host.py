"""The process in which one notebook is executed while its step runs: it starts the kernel, hands it the cells, and is gone.

A process of its own, because the kernel's client brings threads, sockets and an event loop, which a walk must not be left
with. The kernel is the interpreter that the request names, not whatever kernel Jupyter knows by name; it takes no
start-up files of its user, and is talked to over sockets in a folder of its own. Needs the extra `notebook`.

    python -m instar.train.notebook_host REQUEST        # a JSON file; the answer is written beside it
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from instar.plan.notebooks import INJECTED, PARAMETERS

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_SOCKET = 90  # letters in the path of a Unix socket, with some to spare
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    """Execute the notebook of a request, and write down how it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    place = Path(sys.argv[1])
    request = json.loads(place.read_text("utf-8"))
    answer = execute(
        request["text"], Path(request["folder"]), place.parent, request["put_in"], request["environment"],
        request["python"],
    )  # fmt: skip
    aside = place.with_name("answer.part")
    aside.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(aside, place.with_name("answer.json"))


def execute(
    text: str, folder: Path, scratch: Path, put_in: str, environment: dict[str, str], python: str = sys.executable
) -> dict[str, Any]:
    """The executed notebook, and where and why it ended early."""
    document = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    try:
        nbformat.validate(document)
    except nbformat.ValidationError as error:
        return {"refused": str(error).splitlines()[0]}
    document.cells = [cell for cell in document.cells if INJECTED not in _tags(cell)]  # of an earlier run
    if put_in:
        _put_in(document, put_in)
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    failure = None
    client = _Aloud(
        document,
        km=_kernel(scratch, python),
        timeout=None,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env=environment, cleanup_kc=True)  # else the kernel ends a second later, when it misses us
    except CellExecutionError as error:
        failure = {"cell": _failed_cell(document), "text": f"{error.ename}: {error.evalue}", "trace": _trace(document)}
    except DeadKernelError:
        failure = {"cell": _last_begun(document), "text": "its kernel died", "trace": ""}
    return {"text": nbformat.writes(document), "failure": failure}  # type: ignore[no-untyped-call]


class _Aloud(NotebookClient):
    """Says what cells print while they print it, into the log of the execution."""

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "stream":
            print(msg["content"]["text"], end="", flush=True)
        return super().process_message(msg, cell, cell_index)


def _kernel(scratch: Path, python: str) -> AsyncKernelManager:
    class OnePython(KernelSpecManager):
        """The one kernel: that interpreter."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            started = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(
                argv=[*started, "--HistoryManager.enabled=False"], display_name="Python", language="python"
            )

    connection = scratch / "kernel.json"
    return AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=OnePython(),
        connection_file=str(connection),
        transport="ipc" if os.name == "posix" and len(str(connection)) < _LONGEST_SOCKET else "tcp",
    )


def _put_in(document: Any, source: str) -> None:
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


if __name__ == "__main__":
    main()
