"""From the files of a logged model to a bundle: when a client says that all files are there, and when a folder is registered.

The folder of a logged model is a bundle as it is: the manifest names its files by their digests and says what its `MLmodel`
tells of inputs, flavours and environment. A folder without that file is a bundle, too, which is kept and never served.

    digest = pack_folder(store, {"MLmodel": "b3:…", "model.pkl": "b3:…"}, name="delay", run="run_…")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from instar.core import ids
from instar.core.errors import BadInput
from instar.core.store import Store
from instar.train import bundle, mlmodel
from instar.train.bundle import FOLDER_FORMAT, TENSOR_FORMAT, Folder, Manifest
from instar.train.environment import Environment

MOST_FILES = 20_000
LARGEST_TEXT_BYTES = 1024 * 1024  # of the requirements, the rest of which is not read

# Why the files of a folder may not be loaded, empty when they may: given them by path, and the modules that they bring.
InspectFolder = Callable[[Mapping[str, str], Sequence[str]], str]

# Flavours that answer calls, the surest first; each is loaded by `flavors`.
SERVED = ("sklearn", "xgboost", "lightgbm", "onnx", "python_function")
SERVED_TENSORS = ("onnx", "python_function")
# What the flavour that every client can load may load by: readers of plain files, and code that the folder brings.
LOADERS = frozenset(
    f"mlflow.{name}"
    for name in (
        "pyfunc.model", "pyfunc.loaders.code_model", "sklearn", "xgboost", "lightgbm", "onnx", "pytorch", "catboost",
        "statsmodels", "prophet",
    )
)  # fmt: skip

_PIN = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([A-Za-z0-9.!+*-]+)")


def pack_folder(
    store: Store,
    files: Mapping[str, str],
    *,
    name: str,
    run: str = "",
    parameters: Mapping[str, Any] | None = None,
    fitted_on: str = "",
    inspect: InspectFolder | None = None,
) -> str:
    """Pack a folder; equal folders of one run and name give one bundle. Returns its digest.

    Args:
        files: Digests of blobs by path in the folder.
        name: What the model is called.
        run: Id of the run that logged it, or of the logged model without one.
        parameters: What it was fitted with.
        fitted_on: Id of the data set that it was fitted on, where it is known.
        inspect: Looks at the files that loading would unpickle.

    Raises:
        BadInput: There are too many files.
    """
    if len(files) > MOST_FILES:
        raise BadInput(
            "the folder has too many files", subject=f"model {name}", found=len(files), asked=f"{MOST_FILES} or fewer"
        )
    described, why = _described(store, files, name)
    folder = Folder(dict(files), unservable=why) if described is None else _folder(files, described, inspect)
    manifest = Manifest(
        format=TENSOR_FORMAT if described and described.tensors else FOLDER_FORMAT,
        model=name,
        step="",
        kind="logged",
        recipe=ids.digest_of(["logged", name]),
        parameters=dict(parameters or {}),
        target="",
        inputs=(described.inputs if described else None) or (),
        outputs=described.outputs if described and not described.tensors else (),
        threshold=0.5,
        native=None,
        form="tensors" if described and described.tensors else "numpy" if folder.matrix else "pandas",
        unportable="it was logged by MLflow",
        environment=_environment(store, files, described),
        run=run,
        fitted_on=fitted_on,
        fitted_rows=0,
        folder=folder,
        tensors=described.tensors if described else None,
    )
    return bundle.pack(store.blobs, manifest)


def own_modules(files: Mapping[str, str], described: mlmodel.Described) -> list[str]:
    """Top modules and packages that a folder brings in the places from which its flavours import."""
    roots = {settings.get("code") for settings in described.flavors.values()}
    named = [place for root in roots if root for place in (root if isinstance(root, list) else [root])]
    found = set()
    for path in files:
        for place in named:
            inner = path.removeprefix(f"{str(place).rstrip('/')}/")
            if inner != path and inner.endswith(".py"):
                found.add(inner.split("/")[0].removesuffix(".py"))
    return sorted(found)


def _described(store: Store, files: Mapping[str, str], name: str) -> tuple[mlmodel.Described | None, str]:
    """What the folder's `MLmodel` says, or why that cannot be known: whatever somebody uploads is kept."""
    digest = files.get(mlmodel.FILE)
    if digest is None:
        return None, "its folder has no MLmodel"
    with store.blobs.path(digest).open("rb") as file:
        text = file.read(mlmodel.LARGEST_BYTES + 1)
    try:
        return mlmodel.read(text, f"model {name}"), ""
    except BadInput as error:
        return None, error.what


def _folder(files: Mapping[str, str], described: mlmodel.Described, inspect: InspectFolder | None) -> Folder:
    flavors = tuple(sorted(described.flavors))
    served = SERVED if described.tensors is None else SERVED_TENSORS
    served_as = next((one for one in served if one in described.flavors), "")
    own = own_modules(files, described)
    loader = str(described.pyfunc.get("loader_module") or "")
    code = bool(own) or loader == "mlflow.pyfunc.loaders.code_model"
    return Folder(
        files=dict(files),
        flavors=flavors,
        served_as=served_as,
        matrix=described.matrix,
        unservable=described.why
        or _no_flavor(served_as, served, flavors, loader, own)
        or (inspect(files, own) if inspect is not None else ""),
        code=code,
    )


def _no_flavor(served_as: str, served: Sequence[str], flavors: Sequence[str], loader: str, own: Sequence[str]) -> str:
    if not served_as:
        return f"none of its flavours ({', '.join(flavors)}) is served; those that are: {', '.join(served)}"
    if served_as == "python_function" and loader not in LOADERS and loader.split(".")[0] not in own:
        return f"its loader {loader or '(none)'} is not one that is served"
    return ""


def _environment(store: Store, files: Mapping[str, str], described: mlmodel.Described | None) -> str:
    """The description of the environment that the folder asks for: what it pins."""
    pins: dict[str, str] = {}
    listed = files.get("requirements.txt")
    if listed is not None:
        with store.blobs.path(listed).open("rb") as file:
            text = file.read(LARGEST_TEXT_BYTES).decode(errors="replace")
        for line in text.splitlines():
            pin = _PIN.match(line)
            if pin:
                pins[re.sub(r"[-_.]+", "-", pin[1]).lower()] = pin[2]
    python = described.python if described else ""
    environment = Environment(python, "cpython", "", "", dict(sorted(pins.items())))
    return store.blobs.put(ids.canonical_json(msgspec.to_builtins(environment)))
