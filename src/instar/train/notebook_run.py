"""One execution of a notebook, as its step or a repetition asks for it: in a kernel, from first cell to last."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instar.core.errors import PipelineError, StepFailed, Unavailable
from instar.core.ids import digest_of

GIVEN = "INSTAR_GIVEN"  # variable of the kernel: the folder with the inputs of its step
NEEDED = ("nbclient", "nbformat", "ipykernel")  # what the extra `notebook` installs


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
    """A notebook that was run.

    Attributes:
        text: Its file with all outputs.
        content: Digest of these.
        failure: What ended it before its end.
    """

    text: str
    content: str
    failure: Failure | None = None


def execute(
    text: str,
    *,
    folder: Path,
    given: Path | None,
    root: Path,
    put_in: str,
    python: str | None = None,
    variables: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Executed:
    """Run a notebook.

    Args:
        text: Its file.
        folder: The folder that its cells work in.
        given: The folder with its inputs; None where it reads tables as any program does.
        root: The project's folder, whose modules it may import.
        put_in: Source of the cell with inputs and parameters, put after the cell tagged `parameters`, else first.
        python: The kernel's interpreter; default this one.
        variables: The kernel's environment variables; default this process's.
        before: Called in the new process before anything else.

    Raises:
        Unavailable: The extra is not installed.
        PipelineError: The file is not what the format of notebooks asks for.
        StepFailed: The process that executes it ended without a word.
    """
    missing = [name for name in NEEDED if not _is_there(name)]
    if missing:
        raise Unavailable(
            "notebooks cannot be run here: libraries for it are not installed",
            subject=f"notebook in {folder}",
            found=f"no {', '.join(missing)}",
            next_step='Install them: pip install "instar[notebook]"',
        )
    with tempfile.TemporaryDirectory(prefix="instar-kernel-") as name:
        scratch = Path(name)
        request = scratch / "request.json"
        environment = _environment(scratch, given, root, os.environ if variables is None else variables)
        asked = {
            "text": text, "folder": str(folder), "put_in": put_in, "environment": environment,
            "python": python or sys.executable,
        }  # fmt: skip
        request.write_text(json.dumps(asked), encoding="utf-8")
        status = _aloud([sys.executable, "-P", "-m", "instar.train.notebook_host", str(request)], before)
        answer = scratch / "answer.json"
        if not answer.exists():
            raise StepFailed(
                "the process that executes it ended without a word",
                subject=f"notebook in {folder}",
                found=f"exit status {status}",
                next_step="See what it printed with: instar logs STEP",
            )
        found = json.loads(answer.read_text("utf-8"))
    if "refused" in found:
        raise PipelineError(
            "the file is not what the format of notebooks asks for",
            subject=f"notebook in {folder}",
            found=found["refused"],
            next_step="Open and save it in Jupyter.",
        )
    failure = Failure(**found["failure"]) if found["failure"] else None
    return Executed(found["text"], content_of(json.loads(found["text"])), failure)


def _aloud(command: list[str], before: Callable[[], None] | None) -> int:
    """Run a program, passing on what it prints into the log of the execution; its exit status."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", preexec_fn=before,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except BaseException:
            process.kill()
            raise
    return process.returncode


def content_of(document: dict[str, Any]) -> str:
    """Digest of what the cells gave: their text, data and errors, in order, without counters and metadata."""
    told = ("output_type", "name", "text", "data", "ename", "evalue")
    found = [
        {key: output[key] for key in told if key in output}
        for cell in document["cells"]
        for output in cell.get("outputs", ())
    ]
    return digest_of(found)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it is barred
        return False


def _environment(scratch: Path, given: Path | None, root: Path, variables: Mapping[str, str]) -> dict[str, str]:
    path = [str(root), *filter(None, [variables.get("PYTHONPATH")])]
    return {
        **variables,
        **({GIVEN: str(given)} if given is not None else {}),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "IPYTHONDIR": str(scratch / "ipython"),
    }
