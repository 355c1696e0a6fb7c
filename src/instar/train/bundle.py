"""The bundle: the saved form of a model, written when a fit is done and read by everything after it.

A bundle is a manifest (one JSON blob, whose digest is the bundle's name) which names its parts by their digests: the
portable form (trees for treelite, or ONNX), the native form (a pickle), the project's code, the environment and the
profile of the rows fitted on; what somebody brought is in `brought`. How the forms score is left to
`portable`, `native` and `flavors`, how they are made to `conversion`, `folder_bundle`, `command_bundle` and `class_bundle`, and
which bundles a project has to `bundles`.

    digest = pack(store.blobs, manifest)
    load_manifest(store.blobs, digest) == manifest
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from instar.core import ids
from instar.core.blobs import Blobs
from instar.core.errors import Damaged, NotFound, StoreTooNew
from instar.core.limits import Limits
from instar.train.brought import Command as Command
from instar.train.brought import Folder as Folder
from instar.train.brought import PlainClass as PlainClass
from instar.train.brought import Resources as Resources

FORMAT = 1
FOLDER_FORMAT = 2  # a manifest with a folder: programs that know only the first format say so, instead of "damaged"
TENSOR_FORMAT = 3  # a manifest with tensors
COMMAND_FORMAT = 4  # a manifest with a command
LIMITS_FORMAT = 5  # a manifest with declared limits
CLASS_FORMAT = 6  # a manifest with a class, or with resources
FORMATS = (FORMAT, FOLDER_FORMAT, TENSOR_FORMAT, COMMAND_FORMAT, LIMITS_FORMAT, CLASS_FORMAT)

# Datatypes of the Open Inference Protocol V2 that a column may have.
DATATYPES = ("BOOL", "INT32", "INT64", "FP32", "FP64", "BYTES")
PRIVACY_CLASSES = ("public", "internal", "personal")

# Kinds of bundles that no step of a pipeline made: there is no evidence on them, and no gate asks for any.
BROUGHT = ("logged", "file", "command", "class")

# Names of a bundle's files in a folder (see `unpack`).
MANIFEST_FILE, NATIVE_FILE, CODE_FILE = "manifest.json", "native.pickle", "code.zip"
FOLDER = "mlflow"  # here lie the files of a logged model's folder
COMMAND = "command"  # and here those of a command
CLASS = "class"  # and here those of a class

Value = str | int | float | bool
Vector = tuple[float | None, ...]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a model.

    Attributes:
        datatype: One of `DATATYPES`.
        nullable: May a value be missing?
        privacy: `"public"`, `"internal"` or `"personal"`.
        minimum, maximum: Range seen in the rows fitted on; None for text, and where nothing was seen.
        categories: Texts seen in the rows fitted on, sorted; None for numbers, personal columns and free text.
        limits: What values a call may send, where somebody declared it; these alone are enforced.
    """

    name: str
    datatype: str
    nullable: bool = False
    privacy: str = "internal"
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    limits: Limits | None = None


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a tensor model.

    Attributes:
        datatype: A datatype of the Open Inference Protocol V2; BYTES is text.
        shape: Lengths by dimension; -1 where any is taken.
        optional: May a call leave it out?
        nullable: May a value of a float be missing?
        privacy, limits: As of a `Column`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    nullable: bool = False
    privacy: str = "internal"
    limits: Limits | None = None


class Tensors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tensor model takes and gives, instead of `inputs` and `outputs`.

    Attributes:
        rows: The first dimension of all inputs and outputs is one and the same: each of its entries is a prediction.
        batchable: Rows of several calls may be answered together: each row's answer depends on that row alone.
        least: Rows that a question has at least; the last row is repeated where a call has fewer (see `stacking`).
        difference: Largest difference between a row's answers alone and together that was found, relative; 0 means none.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rows: bool = False
    batchable: bool = False
    least: int = 1
    difference: float = 0.0


class Encoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a fitted encoder makes of one column's values: a vector for each known value. None in a vector is NaN.

    Attributes:
        values: Known values.
        codes: Their vectors, in the same order.
        missing: The vector of a missing value.
        unknown: The vector of any other value.
    """

    values: tuple[Value, ...]
    codes: tuple[Vector, ...]
    missing: Vector
    unknown: Vector


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one column enters the portable model; a column may enter more than once.

    Attributes:
        at: Positions in the matrix; empty in layout `"columns"`.
        encoding: What the native encoder does with its values; None: it enters as a number.
        text: In layout `"columns"`: the graph takes text.
    """

    column: str
    at: tuple[int, ...] = ()
    encoding: Encoding | None = None
    text: bool = False


