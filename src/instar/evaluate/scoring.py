"""Scoring rows with a bundle while it is evaluated: by its portable form if it has one, as it will be served, else natively.

A native form is loaded only after the `inspect` that is handed in has passed it, and only in the process of the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from instar.core.blobs import Blobs
from instar.train.bundle import Manifest, load_manifest
from instar.train.frames import frame_of
from instar.train.native import Inspect, NativeModel, load_native
from instar.train.portable import PortableModel
from instar.train.signature import normalise

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Scorer:
    """A loaded bundle.

    Attributes:
        bundle: Its digest.
        manifest: Its manifest.
        form: The form that was loaded, `"portable"` or `"native"`.
        score: P(target is true) for columns as a call brings them, shape (n,).
        score_rows: The same for rows of the gold table.
    """

    bundle: str
    manifest: Manifest
    form: str
    score: Callable[[Mapping[str, Sequence[Any]]], Floats]
    score_rows: Callable[[pl.DataFrame], Floats]


def load_scorer(blobs: Blobs, bundle: str, inspect: Inspect | None = None) -> Scorer:
    """Load a bundle for scoring in this process.

    Args:
        bundle: Digest of its manifest.
        inspect: Looks at a native form before it is unpickled; raises to refuse it.

    Raises:
        NotFound, Damaged: The bundle or a part of it is not in the store as it was.
    """
    manifest = load_manifest(blobs, bundle)
    if manifest.portable is not None:
        portable = PortableModel.load(manifest, blobs.path(manifest.portable.file))
        return Scorer(
            bundle, manifest, "portable", portable.score, lambda rows: portable.score(columns_of(rows, manifest))
        )
    native: NativeModel = load_native(blobs, manifest, inspect=inspect)
    return Scorer(bundle, manifest, "native", native.score, lambda rows: native.score_frame(_frame(rows, manifest)))


def columns_of(rows: pl.DataFrame, manifest: Manifest) -> dict[str, list[Any]]:
    """The bundle's inputs out of rows of the gold table, as lists in which None is missing."""
    frame = normalise(rows.select([column.name for column in manifest.inputs]))
    return {name: frame[name].to_list() for name in frame.columns}


def _frame(rows: pl.DataFrame, manifest: Manifest) -> pl.DataFrame:
    # In the types of the signature: a column that is null throughout these rows would come in another one.
    return frame_of(columns_of(rows, manifest), manifest.inputs)
