"""A run that a client of MLflow logged: what is known of how it was made, and the list of what is missing to make it again.

A client says which program it was in (`mlflow.source.name`) and, within a git repository, the commit. It never says the
program's arguments, nor what differed from the commit; of its libraries a model that the run logged says the versions, without
hashes. So such a run is not called again on a guess: it is refused with all that is missing, and with what is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from instar.core.store import Store
from instar.train import artifacts, model_links
from instar.train.environment import normal
from instar.train.runs import Run

SOURCE, KIND, COMMIT = "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"
REQUIREMENTS = "requirements.txt"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;#]+)")


@dataclass(frozen=True)
class Told:
    """What the client told of a run.

    Attributes:
        source: The program, as it was called.
        commit: Of the repository in which the program lies; empty for none.
        pins: Version by name of the libraries that a model of the run asks for; empty when it logged none.
    """

    source: str
    commit: str
    pins: Mapping[str, str]


def is_one(run: Run) -> bool:
    """Was it logged by a client, and not by Instar itself?"""
    return SOURCE in run.tags and run.code is None


def told(store: Store, run: Run) -> Told:
    """Collect what the client told."""
    return Told(run.tags.get(SOURCE, ""), run.tags.get(COMMIT, ""), _pins(store, run))


def missing(found: Told, run: Run) -> Iterator[str]:
    """What was not told and is needed, in words."""
    kind = run.tags.get(KIND, "LOCAL")
    if kind == "NOTEBOOK" or found.source.endswith(".ipynb"):
        yield f"its notebook: a client keeps its name ({found.source}) and not its cells"
    elif not found.source.endswith(".py"):
        yield f"the program: {found.source or 'nothing'} is no script"
    if not found.commit:
        yield "its code: the client named no commit, since the program lies in no git repository or GitPython is not installed"
    if not found.pins:
        yield "its environment: the run logged no model, whose requirements.txt would say the libraries"
    yield "its arguments, and what differed from the commit: no client of MLflow records them"


def known(found: Told) -> str:
    """What was told, in words, for whoever makes it again by hand."""
    parts = [found.source]
    if found.commit:
        parts.append(f"commit {found.commit}")
    parts += [f"{name} {version}" for name, version in sorted(found.pins.items())]
    return ", ".join(part for part in parts if part)


def _pins(store: Store, run: Run) -> dict[str, str]:
    with store.database.read() as tx:
        models = [model for model, _ in model_links.models_of(tx, [run.id], model_links.MADE).get(run.id, ())]
    found: dict[str, str] = {}
    for owner in (run.id, *models):
        for entry in artifacts.all_artifacts(store, owner):
            if entry.path.rpartition("/")[2] == REQUIREMENTS and entry.blob and store.blobs.has(entry.blob):
                lines = store.blobs.get(entry.blob).decode("utf-8", "replace").splitlines()
                found |= {normal(pin[1]): pin[2] for line in lines if (pin := _PIN.match(line.strip()))}
    return found
