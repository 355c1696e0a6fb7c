"""A version whose environment is not ours: its process here asks a shim that runs with that environment's interpreter, at a call.

    model = load(folder, python)      # the shim has loaded it, after its digests and its pickle were looked at here
    model.score({"distance": [1400.0]})

The host decodes calls and keeps to the record as for any other model; what crosses to the shim and back is plain values
(`shim.py` says how), so that nothing which comes out of another environment is ever unpickled here.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from instar.core.errors import Damaged, MissingInput, StepFailed, Unavailable
from instar.serve.processes.zygote import die_with_parent
from instar.serve.worker import shim
from instar.serve.worker.handing import request
from instar.train.bundle import Manifest

# What happens when the shim is gone: a worker ends with it, so that it is replaced.
Lost = Callable[[int | None], object]

END_SECONDS = 1.0  # for the exit status of a shim that hung up


class Line:
    """A shim, and the socket to it.

    Args:
        process: The shim where we started it, else None.
        lost: Called with its exit status, if known, when it is gone.
    """

    def __init__(self, line: socket.socket, process: subprocess.Popen[bytes] | None, lost: Lost) -> None:
        self._line, self._process, self._lost = line, process, lost

    @classmethod
    def start(cls, python: str, lost: Lost) -> Line:
        """Start a shim with an interpreter; it ends with this process.

        Raises:
            Unavailable: The interpreter cannot be run.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(
                    [python, "-I", str(Path(shim.__file__)), str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    preexec_fn=die_with_parent,
                )
            except OSError as problem:
                ours.close()
                raise Unavailable(
                    "the interpreter of its environment cannot be run", found=str(problem), asked=python,
                    next_step="Route the version again: its environment is built anew when it is missing.",
                ) from problem  # fmt: skip
        return cls(ours, process, lost)

    def ask(self, head: dict[str, Any], parts: Sequence[Any] = ()) -> tuple[dict[str, Any], list[bytearray]]:
        """Send a message and wait for its answer.

        Raises:
            StepFailed: The shim says what failed; caused by a ModuleNotFoundError where a package is missing.
            Unavailable: It is gone.
        """
        try:
            shim.send(self._line, head, parts)
            answer, values = shim.receive(self._line)
        except (EOFError, OSError):
            self._gone()
        if "error" in answer:
            missing = str(answer["missing"])
            cause = ModuleNotFoundError(answer["error"], name=missing) if missing else None
            raise StepFailed(answer["error"]) from cause
        return answer, values

    def close(self) -> None:
        """Hang up; the shim ends."""
        self._line.close()
        if self._process is not None:
            self._process.wait()

    def _gone(self) -> NoReturn:
        status = None
        if self._process is not None:
            try:
                status = self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
        self._line.close()
        self._lost(status)
        raise Unavailable("the process of its environment ended", found=f"exit status {status}")


def end_with(status: int | None) -> None:
    """End this process as its shim ended, so that who looks after us replaces both and knows why."""
    print(f"the process of the version's own environment ended ({status}), and its worker with it", file=sys.stderr)
    sys.stderr.flush()
    if status is not None and status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status or 1)


class HousedTable:
    """A model of named columns in a shim.

    Attributes:
        decides: Its score is a probability.
    """

    def __init__(self, line: Line, manifest: Manifest, decides: bool) -> None:
        self._line, self.decides = line, decides
        self._columns = [(one.name, one.datatype) for one in manifest.inputs]

    def score(self, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """One finite number for each row, shape (n,).

        Raises:
            MissingInput: A column of the signature is not there.
            StepFailed: The model raised, or answered with something else.
            Unavailable: Its process ended.
        """
        parts: list[bytes] = []
        missing = []
        rows = len(next(iter(columns.values()), ()))
        for name, datatype in self._columns:
            if name not in columns:
                raise MissingInput("an input is missing", subject=f"input {name}", found=", ".join(columns))
            data, gone = _packed(columns[name], datatype)
            parts += [data] if gone is None else [data, gone]
            missing.append(gone is not None)
        if not rows:
            return np.empty(0)
        _, values = self._line.ask({"do": "score", "rows": rows, "missing": missing}, parts)
        scores = np.frombuffer(values[0], dtype=np.float64)
        if scores.shape != (rows,):
            raise StepFailed("it must answer one number a row", found=f"{scores.shape}", asked=f"({rows},)")
        return scores

    def close(self) -> None:
        """End its shim."""
        self._line.close()


class HousedTensors:
    """A model of named tensors in a shim.

    Attributes:
        batchable: Never: nothing says that its rows stand for themselves.
    """

    batchable = False
    decides = False

    def __init__(self, line: Line) -> None:
        self._line = line

    def infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name.

        Raises:
            StepFailed: The model raised.
            Unavailable: Its process ended.
        """
        kinds = {kind: name for name, kind in shim.KINDS.items()}
        heads: list[dict[str, Any]] = []
        parts: list[bytes] = []
        for name, value in inputs.items():
            datatype = kinds.get(value.dtype.name, shim.TEXT)
            head = {"name": name, "datatype": datatype, "shape": list(value.shape)}
            heads.append(head if datatype != shim.TEXT else {**head, "text": [_word(one) for one in value.ravel()]})
            parts.append(value.tobytes() if datatype != shim.TEXT else b"")
        answer, values = self._line.ask({"do": "infer", "tensors": heads}, parts)
        found: dict[str, NDArray[Any]] = {}
        for one, data in zip(answer["outputs"], values, strict=True):
            if one["datatype"] == shim.TEXT:
                made: NDArray[Any] = np.empty(len(one["text"]), dtype=object)
                made[:] = one["text"]
            else:
                made = np.frombuffer(data, dtype=shim.KINDS[one["datatype"]])
            found[one["name"]] = made.reshape(one["shape"])
        return found

    def close(self) -> None:
        """End its shim."""
        self._line.close()


def load(folder: Path, manifest: Manifest, line: Line) -> HousedTable | HousedTensors:
    """The model of an unpacked bundle whose digests were held to already, loaded by a shim.

    Raises:
        UnsafeModel, NotAllowed: A file of it may not be loaded.
        Damaged: It cannot be loaded; a package that its environment lacks is named by the cause.
    """
    subject = f"model {manifest.model}"
    asked = request(folder, manifest)
    try:
        answer, _ = line.ask(asked)
    except StepFailed as problem:
        raise Damaged(
            f"it cannot be loaded in its own environment: {problem.what}", subject=subject,
            next_step="See that the lock of its environment has what the model imports.",
        ) from (problem.__cause__ or problem)  # fmt: skip
    return HousedTensors(line) if manifest.tensors is not None else HousedTable(line, manifest, bool(answer["decides"]))


def _packed(values: Sequence[Any], datatype: str) -> tuple[bytes, bytes | None]:
    """A column as the shim reads it, and which of its values are missing, if any are."""
    plain: Sequence[Any] = values.tolist() if hasattr(values, "tolist") else values
    if datatype == shim.TEXT:
        return json.dumps([None if one is None else _word(one) for one in plain]).encode(), None
    if None not in plain:
        return array.array(shim.CODES[datatype], plain).tobytes(), None
    filled = array.array(shim.CODES[datatype], [0 if one is None else one for one in plain])
    return filled.tobytes(), bytes(one is None for one in plain)


def _word(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
