"""A version whose environment is not ours: its process here asks a shim that runs with that environment's interpreter, at a call.

    model = load(folder, verified, line)      # the shim has loaded it, after its digests and its pickle were looked at here
    model.score({"distance": [1400.0]})

The host decodes calls and keeps to the record as for any other model; what crosses to the shim and back is plain values
(`shim.py` says how), so that nothing which comes out of another environment is ever unpickled here.
"""

from __future__ import annotations

import array
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from instar.core.errors import Damaged, MissingInput, StepFailed, Unavailable
from instar.core.settings import read_settings
from instar.serve.processes.zygote import die_with_parent
from instar.serve.worker import shim
from instar.serve.worker.handing import request
from instar.serve.worker.work import Ended
from instar.train.bundle import Manifest

# What happens when the shim died: a worker ends with it, so that it is replaced.
Lost = Callable[[int | None], object]

END_SECONDS = 1.0  # for a shim to end that hung up, or that we hang up on; then it is killed
LOAD_SECONDS = 100.0  # in which it must have loaded its model
MOST_BYTES = 256 * 1024 * 1024  # of an answer


class Line:
    """A shim, and the socket to it. One that hung, or spoke nonsense, is ended, and the next call begins another.

    Args:
        lost: Called with its exit status, if known, when it died.
        python: Tells the interpreter that a shim is started with.
        seconds: In which it must answer a call.
        line: The socket to a shim that was forked already; else one is started.
        left: Called when we hang up on one that was forked: who forked it ends it, should it not see that.
    """

    def __init__(
        self,
        lost: Lost,
        python: Callable[[], str],
        *,
        seconds: float | None = None,
        line: socket.socket | None = None,
        left: Callable[[], object] = lambda: None,
    ) -> None:
        self._lost, self._python, self._line, self._left = lost, python, line, left
        self._seconds = read_settings().answer_seconds if seconds is None else seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._load: Callable[[], dict[str, Any]] | None = None
        if line is None:
            self._begin()

    def load(self, asked: dict[str, Any], again: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Have a model loaded; returns what the shim says of it.

        Args:
            again: Looks at the files once more and says what to load, when a shim is begun anew.

        Raises:
            StepFailed, Ended, Unavailable: As `ask`.
        """
        self._load = None
        if self._line is None:
            self._begin()
        answer, _ = self._exchange(asked, (), LOAD_SECONDS)
        self._load = again
        return answer

    def ask(self, head: dict[str, Any], parts: Sequence[Any] = ()) -> tuple[dict[str, Any], list[bytearray]]:
        """Send a message and wait for its answer.

        Raises:
            StepFailed: The shim says what failed; caused by a ModuleNotFoundError where a package is missing.
            Ended: It died, or it did not answer in its time or in its protocol, and was ended.
            Unavailable: It is to be begun again, and cannot be.
        """
        if self._line is None:
            self._begin()
            if self._load is not None:
                self._exchange(self._load(), (), LOAD_SECONDS)
        return self._exchange(head, parts, self._seconds)

    def nonsense(self, found: object) -> NoReturn:
        """It answered with what is none of the protocol: it is ended.

        Raises:
            Ended: Always.
        """
        self.close()
        raise Ended.of_hung(
            "the process of its environment answered with what is none of its protocol, and was ended",
            found=found, next_step="See that the model writes to no descriptor that it did not open itself.",
        )  # fmt: skip

    def close(self) -> None:
        """Hang up; the shim ends, by force if it must."""
        if self._line is not None:
            self._line.close()
            self._line = None
            if self._process is None:
                self._left()
        self._end()

    def _begin(self) -> None:
        python = self._python()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
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
        self._line = ours

    def _exchange(
        self, head: dict[str, Any], parts: Sequence[Any], seconds: float
    ) -> tuple[dict[str, Any], list[bytearray]]:
        assert self._line is not None
        until = time.monotonic() + seconds
        try:
            self._line.settimeout(seconds)
            shim.send(self._line, head, parts)
            answer, values = shim.receive(self._line, MOST_BYTES, until)
        except TimeoutError:
            self.close()
            raise Ended.of_hung(
                f"the process of its environment did not answer within {seconds:g} s, and was ended",
                next_step="Send fewer rows, or raise INSTAR_CALL_LIMIT and INSTAR_HANG for models that take so long.",
            ) from None
        except (EOFError, OSError):
            self._gone()
        except ValueError as problem:
            self.nonsense(str(problem)[:200])
        if "error" in answer:
            missing = str(answer.get("missing", ""))
            cause = ModuleNotFoundError(answer["error"], name=missing) if missing else None
            raise StepFailed(str(answer["error"])) from cause
        return answer, values

    def _gone(self) -> NoReturn:
        status = self._end()
        if self._line is not None:
            self._line.close()
            self._line = None
        self._lost(status)
        raise Ended("the process of its environment ended", found=f"exit status {status}")

    def _end(self) -> int | None:
        """Its exit status, of one that we started; it has hung up, or was hung up on."""
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            return process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


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
        kinds = {one.datatype for one in manifest.inputs}
        self._kind = kinds.pop() if len(kinds) == 1 and shim.TEXT not in kinds else ""
        # There a missing float is NaN, and needs no word of its own.
        self._gaps = self._kind in ("FP64", "FP32") and manifest.form in ("pandas", "numpy")

    def score(self, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """One finite number for each row, shape (n,).

        Raises:
            MissingInput: A column of the signature is not there.
            StepFailed: The model raised, or answered with something else.
            Ended, Unavailable: Its process ended, or cannot be begun again.
        """
        rows = len(next(iter(columns.values()), ()))
        block = self._block(columns, rows) if self._kind and rows else None
        if block is not None:
            return self._asked(rows, None, [block])
        parts: list[bytes] = []
        missing = []
        for name, datatype in self._columns:
            if name not in columns:
                raise MissingInput("an input is missing", subject=f"input {name}", found=", ".join(columns))
            data, gone = _packed(columns[name], datatype)
            parts += [data] if gone is None else [data, gone]
            missing.append(gone is not None)
        if not rows:
            return np.empty(0)
        return self._asked(rows, missing, parts)

    def _block(self, columns: Mapping[str, Sequence[Any]], rows: int) -> bytes | None:
        """All columns one after the other, where they are of one datatype and no value is missing."""
        block = array.array(shim.CODES[self._kind])
        for name, _ in self._columns:
            values = columns.get(name)
            if type(values) is not list or len(values) != rows:
                return None
            if None in values:
                if not self._gaps:
                    return None
                values = [math.nan if one is None else one for one in values]
            block.fromlist(values)
        return block.tobytes()

    def _asked(self, rows: int, missing: list[bool] | None, parts: list[bytes]) -> NDArray[np.float64]:
        _, values = self._line.ask({"do": "score", "rows": rows, "missing": missing}, parts)
        if len(values) != 1 or len(values[0]) != 8 * rows:
            self._line.nonsense(f"{[len(one) for one in values]} bytes for {rows} rows")
        return np.frombuffer(values[0], dtype=np.float64)

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
            Ended, Unavailable: Its process ended, or cannot be begun again.
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
        try:
            return dict(_array(one, data) for one, data in zip(answer["outputs"], values, strict=True))
        except (KeyError, TypeError, ValueError) as problem:
            self._line.nonsense(f"{type(problem).__name__}: {problem}"[:200])

    def close(self) -> None:
        """End its shim."""
        self._line.close()


def _array(one: dict[str, Any], data: bytearray) -> tuple[str, NDArray[Any]]:
    if one["datatype"] == shim.TEXT:
        made: NDArray[Any] = np.empty(len(one["text"]), dtype=object)
        made[:] = one["text"]
    else:
        made = np.frombuffer(data, dtype=shim.KINDS[one["datatype"]])
    return str(one["name"]), made.reshape(one["shape"])


def load(folder: Path, verify: Callable[[Path], Manifest], line: Line) -> HousedTable | HousedTensors:
    """The model of an unpacked bundle, loaded by a shim.

    Args:
        verify: Its manifest, once its files were held to their digests; also when a shim that is begun again loads it.

    Raises:
        UnsafeModel, NotAllowed: A file of it may not be loaded.
        Damaged: It cannot be loaded; a package that its environment lacks is named by the cause.
    """
    manifest = verify(folder)
    try:
        answer = line.load(request(folder, manifest), lambda: request(folder, verify(folder)))
    except StepFailed as problem:
        raise Damaged(
            f"it cannot be loaded in its own environment: {problem.what}", subject=f"model {manifest.model}",
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
