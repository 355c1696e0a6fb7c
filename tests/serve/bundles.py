"""Real bundles for tests: a native rule with its own code, and what one must refuse to load."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

from instar.core.store import Store
from instar.train import bundle

INPUTS = (bundle.Column("distance", "FP64"), bundle.Column("carrier", "BYTES", nullable=True))
CODE = '''
class Rule:
    """Far is late."""

    def __init__(self, per_mile):
        self.per_mile = per_mile

    def predict(self, frame):
        return frame["distance"] * self.per_mile
'''


def manifest(store: Store, native: bytes, code: str | None = CODE, **parts: Any) -> bundle.Manifest:
    """A manifest whose parts are in the store."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("far_rule.py", code or "")
    fields: dict[str, Any] = {
        "model": "delay",
        "step": "rule",
        "kind": "baseline",
        "recipe": "b3:recipe",
        "parameters": {},
        "target": "late",
        "inputs": INPUTS,
        "outputs": bundle.OUTPUTS,
        "threshold": 0.3,
        "native": store.blobs.put(native),
        "form": "polars",
        "code": store.blobs.put(archive.getvalue()) if code is not None else None,
        "environment": store.blobs.put(b"{}"),
        "run": "run_1",
        "fitted_on": "tver_1",
        "fitted_rows": 10,
        **parts,
    }
    return bundle.Manifest(**fields)


def rule_pickle(per_mile: float) -> bytes:
    """A pickle of the rule, as made where its module was called `far_rule`."""
    import sys
    import types

    module = types.ModuleType("far_rule")
    exec(CODE, module.__dict__)
    module.Rule.__module__ = "far_rule"
    sys.modules["far_rule"] = module
    try:
        return pickle.dumps(module.Rule(per_mile), protocol=5)
    finally:
        del sys.modules["far_rule"]


def rule(store: Store, per_mile: float = 0.0001, **parts: Any) -> str:
    """Digest of a packed bundle that only has a native form."""
    return bundle.pack(store.blobs, manifest(store, rule_pickle(per_mile), **parts))