class Portable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The form that needs neither pickle nor the project's code.

    Attributes:
        form: `"treelite"` or `"onnx"`.
        file: Digest of its blob.
        size: Bytes.
        layout: `"matrix"`: one matrix, filled by `fields`. `"columns"`: one tensor a column, as ONNX graphs of whole
            pipelines take them. `"tensors"`: the tensors of the manifest, as they are.
        fields: Every column of the matrix; for `"columns"` the columns that the graph takes.
        single: Numbers are rounded to single precision first, as forests of scikit-learn do.
        output: Position of P(target is true) among the model's outputs a row.
    """

    form: str
    file: str
    size: int
    fields: tuple[Field, ...]
    layout: str = "matrix"
    single: bool = False
    output: int = 0


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Portable against native on held-out rows: the largest difference of scores, in probability.

    Attributes:
        error: Why they could not be compared, if so; then it is not passed.
    """

    rows: int
    max_difference: float
    tolerance: float
    passed: bool
    error: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is known of a saved model. Digests name blobs; `run` and `fitted_on` name records.

    Attributes:
        model: Registered model, which is the problem's name.
        step: The step that made it.
        kind: `"model"`, `"baseline"`, `"logged"` for a folder that somebody logged, or `"file"`, `"command"` or `"class"` for a
            model's file, a program or a class that somebody brought.
        recipe: Digest of the step's source and parameters: equal for a fit and its refits.
        inputs: Signature; the order has no meaning to the model.
        threshold: A score at or above it is decided `true`.
        native: Digest of the pickled model; `form` is the frame it was fitted on and predicts from.
        unportable: Why there is no portable form; empty if there is one.
        code: Digest of a zip of the project's Python files, which unpickling needs.
        environment: Digest of the environment's description.
        lock: Digest of the lock of that environment, by which it is built again.
        profile: Digest of the profile of the rows fitted on.
        fitted_on: Table version; `fitted_rows` of it, in event time from `fitted_from` to `fitted_until` (ISO 8601).
        key: Columns that name the entity of a row.
        refit_of: Bundle that was judged, when this is the same recipe on more rows.
        folder, command, plain: A logged model's folder, a program or a class, which then is the model: there is no other form.
        resources: What a process of it may use, where `model.toml` says so.
        tensors: Of a tensor model; `inputs` and `outputs` are empty then.
    """

    format: int = FORMAT
    model: str
    step: str
    kind: str
    recipe: str
    parameters: dict[str, Any]
    target: str
    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...]
    threshold: float
    native: str | None
    form: str
    portable: Portable | None = None
    unportable: str = ""
    parity: Parity | None = None
    code: str | None = None
    environment: str
    lock: str | None = None
    run: str
    fitted_on: str
    fitted_rows: int
    fitted_from: str | None = None
    fitted_until: str | None = None
    profile: str | None = None
    key: tuple[str, ...] = ()
    refit_of: str | None = None
    folder: Folder | None = None
    tensors: Tensors | None = None
    command: Command | None = None
    plain: PlainClass | None = None
    resources: Resources | None = None


OUTPUTS = (Column("score", "FP64", minimum=0.0, maximum=1.0), Column("decision", "BOOL"))


def pack(blobs: Blobs, manifest: Manifest) -> str:
    """Keep a manifest whose parts are kept already; returns the bundle's digest.

    Raises:
        NotFound: A part that the manifest names is not in `blobs`.
    """
    for part, digest in parts(manifest).items():
        if not blobs.has(digest):
            raise NotFound(
                f"its {part} is not in the store", subject=f"bundle of {manifest.model}", found=digest,
                next_step="Put every part into the store before packing.",
            )  # fmt: skip
    return blobs.put(encode(manifest))


def encode(manifest: Manifest) -> bytes:
    """The one JSON text of a manifest."""
    fields = msgspec.to_builtins(manifest)
    for name in ("folder", "tensors", "command", "plain", "resources"):
        if fields[name] is None:
            del fields[name]  # earlier formats do not know it
    for one in _ports(fields):
        if one["limits"] is None:
            del one["limits"]
        else:
            fields["format"] = max(fields["format"], LIMITS_FORMAT)
    return ids.canonical_json(fields)


def _ports(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """All inputs and outputs of a manifest's document."""
    tensors = fields.get("tensors") or {"inputs": (), "outputs": ()}
    return [*fields["inputs"], *fields["outputs"], *tensors["inputs"], *tensors["outputs"]]


