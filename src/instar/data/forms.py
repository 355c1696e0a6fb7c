"""The forms in which a step may ask for a table: the annotation of its parameter decides, the rows are the same."""

from __future__ import annotations

from typing import Any

import polars as pl

from instar.core.errors import PipelineError

FORMS = ("polars.LazyFrame", "polars.DataFrame", "pandas.DataFrame", "pyarrow.Table")


def convert(rows: pl.LazyFrame, form: str) -> Any:
    """The rows in a form.

    Raises:
        PipelineError: We do not know the form.
    """
    if form == "polars.LazyFrame":
        return rows
    if form == "polars.DataFrame":
        return rows.collect()
    if form == "pandas.DataFrame":
        return rows.collect().to_pandas()
    if form == "pyarrow.Table":
        return rows.collect().to_arrow()
    raise PipelineError(
        "a step cannot have a table in this form", subject="annotation of a step", found=form, asked=", ".join(FORMS)
    )
