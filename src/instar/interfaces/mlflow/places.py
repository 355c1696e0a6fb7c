"""Where artifacts are, as MLflow's clients address them, and whose they are, whenever one is listed, read or written.

mlflow-artifacts:/EXPERIMENT/RUN/artifacts/plots/roc.png        a run's
mlflow-artifacts:/EXPERIMENT/models/m-…/artifacts/MLmodel       a logged model's
mlflow-artifacts:/bundles/DIGEST/MLmodel                        a model version's, to read only
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from instar.interfaces.mlflow.errors import Refusal, invalid
from instar.interfaces.mlflow.frame import Call
from instar.interfaces.mlflow.messages import OfRun
from instar.interfaces.mlflow.runs import find
from instar.release.version_records import is_registered
from instar.train import bundles, logged_models
from instar.train.run_records import Run

SCHEME = "mlflow-artifacts:/"
MOST_DECODINGS = 8


@dataclass(frozen=True)
class Place:
    """A path below an owner of files.

    Attributes:
        root: The owner's own path, as clients address it.
        run: Id of the run; else `model`, the id of a logged model; else `bundle`, a digest.
        path: Below the owner; empty for all of it.
    """

    root: str
    run: str = ""
    model: str = ""
    bundle: str = ""
    path: str = ""

    @property
    def owner(self) -> str:
        """The id under which its files are kept; empty for a bundle."""
        return self.run or self.model


def model_root(experiment: str, model: str) -> str:
    """Where a logged model's files are, below the scheme."""
    return f"{experiment}/models/{model}/artifacts"


def bundle_root(digest: str) -> str:
    """Where a bundle's files are, below the scheme."""
    return f"bundles/{digest.removeprefix('b3:')}"


def parse(address: str) -> Place:
    """The place that a path below the scheme names.

    Raises:
        Refusal: It leads elsewhere, or is no place of this server's.
    """
    parts = safe_path(address.strip("/")).split("/")
    if len(parts) >= 2 and parts[0] == "bundles":
        return Place("/".join(parts[:2]), bundle=f"b3:{parts[1]}", path="/".join(parts[2:]))
    if len(parts) >= 4 and parts[1] == "models" and parts[2].startswith("m-") and parts[3] == "artifacts":
        return Place("/".join(parts[:4]), model=parts[2], path="/".join(parts[4:]))
    if len(parts) >= 3 and parts[2] == "artifacts":
        return Place("/".join(parts[:3]), run=parts[1], path="/".join(parts[3:]))
    raise Refusal(
        "RESOURCE_DOES_NOT_EXIST",
        f"There are no artifacts at {address[:200]!r}: this server keeps them at EXPERIMENT/RUN/artifacts/… and at "
        "EXPERIMENT/models/MODEL/artifacts/…",
    )


def require(call: Call, place: Place, *, write: bool = False) -> None:
    """Prove that a place's owner is there and of the call's project.

    Args:
        write: Files are to be added, which only a run or a model that is not deleted takes.

    Raises:
        Refusal, NotFound: It is not.
    """
    if place.model:
        logged_models.get(call.store, place.model, project=call.project)
    elif place.run:
        run = run_of(call, place.run)
        if write and run.lifecycle != "active":
            raise invalid(f"The run {run.id} must be in the 'active' state. Current state is {run.lifecycle}.")
    elif write:
        raise Refusal("PERMISSION_DENIED", "The files of a model version never change: log a new model instead.")
    else:
        with call.store.database.read() as tx:
            known = bundles.has(tx, call.project, place.bundle) or is_registered(tx, call.project, place.bundle)
        if not known:  # do not show a reader of one project another's models
            raise Refusal("RESOURCE_DOES_NOT_EXIST", f"There is no model version with the files {place.bundle[:80]}.")


def run_of(call: Call, run: str) -> Run:
    """The project's run of that id."""
    return find(call, OfRun(run_id=run))


def safe_path(path: str) -> str:
    """A relative path, as it was given.

    Raises:
        Refusal: It leads out of its folder, read as it is or decoded once more.
    """
    decoded = path
    for _ in range(MOST_DECODINGS):
        _refuse_way_out(decoded, path)
        further = unquote(decoded)
        if further == decoded:
            return path
        decoded = further
    raise invalid(f"Invalid path: {path[:200]!r} is encoded too often")


def _refuse_way_out(decoded: str, path: str) -> None:
    parts = decoded.split("/")
    drive = len(parts[0]) >= 2 and parts[0][1] == ":"
    if decoded.startswith("/") or ".." in parts or "." in parts or "\\" in decoded or drive or not _printable(decoded):
        raise invalid(f"Invalid path: {path[:200]!r}. A path of an artifact is relative and stays in its folder.")


def _printable(text: str) -> bool:
    return all(letter >= " " and letter != "\x7f" for letter in text)
