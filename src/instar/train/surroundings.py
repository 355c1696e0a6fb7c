"""What a run ran on, in a few words for people who look at it afterwards: interpreter, machine, threads, seeds, libraries.

The record keeps two documents of it, the environment and the conditions, each under its digest; this reads both.
"""

from __future__ import annotations

from typing import Any

from instar.core.blobs import Blobs
from instar.train import conditions, environment
from instar.train.conditions import Conditions
from instar.train.run_records import Run


def surroundings(blobs: Blobs, run: Run) -> dict[str, Any]:
    """Facts by their names, those that are known; the libraries, with their versions, under `libraries`.

    A run that another program logged, or that another machine has not delivered yet, has none.
    """
    found: dict[str, Any] = {}
    if run.environment is not None and blobs.has(run.environment):
        known = environment.load(blobs, run.environment)
        found["python"] = f"{known.python} ({known.implementation}) on {known.system}, {known.machine}"
        found["lock"] = known.lock_file or "none: made from what was installed"
        found["libraries"] = dict(sorted(known.distributions.items()))
    if run.conditions is not None and blobs.has(run.conditions):
        found = {**_conditions(conditions.load(blobs, run.conditions)), **found}
    return found


def _conditions(known: Conditions) -> dict[str, Any]:
    machine, chance = known.hardware, known.seeds
    facts = {
        "processor": f"{machine.processor}, {machine.usable} of {machine.cores} cores",
        "memory": f"{machine.memory / 1e9:.3g} GB",
        "graphics": ", ".join(machine.gpus),
        "threads": ", ".join(f"{name} {value}" for name, value in sorted(known.threads.variables.items())),
        "seed": "nobody set one" if chance.seed is None else str(chance.seed),
        "command": " ".join(known.command),
        "variables": ", ".join(sorted(known.variables)),
        "declared files": ", ".join(sorted(known.files)),
    }
    return {name: text for name, text in facts.items() if text}