def decode(data: bytes, subject: str = "bundle") -> Manifest:
    """The manifest in `data`.

    Raises:
        StoreTooNew: It has a later format.
        Damaged: It is no manifest.
    """
    try:
        found = json.loads(data)["format"]
        if found not in FORMATS:
            asked = f"{FORMAT} to {FORMATS[-1]}"
            raise StoreTooNew("it has a format this program does not know", subject=subject, found=found, asked=asked)
        return msgspec.json.decode(data, type=Manifest)
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise Damaged("its manifest cannot be read", subject=subject, found=str(error)) from error


def load_manifest(blobs: Blobs, digest: str) -> Manifest:
    """The manifest of a bundle.

    Raises:
        NotFound: There is no such bundle.
        Damaged, StoreTooNew: It cannot be read.
    """
    return decode(blobs.get(digest), f"bundle {digest}")


def parts(manifest: Manifest) -> dict[str, str]:
    """Digests of the blobs that belong to a bundle, by what they are."""
    named = {
        "portable form": manifest.portable.file if manifest.portable else None,
        "native form": manifest.native,
        "code": manifest.code,
        "environment": manifest.environment,
        "lock": manifest.lock,
        "profile": manifest.profile,
    }
    for brought in (manifest.folder, manifest.command, manifest.plain):
        if brought is not None:
            named |= {f"file {name}": digest for name, digest in brought.files.items()}
    return {part: digest for part, digest in named.items() if digest}


def content_digest(manifest: Manifest) -> str:
    """Digest of what the bundle does, not of which run made it: equal for a fit repeated after a crash."""
    model: Any = manifest.portable.file if manifest.portable else manifest.native
    if manifest.folder is not None:
        model = manifest.folder.files
    if manifest.command is not None:
        model = msgspec.to_builtins(manifest.command)
    if manifest.plain is not None:
        model = [msgspec.to_builtins(manifest.plain), manifest.lock]
    parts: list[Any] = [manifest.recipe, manifest.threshold, model, msgspec.to_builtins(manifest.inputs)]
    return ids.digest_of(parts if manifest.tensors is None else [*parts, msgspec.to_builtins(manifest.tensors)])


def unpack(blobs: Blobs, digest: str, folder: Path) -> Manifest:
    """Write a bundle's files into `folder`, whole or not at all; nothing happens when they are there.

    The folder holds `manifest.json`, `portable.treelite` or `portable.onnx`, `native.pickle` and `code.zip`, as far as
    the bundle has them, and under `mlflow`, `command` or `class` the files of what somebody brought.
    """
    manifest = load_manifest(blobs, digest)
    if folder.exists():
        return manifest
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for name, part in files(manifest).items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(blobs.path(part), scratch / name)  # whoever loads it holds it to its digest
    for name in manifest.command.executable if manifest.command is not None else ():
        (scratch / COMMAND / name).chmod(0o755)
    (scratch / MANIFEST_FILE).write_bytes(encode(manifest))
    try:
        scratch.rename(folder)
    except OSError:  # another process was first: its copy is the same
        shutil.rmtree(scratch, ignore_errors=True)
        if not folder.exists():
            raise
    return manifest


def files(manifest: Manifest) -> dict[str, str]:
    """Digests of a bundle's files by their names in an unpacked folder, without the manifest itself."""
    named = {NATIVE_FILE: manifest.native, CODE_FILE: manifest.code}
    if manifest.portable:
        named[portable_file(manifest)] = manifest.portable.file
    if manifest.folder is not None:
        named |= {f"{FOLDER}/{name}": digest for name, digest in manifest.folder.files.items()}
    if manifest.command is not None:
        named |= {f"{COMMAND}/{name}": digest for name, digest in manifest.command.files.items()}
    if manifest.plain is not None:
        named |= {f"{CLASS}/{name}": digest for name, digest in manifest.plain.files.items()}
    return {name: digest for name, digest in named.items() if digest}


def portable_file(manifest: Manifest) -> str:
    """Name of the portable form's file in an unpacked folder."""
    return f"portable.{manifest.portable.form if manifest.portable else 'none'}"
