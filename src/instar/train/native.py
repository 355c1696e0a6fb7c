"""The native form of a model: the pickled object itself, scored on a data frame of the kind that it was fitted on.

Unpickling runs code. So nothing here is called in a gateway or in the control process, only in the pipeline that made the
model and in worker processes of one version each, after an `inspect` that is handed in has passed the bytes.

    model = load_native(store.blobs, manifest, inspect=scan)
    model.score({"carrier": ["UA", None], "distance": [1400, 250]})   # -> array([0.18, 0.31])
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import pickle
import sys
import zipfile
import zipimport
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from instar.core.blobs import Blobs
from instar.core.errors import Damaged, StepFailed
from instar.train.bundle import CODE_FILE, NATIVE_FILE, Column, Manifest
from instar.train.code import NOTEBOOKS
from instar.train.frames import Frames, as_form

# Looks at a pickle before it is loaded, with the modules of the bundle's own code; raises when it is not safe.
Inspect = Callable[[bytes, Sequence[str]], object]

PROTOCOL = 5  # what every supported Python reads


class NativeModel:
    """A live model: any object with `predict_proba(frame)`, or `predict(frame)` for scores.

    Args:
        model: The fitted object.
        inputs: Signature, in the order of the frame that it was fitted on.
        form: `"polars"`, `"pandas"` or `"pyarrow"`: the kind of frame.
    """

    def __init__(self, model: Any, inputs: Sequence[Column], form: str, subject: str = "model") -> None:
        self.model = model
        self._names = [column.name for column in inputs]
        self._form = form
        self._subject = subject
        self._frames = Frames(inputs, form)
        # Answers as the model does, of the matrix of a frame's values: see `nameless`.
        self._quick = self._frames.without(model, _scores) if form == "pandas" else None

    def score(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> NDArray[np.float64]:
        """P(target is true), or what a baseline scores, for each row; shape (n,), float64.

        Raises:
            MissingInput: A column of the signature is not there.
            StepFailed: The model raised, or answered with something else than one number a row.
        """
        rows = len(next(iter(columns.values()), ()))
        matrix = self._frames.matrix(columns) if self._quick is not None else None
        if matrix is not None:
            return self._score(self._quick, matrix, rows)
        return self._score(self.model, self._frames.make(columns), rows)

    def score_frame(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """The same for a frame that has the signature's columns; others are left out."""
        return self._score(self.model, as_form(frame.select(self._names), self._form), frame.height)

    def _score(self, model: Any, given: Any, rows: int) -> NDArray[np.float64]:
        if rows == 0:
            return np.empty(0)
        try:
            scores = _scores(model, given)
        except Exception as error:
            raise StepFailed(
                f"the native form raised {type(error).__name__}: {error}", subject=self._subject
            ) from error
        if scores.shape != (rows,) or not np.isfinite(scores).all():
            raise StepFailed(
                "it must answer one finite number a row",
                subject=self._subject,
                found=f"shape {scores.shape}, {int((~np.isfinite(scores)).sum())} not finite",
                asked=f"({rows},)",
            )
        return scores


def dump(model: Any, subject: str) -> bytes:
    """Pickle a fitted model.

    Raises:
        StepFailed: It cannot be pickled.
    """
    try:
        return pickle.dumps(model, protocol=PROTOCOL)
    except Exception as error:
        raise StepFailed(
            f"what it returned cannot be saved: {error}",
            subject=subject,
            found=type(model).__qualname__,
            next_step="Return an object of a class at the top level of the project's files, without open files or lambdas.",
        ) from error


def load_native(blobs: Blobs, manifest: Manifest, *, inspect: Inspect | None = None) -> NativeModel:
    """Load the native form from the store, with the bundle's own code on the import path.

    Args:
        inspect: Called with the pickle and the names of the bundle's modules before anything is loaded.

    Raises:
        Damaged: There is no native form, or it cannot be unpickled.
    """
    code = blobs.path(manifest.code) if manifest.code else None
    return _load(manifest, blobs.get(_native(manifest)), code, inspect)


def load_native_folder(folder: Path, manifest: Manifest, *, inspect: Inspect | None = None) -> NativeModel:
    """The same from the folder of an unpacked bundle."""
    _native(manifest)
    code = folder / CODE_FILE if manifest.code else None
    return _load(manifest, (folder / NATIVE_FILE).read_bytes(), code, inspect)


def modules_of(code: Path | None) -> list[str]:
    """Names of the top modules and packages in a bundle's code, which its pickle may import."""
    if code is None:
        return []
    with zipfile.ZipFile(code) as archive:
        files = [name.removeprefix(f"{NOTEBOOKS}/") for name in archive.namelist() if name.endswith(".py")]
    return sorted({name.split("/")[0].removesuffix(".py") for name in files})


def _native(manifest: Manifest) -> str:
    if manifest.native is None:
        raise Damaged("it has no native form", subject=f"bundle of {manifest.model}")
    return manifest.native


def _load(manifest: Manifest, data: bytes, code: Path | None, inspect: Inspect | None) -> NativeModel:
    if inspect is not None:
        inspect(data, modules_of(code))
    try:
        with _own_code(code):
            model = pickle.loads(data)
    except Exception as error:
        raise Damaged(
            f"its native form cannot be loaded: {type(error).__name__}: {error}", subject=f"bundle of {manifest.model}",
            next_step="Load it in the environment that its manifest names.",
        ) from error  # fmt: skip
    if code is not None and str(code) not in sys.path:
        # For what the model imports only when it predicts. At the end, so that nothing installed is ever shadowed.
        sys.path += [str(code), str(code / NOTEBOOKS)]
    return NativeModel(model, manifest.inputs, manifest.form, f"model {manifest.model} of step {manifest.step}")


@contextmanager
def _own_code(code: Path | None) -> Iterator[None]:
    """Import the bundle's modules from its own code, though the project's present ones may be imported under these names.

    Afterwards the names mean what they meant before; the loaded objects keep their classes.
    """
    names = set(modules_of(code)) - set(sys.stdlib_module_names)
    if code is None or not names:
        yield
        return

    def own() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in names]

    before = {name: sys.modules.pop(name) for name in own()}
    finder = _CodeFinder(code, names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in own():
            del sys.modules[name]
        sys.modules.update(before)


class _CodeFinder:
    """Finds a bundle's modules in its zip, before anything else does."""

    def __init__(self, code: Path, names: set[str]) -> None:
        self._root = str(code)
        self._names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self._names:
            return None
        folder = self._root if path is None else next(iter(path), self._root)
        found = zipimport.zipimporter(folder).find_spec(fullname)
        if found is None or found.loader is None:  # no file of that name: a notebook's cells make the module
            above = "/".join([self._root, NOTEBOOKS, *fullname.split(".")[:-1]])
            with contextlib.suppress(zipimport.ZipImportError):
                return zipimport.zipimporter(above).find_spec(fullname) or found
        return found


def _scores(model: Any, given: Any) -> NDArray[np.float64]:
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(given), dtype=np.float64)
    shares = np.asarray(model.predict_proba(given), dtype=np.float64)
    if shares.ndim == 1:
        return shares
    if shares.shape[1] == 1:  # one class only was seen
        return shares[:, 0] if bool(getattr(model, "classes_", [True])[0]) else 1.0 - shares[:, 0]
    return shares[:, 1]
