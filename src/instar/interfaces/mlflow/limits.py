"""What a client may send, checked before anything is kept: lengths, characters, numbers of things, pages.

Keys: MLflow's rule that a key must not read as a path that leads elsewhere holds; its rule that only some characters may
be in a key does not, since nothing here is a file. Values: what MLflow cuts off (parameters after 6,000 characters, tags
after 8,000) is kept whole, up to a limit of ours.
"""

from __future__ import annotations

import json
import posixpath
from functools import lru_cache

from instar.interfaces.mlflow.errors import invalid, missing

METRICS_A_BATCH = 1000
PARAMS_A_BATCH = TAGS_A_BATCH = 100
THINGS_A_BATCH = 1000
DATASETS_A_BATCH = 1000
LONGEST_KEY = 250  # characters, as all limits below
LONGEST_VALUE = 100_000
LONGEST_EXPERIMENT_NAME = 500
LONGEST_EXPERIMENT_TAG = 20_000
LONGEST_RUN_NAME = 500
MOST_RESULTS = 50_000


@lru_cache(maxsize=8192)
def good_key(key: str) -> str:
    """A key of a metric, parameter or tag, as it was given.

    Raises:
        Refusal: It is empty, too long, has control characters, or reads as a path that leads elsewhere.
    """
    if not key:
        raise missing("key")
    if len(key) > LONGEST_KEY:
        raise invalid(f"'key' exceeds the maximum length of {LONGEST_KEY} characters: it has {len(key)}")
    if not key.isprintable():
        raise invalid(
            f"Invalid value {_quoted(key)} for parameter 'key' supplied: control characters cannot be in a key."
        )
    plain = posixpath.normpath(key)
    if plain != key or plain == "." or plain.startswith(("..", "/")):
        raise invalid(
            f"Invalid value {_quoted(key)} for parameter 'key' supplied: keys must not read as paths that lead "
            f"elsewhere. This one would lead to {plain!r}."
        )
    return key


def good_value(value: str | None, name: str = "value", longest: int = LONGEST_VALUE) -> str:
    """A text as it is kept; absent is empty.

    Raises:
        Refusal: It is too long, or has NUL, which databases do not keep.
    """
    if not value:
        return ""
    if len(value) > longest:
        raise invalid(f"'{name}' exceeds the maximum length of {longest} characters: it has {len(value)}")
    if "\0" in value:
        raise invalid(f"Invalid value for parameter '{name}' supplied: NUL cannot be in a text.")
    return value


def page_size(asked: int | None, default: int, most: int = MOST_RESULTS) -> int:
    """How many results a page has.

    Raises:
        Refusal: Less than 1, or more than `most`.
    """
    if asked is None:
        return default
    if asked < 1:
        raise invalid(
            f"Invalid value {asked} for parameter 'max_results' supplied. It must be a positive integer, at most {most}."
        )
    if asked > most:
        raise invalid(f"Invalid value {asked} for parameter 'max_results' supplied. It must be at most {most}.")
    return asked


def check_batch(metrics: int, params: int, tags: int) -> None:
    """Refuse what is too much for one batch.

    Raises:
        Refusal: It names the limit and what was sent.
    """
    for name, found, most in (
        ("metrics", metrics, METRICS_A_BATCH),
        ("params", params, PARAMS_A_BATCH),
        ("tags", tags, TAGS_A_BATCH),
        ("metrics, params, and tags", metrics + params + tags, THINGS_A_BATCH),
    ):
        if found > most:
            raise invalid(
                f"A batch logging request can contain at most {most} {name}. Got {found} {name}. "
                f"Please split up {name} across multiple requests and try again."
            )


def _quoted(text: str) -> str:
    return json.dumps(text[:100])
