"""Looking at a model's file that somebody brings, in a process of its own: what it takes and gives, and how it may be asked.

What reads such a file is native code of other projects, and the file came from anywhere; so it is read where nothing else can be
harmed. Trees of other libraries are written anew in the one form that workers load.

    python -m instar.train.examining FILE FORM [TREES]     # one line of JSON: tensors, or why not
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from instar.core import errors
from instar.core.errors import BadInput, Blocked, Damaged, InstarError, StepFailed, Unavailable
from instar.train.bundle import Tensors
from instar.train.tree_model import FORMS

TIMEOUT_SECONDS = 180.0

_BESIDE = re.compile(
    r"external data|external_data|External initializer|GetExtData|model_path must not be empty", re.IGNORECASE
)
_OPERATOR = re.compile(
    r"not a registered function/op|No Op registered|No opset import|is not registered", re.IGNORECASE
)


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        why: Why calls of it are not answered together; empty if they are.
    """

    tensors: Tensors
    why: str = ""


def examine(file: Path, form: str, trees: Path | None = None, *, called: str = "") -> Examined:
    """Look at a file.

    Args:
        called: What its owner calls it, where `file` is a copy; errors speak of that.
        form: `"onnx"`, `"xgboost"` or `"lightgbm"`.
        trees: Where trees are written in the form that workers load.

    Raises:
        BadInput, Damaged: It is no such file.
        Blocked: It cannot be served: says what of it, and what to do.
        Unavailable: What reads it is not installed, or it took too long.
    """
    command = [sys.executable, "-m", "instar.train.examining", str(file), form, *([str(trees)] if trees else [])]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"it was not read within {TIMEOUT_SECONDS:.0f} s", subject=called or str(file)) from None
    try:
        said: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        told = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise Damaged(f"reading it ended the process: {told[0][:300]}", subject=called or str(file)) from None
    if "error" in said:
        title = called or str(file)
        said = {name: fact and fact.replace(str(file), title) for name, fact in said.items()}
        kind = getattr(errors, said["error"], StepFailed)
        facts = {name: said[name] for name in ("found", "asked", "next_step") if said.get(name)}
        raise kind(said["what"], subject=said.get("subject") or title, **facts)
    return Examined(msgspec.convert(said["tensors"], Tensors), said["why"])


def main(arguments: list[str] | None = None) -> None:
    """Entry of the process."""
    given = arguments or sys.argv[1:]
    try:
        found = _look(Path(given[0]), given[1], Path(given[2]) if len(given) > 2 else None)
        said: dict[str, Any] = {"tensors": msgspec.to_builtins(found.tensors), "why": found.why}
    except InstarError as error:
        facts = {name: getattr(error, name) for name in ("what", "subject", "found", "asked", "next_step")}
        said = {"error": type(error).__name__, **{name: value and str(value) for name, value in facts.items()}}
    except ModuleNotFoundError as error:
        said = {"error": "Unavailable", "what": f"the package {error.name} is not installed, which reads such a file"}
    print(json.dumps(said), flush=True)


def _look(file: Path, form: str, trees: Path | None) -> Examined:
    if form in FORMS:
        from instar.train.tree_model import read_trees, tensors_of

        found = read_trees(file, form)
        tensors = tensors_of(found)
        if trees is not None:
            trees.write_bytes(found.serialize_bytes())
        return Examined(tensors)
    return _graph(file)


def _graph(file: Path) -> Examined:
    from instar.train.graph_model import GraphModel
    from instar.train.graph_signature import tensors_of
    from instar.train.sessions import open_session
    from instar.train.stacking import try_stacking

    try:
        session = open_session(file)
    except Damaged as error:
        raise _refusal(str(error.found)) from None
    found = tensors_of(session)
    symbols = set(found.symbols.values())
    same = True if len(symbols) == 1 and symbols != {""} and None not in symbols else None
    model = GraphModel(session, Tensors(found.inputs, found.outputs), 0)
    stacking = try_stacking(model.infer, found.inputs, found.outputs, same)
    tensors = Tensors(
        found.inputs,
        found.outputs,
        stacking.rows,
        stacking.batchable,
        stacking.least,
        stacking.difference if stacking.batchable else 0.0,
    )
    return Examined(tensors, stacking.why)


def _refusal(found: str) -> InstarError:
    """What a runtime says of a graph that it cannot open, in words that help."""
    if _BESIDE.search(found):
        return Blocked(
            "its weights lie in files beside it", found=found,
            next_step="Save it as one file: onnx.save_model(onnx.load(FILE), OTHER, save_as_external_data=False).",
        )  # fmt: skip
    if _OPERATOR.search(found):
        return Blocked(
            "its graph asks for an operator that ONNX Runtime has not", found=found,
            next_step="Export it with operators of ONNX alone; libraries of custom operators are never loaded.",
        )  # fmt: skip
    return BadInput("it is no graph that ONNX Runtime reads", found=found)


if __name__ == "__main__":
    main()
