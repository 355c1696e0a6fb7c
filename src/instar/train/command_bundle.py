"""From a folder with `model.toml` to a bundle, when somebody brings a model that a program of another language serves.

What `model.toml` may say of a class of Python is read here, too; `class_bundle` packs it.

The folder is the model: the program, what it reads, and `model.toml`, which says how it is started and what it takes and gives.

    command = ["Rscript", "serve.R"]
    threshold = 0.5
    [[inputs]]
    name = "distance"
    datatype = "FP64"

Inputs without a shape are columns: the program answers with one number a row, its `score`. Inputs with a shape are tensors.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from instar.core import ids
from instar.core.errors import BadInput
from instar.core.limits import Limits
from instar.core.settings import size_bytes
from instar.core.store import Store
from instar.train import bundle
from instar.train.bundle import DATATYPES, OUTPUTS, Column, Command, Manifest, Resources, Tensor, Tensors
from instar.train.environment import Environment

KIND = "command"
MOST_THREADS = 1024
LEAST_MEMORY = 32 * 1024**2
FILE = "model.toml"
MOST_FILES = 20_000
LONGEST_START_SECONDS = 100.0  # the server gives a worker two minutes
LONGEST_ANSWER_SECONDS = 15.0  # beyond which a worker counts as hanging
# Of the protocol, as numpy can hold them.
TENSOR_TYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output in `model.toml`; `min` and `max`, or `values`, say what a call may send for an input."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None = None
    nullable: bool = False
    optional: bool = False
    personal: bool = False
    min: float | None = None
    max: float | None = None
    values: tuple[str | int | float, ...] | None = None

    @property
    def limits(self) -> Limits | None:
        """What is declared of its values."""
        if self.min is None and self.max is None and self.values is None:
            return None
        return Limits(self.min, self.max, self.values)


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`resources` in `model.toml`: processors, and memory as in `"2GiB"`."""

    threads: int | None = None
    memory: str | None = None


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `model.toml` says.

    Attributes:
        command: What a program is started by; a class has none.
        entry: A class as `module:Class`; a program has none.
        frame: What rows a class is given as: `"columns"` (a dict of lists), `"pandas"`, `"polars"`, `"pyarrow"` or `"numpy"`.
        python: Version of Python of a class, as in `"3.11"`; by default the running one.
        resources: What a process of it may use.
        model: Name of the model in the program's paths.
        threshold: Of a model of columns that decides.
        batch: May rows of several calls be sent as one request?
    """

    inputs: tuple[Port, ...]
    command: tuple[str, ...] = ()
    entry: str = ""
    frame: Literal["columns", "pandas", "polars", "pyarrow", "numpy"] = "columns"
    python: str = ""
    resources: Asked = Asked()
    outputs: tuple[Port, ...] = ()
    model: str = "model"
    threshold: float | None = None
    batch: bool = True
    start_seconds: float = 60.0
    answer_seconds: float = 10.0
    environment: dict[str, str] = {}


def read_folder(folder: Path, name: str, put: Callable[[Path], str] = ids.digest_of_file) -> Manifest:
    """The manifest of a folder's model, without an environment.

    Args:
        name: What the model is called.
        put: Keeps a file and tells its digest; by default files stay where they are.

    Raises:
        BadInput: `model.toml` is not there, or says what cannot be.
    """
    said = read_description(folder)
    if said.entry:
        raise BadInput("it names a class, and no command", subject=str(folder / FILE), found=said.entry)
    files, threshold = files_of(folder), said.threshold
    tensors = tensors_of(said, str(folder / FILE))
    command = Command(
        {path: put(folder / path) for path in files},
        said.command,
        tuple(path for path in files if os.access(folder / path, os.X_OK)),
        said.model,
        said.environment,
        said.start_seconds,
        said.answer_seconds,
        threshold is not None,
    )
    return Manifest(
        format=bundle.COMMAND_FORMAT if said.resources == Asked() else bundle.CLASS_FORMAT,
        model=name,
        step="",
        kind=KIND,
        recipe=ids.digest_of([KIND, name]),
        parameters={"command": list(said.command)} | ({} if threshold is None else {"threshold": threshold}),
        target="",
        inputs=() if tensors else columns_of(said, str(folder / FILE)),
        outputs=() if tensors else OUTPUTS,
        threshold=0.5 if threshold is None else threshold,
        native=None,
        form="tensors" if tensors else "columns",
        unportable="it is a program",
        environment="",
        run="",
        fitted_on="",
        fitted_rows=0,
        tensors=tensors,
        command=command,
        resources=resources_of(said, str(folder / FILE)),
    )


def resources_of(said: Description, subject: str) -> Resources | None:
    """What a process of a model may use; None where nothing is said.

    Raises:
        BadInput: It is nonsense.
    """
    asked = said.resources
    if asked == Asked():
        return None
    if asked.threads is not None and not 1 <= asked.threads <= MOST_THREADS:
        raise BadInput(
            "its threads are out of range", subject=subject, found=asked.threads, asked=f"1 to {MOST_THREADS}"
        )
    try:
        memory = None if asked.memory is None else size_bytes(asked.memory)
    except ValueError:
        memory = 0
    if memory is not None and memory < LEAST_MEMORY:
        raise BadInput("its memory is no size that a process can live in", subject=subject, found=asked.memory,
                       asked='such as memory = "512MiB"')  # fmt: skip
    return Resources(asked.threads, memory)


def pack_command(store: Store, folder: Path, *, name: str) -> str:
    """Pack a folder; the same files of one name give one bundle. Returns its digest.

    Raises:
        BadInput: As `read_folder`.
    """
    manifest = read_folder(folder, name, store.blobs.put_file)
    environment = store.blobs.put(ids.canonical_json(msgspec.to_builtins(Environment("", "", "", "", {}))))
    return bundle.pack(store.blobs, msgspec.structs.replace(manifest, environment=environment))


def read_description(folder: Path) -> Description:
    """What the `model.toml` of a folder says.

    Raises:
        BadInput: It is not there, or says what cannot be.
    """
    path = folder / FILE
    try:
        said = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Description)
    except FileNotFoundError:
        raise BadInput(f"the folder has no {FILE}", subject=str(path.parent)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadInput("it cannot be read", subject=str(path), found=str(error)) from error
    _check(said, str(path))
    return said


def _check(said: Description, subject: str) -> None:
    if not said.entry and (not said.command or not said.command[0]):
        raise BadInput("it names no command and no class", subject=subject,
                       asked='such as command = ["Rscript", "serve.R"], or entry = "model:Model"')  # fmt: skip
    if said.entry and said.command:
        raise BadInput("it names a command and a class", subject=subject, asked="one of them")
    if not said.inputs:
        raise BadInput("it names no inputs", subject=subject, asked="[[inputs]] with name and datatype")
    for what, ports in (("input", said.inputs), ("output", said.outputs)):
        names = [port.name for port in ports]
        for port in ports:
            if not port.name or names.count(port.name) > 1:
                raise BadInput(f"two {what}s have one name, or one has none", subject=subject, found=port.name)
            fault = "" if port.limits is None else port.limits.fault(port.datatype)
            if fault or (port.limits is not None and what == "output"):
                raise BadInput(
                    fault or "limits are held for inputs alone", subject=subject, found=f"{what} {port.name}"
                )
    for field, value, most in (
        ("start_seconds", said.start_seconds, LONGEST_START_SECONDS),
        ("answer_seconds", said.answer_seconds, LONGEST_ANSWER_SECONDS),
    ):
        if not 0 < value <= most:
            raise BadInput(f"{field} is out of range", subject=subject, found=value, asked=f"above 0, at most {most:g}")
    if not said.model or "/" in said.model:
        raise BadInput("its model has a name that no path can have", subject=subject, found=said.model)


def columns_of(said: Description, subject: str) -> tuple[Column, ...]:
    """The columns that a model takes whose inputs have no shape."""
    if said.outputs:
        raise BadInput(
            "a model of columns answers with `score` alone", subject=subject, found=f"output {said.outputs[0].name}",
            next_step="Leave its outputs out, or give all inputs and outputs a shape.",
        )  # fmt: skip
    for port in said.inputs:
        if port.datatype not in DATATYPES:
            raise BadInput(f"column {port.name} has another datatype than columns have", subject=subject,
                           found=port.datatype, asked=", ".join(DATATYPES))  # fmt: skip
        if port.optional:
            raise BadInput(f"column {port.name} cannot be optional", subject=subject, asked="nullable = true")
    return tuple(
        Column(port.name, port.datatype, port.nullable, _privacy(port), limits=port.limits) for port in said.inputs
    )


def tensors_of(said: Description, subject: str) -> Tensors | None:
    """The tensors of a model whose inputs and outputs have shapes; None for one of columns."""
    shaped = [port.shape is not None for port in (*said.inputs, *said.outputs)]
    if not any(shaped):
        return None
    if not all(shaped) or not said.outputs:
        raise BadInput("inputs and outputs have all a shape, or none has", subject=subject)
    if said.threshold is not None:
        raise BadInput("a model of tensors decides nothing, so it has no threshold", subject=subject)
    for port in (*said.inputs, *said.outputs):
        if port.datatype not in TENSOR_TYPES:
            raise BadInput(f"tensor {port.name} has an unknown datatype", subject=subject, found=port.datatype,
                           asked=", ".join(TENSOR_TYPES))  # fmt: skip
        if any(length < -1 for length in port.shape or ()):
            raise BadInput(f"tensor {port.name} has an impossible shape", subject=subject, found=list(port.shape or ()))
    rows = all((port.shape or ())[:1] == (-1,) for port in (*said.inputs, *said.outputs))
    made = {
        port: Tensor(
            port.name, port.datatype, port.shape or (), port.optional, port.nullable, _privacy(port), port.limits
        )
        for port in (*said.inputs, *said.outputs)
    }
    return Tensors(
        tuple(made[port] for port in said.inputs), tuple(made[port] for port in said.outputs), rows, rows and said.batch
    )


def _privacy(port: Port) -> str:
    return "personal" if port.personal else "internal"


def files_of(folder: Path) -> list[str]:
    """Paths of the files that belong to the model: all but hidden ones and what Python keeps of compiling."""
    found: list[str] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith(".") and one != "__pycache__")
        for name in sorted(names):
            path = Path(root) / name
            if name.startswith("."):
                continue
            if path.is_symlink() or not path.is_file():
                raise BadInput("a link, or no plain file, cannot be kept", subject=str(path))
            found.append(path.relative_to(folder).as_posix())
        if len(found) > MOST_FILES:
            raise BadInput("the folder has too many files", subject=str(folder), asked=f"{MOST_FILES} or fewer")
    return found
