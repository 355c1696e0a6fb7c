"""Loading a bundle in a worker process, when a route first names it: portable form, native form, folder or command."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import socket

from instar.core.errors import Damaged
from instar.core.ids import digest, digest_of_file
from instar.serve.traffic.routes import bundle_of
from instar.serve.worker.housed import Line, end_with
from instar.serve.worker.housed import load as load_housed
from instar.serve.worker.runtime import Model
from instar.train import bundle, environment_places
from instar.train.graph_model import GraphModel
from instar.train.portable import PortableModel
from instar.train.tree_model import TreesModel

RUNTIMES = {"portable.onnx": "onnxruntime", "portable.treelite": "treelite"}  # by the file that it runs


def import_runtimes(bundles: Path) -> None:
    """Import what runs the portable forms among unpacked bundles: a tenth of a second that no caller has to wait for."""
    wanted = dict(RUNTIMES)
    with contextlib.suppress(OSError), os.scandir(bundles) as folders:
        for folder in folders:
            for file in [file for file in wanted if os.path.exists(f"{folder.path}/{file}")]:
                with contextlib.suppress(ImportError):  # loading the model says so
                    importlib.import_module(wanted.pop(file))
            if not wanted:
                return


def load(folder: Path, named: str | None = None) -> Model:
    """The model whose unpacked bundle lies in `folder`.

    Args:
        named: The bundle's digest; by default the folder's name says it.

    Raises:
        Damaged: The bundle cannot be read, or was changed on disk.
        NotAllowed: Its pickle names what the allow-list does not have.
        Unavailable: Its command does not start.
    """
    manifest = verified(folder, named)
    if manifest.portable is not None and manifest.portable.layout == "tensors":
        kind = GraphModel if manifest.portable.form == "onnx" else TreesModel
        return kind.load(manifest, folder / bundle.portable_file(manifest))
    if manifest.portable is not None:
        return PortableModel.load(manifest, folder / bundle.portable_file(manifest))
    if manifest.command is not None:
        from instar.serve.worker.commands.model import load_command

        return load_command(folder, manifest)
    if manifest.plain is not None:  # a process of its own, also where all that it needs is installed here
        return load_housed(folder, lambda place: verified(place, named), Line(end_with, lambda: sys.executable))
    # Imported here, since they bring the data frames which the worker of the portable forms does without.
    if manifest.folder is not None:
        from instar.release.scan_files import inspect_file
        from instar.train.flavors import load_folder

        return load_folder(folder, manifest, lambda file, path, own: inspect_file(file, path, own).refused)
    from instar.release.scan import admit
    from instar.train.native import load_native_folder

    def allowed(data: bytes, modules: Sequence[str]) -> object:
        return admit(data, modules)

    return load_native_folder(folder, manifest, inspect=allowed)


class EnvironmentLoader:
    """Loads bundles that run in an environment of their own, in one process of it, which is started by the first.

    What it raises is what `load` raises, and Unavailable where the environment is not built. When that process ends, ours does.

    Args:
        environment: Its name.
        left: See `housed.Line`.
        shim: Descriptor of the line to a process of it that was forked already; None: it is started here.
    """

    def __init__(
        self, store_folder: Path, environment: str, shim: int | None = None, left: Callable[[], object] = lambda: None
    ) -> None:
        self._store_folder, self._environment = store_folder, environment
        self._line = None if shim is None else Line(end_with, self._python, line=socket(fileno=shim), left=left)

    def __call__(self, folder: Path, named: str | None = None) -> Model:
        if self._line is None:
            self._line = Line(end_with, self._python)
        return load_housed(folder, lambda place: verified(place, named), self._line)

    def _python(self) -> str:
        return environment_places.interpreter(self._store_folder, self._environment)

    def close(self) -> None:
        """End its process, and stay."""
        if self._line is not None:
            self._line.close()


def verified(folder: Path, named: str | None = None) -> bundle.Manifest:
    """The manifest of an unpacked bundle, whose files are what it says.

    Raises:
        Damaged: It cannot be read, or was changed on disk.
    """
    data = (folder / bundle.MANIFEST_FILE).read_bytes()
    manifest = bundle.decode(data, f"bundle in {folder.name}")
    _verify(folder, data, manifest, named or bundle_of(folder))
    return manifest


def _verify(folder: Path, data: bytes, manifest: bundle.Manifest, named: str) -> None:
    """Hold the files to the digests that name them: one that was swapped on disk is never loaded."""
    asked = {bundle.MANIFEST_FILE: named, **bundle.files(manifest)}
    for name, wanted in asked.items():
        found = digest(data) if name == bundle.MANIFEST_FILE else digest_of_file(folder / name)
        if found != wanted:
            raise Damaged(
                f"its file {name} was changed",
                subject=f"bundle in {folder.name}",
                found=found,
                asked=wanted,
                next_step="Delete the folder and publish the routes again: it is made anew from the store.",
            )
