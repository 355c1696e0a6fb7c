"""The manifest's format is a promise: bundles of today are read by the programs of tomorrow."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from instar.core.errors import Damaged, NotFound, StoreTooNew
from instar.core.ids import digest
from instar.core.limits import Limits
from instar.core.store import Store
from instar.train import bundle
from instar.train.bundle import OUTPUTS, Column, Encoding, Field, Manifest, Parity, Portable
from instar.train.portable import fill

GOLDEN = Path(__file__).parent / "golden" / "manifest.json"

MANIFEST = Manifest(
    model="delay",
    step="delay_trees",
    kind="model",
    recipe=digest(b"recipe"),
    parameters={"learning_rate": 0.06, "iterations": 80, "weights": None},
    target="late",
    inputs=(
        Column("carrier", "BYTES", nullable=True, privacy="public", categories=("AA", "UA")),
        Column("hour", "INT64", minimum=0.0, maximum=23.0),
        Column("name", "BYTES", privacy="personal"),
    ),
    outputs=OUTPUTS,
    threshold=0.25,
    native=digest(b"native"),
    form="polars",
    portable=Portable(
        "treelite",
        digest(b"trees"),
        5,
        (
            Field("carrier", (0,), Encoding(("AA", "UA"), ((0.0,), (1.0,)), (None,), (None,))),
            Field("hour", (2, 1), Encoding((0, 1.5, True), ((0.0, 1.0),) * 3, (None, 0.0), (None, 7.0))),
            Field("hour", (3,)),
        ),
    ),
    parity=Parity(1000, 2.2e-16, 1e-9, True),
    code=digest(b"code"),
    environment=digest(b"environment"),
    run="run_01",
    fitted_on="tver_01",
    fitted_rows=1000,
    fitted_from="2013-01-01T05:00:00+00:00",
    fitted_until="2013-02-28T23:00:00+00:00",
    profile=digest(b"profile"),
    key=("flight_id",),
)


def keep_parts(store: Store) -> None:
    for part in (b"native", b"trees", b"code", b"environment", b"profile"):
        store.blobs.put(part)


def test_the_format_is_as_promised() -> None:
    text = json.dumps(json.loads(bundle.encode(MANIFEST)), indent=2, sort_keys=True) + "\n"
    if os.environ.get("RENEW_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert bundle.decode(GOLDEN.read_bytes()) == MANIFEST


def test_a_packed_manifest_comes_back(store: Store) -> None:
    keep_parts(store)
    packed = bundle.pack(store.blobs, MANIFEST)
    assert bundle.load_manifest(store.blobs, packed) == MANIFEST
    assert bundle.pack(store.blobs, MANIFEST) == packed
    assert bundle.pack(store.blobs, msgspec.structs.replace(MANIFEST, threshold=0.5)) != packed


def test_a_manifest_is_not_packed_before_its_parts(store: Store) -> None:
    keep_parts(store)
    store.blobs.delete(digest(b"profile"))
    with pytest.raises(NotFound, match="its profile"):
        bundle.pack(store.blobs, MANIFEST)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"not json", Damaged),
        (b"[]", Damaged),
        (b'{"format": 1}', Damaged),
        (b'{"format": 7}', StoreTooNew),
        (bundle.encode(MANIFEST).replace(b'"threshold"', b'"treshold"'), Damaged),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        bundle.decode(data)


def test_an_unpacked_bundle_is_whole_or_not_there(store: Store, tmp_path: Path) -> None:
    keep_parts(store)
    packed = bundle.pack(store.blobs, MANIFEST)
    folder = tmp_path / "bundles" / "one"
    store.blobs.delete(digest(b"code"))
    with pytest.raises(NotFound):
        bundle.unpack(store.blobs, packed, folder)
    assert not folder.exists()
    store.blobs.put(b"code")
    for _ in range(2):
        assert bundle.unpack(store.blobs, packed, folder) == MANIFEST
        assert sorted(file.name for file in folder.iterdir()) == [
            "code.zip", "manifest.json", "native.pickle", "portable.treelite",
        ]  # fmt: skip
    assert (folder / bundle.portable_file(MANIFEST)).read_bytes() == b"trees"
    assert [file.name for file in folder.parent.iterdir()] == ["one"]


def test_content_is_what_a_bundle_does_and_not_which_run_made_it() -> None:
    same = msgspec.structs.replace(MANIFEST, run="run_02", environment=digest(b"other"))
    assert bundle.content_digest(same) == bundle.content_digest(MANIFEST)
    assert bundle.content_digest(msgspec.structs.replace(MANIFEST, threshold=0.3)) != bundle.content_digest(MANIFEST)


def test_fields_fill_a_matrix_alike_row_by_row_and_column_by_column() -> None:
    assert MANIFEST.portable is not None
    columns = {"carrier": ["UA", "AA", None, "??", "UA"], "hour": [0, 1.5, None, 9, float("nan")]}
    whole = fill(MANIFEST.portable.fields, columns, 4)
    nan = float("nan")
    expected = [[1, 1, 0, 0], [0, 1, 0, 1.5], [nan, 0, nan, nan], [nan, 7, nan, 9], [1, 0, nan, nan]]
    assert np.array_equal(whole, np.array(expected), equal_nan=True)
    for row in range(5):
        one = fill(MANIFEST.portable.fields, {name: [values[row]] for name, values in columns.items()}, 4)
        assert np.array_equal(one[0], whole[row], equal_nan=True)


def test_declared_limits_are_a_format_of_their_own_and_what_has_none_stays_as_it_was() -> None:
    limits = Limits(minimum=0, maximum=23)
    hour = msgspec.structs.replace(MANIFEST.inputs[1], limits=limits)
    limited = msgspec.structs.replace(MANIFEST, inputs=(MANIFEST.inputs[0], hour))
    assert b'"limits"' not in bundle.encode(MANIFEST)
    found = bundle.decode(bundle.encode(limited))
    assert (found.format, found.inputs[1].limits) == (bundle.LIMITS_FORMAT, limits)
    assert b'"limits":{"maximum":23,"minimum":0}' in bundle.encode(limited)
    assert bundle.encode(found) == bundle.encode(limited)
