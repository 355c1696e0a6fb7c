"""What a run comes from, looked at when it starts: code, environment, conditions, the command line, and the notebook or script.

Nothing here may stop a training: what cannot be kept is said, and left out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from instar.core.blobs import Blobs
from instar.train import spool
from instar.train.spool_records import Start, blobs_of

log = logging.getLogger("instar.run")

T = TypeVar("T")

CELLS = "instar/cells.py"
NOTEBOOK = "instar/notebook.ipynb"
LARGEST_SCRIPT = 2_000_000  # bytes
LARGEST_NOTEBOOK = 20_000_000  # bytes: with its outputs


@dataclass
class Origin:
    """Digests of what was kept.

    Attributes:
        files: What is kept as artifacts, by path: the notebook or the script when no project has it.
    """

    environment: str | None = None
    lock: str | None = None
    conditions: str | None = None
    code: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def shared(self, source: Path, target: Path) -> Origin:
        """The same for a run within the run whose spool is `source`: what was kept for one is there for the other.

        What is not there any more, a store has.
        """
        kept = (self.environment, self.lock, self.conditions)
        for digest in blobs_of(Start("", "", 0, "", None, {}, {}, [], *kept, self.code)):
            place = spool.staged(target, digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                os.link(spool.staged(source, digest), place)
        return replace(self, files={})


def capture(keep: Callable[[], Blobs], root: Path | None) -> Origin:
    """Look at this process and the project at `root`, and keep what describes them in the blobs that `keep` opens."""
    blobs = _or("the folder of files", keep, None)
    if blobs is None:
        return Origin()
    found = Origin(files=_or("the notebook", source, {}))
    code_root = root or _or("the repository", _repository, None)
    _or("the environment", lambda: _environment(blobs, code_root, found), None)
    _or("the conditions", lambda: _conditions(blobs, code_root, found), None)
    if code_root is not None:
        _or("the code", lambda: _code(blobs, code_root, found), None)
    if found.code is not None and code_root is not None and not in_notebook() and _main_is_below(code_root):
        found.files = {}  # the script is among the code
    return found


def repeats() -> dict[str, str]:
    """The tag that names the run which this process was started to repeat, by `instar reproduce`; nothing otherwise."""
    run = os.environ.get("INSTAR_REPRODUCES")
    if not run:
        return {}
    from instar.train.reproductions import REPRODUCES

    return {REPRODUCES: run}


def source() -> dict[str, bytes]:
    """The notebook that runs, or its cells so far; else the script, by the path under which it is kept."""
    shell = _shell()
    if shell is None:
        return _script()
    file = _notebook_file(shell)
    if file is not None and file.stat().st_size <= LARGEST_NOTEBOOK:
        return {NOTEBOOK: file.read_bytes()}
    cells = [str(cell) for cell in shell.user_ns.get("In", []) if str(cell).strip()]
    return {CELLS: "".join(f"# %%\n{cell.rstrip()}\n\n" for cell in cells).encode()} if cells else {}


def in_notebook() -> bool:
    """Does this process run cells?"""
    return _shell() is not None


def _environment(blobs: Blobs, root: Path | None, found: Origin) -> None:
    from instar.train import environment

    described = environment.capture(root)
    found.environment = environment.save(blobs, described, root)
    found.lock = described.lock


def _conditions(blobs: Blobs, root: Path | None, found: Origin) -> None:
    from instar.train import conditions

    folder = str(Path.cwd())
    if root is not None and Path.cwd().is_relative_to(root):
        folder = Path.cwd().relative_to(root).as_posix()
    way, command = _called(root)
    nothing: tuple[str, ...] = ()
    public = _or("the contract's public variables", lambda: _public(root), nothing)
    captured = conditions.capture(way=way, command=command, folder=folder, root=root, variables=public, public=public)
    found.conditions = conditions.save(blobs, captured)


def _called(root: Path | None) -> tuple[str, list[str]]:
    """How this program was called, so that it can be called again: a notebook, `-m MODULE …`, or a script and arguments."""
    shell = _shell()
    if shell is not None:
        file = _notebook_file(shell)
        return "notebook", [_below(root, str(file)) if file is not None else ""]
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is not None and main.name != "__main__":
        return "command", ["-m", main.name.removesuffix(".__main__"), *sys.argv[1:]]
    if not sys.argv or sys.argv[0] in ("", "-c", "-"):
        return "unknown", list(sys.argv)
    return "command", [_below(root, sys.argv[0]), *sys.argv[1:]]


def _below(root: Path | None, name: str) -> str:
    """A file's path within the project, or as it was said where it lies elsewhere."""
    file = Path(name).absolute()
    return file.relative_to(root).as_posix() if root is not None and file.is_relative_to(root) else name


def _public(root: Path | None) -> tuple[str, ...]:
    """Variables whose values the contract allows to be kept."""
    if root is None or not (root / "instar.toml").is_file():
        return ()
    from instar.plan.project import load_project

    return load_project(root).contract.project.public_variables


def _code(blobs: Blobs, root: Path, found: Origin) -> None:
    from instar.train import code

    found.code = code.describe(code.capture(blobs, root))


def _repository() -> Path | None:
    """The folder of the git repository here; a script outside of any keeps itself only, not its neighbours."""
    here = Path.cwd().absolute()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)


def _script() -> dict[str, bytes]:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not file or not file.endswith(".py"):
        return {}
    script = Path(file)
    if "site-packages" in script.parts or script.stat().st_size > LARGEST_SCRIPT:
        return {}  # a program such as pytest or accelerate that runs somebody else's code
    return {f"instar/{script.name}": script.read_bytes()}


def _main_is_below(root: Path) -> bool:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return file is not None and Path(file).absolute().is_relative_to(root)


def _shell() -> Any:
    # Only if IPython is there already: nobody needs it for a script.
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None


def _notebook_file(shell: Any) -> Path | None:
    """The notebook's file, where the editor says it: VS Code in a variable, Jupyter in the environment or beside the kernel."""
    named = (shell.user_ns.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME"))
    for name in named:
        if name and str(name).endswith(".ipynb") and Path(str(name)).is_file():
            file = Path(str(name))
            try:
                json.loads(file.read_bytes())
            except (OSError, ValueError):
                continue
            return file
    return None


def _or(what: str, look: Callable[[], T], otherwise: T) -> T:
    try:
        return look()
    except Exception as error:  # whatever it is: a training must not fail for its description
        log.warning("%s of this run cannot be kept: %s", what, error)
        return otherwise
