"""What versions said of recorded calls, when the log is read: recorded answer by answer, read prediction by prediction.

A call has one answer a version, and each answer one score a row. People read the other way round: for each prediction what
all versions said of it. So answers are laid end to end as they come, and one reordering of the whole puts rows first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from instar.core.errors import Damaged
from instar.serve.log import tensor_rows
from instar.serve.log.record import Answer

ANSWER = pl.Struct(
    {
        "version": pl.Int64,
        "role": pl.String,
        "score": pl.Float64,
        "decision": pl.Int64,
        "threshold": pl.Float64,
        "error": pl.String,
        "outputs": pl.String,
    }
)
TYPES: dict[str, Any] = {one.name: one.dtype for one in ANSWER.fields}
_HEAD = ("version", "role", "threshold", "error")
_head = attrgetter(*_HEAD)
_scores, _decisions, _outputs = attrgetter("scores"), attrgetter("decisions"), attrgetter("outputs")


def chosen(answers: Sequence[Answer], version: int) -> Answer:
    """The answer that was returned.

    Raises:
        Damaged: There is none of the version that is said to have answered.
    """
    for one in answers:
        if one.version == version:
            return one
    raise Damaged("a recorded call has no answer of the version that answered", found=version)


def columns(
    calls: Sequence[Sequence[Answer]], answered: Sequence[int], rows: Sequence[int], by_rows: bool
) -> tuple[pl.Series, pl.DataFrame]:
    """What was said of some calls, by prediction: the column `answers`, and score, decision and threshold of what was returned.

    Args:
        calls: For each call its answers.
        answered: For each call the version whose answer was returned. Its outputs stand in columns of their own.
        rows: Predictions of each call.
        by_rows: Each entry of a tensor's first dimension is one of them.
    """
    flat = list(chain.from_iterable(calls))
    predictions, versions = np.array(rows, dtype=np.int64), np.array(list(map(len, calls)), dtype=np.int64)
    of_answer = np.repeat(predictions, versions)
    heads = pl.DataFrame(
        [
            constant_or(name, TYPES[name], found)
            for name, found in zip(_HEAD, zip(*map(_head, flat), strict=True), strict=True)
        ]
    )
    returned = _returned(heads["version"].to_numpy(), versions, answered)
    wanted = rows if len(flat) == len(calls) else of_answer.tolist()
    # One row a prediction and version, answer by answer.
    said = repeated(heads, of_answer).with_columns(
        pl.Series("score", laid_out(list(map(_scores, flat)), wanted), dtype=pl.Float64),
        pl.Series("decision", laid_out(list(map(_decisions, flat)), wanted), dtype=pl.Int64),
        _others(flat, returned, of_answer, by_rows),
    )
    starts = np.cumsum(of_answer) - of_answer
    known = said.select("score", "decision", "threshold")
    by_prediction = said.select(list(TYPES))
    if len(flat) != len(calls):
        known = known[np.repeat(starts[returned], predictions) + within(predictions)]
        by_prediction = by_prediction[_order(versions, predictions, of_answer)]
    offsets = np.concatenate([[0], np.cumsum(np.repeat(versions, predictions))])
    return lists("answers", by_prediction, offsets), known


def _returned(said: Any, versions: Any, answered: Sequence[int]) -> Any:
    """For each call the place of the answer that was returned."""
    ends = np.cumsum(versions)
    hits = np.flatnonzero(said == np.repeat(np.array(answered), versions))
    places = np.searchsorted(hits, ends - versions)
    first = np.append(hits, len(said))[places]
    if (first >= ends).any():
        raise Damaged("a recorded call has no answer of the version that answered")
    return first


def _others(flat: Sequence[Answer], returned: Any, of_answer: Any, by_rows: bool) -> pl.Series:
    """Outputs of versions that were not returned, as JSON by prediction."""
    total, own = int(of_answer.sum()), set(returned.tolist())
    told = [place for place, outputs in enumerate(map(_outputs, flat)) if outputs is not None and place not in own]
    if not told:
        return pl.repeat(None, total, dtype=pl.String, eager=True).alias("outputs")
    texts: list[str | None] = [None] * total
    starts = (np.cumsum(of_answer) - of_answer).tolist()
    for place in told:
        given = tensor_rows.as_json(flat[place].outputs or [], int(of_answer[place]), by_rows)
        texts[starts[place] : starts[place] + len(given)] = given
    return pl.Series("outputs", texts, dtype=pl.String)


def _order(versions: Any, predictions: Any, of_answer: Any) -> Any:
    """Places answer by answer, in the order of predictions and of versions within each."""
    first = np.cumsum(predictions * versions) - predictions * versions
    target = np.repeat(np.repeat(first, versions) + within(versions), of_answer)
    target += within(of_answer) * np.repeat(np.repeat(versions, versions), of_answer)
    order = np.empty(len(target), dtype=np.int64)
    order[target] = np.arange(len(target))
    return order


def within(counts: Any) -> Any:
    """0, 1, … anew for each count: of 2 and 3 these are 0, 1, 0, 1, 2."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def repeated(frame: pl.DataFrame, counts: Any) -> pl.DataFrame:
    """Each row as often as its count says."""
    return frame if (counts == 1).all() else frame[np.repeat(np.arange(len(counts)), counts)]


def laid_out(values: Sequence[Sequence[Any] | None], rows: Sequence[int]) -> list[Any]:
    """Values of calls end to end; null for each row of a call that has none.

    Raises:
        Damaged: A call has another number of values than rows.
    """
    if not all(values):
        values = [one or (None,) * count for one, count in zip(values, rows, strict=True)]
    if list(map(len, values)) != list(rows):  # type: ignore[arg-type]
        raise Damaged("a recorded call has another number of values than rows")
    return list(chain.from_iterable(values))  # type: ignore[arg-type]


def constant_or(name: str, dtype: Any, values: Sequence[Any]) -> pl.Series:
    """Values as a column; what is the same for all is made once."""
    first = values[0]
    if values.count(first) == len(values):
        return pl.repeat(first, len(values), dtype=dtype, eager=True).alias(name)
    return pl.Series(name, values, dtype=dtype)


def lists(name: str, rows: pl.DataFrame, offsets: Any) -> pl.Series:
    """Rows as structs, gathered into lists which begin at `offsets`."""
    # By way of polars, since pyarrow imports pandas to look at plain Python values.
    oldest = pl.CompatLevel.oldest()
    arrays = [column.to_arrow(compat_level=oldest) for column in rows]
    starts = pl.Series(offsets, dtype=pl.Int64).to_arrow(compat_level=oldest)
    nested = pa.LargeListArray.from_arrays(starts, pa.StructArray.from_arrays(arrays, rows.columns))
    return pl.Series(name, nested, dtype=pl.List(pl.Struct(rows.schema)))
