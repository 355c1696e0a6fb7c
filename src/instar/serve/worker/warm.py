"""The warm process of our own environment, from which workers of versions are forked while a server runs.

    python -m instar.serve.worker.warm DESCRIPTOR          # of its line to the root; its end is our end

It has imported what a worker needs, and the libraries of data frames and estimators once a routed version names them. It
loads no model and scores nothing, so no library has begun the threads of its pool, which a fork would lose.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import socket
import sys
import warnings
from pathlib import Path

from instar.serve.processes import zygote

MODULES = ("numpy", "msgspec", "uvloop", "instar.serve.worker.worker", "instar.serve.worker.loading")
# What bundles may need and a fork bears; the rest is imported by the worker that needs it.
LIBRARIES = frozenset({"numpy", "scipy", "sklearn", "polars", "pandas", "pyarrow", "joblib"})

_seen: set[str] = set()


def main() -> None:
    """Serve the root until it closes the line."""
    line = socket.socket(fileno=int(sys.argv[-1]))
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the root
    zygote.call_process("instar warm")
    for module in MODULES:
        importlib.import_module(module)
    zygote.serve(line, _begin, warm=_warm, adopted=True)


def _begin(arguments: list[str], fds: list[int]) -> None:
    from instar.serve.worker import worker

    worker.main([*arguments, "--shim", str(fds[0])] if fds else arguments)


def _warm(arguments: list[str]) -> None:
    """Import what the bundle of a worker to come will ask for."""
    if "--bundle" in arguments:
        folder = arguments[arguments.index("--bundle") + 1]
        if folder not in _seen:
            _seen.add(folder)
            for library in libraries_of(Path(folder)):
                with contextlib.suppress(ImportError):
                    importlib.import_module(library)
    if "--load" in arguments:
        with contextlib.suppress(ImportError):
            importlib.import_module(arguments[arguments.index("--load") + 1].partition(":")[0])


def libraries_of(folder: Path) -> set[str]:
    """Modules that loading the native form in a bundle's folder imports, as far as a fork bears them."""
    from instar.train import bundle

    try:
        manifest = bundle.decode((folder / bundle.MANIFEST_FILE).read_bytes())
    except Exception:  # the worker says what is wrong with it
        return set()
    if manifest.portable is not None or manifest.native is None:
        return set()
    importlib.import_module("instar.train.native")
    importlib.import_module("instar.release.scan")
    return {"polars", manifest.form} & LIBRARIES | _imported(folder / bundle.NATIVE_FILE)


def _imported(pickle_file: Path) -> set[str]:
    """Modules that a pickle names: the top ones decide whether they may be imported here."""
    import pickletools

    found: set[str] = set()
    texts: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        for opcode, argument, _ in pickletools.genops(pickle_file.read_bytes()):
            if isinstance(argument, str):
                texts.append(argument)
            if opcode.name == "GLOBAL":
                found.add(str(argument).partition(" ")[0])
        # STACK_GLOBAL takes its module from a text before it.
        found.update(
            text for text in texts if text.partition(".")[0] in LIBRARIES and text.replace(".", "").isidentifier()
        )
    return {name for name in found if name.partition(".")[0] in LIBRARIES}


if __name__ == "__main__":
    main()
