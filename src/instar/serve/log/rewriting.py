"""Writing units anew, put together by day or changed: part by part, and only when the old files are as they were sealed.

A unit whose files do not have the digests of the catalogue is left alone: to write it anew would give damage a new digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from instar.core import ids
from instar.core.errors import Damaged
from instar.core.store import Store
from instar.serve.log import catalogue, layout
from instar.serve.log.catalogue import Unit
from instar.serve.log.layout import Kept

PART_ROWS = 131_072  # put together in memory at once


def check(store: Store, unit: Unit) -> None:
    """Prove that both files are as the catalogue has them.

    Raises:
        Damaged: One is missing or was changed.
    """
    folder = catalogue.tables_folder(store.folder, unit.project)
    for path, digest in unit.files.items():
        found = ids.digest_of_file(folder / path) if (folder / path).exists() else "no file"
        if found != digest:
            raise Damaged(
                "a file of sealed calls is not as it was sealed",
                subject=f"{unit.project}/{path}",
                found=found,
                asked=digest,
                next_step="See what else was touched: instar audit verify; then restore the file from a backup.",
            )


def schema(store: Store, unit: Unit) -> dict[str, pl.DataType]:
    """Columns of a unit's rows as they are stored."""
    found = pl.read_parquet_schema(catalogue.tables_folder(store.folder, unit.project) / unit.rows_path)
    return {name: dtype for name, dtype in found.items() if name not in ("frames", *layout.DERIVED)}


def rows_in_order(store: Store, units: Sequence[Unit]) -> Iterator[pl.DataFrame]:
    """Rows of units whose columns are the same, in order of their calls, some at a time."""
    places = [(one, catalogue.tables_folder(store.folder, one.project) / one.rows_path) for one in units]
    cuts = _cuts([path for _, path in places])
    for low, high in zip([None, *cuts], [*cuts, None], strict=True):
        parts = []
        for one, path in places:
            if (high is not None and one.first_call >= high) or (low is not None and one.last_call < low):
                continue
            rows = pl.scan_parquet(path).select(pl.exclude("frames", *layout.DERIVED))
            if low is not None:
                rows = rows.filter(pl.col("call") >= low)
            if high is not None:
                rows = rows.filter(pl.col("call") < high)
            parts.append(_with_erased(rows.collect()))
        whole = pl.concat(parts) if parts else None
        if whole is not None and whole.height:
            yield whole.sort("call", "row")


def _with_erased(rows: pl.DataFrame) -> pl.DataFrame:
    return rows if "erased" in rows.columns else rows.with_columns(pl.lit(None, dtype=pl.String).alias("erased"))


def _cuts(paths: Sequence[Path]) -> list[str]:
    """Call ids between which the files have about `PART_ROWS` rows together, from what stands at their ends."""
    groups: list[tuple[str, int]] = []
    for path in paths:
        with pq.ParquetFile(path) as file:
            at = file.schema_arrow.names.index("call") if file.schema_arrow.names[0] != "call" else 0
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                leaf = next(
                    group.column(n) for n in range(at, group.num_columns) if group.column(n).path_in_schema == "call"
                )
                groups.append((leaf.statistics.min, group.num_rows))
    cuts, held = [], 0
    for first, count in sorted(groups):
        if held and held + count > PART_ROWS:
            cuts.append(first)
            held = 0
        held += count
    return sorted(set(cuts))


def frames_in_order(store: Store, units: Sequence[Unit]) -> Iterator[Kept]:
    """Frames of units, segment by segment."""
    for one in sorted(units, key=lambda one: one.first_call):
        path = catalogue.tables_folder(store.folder, one.project) / one.frames_path
        for _, frames in layout.frames_by_segment(path):
            yield from frames
