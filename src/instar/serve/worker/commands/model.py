"""A model in a program of another language, as a worker asks it: one request for each batch, over a connection that is kept.

    model = CommandModel(folder, manifest)      # starts the program and waits until it is ready
    model.score({"distance": [1000.0]})         # or `infer`, of a model of tensors

A program that died is started again by the next call; one that does not answer in its time is ended, and so it is as well.
"""

from __future__ import annotations

import http.client
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instar.core.errors import Blocked, Damaged
from instar.serve.processes import measuring
from instar.serve.protocol.signature import ACCEPTED
from instar.serve.worker.commands import answers
from instar.serve.worker.commands.answers import Array
from instar.serve.worker.commands.child import HOST, Child
from instar.serve.worker.commands.line import Line, Said
from instar.serve.worker.work import Ended
from instar.train.bundle import COMMAND, Command, Manifest

STALE_SECONDS = 0.02  # until the end of a program shows, when its connection was closed while nobody asked
ENDING_SECONDS = 0.2  # and when it broke while it was asked


class CommandModel:
    """A program that runs, and the connection to it. One thread asks it.

    Args:
        folder: With the program's files.

    Attributes:
        batchable: Rows of several calls may be asked together.
        decides: A score at the threshold or above is a decision.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        if manifest.command is None:
            raise Damaged("it names no command", subject=f"bundle of {manifest.model}")
        self._command: Command = manifest.command
        self._manifest = manifest
        self._folder = folder
        self._title = f"model {manifest.model} ({' '.join(self._command.command)[:80]})"
        self._path = f"/v2/models/{self._command.name}"
        self._ids = itertools.count(1)
        self._child: Child | None = None
        self._line: Line | None = None
        self.decides = self._command.decides
        self.batchable = manifest.tensors is not None and manifest.tensors.rows and manifest.tensors.batchable
        try:
            self._running()
            self._compare()
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        """Memory of the program."""
        return measuring.memory_bytes(self._child.pid) if self._child is not None else 0

    @property
    def address(self) -> str:
        """Where the program is asked; it is started if it does not run."""
        return f"http://{HOST}:{self._running()[0].port}"

    def score(self, columns: Mapping[str, Sequence[Any]]) -> list[float]:
        """One number a row.

        Raises:
            StepFailed: It answered with an error, or otherwise than it should.
            Ended: It ended, or did not answer in time.
        """
        id = str(next(self._ids))
        rows = len(next(iter(columns.values()))) if columns else 0
        said = self._ask("POST", f"{self._path}/infer", answers.of_columns(self._manifest.inputs, columns, id))
        return answers.scores(answers.read(said.status, said.body, id, self._title), rows, self._title)

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            StepFailed, Ended: As `score`.
        """
        tensors = self._manifest.tensors
        assert tensors is not None
        id = str(next(self._ids))
        said = self._ask("POST", f"{self._path}/infer", answers.of_tensors(tensors.inputs, inputs, id))
        rows = len(next(iter(inputs.values()))) if tensors.rows and inputs else None
        outputs = answers.read(said.status, said.body, id, self._title)
        return answers.arrays(outputs, tensors.outputs, rows, self._title)

    def close(self) -> None:
        """End the program."""
        if self._line is not None:
            self._line.close()
        if self._child is not None:
            self._child.end()
        self._line = self._child = None

    def _running(self) -> tuple[Child, Line]:
        if self._child is not None and self._child.ended():
            self.close()
        if self._child is None or self._line is None:
            command = self._command
            self._child = Child(self._title, command.command, self._folder, command.name, command.environment)
            self._child.wait_ready(command.start_seconds)
            self._line = Line(HOST, self._child.port, command.answer_seconds)
        return self._child, self._line

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Said:
        child, line = self._running()
        if line.stale():
            line.close()  # it keeps idle connections for a while only, or is about to end
            if child.ended_soon(STALE_SECONDS):
                child, line = self._running()
        try:
            return line.ask(method, path, body)
        except TimeoutError:
            words = child.words()
            self.close()  # what it still does is nobody's any more
            raise Ended.of_hung(
                f"it did not answer within {self._command.answer_seconds:g} s, and was ended", subject=self._title,
                found=words.removeprefix("; ") or None, next_step="Raise answer_seconds in model.toml, or send fewer rows.",
            ) from None  # fmt: skip
        except (OSError, http.client.HTTPException) as problem:
            how = child.ended_soon(ENDING_SECONDS)
            what = "it ended while it was asked" if how else "its connection broke while it was asked"
            raise Ended(
                what, subject=self._title, found=how or f"{problem or type(problem).__name__}{child.words()}"
            ) from problem

    def _compare(self) -> None:
        """Hold what the program says of its model to what `model.toml` says; one that says nothing is believed."""
        said = self._ask("GET", self._path)
        if said.status != 200:
            return
        try:
            listed = {one["name"]: one["datatype"] for one in said.json()["inputs"]}
        except (ValueError, KeyError, TypeError):
            raise Blocked("what it says of its model is none of the protocol", subject=self._title,
                          found=said.body[:200].decode(errors="replace")) from None  # fmt: skip
        tensors = self._manifest.tensors
        for one in tensors.inputs if tensors is not None else self._manifest.inputs:
            found = listed.get(one.name) if listed else one.datatype
            if found is None:
                raise Blocked(f"it knows no input {one.name}, which model.toml has", subject=self._title,
                              found=", ".join(listed))  # fmt: skip
            if found != one.datatype and one.datatype not in ACCEPTED.get(found, ()):
                raise Blocked(f"model.toml says another datatype of input {one.name}", subject=self._title,
                              found=one.datatype, asked=found)  # fmt: skip


def load_command(folder: Path, manifest: Manifest) -> CommandModel:
    """The model of an unpacked bundle whose files were held to their digests.

    Raises:
        Damaged: There is a file that the manifest does not name.
        Unavailable, Blocked: It cannot be started, or is another than it was said to be.
    """
    assert manifest.command is not None
    place = folder / COMMAND
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()}
    strange = found - manifest.command.files.keys()
    if strange:
        raise Damaged(
            f"beside its files lies {min(strange)}, which the program might read", subject=f"bundle in {folder.name}",
            next_step="Delete the folder and publish the routes again: it is made anew from the store.",
        )  # fmt: skip
    return CommandModel(place, manifest)
