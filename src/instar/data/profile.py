"""The profile of a table: a mergeable statistical summary, made when a version is written and for each window of traffic.

Per column it holds counts, missing values, range, mean, variance and the distribution: exact while a column has at most
`EXACT_VALUES` distinct values, and in sketches after that (quantiles, distinct values, heavy hitters). Profiles of two
parts merge into the profile of the whole without seeing a row again, in any order, so drift over a week is the merge of
seven days.

    >>> import polars as pl
    >>> merge(profile(pl.DataFrame({"a": [1, 2]})), profile(pl.DataFrame({"a": [3]}))).columns["a"].mean
    2.0
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import polars as pl

from instar.core.errors import Damaged
from instar.data import column_profile
from instar.data.column_profile import ColumnProfile

FORMAT = 1


class Profile(msgspec.Struct, frozen=True):
    """What is known of the distribution of each column of `rows` rows."""

    rows: int
    columns: dict[str, ColumnProfile]
    format: int = FORMAT


def profile(frame: pl.DataFrame) -> Profile:
    """Summarise every column of a frame, one pass a column."""
    return Profile(frame.height, {name: column_profile.of(frame[name]) for name in frame.columns})


def merge(left: Profile, right: Profile) -> Profile:
    """The profile of both parts together; a column that one part lacks is missing in all of that part's rows.

    Merging is commutative and associative: exactly for counts and ranges, within the sketches' error for distributions.
    """
    names = list(left.columns) + [name for name in right.columns if name not in left.columns]
    columns = {}
    for name in names:
        a, b = left.columns.get(name), right.columns.get(name)
        if a is None or b is None:
            known = a if a is not None else b
            assert known is not None
            absent = right.rows if b is None else left.rows
            columns[name] = column_profile.merge(known, column_profile.missing(known.type, absent))
        else:
            columns[name] = column_profile.merge(a, b)
    return Profile(left.rows + right.rows, columns)


def merge_all(parts: list[Profile]) -> Profile:
    """The profile of all parts together; of none, an empty profile."""
    whole = Profile(0, {})
    for part in parts:
        whole = merge(whole, part) if whole.columns else part
    return whole


def to_bytes(whole: Profile) -> bytes:
    """The stored form: compressed MessagePack."""
    return zlib.compress(msgspec.msgpack.encode(whole), 1)


def from_bytes(data: bytes) -> Profile:
    """Read a stored profile.

    Raises:
        Damaged: It is not a profile of this format.
    """
    try:
        found = msgspec.msgpack.decode(zlib.decompress(data), type=Profile)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise Damaged(f"these bytes are not a profile ({error})", subject="profile") from error
    if found.format != FORMAT:
        raise Damaged(
            "the profile has another format",
            subject="profile",
            found=found.format,
            asked=FORMAT,
            next_step="Use the version of Instar that wrote it, or a later one.",
        )
    return found


def summary(whole: Profile) -> dict[str, Any]:
    """The profile in plain words and numbers, for people and for JSON."""
    return {
        "rows": whole.rows,
        "columns": {name: column_profile.summary(column) for name, column in whole.columns.items()},
    }
