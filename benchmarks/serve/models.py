"""Bundles for the serving benchmark: gradient-boosted trees in portable form, and a rule that only has a native one."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from instar.core.store import Store
from instar.serve.publishing import snapshot
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Canary, Shadow
from instar.train import bundle, conversion, native

TEXTS = {"carrier": 16, "origin": 3, "dest": 100, "type": 4}
NUMBERS = 16
HERE = Path(__file__).parent


def rows(count: int, seed: int = 0) -> pl.DataFrame:
    """Rows of 20 columns: 4 of text, 16 of numbers, some missing."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        name: [f"{name[:2].upper()}{code}" for code in random.integers(0, size, count)] for name, size in TEXTS.items()
    }
    for number in range(NUMBERS):
        values = random.normal(size=count).round(3)
        if number % 4 == 0:
            values = np.where(random.random(count) < 0.05, np.nan, values)
        columns[f"number_{number:02d}"] = pl.Series(values).fill_nan(None)
    return pl.DataFrame(columns)


def trees(frame: pl.DataFrame, seed: int) -> Any:
    """A scikit-learn pipeline fitted on a made-up rule."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan)
    numbers = [name for name in frame.columns if name not in TEXTS]
    front = ColumnTransformer([("texts", encoder, list(TEXTS)), ("numbers", "passthrough", numbers)])
    model = make_pipeline(front, HistGradientBoostingClassifier(max_iter=80, learning_rate=0.06, random_state=seed))
    noise = np.random.default_rng(seed).normal(size=frame.height)
    late = (frame["number_01"] + 0.5 * frame["number_02"] + noise).to_numpy() > 0.8
    return model.fit(frame.to_pandas(), late)


def routes(store: Store, *, canary_share: float | None = None) -> routing.Revision:
    """An endpoint `delay` with a champion of trees, three shadows of trees and a native rule; published."""
    frame = rows(20_000)
    inputs = _inputs(frame)
    bundles = {number: _portable(store, frame, inputs, number) for number in (2, 3, 4, 5)}
    bundles[1] = _rule(store, inputs)
    shadows = [Shadow(1, "rule"), Shadow(3, "frozen"), Shadow(4, "monthly")]
    canary = Canary(5, canary_share) if canary_share is not None else None
    if canary is None:
        shadows.append(Shadow(5, "candidate"))
    revision = routing.set_policy(
        store, "bench", "delay", champion=2, canary=canary, shadows=shadows, bundles=bundles, cause="benchmark"
    )
    snapshot.publish(store)
    return revision


def _inputs(frame: pl.DataFrame) -> tuple[bundle.Column, ...]:
    kinds = {pl.String: "BYTES", pl.Float64: "FP64"}
    return tuple(bundle.Column(name, kinds[type(dtype)], nullable=True) for name, dtype in frame.schema.items())


def _manifest(inputs: tuple[bundle.Column, ...], step: str, **parts: Any) -> bundle.Manifest:
    return bundle.Manifest(
        model="delay",
        step=step,
        kind="model",
        recipe=step,
        parameters={},
        target="late",
        inputs=inputs,
        outputs=bundle.OUTPUTS,
        threshold=0.3,
        run="run_benchmark",
        fitted_on="tver_benchmark",
        fitted_rows=20_000,
        **parts,
    )


def _portable(store: Store, frame: pl.DataFrame, inputs: tuple[bundle.Column, ...], seed: int) -> str:
    model = trees(frame, seed)
    converted = conversion.convert(model, frame, "pandas")
    assert converted.portable is not None, converted.why
    store.blobs.put(converted.data)
    environment = store.blobs.put(b"{}")
    data = store.blobs.put(native.dump(model, "trees"))
    manifest = _manifest(
        inputs, f"trees_{seed}", native=data, form="pandas", portable=converted.portable, environment=environment
    )
    return bundle.pack(store.blobs, manifest)


def _rule(store: Store, inputs: tuple[bundle.Column, ...]) -> str:
    import sys

    sys.path.insert(0, str(HERE))
    import hour_rule

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("hour_rule.py", (HERE / "hour_rule.py").read_text())
    rule = hour_rule.Rule({f"OR{code}": 0.1 * code for code in range(3)})
    manifest = _manifest(
        inputs,
        "rule",
        native=store.blobs.put(native.dump(rule, "rule")),
        form="polars",
        code=store.blobs.put(archive.getvalue()),
        environment=store.blobs.put(b"{}"),
    )
    return bundle.pack(store.blobs, manifest)
