"""From a folder with a class of Python to a bundle, when somebody brings a model that is plain code.

The folder is the model: `model.toml`, the module with the class, what it reads, and what it needs beside the standard library.

    entry = "model:Model"          # of model.py: Model(folder) or Model(), with predict(rows), or infer(inputs) for tensors
    [[inputs]]
    name = "distance"
    datatype = "FP64"

`requirements.lock` is the lock as it is; of `requirements.txt` one is made, with hashes. Nothing of the code is run here: it is
read as text, so that what is missing is said at once, and runs in a process and an environment of its own.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import msgspec

from instar.core import ids
from instar.core.errors import BadInput
from instar.core.store import Store
from instar.train import bundle, environment, folder_lock
from instar.train.bundle import OUTPUTS, Manifest, PlainClass
from instar.train.command_bundle import (
    FILE,
    Description,
    columns_of,
    files_of,
    pack_command,
    read_description,
    resources_of,
    tensors_of,
)
from instar.train.environment import Environment

KIND = "class"
LOCK, REQUIREMENTS = "requirements.lock", folder_lock.FILE

_ENTRY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_PYTHON = re.compile(r"3\.\d+(?:\.\d+)?")
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;\\]+)")


def pack_class(store: Store, folder: Path, *, name: str) -> str:
    """Pack a folder; the same files of one name give one bundle. Returns its digest.

    Raises:
        BadInput: `model.toml` is not there, or says what cannot be: a class that is not in the folder, for one.
        Blocked, Unavailable: No lock can be made of what it requires.
    """
    said = read_description(folder)
    subject = str(folder / FILE)
    tensors = tensors_of(said, subject)
    files = files_of(folder)
    _check(said, folder, files, "predict" if tensors is None else "infer")
    inputs = () if tensors else columns_of(said, subject)
    if said.frame == "numpy" and len({one.datatype for one in inputs}) > 1:
        raise BadInput("a matrix has columns of one datatype", subject=subject, found=said.frame,
                       asked=", ".join(sorted({one.datatype for one in inputs})))  # fmt: skip
    text = _lock(folder, said, name)
    threshold = said.threshold
    manifest = Manifest(
        format=bundle.CLASS_FORMAT,
        model=name,
        step="",
        kind=KIND,
        recipe=ids.digest_of([KIND, name]),
        parameters={"entry": said.entry} | ({} if threshold is None else {"threshold": threshold}),
        target="",
        inputs=inputs,
        outputs=() if tensors else OUTPUTS,
        threshold=0.5 if threshold is None else threshold,
        native=None,
        form="tensors" if tensors else said.frame,
        unportable="it is a class",
        environment=_described(store, said, text),
        lock=store.blobs.put(text.encode()) if text else None,
        run="",
        fitted_on="",
        fitted_rows=0,
        tensors=tensors,
        resources=resources_of(said, subject),
        plain=PlainClass(
            {path: store.blobs.put_file(folder / path) for path in files}, said.entry, threshold is not None
        ),
    )
    return bundle.pack(store.blobs, manifest)


def _check(said: Description, folder: Path, files: list[str], method: str) -> None:
    """Hold what `model.toml` says to the text of the module that it names."""
    subject = str(folder / FILE)
    for field, value, default in (
        ("model", said.model, "model"), ("environment", said.environment, {}), ("start_seconds", said.start_seconds, 60.0),
        ("answer_seconds", said.answer_seconds, 10.0),
    ):  # fmt: skip
        if value != default:
            raise BadInput(f"{field} is for a command, and this is a class", subject=subject, found=value)
    if said.python and not _PYTHON.fullmatch(said.python):
        raise BadInput("its python is no version", subject=subject, found=said.python, asked='such as python = "3.11"')
    named = _ENTRY.fullmatch(said.entry)
    if named is None:
        raise BadInput(
            "its entry names no class", subject=subject, found=said.entry, asked='such as entry = "model:Model"'
        )
    path = named[1].replace(".", "/")
    file = next((one for one in (f"{path}.py", f"{path}/__init__.py") if one in files), None)
    if file is None:
        raise BadInput(f"its entry names module {named[1]}, which is not in the folder", subject=subject, found=said.entry,
                       asked=f"{path}.py")  # fmt: skip
    try:
        tree = ast.parse((folder / file).read_bytes(), file)
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{file} cannot be read as Python", subject=str(folder), found=str(error)) from None
    if any(isinstance(one, ast.ImportFrom) and any(name.name == "*" for name in one.names) for one in tree.body):
        return  # what it brings is known when it runs
    kept = {one.name: one for one in tree.body if isinstance(one, ast.ClassDef)}
    names = kept.keys() | {
        name.id for name in ast.walk(tree) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }
    names |= {one.asname or one.name for node in tree.body if isinstance(node, ast.ImportFrom) for one in node.names}
    if named[2] not in names:
        raise BadInput(f"{file} has no class {named[2]}", subject=str(folder), found=", ".join(sorted(kept)) or "no class",
                       next_step=f"Define it, or name another in entry of {FILE}.")  # fmt: skip
    found = kept.get(named[2])
    if found is not None and not found.bases and not found.decorator_list:
        methods = [one.name for one in found.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))]
        given = {
            name.id
            for one in found.body
            if isinstance(one, ast.Assign)
            for name in one.targets
            if isinstance(name, ast.Name)
        }
        if not {method, "__getattr__"} & {*methods, *given}:
            takes = "rows" if method == "predict" else "inputs"
            raise BadInput(f"class {named[2]} has no method {method}", subject=str(folder / file),
                           found=", ".join(methods) or "no methods", asked=f"def {method}(self, {takes})")  # fmt: skip


def _stored(tree: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def _lock(folder: Path, said: Description, name: str) -> str:
    """The text of the lock; empty where it needs nothing."""
    if (folder / LOCK).is_file():
        return (folder / LOCK).read_text("utf-8")
    if not (folder / REQUIREMENTS).is_file():
        return ""
    text = (folder / REQUIREMENTS).read_text("utf-8")
    lines = [
        line.strip()
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if all("--hash=" in line and _PINNED.match(line) for line in lines):
        return text
    return folder_lock.resolve(folder_lock.plain(text, f"model {name}"), _python(said), f"model {name}")


def _python(said: Description) -> str:
    running = environment.capture().python
    return said.python if said.python and not running.startswith(f"{said.python}.") else running


def _described(store: Store, said: Description, lock: str) -> str:
    here = environment.capture()
    pins = [_PINNED.match(line.strip()) for line in lock.replace("\\\n", " ").splitlines()]
    wanted = {environment.normal(pin[1]): pin[2] for pin in pins if pin}
    found = Environment(_python(said), sys.implementation.name, here.system, here.machine, dict(sorted(wanted.items())))
    return store.blobs.put(ids.canonical_json(msgspec.to_builtins(found)))


def pack_brought(store: Store, folder: Path, *, name: str) -> str:
    """Pack a folder with `model.toml`, whichever it names: a program or a class.

    Raises:
        BadInput, Blocked, Unavailable: As `pack_class` and `command_bundle.pack_command`.
    """
    return (pack_class if read_description(folder).entry else pack_command)(store, folder, name=name)
