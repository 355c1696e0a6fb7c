"""What a bundle holds that no step made, when somebody brings it: a folder that was logged, a program or a class."""

from __future__ import annotations

import msgspec


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a process of what somebody brought may use.

    Attributes:
        threads: Processors at most; None: as many as there are.
        memory: Bytes at most: beyond it the process is replaced; None: as the endpoint or the server has it.
    """

    threads: int | None = None
    memory: int | None = None


class Folder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A logged model's folder, as MLflow wrote it.

    Attributes:
        files: Digest of each file by its path in the folder.
        flavors: Names of the flavours in its `MLmodel`, sorted; none when it has no such file.
        served_as: The flavour that answers calls; empty when none can.
        matrix: The model takes one matrix instead of named columns; its inputs are the columns `x0`, `x1`, …
        unservable: Why it cannot answer calls; empty when nothing speaks against it so far.
        code: Does it bring Python code of its own, which loading runs?
    """

    files: dict[str, str]
    flavors: tuple[str, ...] = ()
    served_as: str = ""
    matrix: bool = False
    unservable: str = ""
    code: bool = False


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program that answers calls by the Open Inference Protocol V2 over HTTP, in whatever language.

    Attributes:
        files: Digest of each file by its path in the folder.
        command: What is started in that folder; `{port}` in it is the port on loopback at which it is asked.
        executable: Files that may be run.
        name: By which it calls its model in paths.
        environment: Variables beside those of the server.
        start_seconds: Until it must be ready.
        answer_seconds: Until it must have answered.
        decides: A table model's score at or above the threshold is a decision; else the score is a number.
    """

    files: dict[str, str]
    command: tuple[str, ...]
    executable: tuple[str, ...] = ()
    name: str = "model"
    environment: dict[str, str] = {}
    start_seconds: float = 60.0
    answer_seconds: float = 10.0
    decides: bool = False


class PlainClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class of Python that answers, from a folder of its own, in a process and an environment of its own.

    Attributes:
        files: Digest of each file by its path in the folder.
        entry: The class as `module:Class`.
        decides: A table model's score at or above the threshold is a decision; else the score is a number.
    """

    files: dict[str, str]
    entry: str
    decides: bool = False
